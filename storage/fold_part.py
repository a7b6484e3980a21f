"""Partial aggregates by codes: rows counted by group and by (group, value). Pure, by column.

The group of a row is a number whose digits are the codes of its keys. A column of whole numbers is counted by
(group, value): such a histogram holds all that sums, averages, least, greatest, distinct values and
exact quantiles need, and is far smaller than the rows (a duration in ms has few thousand values).

Invariant: a `Part` names its groups by value, not by anybody's codes, so that parts of any blocks merge;
each group once; `merged` is associative and does not depend on order, but for the order of the groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

#: Groups that may be: each has a cell in an array.
CELLS = 1 << 20
#: Pairs of group and value are counted in an array with a cell for each that may be, up to so many a row
#: (a cell costs 3 ns, sorting a row 40 ns); else they are sorted.
_CELLS_PER_ROW, _CELLS_LEAST = 8, 1 << 17
#: Sums of whole numbers that could pass this are left to the general fold, which adds floats.
SUM_LIMIT = 1 << 62
#: What a part takes beside its arrays.
_PART_BYTES = 600


class Unfit(Exception):
    """The fold cannot be done by codes."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Parallel arrays sorted by (group, value): how often each value occurs."""

    group: np.ndarray
    value: np.ndarray
    count: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.group.nbytes + self.value.nbytes + self.count.nbytes


@dataclass(frozen=True, slots=True)
class Key:
    """A key column of the groups: `names[codes]`; one of the names is null."""

    codes: np.ndarray
    names: pa.Array

    def values(self) -> pa.Array:
        """The value of each group."""
        return self.names.take(pa.array(self.codes))


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows folded: keys, buckets and rows by group, a histogram by column.

    `bucket`: times divided by the step; None if the fold has none.
    """

    keys: tuple[Key, ...]
    bucket: np.ndarray | None
    rows: np.ndarray
    histograms: dict[str, Histogram]

    @property
    def nbytes(self) -> int:
        """About the memory it takes."""
        arrays = self.rows.nbytes + (0 if self.bucket is None else self.bucket.nbytes)
        keys = sum(key.codes.nbytes + key.names.nbytes for key in self.keys)
        return arrays + keys + sum(one.nbytes for one in self.histograms.values()) + _PART_BYTES


NOTHING = Part((), None, np.zeros(0, np.int64), {})


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one batch that count, not yet grouped.

    `keys`: by key column the codes (None: all null) and the names; the code of null is their number.
    `stamps`: times, where there is a step. `values`: by column the values, and which are valid (None: all).
    """

    count: int
    keys: tuple[tuple[np.ndarray | None, pa.Array], ...]
    stamps: np.ndarray | None
    values: dict[str, tuple[np.ndarray, np.ndarray | None]]


def numbered(arrays: Sequence[pa.Array]) -> tuple[pa.Array, list[np.ndarray]]:
    """(all distinct names, null last; for each array what its elements are there, then what null is)."""
    texts = [array.cast(pa.string()) for array in arrays]
    encoded = pa.concat_arrays(texts).dictionary_encode()
    null = len(encoded.dictionary)
    names = pa.concat_arrays([encoded.dictionary, pa.nulls(1, pa.string())])
    numbers = encoded.indices.fill_null(null).to_numpy(zero_copy_only=False).astype(np.int64)
    tables, at = [], 0
    for array in arrays:
        tables.append(np.append(numbers[at : at + len(array)], null))
        at += len(array)
    return names, tables


def counted(batches: Sequence[Rows], columns: Sequence[str], step: int) -> Part:
    """The part of some batches of equal shape.

    Raises:
        Unfit: more groups than cells, or numbers too large.
    """
    batches = [one for one in batches if one.count]
    if not batches:
        return NOTHING
    keys = [[one.keys[index] for one in batches] for index in range(len(batches[0].keys))]
    bucket = None
    if step:
        bucket = np.concatenate([one.stamps for one in batches if one.stamps is not None]) // step
    edges = np.cumsum([0, *(one.count for one in batches)]).tolist()
    grouping = _grouping(keys, bucket, edges)
    if grouping is None:
        raise Unfit
    rows = np.bincount(grouping.cell, minlength=grouping.size)
    place, keys_found, buckets = grouping.groups(rows)
    histograms = {}
    for name in columns:
        histogram = _of_values(batches, name, grouping.cell, edges)
        histograms[name] = _kept(place[histogram.group], histogram)
    return Part(keys_found, buckets, rows[rows > 0], histograms)


@dataclass(slots=True)
class _Grouping:
    """Each row's cell: a number below `size` whose digits are the codes of the keys, last the bucket."""

    cell: np.ndarray
    size: int
    names: list[pa.Array]
    first_bucket: int | None

    def groups(self, rows: np.ndarray) -> tuple[np.ndarray, tuple[Key, ...], np.ndarray | None]:
        """(the group of each cell that has rows, the keys, the buckets), given the rows by cell."""
        found = np.flatnonzero(rows)
        place = np.zeros(self.size, np.int32)
        place[found] = np.arange(len(found))
        keys, rest = [], found
        for known in self.names:
            rest, digit = np.divmod(rest, len(known))
            keys.append(Key(_small(digit), known))
        return place, tuple(keys), None if self.first_bucket is None else rest + self.first_bucket


Coded = tuple[np.ndarray | None, pa.Array]


def _grouping(
    keys: Sequence[Sequence[Coded]], bucket: np.ndarray | None, edges: Sequence[int]
) -> _Grouping | None:
    """The cells of rows, batch by batch (`edges`); None if there are more than CELLS."""
    cell, names, size = np.zeros(edges[-1], np.int64), [], 1
    for batches in keys:
        known, tables = numbered([one[1] for one in batches])
        if size * len(known) > CELLS:
            return None
        for (codes, _), table, low, high in zip(batches, tables, edges, edges[1:], strict=False):
            digits = table * size
            cell[low:high] += digits[-1] if codes is None else digits.take(codes)
        names.append(known)
        size *= len(known)
    if bucket is None:
        return _Grouping(cell, size, names, None)
    first = int(bucket.min())
    buckets = int(bucket.max()) - first + 1
    if size * buckets > CELLS:
        return None
    cell += (bucket - first) * size
    return _Grouping(cell, size * buckets, names, first)


def _of_values(
    batches: Sequence[Rows], name: str, group: np.ndarray, edges: Sequence[int]
) -> Histogram:
    values = np.empty(len(group), np.int64)
    holes = False
    for one, low, high in zip(batches, edges, edges[1:], strict=False):
        values[low:high] = one.values[name][0]
        holes |= one.values[name][1] is not None
    if holes:
        valid = [
            np.ones(one.count, bool) if one.values[name][1] is None else one.values[name][1]
            for one in batches
        ]
        kept = np.flatnonzero(np.concatenate([mask for mask in valid if mask is not None]))
        group, values = group[kept], values[kept]
    return histogram_of(group, values)


def histogram_of(
    group: np.ndarray, value: np.ndarray, weight: np.ndarray | None = None
) -> Histogram:
    """The histogram of (group, value) pairs, each counted once or `weight` times.

    Raises:
        Unfit: numbers too large to be counted.
    """
    if not len(value):
        return Histogram(*(np.zeros(0, np.int64) for _ in range(3)))
    low, high = int(value.min()), int(value.max())
    span, groups = high - low + 1, int(group.max()) + 1
    if max(abs(low), abs(high)) >= SUM_LIMIT or span * groups >= SUM_LIMIT:
        raise Unfit
    key = group * span
    key += value
    key -= low
    if span * groups <= max(_CELLS_LEAST, _CELLS_PER_ROW * len(key)):
        sums = np.bincount(key, weight, span * groups)  # exact: whole numbers below 2^53
        found = np.flatnonzero(sums)
        count = sums[found].astype(np.int64, copy=False)
    else:
        order = np.argsort(key, kind="stable")
        key = key[order]
        edge = np.flatnonzero(np.append(True, np.diff(key) != 0))
        found = key[edge]
        ones = np.ones(len(key), np.int64) if weight is None else weight[order]
        count = np.add.reduceat(ones, edge)
    group, value = np.divmod(found, span)
    return Histogram(group, value + low, count)


def merged(parts: Sequence[Part]) -> Part:
    """The parts as one.

    Raises:
        Unfit: numbers too large.
    """
    full = [part for part in parts if len(part.rows)]
    if len(full) <= 1:
        return full[0] if full else NOTHING
    keys = [
        [(part.keys[index].codes, part.keys[index].names) for part in full]
        for index in range(len(full[0].keys))
    ]
    bucket = None
    if full[0].bucket is not None:
        bucket = np.concatenate([part.bucket for part in full if part.bucket is not None])
    edges = np.cumsum([0, *(len(part.rows) for part in full)]).tolist()
    rows = np.concatenate([part.rows for part in full])
    histograms = {
        name: Histogram(
            np.concatenate([
                part.histograms[name].group + at for part, at in zip(full, edges, strict=False)
            ]),
            np.concatenate([part.histograms[name].value for part in full]),
            np.concatenate([part.histograms[name].count for part in full]),
        )
        for name in full[0].histograms
    }  # fmt: skip
    return _united(keys, bucket, edges, rows, histograms)


def narrowed(part: Part, mask: np.ndarray, keys: int) -> Part:
    """The groups where `mask` holds, by the first `keys` keys alone.

    Raises:
        Unfit: numbers too large.
    """
    kept = np.flatnonzero(mask)
    if not len(kept):
        return NOTHING
    place = np.full(len(mask), -1, np.int64)
    place[kept] = np.arange(len(kept))
    histograms = {}
    for name, one in part.histograms.items():
        group = place[one.group]
        inside = np.flatnonzero(group >= 0)
        histograms[name] = Histogram(group[inside], one.value[inside], one.count[inside])
    chosen = [[(key.codes[kept], key.names)] for key in part.keys[:keys]]
    bucket = None if part.bucket is None else part.bucket[kept]
    return _united(chosen, bucket, [0, len(kept)], part.rows[kept], histograms)


def _united(
    keys: Sequence[Sequence[Coded]],
    bucket: np.ndarray | None,
    edges: Sequence[int],
    rows: np.ndarray,
    histograms: dict[str, Histogram],
) -> Part:
    """Groups that may be equal made one; the histograms' groups are positions in `rows`."""
    grouping = _grouping(keys, bucket, edges)
    if grouping is not None:
        by_cell = np.bincount(grouping.cell, rows, grouping.size).astype(np.int64)
        place, found, buckets = grouping.groups(by_cell)
        group, rows = place[grouping.cell], by_cell[by_cell > 0]
    else:
        group, rows, found, buckets = _sorted(keys, bucket, rows)
    united = {}
    for name, one in histograms.items():
        value, count = one.value.astype(np.int64, copy=False), one.count
        histogram = histogram_of(group[one.group].astype(np.int64, copy=False), value, count)
        united[name] = _kept(histogram.group, histogram)
    return Part(found, buckets, rows, united)


def _sorted(
    keys: Sequence[Sequence[Coded]], bucket: np.ndarray | None, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[Key, ...], np.ndarray | None]:
    """(group of each row, rows by group, keys, buckets) where the cells would be too many: by sorting."""
    digits, names = [], []
    for batches in keys:
        known, tables = numbered([one[1] for one in batches])
        codes = [table[one[0]] for one, table in zip(batches, tables, strict=True)]
        digits.append(np.concatenate(codes))
        names.append(known)
    if bucket is not None:
        digits.append(bucket)
    first, group = _distinct(digits, len(rows))
    found = tuple(Key(_small(one[first]), known) for one, known in zip(digits, names, strict=False))
    by_group = np.bincount(group, rows, len(first)).astype(np.int64)
    return group, by_group, found, None if bucket is None else bucket[first]


def _distinct(keys: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(a row of each distinct tuple of keys, the number of its tuple for each row)."""
    number = np.zeros(count, np.int64)
    for key in keys:  # numbers stay below the number of rows
        unique, codes = np.unique(key, return_inverse=True)
        _, number = np.unique(number * max(1, len(unique)) + codes, return_inverse=True)
    _, first, inverse = np.unique(number, return_index=True, return_inverse=True)
    return first, inverse


def _kept(group: np.ndarray, histogram: Histogram) -> Histogram:
    """In the fewest bytes, as parts are remembered."""
    return Histogram(*(_small(one) for one in (group, histogram.value, histogram.count)))


def _small(array: np.ndarray) -> np.ndarray:
    """Whole numbers in 4 bytes each if they fit."""
    if array.dtype == np.int32 or not len(array):
        return array
    fits = int(array.min()) >= -(1 << 31) and int(array.max()) < 1 << 31
    return array.astype(np.int32) if fits else array
