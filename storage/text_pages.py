"""Searching messages in their unpacked Parquet pages, without making a column of them.

A search through text that was not asked before has to unpack every message; making a column of them takes
as long again, and a pass over that as long once more. So the native kernel looks for the text in the pages
as they are unpacked (records.parquet_pages); the values of the rows that hold it, and of no others, become a
column, where the search judges them (storage.scan_filter). What the kernel cannot read is left to Arrow.

Pages that are searched a second time are kept, packed with LZ4: that takes 22 bytes a row of plain logs
where a column takes 90, and a third of the time of zstd to unpack, but twice its time to pack; so each
search packs half of those left. When they fill their budget, one new page in `KEEP_EVERY` takes the place
of the least recently used: a search over more than fits reads the rest each time and does not drive out
what it will find next time. Thread-safe.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from records.native import kernel
from records.needle import Needle
from records.parquet_pages import Page, unpacked
from runtime.metrics import Metrics
from storage.lru import Lru

KEEP_EVERY = 16
#: Where there is room, one page in so many is packed: a search that packed them all would take 0.3 s of CPU
#: longer for 4 M messages than one that keeps none.
PACK_EVERY = 2
_ITEM_BYTES = 200
#: Row groups remembered as searched once; as many as 1.3 billion rows have.
_SEEN_MAX = 65_536
_CODEC = {"ZSTD": "zstd", "UNCOMPRESSED": None}
#: Reads bytes (start, end) of a block's Parquet file.
Read = Callable[[int, int], memoryview]
#: Judges the values of candidates: which of them match.
Judge = Callable[[pa.Array], np.ndarray]


@dataclass(frozen=True, slots=True)
class _Packed:
    """A page as it is kept: LZ4, and what `Page` says of it."""

    data: bytes
    size: int
    start: int
    rows: int

    @staticmethod
    def of(page: Page) -> "_Packed":
        packed = pa.Codec("lz4_raw").compress(page.data, asbytes=True)
        return _Packed(packed, len(page.data), page.start, page.rows)

    def page(self) -> Page:
        """The page again."""
        data = pa.Codec("lz4_raw").decompress(self.data, self.size, asbytes=True)
        return Page(data, self.start, self.rows)


class TextPages:
    """The pages of text columns, kept within `limit` bytes."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._kept = Lru(limit)
        self._turn = itertools.count()
        self._seen: set[tuple[int, int, int]] = set()
        asked = metrics.counter(
            "quorumlog_text_pages_total",
            "Pages of text searched by the kernel, kept in memory or read",
            ("found",),
        )
        self._hits, self._misses = asked.labels("kept"), asked.labels("read")

    @staticmethod
    def able() -> bool:
        """Whether there is a kernel that searches pages."""
        return hasattr(kernel, "find_in_page")

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._kept.size

    def group(
        self, key: tuple[int, int], footer: pq.FileMetaData, column: int, read: Read
    ) -> list[Page] | None:
        """The pages of a column in a row group; None if they are not of the kind that is understood.

        Args:
            key: (ordinal of the block, row group): they never change.
        """
        kept = self._kept.get((*key, column))
        if kept is not None:
            self._hits.inc(len(kept))
            return [one.page() for one in kept]
        found = footer.row_group(key[1]).column(column)
        level = footer.schema.column(column).max_definition_level
        plain = found.physical_type == "BYTE_ARRAY" and not found.has_dictionary_page
        if not plain or level != 1 or found.compression not in _CODEC:
            return None
        first, name = found.data_page_offset, _CODEC[found.compression]
        chunk = read(first, first + found.total_compressed_size)
        pages = unpacked(chunk, found.num_values, pa.Codec(name) if name else None)
        if pages is not None:
            self._misses.inc(len(pages))
            self._keep((*key, column), pages)
        return pages

    def _keep(self, key: tuple[int, int, int], pages: list[Page]) -> None:
        if key not in self._seen:
            if len(self._seen) >= _SEEN_MAX:
                self._seen.clear()
            self._seen.add(key)
            return
        size = sum(len(page.data) for page in pages)  # at most; it is known only once it is done
        full = self._kept.size + size > self._kept.limit
        if next(self._turn) % (KEEP_EVERY if full else PACK_EVERY):
            return
        packed = [_Packed.of(page) for page in pages]
        self._kept.put(key, packed, sum(len(one.data) + _ITEM_BYTES for one in packed))

    def forget(self, ordinal: int) -> None:
        """Drops what is kept of a block."""
        self._kept.drop([key for key in self._kept.known() if key[0] == ordinal])


def search(pages: list[Page], needle: Needle, judge: Judge) -> np.ndarray | None:
    """The mask of the rows of all pages that match; None if the kernel declines one of them.

    Args:
        judge: asked about the values that hold the needle, unless that is the whole question.
    """
    mask = np.zeros(sum(page.rows for page in pages), bool)
    first = 0
    for page in pages:
        found: Any = kernel.find_in_page(
            page.data, page.start, page.rows, needle.text, needle.fold, not needle.whole
        )
        if found is None:
            return None
        rows = np.frombuffer(found[0], np.int32) + first
        if len(rows) and not needle.whole:
            buffers = [None, pa.py_buffer(found[1]), pa.py_buffer(found[2])]
            rows = rows[judge(pa.Array.from_buffers(pa.string(), len(rows), buffers))]
        mask[rows] = True
        first += page.rows
    return mask
