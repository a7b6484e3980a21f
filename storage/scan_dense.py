"""Folds by dictionary columns and whole numbers, without hashing a value: rows are counted by their codes.

The group of a row is a number whose digits are the codes of its keys. A column of whole numbers is counted by
(group, value): such a histogram holds all that sums, averages, least, greatest, distinct values and
exact quantiles need, and is far smaller than the rows (a duration in ms has few thousand values). What does
not fit (keys of free text, fractions, fields in `attributes`, more groups or values than the caps) is
left to the general fold; `count_by_codes` then returns None.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from records.predicates import Aggregate, Fold
from storage.entry_table import Names
from storage.scan_batch import Batch, in_batches
from storage.scan_select import BlockSlice
from storage.scanner import Scanner

BUCKET = "_bucket"
#: Keys up to this many are counted in an array with a cell for each; more are sorted.
_CELLS = 1 << 20
#: Sums of whole numbers that could pass this are left to the general fold, which adds floats.
_SUM_LIMIT = 1 << 62


class _Unfit(Exception):
    """The fold does not fit after all."""


@dataclass(frozen=True, slots=True)
class _Histogram:
    """Parallel arrays sorted by (group, value): how often each value occurs."""

    group: np.ndarray
    value: np.ndarray
    count: np.ndarray


@dataclass(frozen=True, slots=True)
class _Part:
    """A batch: its groups (a code for each key, last the bucket), their rows, its histograms by column."""

    keys: list[np.ndarray]
    rows: np.ndarray
    histograms: dict[str, _Histogram]


@dataclass(slots=True)
class _Codes:
    """One numbering of the texts of a key column for all batches; null is a text too."""

    names: Names = field(default_factory=Names)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, texts: list[str | None]) -> np.ndarray:
        """The codes of texts."""
        with self.lock:
            return np.array([self.names.number(text) for text in texts], np.int64)


def count_by_codes(scanner: Scanner, parts: Sequence[BlockSlice], fold: Fold) -> pa.Table | None:
    """The fold's partial aggregates, or None if it has to be done in the general way."""
    codes = {name: _Codes() for name in fold.by}
    columns = tuple(dict.fromkeys(one.column for one in fold.aggregates if one.column))
    try:
        if parts:
            _check(Batch(scanner, parts[:1]), fold, columns)
        found = in_batches(scanner, parts, lambda batch: _part(batch, fold, columns, codes))
        return _table(scanner, fold, codes, columns, [one for one in found if len(one.rows)])
    except _Unfit:
        scanner.restart()
        return None


def _check(batch: Batch, fold: Fold, columns: Sequence[str]) -> None:
    """Looks at the types of one piece, before any row is filtered."""
    batch.load([*fold.by, *columns])
    for name in fold.by:
        _key(batch, name)
    for name in columns:
        _numbers(batch, name)


def _key(batch: Batch, name: str) -> pa.DictionaryArray | None:
    """A key column; None if it is absent."""
    column = batch.column(name)
    if column is not None and not isinstance(column, pa.DictionaryArray):
        raise _Unfit
    if (column is None or column.null_count) and batch.view().attribute(name) is not None:
        raise _Unfit
    return column


def _numbers(batch: Batch, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(values, which of them are valid or None for all) of a column of whole numbers."""
    column = batch.column(name)
    if column is None or isinstance(column, pa.ChunkedArray):
        raise _Unfit
    if not pa.types.is_integer(column.type) or pa.types.is_uint64(column.type):
        raise _Unfit
    if not column.null_count:
        return column.to_numpy().astype(np.int64, copy=False), None
    if batch.view().attribute(name) is not None:
        raise _Unfit
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    return column.fill_null(0).to_numpy().astype(np.int64, copy=False), valid


def _part(batch: Batch, fold: Fold, columns: Sequence[str], codes: dict[str, _Codes]) -> _Part:
    positions = batch.matching()
    every = len(positions) == batch.rows
    group, size = np.zeros(len(positions), np.int64), 1
    digits: list[tuple[np.ndarray, int]] = []
    batch.load([*fold.by, *columns] if len(positions) else [])
    for name in fold.by if len(positions) else ():
        column = _key(batch, name)
        texts: list[str | None] = [] if column is None else column.dictionary.to_pylist()
        texts.append(None)
        if column is not None:
            indices = (
                column.indices.fill_null(len(texts) - 1) if column.null_count else column.indices
            )
            own = indices.to_numpy(zero_copy_only=False)
            own = own if every else own[positions]
            group = group * len(texts) + own if size > 1 else own.astype(np.int64)
            size *= len(texts)
        digits.append((codes[name].of(texts), len(texts)))
    first = 0
    if fold.step_micros and len(positions):
        stamps = batch.timestamps()
        bucket = (stamps if every else stamps[positions]) // fold.step_micros
        first = int(bucket.min())
        buckets = int(bucket.max()) - first + 1
        group, size = group * buckets + (bucket - first), size * buckets
        digits.append((np.arange(first, first + min(buckets, _CELLS)), buckets))
    if size > _CELLS:
        raise _Unfit
    rows = np.bincount(group, minlength=size)
    found = np.flatnonzero(rows)
    place = np.zeros(size, np.int64)
    place[found] = np.arange(len(found))
    keys: list[np.ndarray] = []
    rest = found
    for known, radix in reversed(digits):
        rest, digit = np.divmod(rest, radix)
        keys.append(known[digit])
    histograms = {}
    for name in columns if len(positions) else ():
        values, valid = _numbers(batch, name)
        values = values if every else values[positions]
        if valid is None:
            counted = _counted(group, values, None)
        else:
            kept = np.flatnonzero(valid if every else valid[positions])
            counted = _counted(group[kept], values[kept], None)
        histograms[name] = replace(counted, group=place[counted.group])
    return _Part(keys[::-1], rows[found], histograms)


def _counted(group: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> _Histogram:
    """The histogram of (group, value) pairs, each counted once or `weight` times."""
    if not len(value):
        return _Histogram(*(np.zeros(0, np.int64) for _ in range(3)))
    low, high = int(value.min()), int(value.max())
    span, groups = high - low + 1, int(group.max()) + 1
    if max(abs(low), abs(high)) >= _SUM_LIMIT or span * groups >= _SUM_LIMIT:
        raise _Unfit
    key = group * span + (value - low)
    if span * groups <= max(_CELLS, 2 * len(key)):
        sums = np.bincount(key, weight, span * groups)  # exact: whole numbers below 2^53
        found = np.flatnonzero(sums)
        count = sums[found].astype(np.int64)
    else:
        order = np.argsort(key, kind="stable")
        key = key[order]
        edge = np.flatnonzero(np.append(True, np.diff(key) != 0))
        found = key[edge]
        ones = np.ones(len(key), np.int64) if weight is None else weight[order]
        count = np.add.reduceat(ones, edge)
    group, value = np.divmod(found, span)
    return _Histogram(group, value + low, count)


def _table(
    scanner: Scanner,
    fold: Fold,
    codes: dict[str, _Codes],
    columns: Sequence[str],
    parts: list[_Part],
) -> pa.Table:
    """All batches as one partial aggregate."""
    depth = len(fold.by) + bool(fold.step_micros)
    empty = [np.zeros(0, np.int64)]
    keys = [np.concatenate([part.keys[i] for part in parts] or empty) for i in range(depth)]
    rows = np.concatenate([part.rows for part in parts] or empty)
    groups, inverse = _distinct(keys, len(rows))
    count = len(groups)
    if count > scanner.budget.max_groups:
        raise _Unfit
    arrays: dict[str, pa.Array] = {}
    for index, name in enumerate(fold.by):
        values = pa.array(codes[name].names.values, pa.string())
        arrays[name] = values.take(pa.array(keys[index][groups]))
    if fold.step_micros:
        arrays[BUCKET] = pa.array(keys[-1][groups] * fold.step_micros)
    totals = np.bincount(inverse, rows, count).astype(np.int64)
    starts = np.cumsum([0, *(len(part.rows) for part in parts)])
    united = {name: _united(parts, name, starts, inverse) for name in columns}
    for one in fold.aggregates:
        if one.column:
            arrays |= _aggregated(scanner, one, united[one.column], count)
        else:
            arrays[one.name] = pa.array(totals)
    return pa.table(arrays)


def _distinct(keys: list[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(a row of each distinct tuple of keys, the number of its tuple for each row)."""
    number = np.zeros(count, np.int64)
    for key in keys:  # numbers stay below the number of rows
        unique, codes = np.unique(key, return_inverse=True)
        _, number = np.unique(number * max(1, len(unique)) + codes, return_inverse=True)
    _, first, inverse = np.unique(number, return_index=True, return_inverse=True)
    return first, inverse


def _united(parts: list[_Part], name: str, starts: np.ndarray, inverse: np.ndarray) -> _Histogram:
    found = [part.histograms[name] for part in parts]
    if not found:
        return _counted(*(np.zeros(0, np.int64) for _ in range(3)))
    group = np.concatenate([
        inverse[one.group + start] for one, start in zip(found, starts.tolist(), strict=False)
    ])  # fmt: skip
    value = np.concatenate([one.value for one in found])
    return _counted(group, value, np.concatenate([one.count for one in found]))


def _aggregated(
    scanner: Scanner, one: Aggregate, histogram: _Histogram, groups: int
) -> dict[str, pa.Array]:
    """The columns of one aggregate over a column; groups without a value have null, 0 or no values."""
    value, count = histogram.value, histogram.count
    edges = np.searchsorted(histogram.group, np.arange(groups + 1))
    totals = _between(count, edges)
    none = pa.array(totals == 0)
    if one.function == "count":
        return {one.name: pa.array(totals)}
    if one.function in ("sum", "avg"):
        if len(value) and int(np.abs(value).max()) * int(count.sum()) >= _SUM_LIMIT:
            raise _Unfit
        sums = _between(value * count, edges)
        if one.function == "sum":
            return {one.name: _null_where(sums, none)}
        return {
            f"{one.name}__sum": pa.array(sums.astype(np.float64)),
            f"{one.name}__count": pa.array(totals),
        }
    if one.function in ("min", "max"):
        at = edges[:-1] if one.function == "min" else edges[1:] - 1
        padded = np.append(value, 0)
        return {one.name: _null_where(padded[np.where(totals == 0, len(value), at)], none)}
    return _lists(scanner, one, histogram, edges)


def _lists(
    scanner: Scanner, one: Aggregate, histogram: _Histogram, edges: np.ndarray
) -> dict[str, pa.Array]:
    value, count = histogram.value, histogram.count
    counted = scanner.request.counted and one.function == "quantile"
    if one.function == "quantile":
        if not counted and int(count.sum()) <= scanner.budget.max_values:
            edges = np.append(0, np.cumsum(count))[edges]
            value = np.repeat(value, count)
        value = value.astype(np.float64)
    if len(value) > scanner.budget.max_values or edges[-1] > len(value):
        raise _Unfit
    offsets = pa.array(edges, pa.int32())
    found = {f"{one.name}__values": pa.ListArray.from_arrays(offsets, pa.array(value))}
    if counted:
        found[f"{one.name}__counts"] = pa.ListArray.from_arrays(offsets, pa.array(count))
    return found


def _between(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The sums of values[edges[i]:edges[i + 1]]; whole numbers, so exact."""
    total = np.append(0, np.cumsum(values))
    return total[edges[1:]] - total[edges[:-1]]


def _null_where(values: np.ndarray, none: pa.Array) -> pa.Array:
    return pa.array(values, mask=none.to_numpy(zero_copy_only=False))
