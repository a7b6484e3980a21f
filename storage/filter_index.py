"""The filters of a node's blocks, packed so that one numpy pass asks all of them.

Blocks stand on *shelves* of 128 neighbours in log order. A shelf holds for each column all its blocks'
filters as one array, with offset and size for each row group; a probe gathers one 64-byte block of each
filter. Sidecars are read once, when a question first needs them or in the background after a start. The
bits are kept within a budget of bytes, the newest shelves first. Beyond it a shelf is *thin*: it knows where
in the files its filters lie, and a probe reads the 64 bytes of each that it wants (some 5 us; a whole sidecar
takes 0.5 ms). As with columns, bytes whose checksum was verified once are trusted until the process ends.

Thread-safe; sidecars are read under the lock, so that two scans do not read the same ones.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from records import token_filter
from records.row_filters import RowFilters
from runtime.metrics import Metrics
from storage.holdings import BlockPlace
from storage.prune import Probe

SHELF_BLOCKS = 128
#: Bytes that a block takes beside its filters, about.
_BLOCK_COST = 300
#: A block's filters, None if it has none, and where in the block each column's bits lie.
Load = Callable[[BlockPlace], tuple[RowFilters | None, dict[str, int]]]
#: The 64 bytes at some places of blocks.
Peek = Callable[[Sequence[tuple[BlockPlace, int]]], list[bytes]]
#: (rows in each row group but the last, the row groups that are left)
Part = tuple[int, tuple[int, ...]]


class _Growing:
    """An array that is appended to; `view` is what it holds."""

    __slots__ = ("_array", "_used")

    def __init__(self, kind: str, width: int = 0) -> None:
        self._array = np.zeros((16, width) if width else 16, kind)
        self._used = 0

    def append(self, values: np.ndarray) -> None:
        """Adds `values` at the end; amortised."""
        end = self._used + len(values)
        if end > len(self._array):
            room = max(end, len(self._array) + len(self._array) // 4)
            grown = np.zeros((room, *self._array.shape[1:]), self.kind)
            grown[: self._used] = self.view
            self._array = grown
        self._array[self._used : end] = values
        self._used = end

    @property
    def kind(self) -> np.dtype:
        """The type of an element."""
        return self._array.dtype

    @property
    def view(self) -> np.ndarray:
        """The elements."""
        return self._array[: self._used]

    @property
    def nbytes(self) -> int:
        """Bytes it takes, spare room too."""
        return self._array.nbytes

    def __len__(self) -> int:
        return self._used


class _Column:
    """One column's filters of a shelf: which row groups have one, where its blocks begin, how many.

    `offset` counts blocks from the first in `bits`, `at` bytes from the first of the stored block.
    """

    __slots__ = ("at", "bits", "blocks", "group", "offset")

    def __init__(self) -> None:
        self.bits = _Growing("<u8", token_filter.LANES)
        self.group, self.blocks = _Growing("i8"), _Growing("i8")
        self.offset, self.at = _Growing("i8"), _Growing("i8")

    def append(self, first_group: int, blocks: np.ndarray, bits: np.ndarray, at: int) -> None:
        """The filters of a block's row groups, of which the first is number `first_group`."""
        before = np.cumsum(blocks) - blocks
        self.group.append(np.arange(first_group, first_group + len(blocks)))
        self.offset.append(len(self.bits) + before)
        self.at.append(at + before * token_filter.BLOCK_BYTES)
        self.blocks.append(blocks)
        self.bits.append(bits)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(one.nbytes for one in (self.bits, self.group, self.offset, self.at, self.blocks))


class Shelf:
    """The filters of up to 128 blocks. Row groups are numbered in the order in which blocks were added."""

    def __init__(self, peek: Peek) -> None:
        self.start = np.full(SHELF_BLOCKS, -1, np.int64)
        self.count = np.zeros(SHELF_BLOCKS, np.int64)
        self.rows = np.zeros(SHELF_BLOCKS, np.int64)
        self.groups = 0
        self.thin = False
        self._peek = peek
        self._asked: dict[int, BlockPlace] = {}
        self._owner = _Growing("i4")
        self._columns: dict[str, _Column] = {}
        self._layouts: list[tuple[str, ...]] = []
        self._layout = _Growing("i4")
        self._absent: dict[str, list[int]] = {}

    def add(self, place: int, filters: RowFilters | None, at: dict[str, int]) -> None:
        """Adds the block at `place` of the shelf; None, of one without filters, is one group, "maybe"."""
        groups = 1 if filters is None else filters.groups
        self.start[place], self.count[place] = self.groups, groups
        layout = -1
        if filters is not None:
            self.rows[place] = filters.group_rows
            layout = self._number(filters.columns)
            for name, blocks in filters.blocks.items():
                column = self._columns.setdefault(name, _Column())
                bits = filters.bits[name]
                column.append(self.groups, blocks, bits[:0] if self.thin else bits, at[name])
            for name, there in filters.present.items():
                lacking = self.groups + np.flatnonzero(~there)
                self._absent.setdefault(name, []).extend(lacking.tolist())
        self._layout.append(np.full(groups, layout, np.int32))
        self._owner.append(np.full(groups, place, np.int32))
        self.groups += groups

    def _number(self, columns: tuple[str, ...]) -> int:
        if columns not in self._layouts:
            self._layouts.append(columns)
        return self._layouts.index(columns)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, about."""
        kept = sum(column.nbytes for column in self._columns.values())
        return kept + _BLOCK_COST * SHELF_BLOCKS + self._layout.nbytes + self._owner.nbytes

    def make_thin(self) -> None:
        """Gives up the bits, and for ever: they are read from the files when they are asked for."""
        self.thin = True
        for column in self._columns.values():
            column.bits = _Growing("<u8", token_filter.LANES)

    def ask(self, places: Sequence[BlockPlace]) -> None:
        """The next probe is about these blocks alone; files of others are not touched: they may be gone."""
        self._asked = {place.ordinal % SHELF_BLOCKS: place for place in places}

    # -- what a probe asks (storage.prune.Groups) --------------------------------------------------

    def may_hold(self, name: str, hashes: Sequence[int], every: bool) -> np.ndarray:
        """Which row groups may hold all (`every`) or any of the keys in a column."""
        result = np.ones(self.groups, bool)
        column = self._columns.get(name)
        if column is None:
            return result
        args = (column.bits.view, column.offset.view, column.blocks.view)
        found = np.full(len(column.group), every, bool)
        for one in hashes:
            open_ = found if every else ~found
            hit = self._peeked(one, column, open_) if self.thin else token_filter.maybe(one, *args)
            found = found & hit if every else found | hit
        result[column.group.view] = found
        return result

    def _peeked(self, key_hash: int, column: _Column, wanted: np.ndarray) -> np.ndarray:
        """Which filters may hold a key, by their files; only of the blocks asked about, and where wanted."""
        owners, blocks = self._owner.view[column.group.view], column.blocks.view
        asked = np.zeros(SHELF_BLOCKS, bool)
        asked[list(self._asked)] = True
        numbers = np.flatnonzero(wanted & asked[owners] & (blocks > 0))
        starts = column.at.view[numbers]
        starts = (
            starts + token_filter.place_of(key_hash, blocks[numbers]) * token_filter.BLOCK_BYTES
        )
        places = [self._asked[owner] for owner in owners[numbers].tolist()]
        read = self._peek(list(zip(places, starts.tolist(), strict=True)))
        found = np.ones(len(blocks), bool)
        found[numbers] = token_filter.among(key_hash, b"".join(read))
        return found

    def may_have(self, name: str, attributes: bool) -> np.ndarray:
        """Which row groups may have a value in a column, or (`attributes`) in the rows' long tail."""
        has = [name in names or (attributes and "attributes" in names) for names in self._layouts]
        result = np.array([*has, True])[self._layout.view]  # layout -1, unknown, is the last
        lacking = self._absent.get(name)
        if lacking:
            tail = [attributes and "attributes" in names for names in self._layouts]
            result[lacking] &= np.array([*tail, True])[self._layout.view[lacking]]
        return result


@dataclass(frozen=True, slots=True)
class Survivors:
    """What a probe left: ordinals (ascending), and of blocks that are left in part, which row groups."""

    ordinals: np.ndarray
    parts: dict[int, Part]


class FilterIndex:
    """All shelves. `load` reads a block's filters; it may raise BlockCorrupt, which passes through."""

    def __init__(self, load: Load, peek: Peek, limit: int, metrics: Metrics) -> None:
        self._load, self._peek, self._limit = load, peek, limit
        self._shelves: dict[int, Shelf] = {}
        self._sizes: dict[int, int] = {}
        self._lock = threading.Lock()
        self._bytes = metrics.gauge("quorumlog_filter_bytes", "Bytes of filters in memory")
        self._thin = metrics.gauge(
            "quorumlog_filter_thin_blocks",
            "Blocks whose filters did not fit and are read from disk",
        )
        asked = metrics.counter(
            "quorumlog_filter_groups_total", "Row groups a filter was asked about", ("outcome",)
        )
        self._kept, self._pruned = asked.labels("kept"), asked.labels("pruned")

    def survivors(self, probe: Probe, places: Sequence[BlockPlace]) -> Survivors:
        """Which of the blocks (ascending by ordinal), and which of their row groups, may hold a match.

        Raises:
            BlockCorrupt: a sidecar cannot be read (details: `ordinal`).
        """
        ordinals = np.array([place.ordinal for place in places], np.int64)
        left: list[np.ndarray] = [ordinals[:0]]
        parts: dict[int, Part] = {}
        edges = np.flatnonzero(np.diff(ordinals // SHELF_BLOCKS, prepend=-1)).tolist()
        for low, high in zip(edges, [*edges[1:], len(ordinals)], strict=True):
            with self._lock:
                shelf = self._shelf(ordinals[low:high], places[low:high])
                shelf.ask(places[low:high])
                left.append(self._sorted_out(shelf, probe(shelf), ordinals[low:high], parts))
        return Survivors(np.concatenate(left), parts)

    def _sorted_out(
        self, shelf: Shelf, mask: np.ndarray, ordinals: np.ndarray, parts: dict[int, Part]
    ) -> np.ndarray:
        """The ordinals of a shelf's surviving blocks; those that survive in part go to `parts`."""
        place = ordinals % SHELF_BLOCKS
        sums = np.append(0, np.cumsum(mask))
        start, count = shelf.start[place], shelf.count[place]
        hits = sums[start + count] - sums[start]
        for at in np.flatnonzero((hits > 0) & (hits < count)).tolist():
            groups = np.flatnonzero(mask[start[at] : start[at] + count[at]]).tolist()
            parts[int(ordinals[at])] = (int(shelf.rows[place[at]]), tuple(groups))
        self._kept.inc(int(hits.sum()))
        self._pruned.inc(int(count.sum() - hits.sum()))
        return ordinals[hits > 0]

    def _shelf(self, ordinals: np.ndarray, places: Sequence[BlockPlace]) -> Shelf:
        """The shelf of these neighbours with all of them on it; thin if the budget has no room for it."""
        number = int(ordinals[0]) // SHELF_BLOCKS
        shelf = self._shelves.get(number) or Shelf(self._peek)
        missing = np.flatnonzero(shelf.start[ordinals % SHELF_BLOCKS] < 0).tolist()
        for at in missing:
            shelf.add(int(ordinals[at]) % SHELF_BLOCKS, *self._load(places[at]))
        if missing:
            self._shelves[number], self._sizes[number] = shelf, shelf.nbytes
            self._make_room()
        return shelf

    def warm(self, places: Sequence[BlockPlace]) -> None:
        """Reads the filters of neighbours (of one shelf) ahead.

        Raises:
            BlockCorrupt: a sidecar cannot be read (details: `ordinal`).
        """
        if places:
            ordinals = np.array([place.ordinal for place in places], np.int64)
            with self._lock:
                self._shelf(ordinals, places)

    def _make_room(self) -> None:
        """Makes the oldest shelves thin beyond the budget; if that is not enough, drops the oldest."""
        size = sum(self._sizes.values())
        for number in sorted(self._sizes) if size > self._limit else ():
            shelf = self._shelves[number]
            if size > self._limit and not shelf.thin:
                shelf.make_thin()
                size += shelf.nbytes - self._sizes[number]
                self._sizes[number] = shelf.nbytes
        for number in sorted(self._sizes) if size > self._limit else ():
            if size <= self._limit:
                break
            size -= self._sizes.pop(number)
            del self._shelves[number]
        self._bytes.set(size)
        thin = [shelf for shelf in self._shelves.values() if shelf.thin]
        self._thin.set(sum(int((shelf.start >= 0).sum()) for shelf in thin))

    def forget(self, ordinal: int) -> None:
        """Drops what is kept of a block that is gone; its memory when its last neighbour goes."""
        number = ordinal // SHELF_BLOCKS
        with self._lock:
            shelf = self._shelves.get(number)
            if shelf is not None:
                shelf.start[ordinal % SHELF_BLOCKS] = -1
                if (shelf.start < 0).all():
                    del self._shelves[number], self._sizes[number]

    @property
    def nbytes(self) -> int:
        """Bytes of filters in memory."""
        with self._lock:
            return sum(self._sizes.values())
