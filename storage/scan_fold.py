"""Partial aggregates: group the matching rows of each block, then merge the partials. Polars does the work.

The shape is the contract with the coordinator, which merges the replicas' partials in the same way:

    count, sum, min, max -> `name` · avg -> `name__sum`, `name__count` ·
    count_distinct, quantile -> `name__values` (a list; distinct values, or all) · buckets -> `_bucket`

Where blocks disagree on a column's type, integers meet floats as floats, anything else as text. Text is
summed as the numbers it reads as. A group key that a row lacks is null, and null is a group.
"""

import numpy as np
import polars as pl
import pyarrow as pa

from records.errors import InvalidRequest
from records.predicates import AGGREGATES, Aggregate, Fold
from records.sidecar import Rollup
from storage import scan_rollup
from storage.scan_batch import BATCH_ROWS, Batch, cut, in_batches
from storage.scan_dense import count_by_codes
from storage.scan_filter import BlockView, Column
from storage.scanner import Scanner

BUCKET = "_bucket"
_LISTS = ("count_distinct", "quantile")
#: Rows that are read before their partials are merged, if these have more than `_MERGE_ROWS` rows.
_WINDOW_ROWS = 16 * BATCH_ROWS
_MERGE_ROWS = 1 << 17
#: Sums of integers beyond this could wrap; they go on as floats.
_SUM_LIMIT = 1 << 62


def fold_rows(scanner: Scanner) -> pa.Table:
    """The plan's partial aggregates over all matching rows."""
    fold = scanner.plan.fold
    assert fold is not None
    _check(fold)
    counted, numbers = _from_rollups(scanner)
    parts = scanner.candidates(numbers)
    if counted is None and (table := count_by_codes(scanner, parts, fold)) is not None:
        return table
    partials: list[pl.DataFrame] = []
    for window in cut(parts, _WINDOW_ROWS):
        partials += in_batches(scanner, window, lambda batch: _partial(batch, fold))
        if sum(map(len, partials)) > _MERGE_ROWS:
            partials = [_merge(scanner, partials, fold)]
    if counted is not None:
        if not partials and counted.num_rows <= scanner.budget.max_groups:
            return counted
        partials.append(_frame(counted))
    return _to_arrow(_merge(scanner, partials, fold) if partials else _nothing(fold))


def _from_rollups(scanner: Scanner) -> tuple[pa.Table | None, np.ndarray]:
    """What rollups count, and the entries left to be read."""
    snapshot, numbers = scanner.snapshot, scanner.visible()
    if not scan_rollup.fits(scanner.plan) or not len(numbers):
        return None, numbers

    def load(ordinal: int) -> Rollup | None:
        scanner.budget.check()
        place = snapshot.blocks[ordinal]
        return scanner.hot.sidecar(place).rollup if place else None

    blocks = snapshot.rows["block"][numbers]
    ordinals = blocks[np.append(True, np.diff(blocks) != 0)].astype(np.int64)
    cells = scanner.hot.rollups.covering(
        ordinals, snapshot.rows, load, snapshot.blocks.mask, snapshot.generation
    )
    counted = scan_rollup.count(cells, snapshot, numbers, scanner.plan)
    return counted.table, counted.rest


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _check(fold: Fold) -> None:
    for one in fold.aggregates:
        if one.function not in AGGREGATES:
            raise InvalidRequest(f"unknown aggregate: {one.function!r}")
        if one.function != "count" and not one.column:
            raise InvalidRequest(f"{one.function} needs a column")
    if fold.step_micros < 0:
        raise InvalidRequest("the step of a histogram is not negative")


def _keys(fold: Fold) -> list[str]:
    return [*fold.by, BUCKET] if fold.step_micros else list(fold.by)


def _partial(batch: Batch, fold: Fold) -> pl.DataFrame:
    """The aggregates of one batch's matching rows."""
    positions = batch.matching()
    values = {one.column for one in fold.aggregates if one.column}
    batch.load([*fold.by, *values])
    view = batch.view(None if len(positions) == batch.rows else positions)
    columns: dict[str, pl.Series] = {}
    dictionaries: dict[str, pl.Series] = {}
    for name in fold.by:
        columns[f"k:{name}"] = _key_column(view, name, dictionaries)
    if fold.step_micros:
        stamps = batch.timestamps()[positions]
        columns[f"k:{BUCKET}"] = pl.Series(stamps // fold.step_micros * fold.step_micros)
    for name in values:
        columns[f"v:{name}"] = _value_column(view, name)
    if not columns:
        columns["v:"] = pl.Series(np.zeros(len(positions), np.int8))
    frame = _grouped(pl.DataFrame(columns), _keys(fold), _first_step(fold, columns))
    for name, values in dictionaries.items():
        frame = frame.with_columns(values.gather(frame[name]).alias(name))
    return frame


def _grouped(frame: pl.DataFrame, keys: list[str], exprs: list[pl.Expr]) -> pl.DataFrame:
    """Groups by the columns `k:<key>`; without keys, one group if there is any row."""
    if not keys:
        grouped = frame.group_by(pl.lit(0).alias("k:")).agg(exprs).drop("k:")
        return grouped.head(min(1, len(frame)))  # a literal key groups even no rows
    names = [pl.col(f"k:{key}").alias(key) for key in keys]
    return frame.group_by(names).agg(exprs)


def _key_column(view: BlockView, name: str, dictionaries: dict[str, pl.Series]) -> pl.Series:
    """A group key; a dictionary column goes by its codes, its values are kept for the result."""
    column = view.column(name)
    if column is not None and pa.types.is_dictionary(column.type):
        dictionaries[name] = _series(column.dictionary.cast(pa.string()))
        return _series(column.indices).cast(pl.UInt32)
    return _value_column(view, name)


def _value_column(view: BlockView, name: str) -> pl.Series:
    column = view.column(name)
    attribute = view.attribute(name)
    if column is None:
        return attribute if attribute is not None else pl.Series([None] * view.rows, dtype=pl.Null)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    series = _series(column)
    if attribute is not None and series.null_count():
        return series.cast(pl.String).fill_null(attribute)
    if isinstance(series.dtype, pl.Datetime):
        return series.cast(pl.Int64)
    return series


def _series(array: Column) -> pl.Series:
    result = pl.from_arrow(array)
    assert isinstance(result, pl.Series)
    return result


def _first_step(fold: Fold, columns: dict[str, pl.Series]) -> list[pl.Expr]:
    """Aggregate expressions over the rows of one block."""
    exprs: list[pl.Expr] = []
    for one in fold.aggregates:
        exprs += _of_rows(one, columns.get(f"v:{one.column}"))
    return exprs


def _of_rows(one: Aggregate, series: pl.Series | None) -> list[pl.Expr]:
    value = pl.col(f"v:{one.column}")
    if one.function == "count":
        return [(value.count() if one.column else pl.len()).cast(pl.Int64).alias(one.name)]
    assert series is not None
    if one.function in ("min", "max"):
        return [getattr(value, one.function)().alias(one.name)]
    if one.function == "count_distinct":
        return [value.drop_nulls().unique().alias(f"{one.name}__values")]
    number = _as_number(value, series)
    if one.function == "quantile":
        return [number.cast(pl.Float64).drop_nulls().alias(f"{one.name}__values")]
    if one.function == "sum":
        return [_sum(number).alias(one.name)]
    return [
        number.cast(pl.Float64).sum().alias(f"{one.name}__sum"),
        number.count().cast(pl.Int64).alias(f"{one.name}__count"),
    ]


def _as_number(value: pl.Expr, series: pl.Series) -> pl.Expr:
    """The column as Int64 or Float64: text by what it reads as, integers that may overflow as floats."""
    if series.dtype == pl.Boolean:
        return value.cast(pl.Int64)
    if not series.dtype.is_integer():
        if series.dtype == pl.String:
            value = value.str.strip_chars()
        return value.cast(pl.Float64, strict=False)
    ends = [abs(int(end)) for end in (series.min(), series.max()) if end is not None]  # type: ignore[arg-type]
    wraps = max(ends, default=0) * max(1, len(series)) >= _SUM_LIMIT
    return value.cast(pl.Float64 if wraps else pl.Int64)


def _sum(value: pl.Expr) -> pl.Expr:
    """The sum, null if there is nothing to add."""
    return pl.when(value.count() > 0).then(value.sum())


def _merge(scanner: Scanner, partials: list[pl.DataFrame], fold: Fold) -> pl.DataFrame:
    """Partials of equal shape as one; caps the groups and the values."""
    frame = _concat(partials)
    keys = _keys(fold)
    exprs: list[pl.Expr] = []
    for one in fold.aggregates:
        exprs += _of_partials(one, frame)
    renamed = frame.rename({key: f"k:{key}" for key in keys})
    merged = _grouped(renamed, keys, exprs) if len(partials) > 1 or not keys else frame
    return _capped(scanner, merged, fold)


def _of_partials(one: Aggregate, frame: pl.DataFrame) -> list[pl.Expr]:
    if one.function in _LISTS:
        name = f"{one.name}__values"
        values = pl.col(name).explode(empty_as_null=True).drop_nulls()
        return [(values.unique() if one.function == "count_distinct" else values).alias(name)]
    if one.function == "avg":
        return [pl.col(f"{one.name}__sum").sum(), pl.col(f"{one.name}__count").sum()]
    value = pl.col(one.name)
    if one.function in ("min", "max"):
        return [getattr(value, one.function)()]
    if one.function == "count":
        return [value.sum()]
    if frame[one.name].dtype.is_numeric():
        return [_sum(_as_number(value, frame[one.name])).alias(one.name)]
    return [value.first()]


def _concat(partials: list[pl.DataFrame]) -> pl.DataFrame:
    """All partials under one type for each column."""
    if len(partials) == 1:
        return partials[0]
    schema = {name: _wider([p.schema[name] for p in partials]) for name in partials[0].columns}
    return pl.concat([_cast(partial, schema) for partial in partials])


def _cast(frame: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(kind) for name, kind in schema.items())


def _wider(types: list[pl.DataType]) -> pl.DataType:
    known = [kind for kind in dict.fromkeys(types) if kind != pl.Null and kind != pl.List(pl.Null)]
    if not known:
        return types[0]
    if len(known) == 1:
        return known[0]
    if all(isinstance(kind, pl.List) for kind in known):
        return pl.List(_wider([kind.inner for kind in known]))  # type: ignore[union-attr]
    if all(kind.is_integer() for kind in known):
        return pl.Int64()
    return pl.Float64() if all(kind.is_numeric() for kind in known) else pl.String()


def _capped(scanner: Scanner, frame: pl.DataFrame, fold: Fold) -> pl.DataFrame:
    budget = scanner.budget
    if len(frame) > budget.max_groups:
        budget.truncated = True
        frame = frame.head(budget.max_groups)
    for one in fold.aggregates:
        name = f"{one.name}__values"
        if one.function in _LISTS and int(frame[name].list.len().sum() or 0) > budget.max_values:
            budget.truncated = True
            each = max(1, budget.max_values // len(frame))
            frame = frame.with_columns(pl.col(name).list.head(each))
    return frame


def _nothing(fold: Fold) -> pl.DataFrame:
    """The empty answer, with all columns."""
    schema: dict[str, pl.DataType] = {name: pl.String() for name in fold.by}
    if fold.step_micros:
        schema[BUCKET] = pl.Int64()
    for one in fold.aggregates:
        if one.function in _LISTS:
            schema[f"{one.name}__values"] = pl.List(pl.Float64())
        elif one.function == "avg":
            schema[f"{one.name}__sum"], schema[f"{one.name}__count"] = pl.Float64(), pl.Int64()
        else:
            schema[one.name] = pl.Int64() if one.function == "count" else pl.Float64()
    return pl.DataFrame(schema=schema)


def _to_arrow(frame: pl.DataFrame) -> pa.Table:
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    fields = [(field.name, _small(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def _small(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind):
        return pa.string()
    return pa.list_(_small(kind.value_type)) if pa.types.is_large_list(kind) else kind
