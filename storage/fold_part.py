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

#: Keys up to this many are counted in an array with a cell for each; more are sorted.
CELLS = 1 << 20
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
        return Part((), None, np.zeros(0, np.int64), {})
    edges = np.cumsum([0, *(one.count for one in batches)]).tolist()
    group = np.zeros(edges[-1], np.int64)
    names, size = [], 1
    for index in range(len(batches[0].keys)):
        known, tables = numbered([one.keys[index][1] for one in batches])
        for one, table, low, high in zip(batches, tables, edges, edges[1:], strict=False):
            _add(group[low:high], one.keys[index][0], table * size)
        names.append(known)
        size *= len(known)
        if size > CELLS:
            raise Unfit
    low, buckets = 0, 1
    if step:
        bucket = np.concatenate([one.stamps for one in batches if one.stamps is not None]) // step
        low = int(bucket.min())
        buckets = int(bucket.max()) - low + 1
        if size * buckets > CELLS:
            raise Unfit
        group += (bucket - low) * size
    rows = np.bincount(group, minlength=size * buckets)
    found = np.flatnonzero(rows)
    place = np.zeros(len(rows), np.int32)
    place[found] = np.arange(len(found))
    keys, rest = [], found
    for known in names:
        rest, digit = np.divmod(rest, len(known))
        keys.append(Key(_small(digit), known))
    histograms = {}
    for name in columns:
        histogram = _of_values(batches, name, group, edges)
        histograms[name] = _kept(place[histogram.group], histogram)
    return Part(tuple(keys), rest + low if step else None, rows[found], histograms)


def _add(group: np.ndarray, codes: np.ndarray | None, table: np.ndarray) -> None:
    """Adds a key's digit; the end of `table` is that of null."""
    group += table[-1] if codes is None else table.take(codes)


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
    if span * groups <= max(CELLS, 2 * len(key)):
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
        return full[0] if full else Part((), None, np.zeros(0, np.int64), {})
    first = full[0]
    keys: list[Key] = []
    for index in range(len(first.keys)):
        names, tables = numbered([part.keys[index].names for part in full])
        codes = [table[part.keys[index].codes] for part, table in zip(full, tables, strict=True)]
        keys.append(Key(np.concatenate(codes), names))
    digits = [key.codes for key in keys]
    if first.bucket is not None:
        digits.append(np.concatenate([part.bucket for part in full if part.bucket is not None]))
    rows = np.concatenate([part.rows for part in full])
    groups, inverse = _distinct(digits, len(rows))
    starts = np.cumsum([0, *(len(part.rows) for part in full)]).tolist()
    histograms = {}
    for name in first.histograms:
        found = [part.histograms[name] for part in full]
        united = histogram_of(
            np.concatenate([inverse[one.group + at] for one, at in zip(found, starts, strict=False)]),
            np.concatenate([one.value for one in found]).astype(np.int64, copy=False),
            np.concatenate([one.count for one in found]),
        )  # fmt: skip
        histograms[name] = _kept(united.group, united)
    return Part(
        tuple(Key(_small(key.codes[groups]), key.names) for key in keys),
        digits[-1][groups] if first.bucket is not None else None,
        np.bincount(inverse, rows, len(groups)).astype(np.int64),
        histograms,
    )


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
