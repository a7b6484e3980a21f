"""The hot set: decoded columns, sidecars and headers of blocks, least recently used out first.

Bytes come from log and segment files by `pread` (see the package's docstring for why not mmap), so a
block is readable the moment it is written. The first time a block is read its checksums are verified; after
that the page cache is trusted until the process ends. Thread-safe: scans run on several workers.

A block is read as a whole, or (`GroupPlace`) one of its row groups. After the first time only the bytes of
the columns asked for are read.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from records.block import BlockHeader
from records.block_codec import (
    PREFIX_BYTES,
    BlockParts,
    decode_block,
    decode_header,
    decode_sidecar,
    open_body,
    parse_prefix,
)
from records.columns import ERASED_COLUMN
from records.errors import BlockCorrupt, EnvelopeCorrupt
from records.needle import Needle
from records.row_filters import RowFilters
from records.sidecar import Sidecar
from records.token_filter import BLOCK_BYTES
from runtime.metrics import Metrics
from storage.block_files import BlockFiles
from storage.blocks import BlockPlace, GroupPlace
from storage.filter_index import FilterIndex
from storage.fold_tree import FoldCache
from storage.lru import Lru
from storage.match_cache import MatchCache
from storage.rollup_index import RollupIndex
from storage.text_pages import Judge, TextPages, search

#: Bytes of decoded sidecars and Parquet footers kept; one block's take about 2 and 8 kB.
PARTS_BYTES = 48 << 20
_PART_BYTES, _FOOTER_BYTES = 1500, 8000
#: Bytes of filters kept, unless the settings say otherwise.
FILTER_BYTES = 192 << 20
#: Headers kept decoded (one of many entries counts as several): only comparing and fetching ask for them.
HEADERS_KEPT = 256


def use_steady_memory() -> None:
    """Arrow's buffers from jemalloc, for the whole process, where Arrow was built with it.

    Arrow's default pool (mimalloc) maps and unmaps each large buffer: a column of 20,000 messages decoded
    into the cache took 6.9 ms, with jemalloc 3.2, with malloc 2.3. But malloc keeps what is freed: after
    scans of 5 M rows with a 192 MiB cache the process had 710 MB, with jemalloc 455.
    """
    with contextlib.suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())


@dataclass(frozen=True, slots=True)
class _Head:
    """What scans need of a block beside its columns; the filters are kept elsewhere."""

    parts: BlockParts
    sidecar: Sidecar


class HotSet:
    """Reads a node's blocks, in the log or in segments, and keeps what was decoded."""

    def __init__(
        self,
        log_directory: Path,
        cache_bytes: int,
        metrics: Metrics,
        files: BlockFiles | None = None,
        *,
        filter_bytes: int = FILTER_BYTES,
    ) -> None:
        """`files`: where blocks lie, if any lies in a segment."""
        self._files = files or BlockFiles(log_directory, log_directory)
        #: Half for columns, half for pages of text where there is a kernel that searches them.
        self._columns = Lru(cache_bytes // 2 if TextPages.able() else cache_bytes)
        self._pages = TextPages(cache_bytes // 2, metrics)
        self._parts = Lru(PARTS_BYTES)
        self._headers = Lru(HEADERS_KEPT)
        self._verified: set[int] = set()
        self.matches = MatchCache(metrics)
        self.folds = FoldCache(metrics)
        #: The rollups of all blocks that scans have met, end to end.
        self.rollups = RollupIndex()
        self.filters = FilterIndex(self._load_filters, self._peek, filter_bytes, metrics)
        self._bytes = metrics.gauge(
            "quorumlog_hot_bytes", "Bytes of decoded columns and pages of text in memory"
        )
        asked = metrics.counter(
            "quorumlog_hot_columns_total", "Columns asked for, found decoded or not", ("found",)
        )
        self._hits, self._misses = asked.labels("yes"), asked.labels("no")
        self._decoded = metrics.counter("quorumlog_hot_read_bytes_total", "Bytes read from the log")

    def _pread(self, place: BlockPlace, start: int, length: int) -> bytes:
        """Bytes of a block.

        Raises:
            BlockCorrupt: the disk cannot give them (details: `ordinal`).
        """
        data = self._files.read(place, start, length)
        self._decoded.inc(length)
        return data

    def raw(self, place: BlockPlace) -> bytes:
        """A whole block, all checksums verified now.

        Raises:
            BlockCorrupt: details say the `ordinal`.
        """
        data = self._pread(place, 0, place.length)
        try:
            decode_block(data)
        except (BlockCorrupt, EnvelopeCorrupt) as error:
            raise BlockCorrupt(error.message, ordinal=place.ordinal) from error
        self._verified.add(place.ordinal)
        return data

    def _head(self, place: BlockPlace) -> _Head:
        found = self._parts.get(place.ordinal)
        return self._read_head(place)[0] if found is None else found

    def _read_head(self, place: BlockPlace) -> tuple[_Head, Sidecar, bytes]:
        """The head, kept from now on, the sidecar with its filters, and the bytes before the body."""
        parts, data = self._front(place)
        try:
            side = decode_sidecar(data)
        except (BlockCorrupt, EnvelopeCorrupt) as error:
            raise BlockCorrupt(error.message, ordinal=place.ordinal) from error
        found = _Head(parts, replace(side, filters=None))
        self._parts.put(place.ordinal, found, _PART_BYTES + _rollup_bytes(side))
        return found, side, data

    def _load_filters(self, place: BlockPlace) -> tuple[RowFilters | None, dict[str, int]]:
        """The filters of a block, None if it has none, and where each column's bits are in the block.

        They stand in the sidecar as they are (records.row_filters); not fitting its rows is damage.
        """
        _, side, data = self._read_head(place)
        filters = side.filters
        if filters is None:
            return None, {}
        if filters.groups != -(-place.rows // filters.group_rows):
            raise BlockCorrupt("filters of other rows than the block's", ordinal=place.ordinal)
        return filters, {name: data.find(bits.tobytes()) for name, bits in filters.bits.items()}

    def _peek(self, wanted: Sequence[tuple[BlockPlace, int]]) -> list[bytes]:
        """The 64 bytes at some places of blocks whose checksums were verified before."""
        self._decoded.inc(BLOCK_BYTES * len(wanted))
        return self._files.read_pieces(wanted, BLOCK_BYTES)

    def _front(self, place: BlockPlace) -> tuple[BlockParts, bytes]:
        """Where the parts lie, and the bytes before the body."""
        try:
            parts = parse_prefix(self._pread(place, 0, min(PREFIX_BYTES, place.length)))
        except BlockCorrupt as error:
            raise BlockCorrupt(error.message, ordinal=place.ordinal) from error
        return parts, self._pread(place, 0, parts.body[0])

    def header(self, place: BlockPlace) -> BlockHeader:
        """The decoded header of a block."""
        header = self._headers.get(place.ordinal)
        if header is None:
            try:
                header = decode_header(self._front(place)[1])
            except (BlockCorrupt, EnvelopeCorrupt) as error:
                raise BlockCorrupt(error.message, ordinal=place.ordinal) from error
            self._headers.put(place.ordinal, header, 1 + len(header.entries) // 128)
        return header

    def names(self, place: BlockPlace) -> tuple[str, ...]:
        """The names of the block's columns."""
        if not place.rows:
            return ()
        footer, _ = self._footer(place)
        return tuple(name for name in footer.schema.names if name != ERASED_COLUMN)

    def _footer(self, place: BlockPlace) -> tuple[pq.FileMetaData, memoryview | None]:
        """The Parquet footer; with the body if it had to be read for it."""
        key = (place.ordinal, "footer")
        footer = self._parts.get(key)
        if footer is not None:
            return footer, None
        body = self._body(place)
        try:
            footer = pq.read_metadata(pa.BufferReader(pa.py_buffer(body)))
        except (pa.ArrowException, OSError) as error:
            raise BlockCorrupt(f"Parquet: {error}", ordinal=place.ordinal) from error
        self._parts.put(key, footer, _FOOTER_BYTES)
        return footer, body

    def sidecar(self, place: BlockPlace) -> Sidecar:
        """The decoded sidecar of a block."""
        return self._head(place).sidecar

    def columns(self, place: BlockPlace, names: Iterable[str]) -> dict[str, pa.Array]:
        """Those of the columns `names` that the block has, each one array of all its rows.

        Raises:
            BlockCorrupt: a checksum fails, or the body cannot be read (details: `ordinal`).
        """
        found: dict[str, pa.Array] = {}
        absent: list[str] = []
        for name in dict.fromkeys(names):
            array = self._kept(place, name)
            if array is not None:
                found[name] = array
            else:
                absent.append(name)
        self._hits.inc(len(found))
        if absent and place.rows:
            self._misses.inc(len(absent))
            found.update(self._decode(place, absent))
        return found

    def _kept(self, place: BlockPlace, name: str) -> pa.Array | None:
        """A column that is decoded already; of a row group also as part of its block's."""
        array = self._columns.get(_key(place, name))
        if array is None and isinstance(place, GroupPlace):
            whole = self._columns.get((place.ordinal, name))
            array = None if whole is None else whole.slice(place.first_row, place.rows)
        return array

    def search(
        self, place: BlockPlace, name: str, needle: Needle, judge: Judge
    ) -> np.ndarray | None:
        """The mask of a piece's rows whose text in column `name` matches, found without decoding it.

        None if that is not possible, or not of use, as the column is decoded already.

        Raises:
            BlockCorrupt: as `columns`.
        """
        if not place.rows or not TextPages.able() or self._kept(place, name) is not None:
            return None
        footer, body = self._footer(place)
        if name not in footer.schema.names:
            return None
        column = footer.schema.names.index(name)

        def read(low: int, high: int) -> memoryview:
            if body is not None:
                return body[low:high]
            start = self._head(place).parts.body[0]
            return memoryview(self._pread(place, start + low, high - low))

        masks = []
        for group in _groups_of(place, footer):
            pages = self._pages.group((place.ordinal, group), footer, column, read)
            mask = None if pages is None else search(pages, needle, judge)
            if mask is None:
                return None
            masks.append(mask)
        self._bytes.set(self.cached_bytes)
        found = np.concatenate(masks)
        return found if len(found) == place.rows else None

    def _body(self, place: BlockPlace) -> memoryview:
        """A block's Parquet file; all checksums are verified the first time."""
        if place.ordinal not in self._verified:
            data = self.raw(place)
            return memoryview(data)[parse_prefix(data).body[0] :]
        start, end = self._head(place).parts.body
        return memoryview(self._pread(place, start, end - start))

    def _body_with(self, place: BlockPlace, ranges: Sequence[tuple[int, int]]) -> memoryview:
        """The Parquet file with only these bytes (start, end) of it read; the others are undefined.

        The buffer is as long as the file, but memory that nobody touches costs nothing.
        """
        start, end = self._head(place).parts.body
        view = np.empty(end - start, np.uint8).data
        for low, high in _joined(ranges):
            view[low:high] = self._pread(place, start + low, high - low)
        return view

    def _decode(self, place: BlockPlace, names: list[str]) -> dict[str, pa.Array]:
        footer, body = self._footer(place)
        present = tuple(footer.schema.names)
        wanted = [name for name in names if name in present]
        if not wanted:
            return {}
        try:
            groups = _groups_of(place, footer)
            if body is None and place.ordinal in self._verified:
                body = self._body_with(place, _chunks(footer, groups, wanted))
            file = open_body(body if body is not None else self._body(place), present, footer)
            table = file.read_row_groups(groups, wanted, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise BlockCorrupt(f"Parquet: {error}", ordinal=place.ordinal) from error
        if table.num_rows != place.rows:
            raise BlockCorrupt(f"{table.num_rows} rows in the body", ordinal=place.ordinal)
        table = table.unify_dictionaries()
        found = {}
        for name in wanted:
            found[name] = array = _one_array(table.column(name))
            self._columns.put(_key(place, name), array, array.nbytes)
        self._bytes.set(self.cached_bytes)
        return found

    def forget(self, ordinal: int) -> None:
        """Drops what is kept of a block that turned out damaged."""
        self._verified.discard(ordinal)
        self._headers.drop([ordinal])
        self._parts.drop([ordinal, (ordinal, "footer")])
        self._columns.drop([key for key in self._columns.known() if key[0] == ordinal])
        self._pages.forget(ordinal)
        self.filters.forget(ordinal)

    @property
    def cached_bytes(self) -> int:
        """Bytes of decoded columns and of pages of text in memory."""
        return self._columns.size + self._pages.size


def _rollup_bytes(side: Sidecar) -> int:
    rollup = side.rollup
    return 0 if rollup is None else 24 * len(rollup.count)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _key(place: BlockPlace, name: str) -> tuple[Any, ...]:
    if isinstance(place, GroupPlace):
        return (place.ordinal, place.group, name)
    return (place.ordinal, name)


def _groups_of(place: BlockPlace, footer: pq.FileMetaData) -> list[int]:
    """The row groups to read; the filters' idea of them must be the file's."""
    if not isinstance(place, GroupPlace):
        return list(range(footer.num_row_groups))
    if place.group >= footer.num_row_groups:
        raise BlockCorrupt("filters of more row groups than the body's", ordinal=place.ordinal)
    before = sum(footer.row_group(group).num_rows for group in range(place.group))
    if before != place.first_row:
        raise BlockCorrupt("filters of other row groups than the body's", ordinal=place.ordinal)
    return [place.group]


def _chunks(footer: pq.FileMetaData, groups: list[int], names: list[str]) -> list[tuple[int, int]]:
    """Where the bytes of some columns of some row groups are: (start, end) in the Parquet file."""
    indexes = [footer.schema.names.index(name) for name in names]
    ranges = []
    for group in groups:
        row_group = footer.row_group(group)
        for index in indexes:
            column = row_group.column(index)
            first = column.data_page_offset
            if column.has_dictionary_page and column.dictionary_page_offset is not None:
                first = min(first, column.dictionary_page_offset)
            ranges.append((first, first + column.total_compressed_size))
    return ranges


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, those that touch made one."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1]:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return result
