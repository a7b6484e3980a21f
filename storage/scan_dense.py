"""Folds by dictionary columns and whole numbers, without hashing a value: rows are counted by their codes.

Pieces are folded to parts (storage.fold_part), those of whole blocks of some size by way of what is
remembered (storage.fold_tree); the parts are merged and written as partial aggregates. What does not fit
(keys of free text, fractions, fields in `attributes`, more groups or values than the caps) is left to
the general fold; `count_by_codes` then returns None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from records.predicates import TRUE, Aggregate, Filter, Fold, fields_of
from storage.blocks import GroupPlace
from storage.fold_part import SUM_LIMIT, Histogram, Part, Rows, Unfit, counted, merged, narrowed
from storage.fold_tree import fold_runs
from storage.scan_batch import Batch, cut, in_batches
from storage.scan_filter import BlockView, evaluate, only_over
from storage.scan_select import BlockSlice
from storage.scanner import Scanner

BUCKET = "_bucket"
#: Blocks of fewer rows are batched, and not remembered one by one: they will be merged before long.
KEEP_ROWS = 4096
#: Rows of a window, the unit of work and of a look at the deadline: 2 ms.
WINDOW_ROWS = 1 << 19
#: A filter made of eq and in over these (and hosts, where rows are but counted) is applied to groups, not
#: to rows: they become keys. So a fold of another level finds the same parts.
LIFTED = frozenset({"service", "level"})


@dataclass(frozen=True, slots=True)
class _Shape:
    """What is folded: keys, first those asked for; columns; step; and the rows that count."""

    keys: tuple[str, ...]
    columns: tuple[str, ...]
    step: int
    tree: Filter

    def of(self, batches: Sequence[Batch]) -> Part:
        """The part of some batches."""
        return counted([_rows(one, self) for one in batches], self.columns, self.step)


def count_by_codes(scanner: Scanner, parts: Sequence[BlockSlice], fold: Fold) -> pa.Table | None:
    """The fold's partial aggregates, or None if it has to be done in the general way."""
    for shape in _shapes(scanner.plan.filter, fold):
        try:
            part = _folded(scanner, parts, shape)
            if shape.tree != scanner.plan.filter and len(part.rows):
                mask = _matching(part, shape.keys, scanner.plan.filter)
                part = narrowed(part, mask, len(fold.by))
            return _table(scanner, fold, part)
        except Unfit:
            scanner.restart()
    return None


def _shapes(tree: Filter, fold: Fold) -> list[_Shape]:
    """How the fold may be done, the best first: the filter applied to groups, or to rows."""
    columns = tuple(dict.fromkeys(one.column for one in fold.aggregates if one.column))
    plain = _Shape(fold.by, columns, fold.step_micros, tree)
    if tree == TRUE or not only_over(tree, LIFTED if columns else LIFTED | {"host"}):
        return [plain]
    keys = tuple(dict.fromkeys((*fold.by, *sorted(fields_of(tree)))))
    return [_Shape(keys, columns, fold.step_micros, TRUE), plain]


def _matching(part: Part, keys: Sequence[str], tree: Filter) -> np.ndarray:
    """The groups whose keys match the filter."""
    columns = {name: key.values() for name, key in zip(keys, part.keys, strict=True)}
    return evaluate(tree, BlockView(columns.get, len(part.rows)))


def _folded(scanner: Scanner, parts: Sequence[BlockSlice], shape: _Shape) -> Part:
    kept = [one for one in parts if _keeps(scanner, one)]
    rest = [one for one in parts if not _keeps(scanner, one)] if len(kept) < len(parts) else []
    found = [_remembered(scanner, kept, shape)] if kept else []
    if rest:
        _check(Batch(scanner, rest[:1]), shape)
    return merged(found + in_batches(scanner, rest, lambda batch: shape.of([batch])))


def _keeps(scanner: Scanner, part: BlockSlice) -> bool:
    """Whether what the piece adds is the same whenever it is asked for."""
    place = part.place
    return (
        place.rows >= KEEP_ROWS
        and not isinstance(place, GroupPlace)
        and part.whole
        and scanner.plan.time.covers(place.min_ts, place.max_ts)
    )


def _remembered(scanner: Scanner, pieces: Sequence[BlockSlice], shape: _Shape) -> Part:
    """The part of whole blocks; each block is read by itself, as its codes need no common numbering."""

    def one(window: list[BlockSlice]) -> Part:
        scanner.budget.check()
        return shape.of([Batch(scanner, [piece]) for piece in window])

    def compute(windows: list[list[BlockSlice]]) -> list[Part]:
        if windows:
            _check(Batch(scanner, windows[0][:1]), shape)
        found: Any = scanner.budget.share(one, windows)
        for window in windows:
            scanner.count(sum(piece.place.rows for piece in window), window)
        return found

    name = repr(shape)  # not the shape itself: True is no 1 in a filter
    windows = partial(cut, rows=WINDOW_ROWS)
    return fold_runs(scanner.hot.folds, name, pieces, windows, compute)


def _check(batch: Batch, shape: _Shape) -> None:
    """Looks at the types of one piece, before any row is filtered."""
    batch.load([*shape.keys, *shape.columns])
    for name in shape.keys:
        _key(batch, name)
    for name in shape.columns:
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


def _rows(batch: Batch, shape: _Shape) -> Rows:
    """The rows of a batch that count: their codes, times and values."""
    positions = None if batch.everything(shape.tree) else batch.matching(tree=shape.tree)
    count = batch.rows if positions is None else len(positions)
    if not count:
        return Rows(0, (), None, {})
    batch.load([*shape.keys, *shape.columns])

    def chosen(array: np.ndarray) -> np.ndarray:
        return array if positions is None else array[positions]

    keys = []
    for name in shape.keys:
        column = _key(batch, name)
        if column is None:
            keys.append((None, pa.array([], pa.string())))
            continue
        indices = column.indices
        if indices.null_count:
            indices = indices.fill_null(len(column.dictionary))
        keys.append((chosen(indices.to_numpy(zero_copy_only=False)), column.dictionary))
    values = {}
    for name in shape.columns:
        found, valid = _numbers(batch, name)
        values[name] = (chosen(found), None if valid is None else chosen(valid))
    stamps = chosen(batch.timestamps()) if shape.step else None
    return Rows(count, tuple(keys), stamps, values)


def _table(scanner: Scanner, fold: Fold, part: Part) -> pa.Table:
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
