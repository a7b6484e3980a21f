"""Merging partial aggregates of replicas into the final values. Pure, by column.

Each partial table has the group columns (`by`, and `_bucket` if there is a step) and, per aggregate `a`:
count, sum, min, max -> `a`; avg -> `a__sum`, `a__count`; count_distinct and quantile -> `a__values`, a list
of all values, for quantiles perhaps with `a__counts`: how often each occurs. Shards are disjoint, so counts
add up; quantiles are exact, interpolated linearly.
"""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute

from query.quantiles import quantiles
from records.columns import plain, united
from records.predicates import Aggregate, Fold

#: Arrow's kernels are made at import; type checkers cannot see them.
pc: Any = pyarrow.compute
BUCKET = "_bucket"
#: Partials of these that nobody else shares are the answer.
_FINAL = frozenset({"count", "sum", "min", "max"})


def group_names(fold: Fold) -> list[str]:
    """The group columns of partial and final tables."""
    return [BUCKET, *fold.by] if fold.step_micros else list(fold.by)


def merge_folds(tables: list[pa.Table], fold: Fold) -> pa.Table:
    """One row a group with a column per aggregate, named as asked; without groups exactly one row."""
    groups = group_names(fold)
    full = [_untyped_nulls(plain(table)) for table in tables if table.num_rows]
    if not full:
        return _nothing(fold, groups)
    if len(full) == 1 and _is_told(full[0], fold, groups):
        return _alone(full[0], fold, groups)
    frame: Any = pl.from_arrow(_united([_with_counts(table, fold) for table in full]))
    missing = [pl.lit(None).alias(name) for name in groups if name not in frame.columns]
    frame = frame.with_columns(missing)
    finals = [_final(frame, one) for one in fold.aggregates]
    grouped = frame.group_by(groups, maintain_order=True) if groups else None
    merged = grouped.agg(finals) if grouped else frame.select(finals)
    return merged.to_arrow(compat_level=pl.CompatLevel.oldest())


def is_final(fold: Fold) -> bool:
    """Whether the partials of one replica alone are the answer as they are."""
    return all(one.function in _FINAL for one in fold.aggregates)


def _is_told(table: pa.Table, fold: Fold, groups: list[str]) -> bool:
    """Whether the answer can be read off each row of the partials of one replica."""
    if is_final(fold):
        return True
    if not groups and table.num_rows > 1:
        return False
    return all(
        one.function in _FINAL
        or (one.function == "avg" and f"{one.name}__sum" in table.column_names)
        or (one.function == "quantile" and _doubles(table, f"{one.name}__values"))
        for one in fold.aggregates
    )


def _doubles(table: pa.Table, name: str) -> bool:
    """Whether a column holds lists of doubles, without nulls."""
    if name not in table.column_names or table[name].type != pa.list_(pa.float64()):
        return False
    column = table[name]
    return not column.null_count and not any(one.values.null_count for one in column.chunks)


def _alone(table: pa.Table, fold: Fold, groups: list[str]) -> pa.Table:
    """The answer where one replica told all: its groups are distinct, its values final."""
    columns: dict[str, Any] = {}
    for name in groups:
        known = name in table.column_names
        columns[name] = table[name] if known else pa.nulls(table.num_rows, pa.int64())
    for one in fold.aggregates:
        columns[one.name] = _told(table, one)
    return pa.table(columns)


def _told(table: pa.Table, one: Aggregate) -> Any:
    """One aggregate of each row of partials."""
    if one.function == "avg":
        counts = table[f"{one.name}__count"]
        return pc.divide(
            table[f"{one.name}__sum"].cast(pa.float64()),
            pc.if_else(pc.greater(counts, 0), counts, None),
        )
    if one.function == "quantile":
        told = _with_counts(table, Fold((), (one,)))
        values, counts = (told[f"{one.name}__{what}"] for what in ("values", "counts"))
        lists = pa.concat_arrays(values.chunks), pa.concat_arrays(counts.chunks)
        return quantiles(*lists, one.quantile)
    if one.name in table.column_names:
        return table[one.name]
    if one.function == "count":
        return pa.array([0] * table.num_rows, pa.int64())
    return pa.nulls(table.num_rows, pa.int64())


def _with_counts(table: pa.Table, fold: Fold) -> pa.Table:
    """Where a quantile's values come without counts, each counts once."""
    for one in fold.aggregates:
        values, counts = f"{one.name}__values", f"{one.name}__counts"
        if one.function != "quantile" or counts in table.column_names:
            continue
        if values in table.column_names:
            table = table.append_column(counts, _ones(table[values]))
    return table


def _ones(lists: pa.ChunkedArray) -> pa.Array:
    """A list of ones for each list, as long as that."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(np.ones(int(lengths.sum()), np.int64)))


def _untyped_nulls(table: pa.Table) -> pa.Table:
    """Drops list columns without a type: they hold no value."""
    empty = [f.name for f in table.schema if f.type in (pa.list_(pa.null()), pa.null())]
    return table.drop_columns([name for name in empty if name not in (BUCKET,)])


def _united(tables: list[pa.Table]) -> pa.Table:
    """United by name; lists of values whose types differ are united as their texts or doubles."""
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
                kinds.setdefault(field.name, set()).add(field.type.value_type)
    for name, found in kinds.items():
        numeric = all(pa.types.is_integer(one) or pa.types.is_floating(one) for one in found)
        only = next(iter(found))
        target = only if len(found) == 1 else pa.float64() if numeric else pa.string()
        tables = [_with_lists(table, name, pa.list_(target)) for table in tables]
    return united(tables)


def _with_lists(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    index = table.schema.get_field_index(name)
    if index < 0:
        return table.append_column(name, pa.nulls(table.num_rows, kind))
    return table.set_column(index, name, table.column(index).cast(kind))


def _final(frame: pl.DataFrame, one: Aggregate) -> pl.Expr:
    """The expression that merges the partials of one aggregate."""
    columns = frame.columns
    if one.function == "avg":
        total, count = f"{one.name}__sum", f"{one.name}__count"
        if total not in columns:
            return pl.lit(None, pl.Float64).alias(one.name)
        return (pl.col(total).sum() / _positive(pl.col(count).sum())).alias(one.name)
    if one.function == "quantile":
        return _quantile(columns, one)
    if one.function == "count_distinct":
        return _distinct(columns, one)
    if one.name not in columns:
        return pl.lit(0 if one.function == "count" else None, pl.Int64).first().alias(one.name)
    column = pl.col(one.name)
    if one.function == "count":
        return column.sum().alias(one.name)
    if one.function == "sum":
        if not frame.schema[one.name].is_numeric():
            return pl.lit(None, pl.Int64).first().alias(one.name)
        return pl.when(column.is_not_null().any()).then(column.sum()).alias(one.name)
    return (column.min() if one.function == "min" else column.max()).alias(one.name)


def _positive(count: pl.Expr) -> pl.Expr:
    return pl.when(count > 0).then(count)


def _distinct(columns: list[str], one: Aggregate) -> pl.Expr:
    name = f"{one.name}__values"
    if name not in columns:
        return pl.lit(0, pl.Int64).first().alias(one.name)
    return pl.col(name).explode().drop_nulls().n_unique().cast(pl.Int64).alias(one.name)


def _quantile(columns: list[str], one: Aggregate) -> pl.Expr:
    """Between the values at rank floor(h) and the next, where h = (n - 1) * quantile counts from 0."""
    name = f"{one.name}__values"
    if name not in columns:
        return pl.lit(None, pl.Int64).first().alias(one.name)
    values = pl.col(name).explode().cast(pl.Float64, strict=False)
    known = values.is_not_null()
    counts = pl.col(f"{one.name}__counts").explode().filter(known)
    values = values.filter(known)
    ranks, ordered = counts.sort_by(values).cum_sum(), values.sort()
    height = (counts.sum() - 1) * one.quantile
    rank = height.floor()
    low = ordered.filter(ranks > rank).first()
    high = ordered.filter(ranks > rank + 1).first().fill_null(low)
    found = pl.when(high == low).then(low).otherwise(low + (high - low) * (height - rank))
    return found.alias(one.name)


def _nothing(fold: Fold, groups: list[str]) -> pa.Table:
    """The answer over no rows: no groups, or one row of zeros and nulls."""
    rows = 0 if groups else 1
    columns: dict[str, pa.Array] = {
        name: pa.array([], pa.int64() if name == BUCKET else pa.string()) for name in groups
    }
    for one in fold.aggregates:
        zero = 0 if one.function in ("count", "count_distinct") else None
        columns[one.name] = pa.array([zero] * rows, pa.int64())
    return pa.table(columns)
