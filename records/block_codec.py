"""Block <-> bytes. Encoded once by an ingestor, stored and sent verbatim, checked when read.

    0   4  magic "QLB1" (the digit is the format version)
    4   4  header length          8   4  header CRC-32
    12  4  sidecar length         16  4  sidecar CRC-32
    20  8  body length            28  4  body CRC-32
    32  4  CRC-32 of bytes 0..32
    36     header (msgpack) · sidecar (msgpack) · body (a whole Parquet file: zstd-2, row groups of
           20,480 rows, one page a column, dictionaries on low-cardinality columns only, statistics)

All integers big-endian. docs/formats.md describes each part; golden files in the tests fix them.
"""

import struct
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from records import envelope, sidecar
from records.block import BlockHeader, EntryHeader
from records.columns import CORE_TYPES, DICTIONARY
from records.errors import BlockCorrupt
from records.ids import BlockId, RingEpoch
from records.native import crc32
from records.row_filters import build_filters

MAGIC = b"QLB1"
PREFIX = struct.Struct(">4sIIIIQI")
PREFIX_BYTES = PREFIX.size + 4

#: Rows in a row group. More compresses better, fewer prunes better. A batch of 20,000 rows is one group:
#: cut at 16,384 it takes 7 % more bytes. From: docs/adr/0008.
ROW_GROUP_ROWS = 20_480
#: Bytes of a page at most: a column of a row group is one page, and so one zstd frame, unless its rows
#: are very long. Pages of 1 MiB take 3 % more bytes. From: docs/adr/0008.
PAGE_BYTES = 8 << 20
#: Level 1 takes 9 to 14 % more bytes for up to 15 % less CPU of the encoding; 3 is 3 % less for 12 % more.
#: From: docs/adr/0008.
ZSTD_LEVEL = 2
_DELTA = "DELTA_BINARY_PACKED"
_DELTA_COLUMNS = ("timestamp", "seq")
DICTIONARY_COLUMNS = tuple(name for name, kind in CORE_TYPES.items() if kind == DICTIONARY)


@dataclass(frozen=True, slots=True)
class EncodedBlock:
    """A block as it is stored and sent: the decoded header beside all its bytes."""

    header: BlockHeader
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class BlockParts:
    """Where a block's parts lie in its bytes: (start, end) of each."""

    header: tuple[int, int]
    sidecar: tuple[int, int]
    body: tuple[int, int]
    body_crc: int
    sidecar_crc: int
    header_crc: int

    @property
    def total_bytes(self) -> int:
        """Length of the whole block."""
        return self.body[1]


def encode_block(
    block_id: BlockId,
    ring_epoch: RingEpoch,
    table: pa.Table,
    entries: tuple[EntryHeader, ...],
    filters: str = "auto",
) -> EncodedBlock:
    """Encodes rows that already lie in entry order; releases the GIL.

    Args:
        filters: one of records.row_filters.MODES.
    """
    min_ts = min((entry.min_ts for entry in entries), default=0)
    max_ts = max((entry.max_ts for entry in entries), default=0)
    columns = tuple(table.schema.names)
    header = BlockHeader(block_id, ring_epoch, table.num_rows, min_ts, max_ts, columns, entries)
    rollup = sidecar.build_rollup(table, [entry.row_start for entry in entries])
    names = ((), ()) if rollup else (_distinct(table, "service"), _distinct(table, "level"))
    side = sidecar.to_bytes(*names, rollup, build_filters(table, ROW_GROUP_ROWS, filters))
    return EncodedBlock(header, _assemble(header, side, encode_body(table)))


def _distinct(table: pa.Table, name: str) -> tuple[str, ...]:
    if table.num_rows == 0 or name not in table.schema.names:
        return ()
    return tuple(value for value in table[name].unique().to_pylist() if value is not None)


def _assemble(header: BlockHeader, side: bytes, body: pa.Buffer) -> bytes:
    head = envelope.packb(header.to_dict())
    view = memoryview(body)
    prefix = PREFIX.pack(
        MAGIC, len(head), crc32(head), len(side), crc32(side), len(view), crc32(view)
    )
    return b"".join((prefix, crc32(prefix).to_bytes(4, "big"), head, side, view))


def encode_body(table: pa.Table) -> pa.Buffer:
    """The Parquet file of the rows. A table without columns or rows gives an empty buffer."""
    if table.num_columns == 0 or table.num_rows == 0:
        return pa.py_buffer(b"")
    dictionary: Any = [f.name for f in table.schema if pa.types.is_dictionary(f.type)]
    dictionary += [n for n in ("received_at", "producer_epoch") if n in table.schema.names]
    encoding = {n: _DELTA for n in _DELTA_COLUMNS if n in table.schema.names}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=dictionary,
        column_encoding=encoding,
        row_group_size=ROW_GROUP_ROWS,
        data_page_size=PAGE_BYTES,
        write_batch_size=ROW_GROUP_ROWS,  # 1,024 by default: 10 % more CPU
        store_schema=False,
    )
    return sink.getvalue()


def parse_prefix(data: bytes | memoryview) -> BlockParts:
    """Where the parts of a block lie, from its first PREFIX_BYTES.

    Raises:
        BlockCorrupt: not a block, another version, or a damaged prefix.
    """
    if len(data) < PREFIX_BYTES:
        raise BlockCorrupt(f"{len(data)} bytes are shorter than a block's prefix")
    fields = PREFIX.unpack_from(data)
    if fields[0] != MAGIC:
        raise BlockCorrupt(f"not a block of a known version: {fields[0]!r}")
    if crc32(data[: PREFIX.size]) != int.from_bytes(data[PREFIX.size : PREFIX_BYTES], "big"):
        raise BlockCorrupt("prefix fails its checksum")
    _, head, head_crc, side, side_crc, body, body_crc = fields
    first, second = PREFIX_BYTES + head, PREFIX_BYTES + head + side
    return BlockParts(
        (PREFIX_BYTES, first),
        (first, second),
        (second, second + body),
        body_crc,
        side_crc,
        head_crc,
    )


def _checked(data: memoryview, where: tuple[int, int], crc: int, name: str) -> memoryview:
    part = data[where[0] : where[1]]
    if len(part) != where[1] - where[0] or crc32(part) != crc:
        raise BlockCorrupt(f"{name} fails its checksum")
    return part


def decode_header(data: bytes | memoryview) -> BlockHeader:
    """The header of a block, checked. `data` may end after the header."""
    parts = parse_prefix(data)
    packed = _checked(memoryview(data), parts.header, parts.header_crc, "header")
    fields = envelope.unpackb(packed)
    if not isinstance(fields, dict):
        raise BlockCorrupt("header is not a map")
    return BlockHeader.from_dict(fields)


def decode_sidecar(data: bytes | memoryview) -> sidecar.Sidecar:
    """The sidecar of a whole block, checked."""
    parts = parse_prefix(data)
    return sidecar.from_bytes(
        _checked(memoryview(data), parts.sidecar, parts.sidecar_crc, "sidecar")
    )


def decode_block(data: bytes | memoryview) -> EncodedBlock:
    """A received block with all three checksums verified; the bytes are kept, not copied.

    Raises:
        BlockCorrupt: any part is damaged, or bytes are missing or left over.
    """
    view = memoryview(data)
    parts = parse_prefix(view)
    if len(view) != parts.total_bytes:
        raise BlockCorrupt(f"{len(view)} bytes, the prefix says {parts.total_bytes}")
    _checked(view, parts.sidecar, parts.sidecar_crc, "sidecar")
    _checked(view, parts.body, parts.body_crc, "body")
    return EncodedBlock(decode_header(view), data)


def open_body(
    body: memoryview | pa.Buffer,
    columns: tuple[str, ...],
    metadata: pq.FileMetaData | None = None,
) -> pq.ParquetFile:
    """The Parquet file in a (checked) body; zero-copy. `metadata` spares the parse of the footer.

    Args:
        columns: the header's `columns`; those of dictionary type come back as dictionaries.
    """
    source = pa.BufferReader(pa.py_buffer(body) if isinstance(body, memoryview) else body)
    dictionary = [name for name in columns if name in DICTIONARY_COLUMNS]
    return pq.ParquetFile(source, metadata=metadata, read_dictionary=dictionary)
