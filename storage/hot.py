"""The hot set: decoded columns, sidecars and headers of blocks, least recently used out first.

Bytes come from log and segment files by `pread` (see the package's docstring for why not mmap), so a
block is readable the moment it is written. The first time a block is read its checksums are verified; after
that the page cache is trusted until the process ends. Thread-safe: scans run on several workers.
"""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from records.errors import BlockCorrupt, EnvelopeCorrupt
from records.sidecar import Sidecar
from runtime.metrics import Metrics
from storage.block_files import BlockFiles
from storage.holdings import BlockPlace

#: Bytes of decoded sidecars and Parquet footers kept; one block's take about 2 and 8 kB.
PARTS_BYTES = 48 << 20
_PART_BYTES, _FOOTER_BYTES = 1500, 8000
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
    """What scans need of a block beside its columns."""

    parts: BlockParts
    sidecar: Sidecar


class _Cache:
    """Values by key with a size each; the least recently used go when the sum exceeds `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._items: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> Any:
        with self._lock:
            item = self._items.get(key)
            if item is None:
                return None
            self._items.move_to_end(key)
            return item[0]

    def put(self, key: Any, value: Any, size: int) -> None:
        if size > self.limit:
            return
        with self._lock:
            if key in self._items:
                self.size -= self._items.pop(key)[1]
            self._items[key] = (value, size)
            self.size += size
            while self.size > self.limit:
                _, (_, freed) = self._items.popitem(last=False)
                self.size -= freed

    def drop(self, wanted: Iterable[Any]) -> None:
        with self._lock:
            for key in wanted:
                if key in self._items:
                    self.size -= self._items.pop(key)[1]

    def known(self) -> list[Any]:
        with self._lock:
            return list(self._items)


class HotSet:
    """Reads a node's blocks, in the log or in segments, and keeps what was decoded."""

    def __init__(
        self,
        log_directory: Path,
        cache_bytes: int,
        metrics: Metrics,
        files: BlockFiles | None = None,
    ) -> None:
        """`files`: where blocks lie, if any lies in a segment."""
        self._files = files or BlockFiles(log_directory, log_directory)
        self._columns = _Cache(cache_bytes)
        self._parts = _Cache(PARTS_BYTES)
        self._headers = _Cache(HEADERS_KEPT)
        self._verified: set[int] = set()
        self._bytes = metrics.gauge("quorumlog_hot_bytes", "Bytes of decoded columns in memory")
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
        if found is None:
            parts, data = self._front(place)
            try:
                side = decode_sidecar(data)
            except (BlockCorrupt, EnvelopeCorrupt) as error:
                raise BlockCorrupt(error.message, ordinal=place.ordinal) from error
            found = _Head(parts, side)
            self._parts.put(place.ordinal, found, _PART_BYTES + _rollup_bytes(side))
        return found

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
        return tuple(footer.schema.names)

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
            array = self._columns.get((place.ordinal, name))
            if array is not None:
                found[name] = array
            else:
                absent.append(name)
        self._hits.inc(len(found))
        if absent and place.rows:
            self._misses.inc(len(absent))
            found.update(self._decode(place, absent))
        return found

    def _body(self, place: BlockPlace) -> memoryview:
        """A block's Parquet file; all checksums are verified the first time."""
        if place.ordinal not in self._verified:
            data = self.raw(place)
            return memoryview(data)[parse_prefix(data).body[0] :]
        start, end = self._head(place).parts.body
        return memoryview(self._pread(place, start, end - start))

    def _decode(self, place: BlockPlace, names: list[str]) -> dict[str, pa.Array]:
        footer, body = self._footer(place)
        present = tuple(footer.schema.names)
        wanted = [name for name in names if name in present]
        if not wanted:
            return {}
        try:
            file = open_body(body if body is not None else self._body(place), present, footer)
            table = file.read(wanted, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise BlockCorrupt(f"Parquet: {error}", ordinal=place.ordinal) from error
        if table.num_rows != place.rows:
            raise BlockCorrupt(f"{table.num_rows} rows in the body", ordinal=place.ordinal)
        table = table.unify_dictionaries()
        found = {}
        for name in wanted:
            found[name] = array = _one_array(table.column(name))
            self._columns.put((place.ordinal, name), array, array.nbytes)
        self._bytes.set(self._columns.size)
        return found

    def forget(self, ordinal: int) -> None:
        """Drops what is kept of a block that turned out damaged."""
        self._verified.discard(ordinal)
        self._headers.drop([ordinal])
        self._parts.drop([ordinal, (ordinal, "footer")])
        self._columns.drop([key for key in self._columns.known() if key[0] == ordinal])

    @property
    def cached_bytes(self) -> int:
        """Bytes of decoded columns in memory."""
        return self._columns.size


def _rollup_bytes(side: Sidecar) -> int:
    rollup = side.rollup
    return 0 if rollup is None else 24 * len(rollup.count)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
