"""Pieces read as one: the columns of several blocks end to end, so that a native pass costs once for all.

A filter or group-by over 50 rows takes as long as over 5,000: nearly all of it is getting there. Scans
therefore evaluate batches of about `BATCH_ROWS` rows, many small blocks or a few big ones, and several
batches at once on the workers. A column that a piece lacks is null there. Where pieces disagree on a
column's type a batch cannot be formed (`Mixed`): conditions mean different things on text and numbers, so
such pieces are read one by one.
"""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from records.needle import Needle
from records.predicates import TRUE, Filter
from records.timestamps import TimeRange
from storage.match_cache import MatchCache
from storage.scan_filter import BlockView, Column, Test, evaluate, on_column
from storage.scan_select import BlockSlice
from storage.scanner import Scanner

T = TypeVar("T")
#: Rows of a batch: a fourth of the gain is lost at 30,000; more keeps fewer workers busy.
BATCH_ROWS = 1 << 17
#: Chunks of text shorter than this on average are copied into one.
_JOIN_BELOW_ROWS = 4096


class Mixed(Exception):
    """Pieces of a batch have a column of different types."""


class Batch:
    """Some pieces as one. Positions count through all of them; `starts` has each one's first, and the end."""

    def __init__(self, scanner: Scanner, parts: Sequence[BlockSlice]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *(part.place.rows for part in parts)])
        self.rows = int(self.starts[-1])
        self._scanner = scanner
        self._columns: dict[str, Column | None] = {}

    def load(self, names: Iterable[str]) -> None:
        """Decodes columns that will be asked for: each piece is opened once for all of them."""
        wanted = [name for name in dict.fromkeys(names) if name not in self._columns]
        if not wanted:
            return
        found = [self._scanner.hot.columns(part.place, wanted) for part in self.parts]
        for name in wanted:
            arrays = [columns.get(name) for columns in found]
            self._columns[name] = self._joined(arrays)

    def column(self, name: str) -> Column | None:
        """A column of all rows, None if no piece has it."""
        self.load([name])
        return self._columns[name]

    def view(self, positions: np.ndarray | None = None) -> BlockView:
        """The columns of all rows, or of those at `positions` (ascending)."""
        return BlockView(self.column, self.rows, positions, self._search)

    def _search(self, name: str, needle: Needle, test: Test) -> np.ndarray | None:
        """The mask of all rows whose text matches, piece by piece; None to load the column instead.

        Pieces whose column is decoded, or that the kernel cannot read, are searched as columns.
        """
        if name in self._columns:
            return None
        hot = self._scanner.hot
        masks = [hot.search(part.place, name, needle, test) for part in self.parts]
        if all(mask is None for mask in masks):
            return None
        for index, part in enumerate(self.parts):
            if masks[index] is None:
                column = hot.columns(part.place, [name]).get(name)
                rows = part.place.rows
                masks[index] = np.zeros(rows, bool) if column is None else on_column(test, column)
        return np.concatenate([mask for mask in masks if mask is not None])

    def timestamps(self) -> np.ndarray:
        """All timestamps in microseconds."""
        column = self.column("timestamp")
        assert column is not None, "every block has timestamps"
        return column.cast(pa.int64()).to_numpy(zero_copy_only=False)

    def matching(self, time: TimeRange | None = None, tree: Filter | None = None) -> np.ndarray:
        """Positions of the rows that may be seen, lie in the time range and match; ascending.

        By default the plan's range and filter.
        """
        tree = self._scanner.plan.filter if tree is None else tree
        mask = self._mask(time or self._scanner.plan.time)
        if mask is None:
            return np.flatnonzero(self._matches(tree))
        positions = np.flatnonzero(mask)
        if len(positions) == 0:
            return positions
        if 2 * len(positions) > self.rows and MatchCache.wants(tree):
            return np.flatnonzero(mask & self._matches(tree))
        return positions[evaluate(tree, self.view(positions))]

    def everything(self, tree: Filter) -> bool:
        """Whether all rows match `tree`, may be seen and lie in the plan's range, told without a look."""
        return tree == TRUE and self._mask(self._scanner.plan.time) is None

    def _matches(self, tree: Filter) -> np.ndarray:
        """The mask of all rows that match, whether they may be seen or not."""
        if not MatchCache.wants(tree):
            return evaluate(tree, self.view())
        cache = self._scanner.hot.matches
        found = cache.get([part.place for part in self.parts], tree)
        absent = [index for index, mask in enumerate(found) if mask is None]
        if absent:
            every = len(absent) == len(self.parts)
            rest = self if every else Batch(self._scanner, [self.parts[i] for i in absent])
            mask = evaluate(tree, rest.view())
            for index, (low, high) in zip(absent, itertools.pairwise(rest.starts), strict=True):
                found[index] = mask[low:high]
                cache.put(self.parts[index].place, tree, mask[low:high])
        return np.concatenate([mask for mask in found if mask is not None])

    def _mask(self, time: TimeRange) -> np.ndarray | None:
        """The rows that may be seen and lie in the time range; None for all."""
        masks = [_seen(part.row_mask(), self._scanner.hidden(part)) for part in self.parts]
        mask = None
        if any(one is not None for one in masks):
            mask = np.concatenate([
                np.ones(part.place.rows, bool) if one is None else one
                for part, one in zip(self.parts, masks, strict=True)
            ])  # fmt: skip
        if not all(time.covers(part.place.min_ts, part.place.max_ts) for part in self.parts):
            stamps = self.timestamps()
            inside = (stamps >= time.start) & (stamps < time.end)
            mask = inside if mask is None else mask & inside
        return mask

    def _joined(self, arrays: list[pa.Array | None]) -> Column | None:
        if len(arrays) == 1:
            return arrays[0]
        types = {array.type for array in arrays if array is not None}
        if not types:
            return None
        if len(types) > 1:
            raise Mixed
        kind = types.pop()
        full = [
            pa.nulls(part.place.rows, kind) if array is None else array
            for part, array in zip(self.parts, arrays, strict=True)
        ]
        if pa.types.is_dictionary(kind):
            return _joined_dictionaries(full)
        flat = pa.types.is_primitive(kind) or pa.types.is_boolean(kind)
        if flat or self.rows < _JOIN_BELOW_ROWS * len(full):
            return pa.concat_arrays(full)
        return pa.chunked_array(full, kind)


def _seen(mask: np.ndarray | None, hidden: np.ndarray | None) -> np.ndarray | None:
    """The rows in `mask` (None: all) without those that are hidden."""
    if hidden is None:
        return mask
    return ~hidden if mask is None else mask & ~hidden


def _joined_dictionaries(arrays: list[pa.Array]) -> pa.Array:
    """The arrays under one dictionary. Blocks list the same few names, each in its own order."""
    first = arrays[0].dictionary
    if any(not array.dictionary.equals(first) for array in arrays[1:]):
        return _renumbered(arrays)
    indices = pa.concat_arrays([array.indices for array in arrays])
    return pa.DictionaryArray.from_arrays(indices, first)


def _renumbered(arrays: list[pa.Array]) -> pa.Array:
    """Numbers all names of all dictionaries at once, then translates the codes of each array."""
    names = pa.concat_arrays([array.dictionary for array in arrays]).dictionary_encode()
    numbers = np.append(names.indices.fill_null(-1).to_numpy(zero_copy_only=False), -1)
    codes = np.empty(sum(map(len, arrays)), np.int32)
    nulls = False
    at = first = 0
    for array in arrays:
        indices, end = array.indices, first + len(array.dictionary)
        known = numbers[first:end]
        if indices.null_count:
            nulls = True
            known, indices = np.append(known, -1), indices.fill_null(end - first)
        codes[at : at + len(array)] = known[indices.to_numpy(zero_copy_only=False)]
        at, first = at + len(array), end
    nulls |= bool(names.indices.null_count)
    indices = pa.array(codes, mask=codes < 0) if nulls else pa.array(codes)
    return pa.DictionaryArray.from_arrays(indices, names.dictionary)


def cut(parts: Sequence[BlockSlice], rows: int = BATCH_ROWS) -> Iterator[list[BlockSlice]]:
    """The pieces in order, in groups of about `rows` rows."""
    group: list[BlockSlice] = []
    have = 0
    for part in parts:
        if group and have + part.place.rows > rows:
            yield group
            group, have = [], 0
        group.append(part)
        have += part.place.rows
    if group:
        yield group


def in_batches(
    scanner: Scanner, parts: Sequence[BlockSlice], work: Callable[[Batch], T]
) -> list[T]:
    """`work` done on all pieces, batch by batch, by all workers that are free; results in order.

    Each batch counts as scanned, and the budget is asked before each.
    """
    lock = threading.Lock()

    def one(group: list[BlockSlice]) -> list[T]:
        scanner.budget.check()
        batch = Batch(scanner, group)
        try:
            done = [work(batch)]
        except Mixed:
            done = [work(Batch(scanner, [part])) for part in group]
        with lock:
            scanner.count(batch.rows, group)
        return done

    groups = list(cut(parts, BATCH_ROWS))
    done: Any = scanner.budget.share(one, groups)
    return [result for results in done for result in results]
