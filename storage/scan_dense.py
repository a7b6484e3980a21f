"""Folds by dictionary columns and whole numbers, without hashing a value: rows are counted by their codes.

Pieces are folded to parts (storage.fold_part), those of whole blocks of some size by way of what is
remembered (storage.fold_tree); the parts are merged and written as partial aggregates. What does not fit (keys
of free text, fractions, fields in `attributes`, more groups or values than the caps) is left to the
general fold; `count_by_codes` then returns None.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from records.predicates import TRUE, Aggregate, Fold
from storage.fold_part import SUM_LIMIT, Histogram, Part, Rows, Unfit, counted, merged
from storage.fold_tree import fold_runs
from storage.hot import GroupPlace
from storage.scan_batch import Batch, cut, in_batches
from storage.scan_select import BlockSlice
from storage.scanner import Scanner

BUCKET = "_bucket"
#: Blocks of fewer rows are batched, and not remembered one by one: they will be merged before long.
KEEP_ROWS = 4096


def count_by_codes(scanner: Scanner, parts: Sequence[BlockSlice], fold: Fold) -> pa.Table | None:
    """The fold's partial aggregates, or None if it has to be done in the general way."""
    columns = tuple(dict.fromkeys(one.column for one in fold.aggregates if one.column))

    def fold_rows(batches: Sequence[Batch]) -> Part:
        return counted([_rows(one, fold, columns) for one in batches], columns, fold.step_micros)

    kept = [one for one in parts if _keeps(scanner, one)]
    rest = [one for one in parts if not _keeps(scanner, one)] if len(kept) < len(parts) else []
    try:
        found = [_remembered(scanner, kept, fold, columns, fold_rows)] if kept else []
        if rest:
            _check(Batch(scanner, rest[:1]), fold, columns)
        found += in_batches(scanner, rest, lambda batch: fold_rows([batch]))
        return _table(scanner, fold, columns, merged(found))
    except Unfit:
        scanner.restart()
        return None


def _keeps(scanner: Scanner, part: BlockSlice) -> bool:
    """Whether what the piece adds is the same whenever it is asked for."""
    place = part.place
    return (
        place.rows >= KEEP_ROWS
        and not isinstance(place, GroupPlace)
        and part.whole
        and scanner.plan.time.covers(place.min_ts, place.max_ts)
    )


def _remembered(
    scanner: Scanner,
    pieces: Sequence[BlockSlice],
    fold: Fold,
    columns: Sequence[str],
    fold_rows: Callable[[Sequence[Batch]], Part],
) -> Part:
    """The part of whole blocks; each block is read by itself, as its codes need no common numbering."""
    tree = scanner.plan.filter
    shape = repr((fold.by, columns, fold.step_micros, tree))  # not the tree: True is no 1 there

    def one(window: list[BlockSlice]) -> Part:
        scanner.budget.check()
        return fold_rows([Batch(scanner, [piece]) for piece in window])

    def compute(windows: list[list[BlockSlice]]) -> list[Part]:
        if windows:
            _check(Batch(scanner, windows[0][:1]), fold, columns)
        found: Any = scanner.budget.share(one, windows)
        for window in windows:
            scanner.count(sum(piece.place.rows for piece in window), window)
        return found

    return fold_runs(scanner.hot.folds, shape, pieces, cut, compute)


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
        raise Unfit
    if (column is None or column.null_count) and batch.view().attribute(name) is not None:
        raise Unfit
    return column


def _numbers(batch: Batch, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(values, which of them are valid or None for all) of a column of whole numbers."""
    column = batch.column(name)
    if column is None or isinstance(column, pa.ChunkedArray):
        raise Unfit
    if not pa.types.is_integer(column.type) or pa.types.is_uint64(column.type):
        raise Unfit
    if not column.null_count:
        return column.to_numpy(), None
    if batch.view().attribute(name) is not None:
        raise Unfit
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    return column.fill_null(0).to_numpy(), valid


def _rows(batch: Batch, fold: Fold, columns: Sequence[str]) -> Rows:
    """The rows of a batch that count: their codes, times and values."""
    positions = _positions(batch)
    count = batch.rows if positions is None else len(positions)
    if not count:
        return Rows(0, (), None, {})
    batch.load([*fold.by, *columns])

    def chosen(array: np.ndarray) -> np.ndarray:
        return array if positions is None else array[positions]

    keys = []
    for name in fold.by:
        column = _key(batch, name)
        if column is None:
            keys.append((None, pa.array([], pa.string())))
            continue
        indices = column.indices
        if indices.null_count:
            indices = indices.fill_null(len(column.dictionary))
        keys.append((chosen(indices.to_numpy(zero_copy_only=False)), column.dictionary))
    values = {}
    for name in columns:
        found, valid = _numbers(batch, name)
        values[name] = (chosen(found), None if valid is None else chosen(valid))
    stamps = chosen(batch.timestamps()) if fold.step_micros else None
    return Rows(count, tuple(keys), stamps, values)


def _positions(batch: Batch) -> np.ndarray | None:
    """Positions of the rows that count, None for all."""
    if batch.everything():
        return None
    positions = batch.matching()
    return None if len(positions) == batch.rows else positions


def _table(scanner: Scanner, fold: Fold, columns: Sequence[str], part: Part) -> pa.Table:
    """A part as partial aggregates."""
    count = len(part.rows)
    if count > scanner.budget.max_groups:
        raise Unfit
    arrays: dict[str, pa.Array] = {}
    for index, name in enumerate(fold.by):
        arrays[name] = part.keys[index].values() if count else pa.array([], pa.string())
    if fold.step_micros:
        buckets = np.zeros(0, np.int64) if part.bucket is None else part.bucket
        arrays[BUCKET] = pa.array(buckets.astype(np.int64) * fold.step_micros)
    none = np.zeros(0, np.int64)
    for one in fold.aggregates:
        if one.column:
            held = part.histograms.get(one.column, Histogram(none, none, none))
            wide = Histogram(*(x.astype(np.int64) for x in (held.group, held.value, held.count)))
            arrays |= _aggregated(scanner, one, wide, count)
        else:
            arrays[one.name] = pa.array(part.rows.astype(np.int64))
    return pa.table(arrays)


def _aggregated(
    scanner: Scanner, one: Aggregate, histogram: Histogram, groups: int
) -> dict[str, pa.Array]:
    """The columns of one aggregate over a column; groups without a value have null, 0 or no values."""
    value, count = histogram.value, histogram.count
    edges = np.searchsorted(histogram.group, np.arange(groups + 1))
    totals = _between(count, edges)
    none = pa.array(totals == 0)
    if one.function == "count":
        return {one.name: pa.array(totals)}
    if one.function in ("sum", "avg"):
        if len(value) and int(np.abs(value).max()) * int(count.sum()) >= SUM_LIMIT:
            raise Unfit
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
    scanner: Scanner, one: Aggregate, histogram: Histogram, edges: np.ndarray
) -> dict[str, pa.Array]:
    value, count = histogram.value, histogram.count
    counted = scanner.request.counted and one.function == "quantile"
    if one.function == "quantile":
        if not counted and int(count.sum()) <= scanner.budget.max_values:
            edges = np.append(0, np.cumsum(count))[edges]
            value = np.repeat(value, count)
        value = value.astype(np.float64)
    if len(value) > scanner.budget.max_values or edges[-1] > len(value):
        raise Unfit
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
