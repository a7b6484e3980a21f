"""Plans of folds: `/query/stats`, `/query/histogram`, `/query/values`, `/query/fields`. Pure.

`agg=count,p95(duration_ms),avg(x)` -> Aggregates named as written; steps for histograms; empty buckets.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute

from query.fold import BUCKET
from query.plan import Pairs, Parameters, QueryPlan, groupable, plan_filters
from query.times import duration_micros
from records.columns import plain
from records.errors import InvalidRequest
from records.ids import DEFAULT_TENANT
from records.predicates import Aggregate, Fold
from records.timestamps import MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND, TimeRange

#: Arrow's kernels are made at import; type checkers cannot see them.
pc: Any = pyarrow.compute
#: Buckets of one answer; finer steps over longer ranges are refused. As Loki's 11,000 points.
BUCKETS_MAX = 11_000
#: Columns to group by, and aggregates, in one query.
BY_MAX, AGGREGATES_MAX = 10, 20
#: About how many buckets a histogram without `step` has.
AUTO_BUCKETS = 60
_S, _M, _H = MICROS_PER_SECOND, MICROS_PER_MINUTE, MICROS_PER_HOUR
_NICE = (_S, 5 * _S, 15 * _S, 30 * _S, _M, 5 * _M, 15 * _M, 30 * _M, _H, 3 * _H, 6 * _H, 12 * _H)
_DAY = 24 * _H
_CALL = re.compile(r"([a-z_]+?)(\d{1,2}(?:\.\d+)?)?(?:\s*\(([^()]*)\))?")
_NAMES = {
    "count": "count", "sum": "sum", "min": "min", "max": "max", "avg": "avg", "mean": "avg",
    "uniq": "count_distinct", "count_distinct": "count_distinct", "median": "quantile",
    "p": "quantile", "quantile": "quantile",
}  # fmt: skip


def parse_aggregates(text: str) -> tuple[Aggregate, ...]:
    """The aggregates of `agg`, separated by commas.

    Raises:
        InvalidRequest: names what is not understood.
    """
    found = tuple(_aggregate(one) for one in _split(text) if one.strip())
    if len({one.name for one in found}) < len(found):
        raise InvalidRequest("agg: the same aggregate twice", parameter="agg")
    if not 0 < len(found) <= AGGREGATES_MAX:
        raise InvalidRequest(f"agg: 1 to {AGGREGATES_MAX} aggregates", parameter="agg")
    return found


def _split(text: str) -> list[str]:
    """At the commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _aggregate(text: str) -> Aggregate:
    found = _CALL.fullmatch(text.strip())
    word, number, inside = found.groups() if found else ("", None, None)
    function = _NAMES.get(word)
    if function is None or (number is not None) != (word == "p"):
        raise InvalidRequest(
            f"agg: {text.strip()!r} is none of count, count(x), sum(x), avg(x), min(x), max(x), "
            "uniq(x), median(x), p95(x), quantile(0.95, x)",
            parameter="agg",
        )
    column, quantile = (inside or "").strip(), 0.5
    if word == "p":
        quantile = float(number or 0) / 100
    if word == "quantile":
        level, _, column = column.partition(",")
        column = column.strip()
        quantile = _quantile(level)
    if not column and function != "count":
        raise InvalidRequest(
            f"agg: {text.strip()!r} needs a field, as in {word}(x)", parameter="agg"
        )
    return Aggregate(text.strip(), function, column, quantile if function == "quantile" else 0.0)


def _quantile(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InvalidRequest(f"agg: the quantile is in 0..1, not {text.strip()!r}", parameter="agg")
    return value


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """A plan with a fold, and how its groups are answered. `step` 0 with `auto`: to be found out."""

    query: QueryPlan
    limit: int
    auto: bool = False

    @property
    def fold(self) -> Fold:
        """The fold of the plan."""
        assert self.query.scan.fold is not None
        return self.query.scan.fold

    def with_step(self, step: int) -> "FoldPlan":
        """The same with another step."""
        scan = replace(self.query.scan, fold=replace(self.fold, step_micros=step))
        return replace(self, query=replace(self.query, scan=scan), auto=False)


def plan_stats(
    pairs: Pairs, now_micros: int, groups_max: int, tenant: str = DEFAULT_TENANT
) -> FoldPlan:
    """The plan of `/query/stats`: `by`, `agg`, `step`, `limit` and all filters."""
    params = Parameters.of(pairs, "by", "agg", "step")
    aggregates = parse_aggregates(",".join(params.values.get("agg", [])) or "count")
    return _planned(params, now_micros, tenant, aggregates, _step(params), groups_max)


def plan_histogram(
    pairs: Pairs, now_micros: int, groups_max: int, tenant: str = DEFAULT_TENANT
) -> FoldPlan:
    """The plan of `/query/histogram`; without `step` one that gives about 60 buckets."""
    params = Parameters.of(pairs, "by", "step")
    step = _step(params)
    plan = _planned(params, now_micros, tenant, (Aggregate("count", "count"),), step, groups_max)
    if step:
        return plan
    time = plan.query.scan.time
    if time.bounded:
        return plan.with_step(nice_step(time.end - time.start))
    return replace(plan.with_step(MICROS_PER_HOUR), auto=True)


def plan_values(
    pairs: Pairs, now_micros: int, groups_max: int, tenant: str = DEFAULT_TENANT
) -> FoldPlan:
    """The plan of `/query/values`: rows by value of `field`."""
    params = Parameters.of(pairs, "field", "by")
    name = params.one("field")
    if name is None:
        raise InvalidRequest("field: which field's values?", parameter="field")
    if "by" in params.values:
        raise InvalidRequest("by: not together with field", parameter="by")
    params.values["by"] = [name]
    return _planned(params, now_micros, tenant, (Aggregate("count", "count"),), 0, groups_max)


def _planned(
    params: Parameters,
    now_micros: int,
    tenant: str,
    aggregates: tuple[Aggregate, ...],
    step: int,
    groups_max: int,
) -> FoldPlan:
    by = params.many("by")
    if len(by) > BY_MAX:
        raise InvalidRequest(f"by: at most {BY_MAX} fields", parameter="by")
    for name in by:
        if name == "timestamp" or name.startswith("_"):
            raise InvalidRequest(f"by: {name!r} cannot be grouped by; use step", parameter="by")
    groupable(by, "by")
    groupable((one.column for one in aggregates), "agg")
    taken = {one.name for one in aggregates} & {*by, "timestamp"}
    if taken:
        raise InvalidRequest(f"by: {min(taken)!r} is an aggregate's name as well", parameter="by")
    limit = params.whole("limit", groups_max, 1, groups_max)
    plan = plan_filters(params, now_micros, tenant)
    time = plan.scan.time
    if step and time.bounded and (time.end - time.start) // step > BUCKETS_MAX:
        raise InvalidRequest(f"step: more than {BUCKETS_MAX} buckets", parameter="step")
    scan = replace(plan.scan, fold=Fold(by, aggregates, step), limit=0)
    return FoldPlan(replace(plan, scan=scan), limit)


def _step(params: Parameters) -> int:
    text = params.one("step")
    if text is None:
        return 0
    if text.replace(".", "", 1).isdigit():
        text += "s"
    step = duration_micros(text, "step")
    if step < 1000:
        raise InvalidRequest("step: at least 1ms", parameter="step")
    return step


def nice_step(span_micros: int) -> int:
    """A round step that cuts a span into about AUTO_BUCKETS."""
    wanted = span_micros / AUTO_BUCKETS
    for step in _NICE:
        if step >= wanted:
            return step
    return max(1, -(-int(wanted) // _DAY)) * _DAY


def step_text(step_micros: int) -> str:
    """The step as a duration: 90s, 5m, 1h, 7d."""
    for unit, name in ((_DAY, "d"), (_H, "h"), (_M, "m"), (_S, "s"), (1000, "ms")):
        if step_micros % unit == 0:
            return f"{step_micros // unit}{name}"
    return f"{step_micros}us"


def ranked(table: pa.Table, plan: FoldPlan) -> tuple[pa.Table, bool]:
    """Groups in order (buckets ascending, then the first aggregate descending), and whether cut."""
    fold = plan.fold
    first = fold.aggregates[0].name
    keys = [BUCKET] if fold.step_micros else []
    keys += [first, *fold.by]
    table, cut = plain(table), table.num_rows > plan.limit  # Arrow orders no dictionaries
    if table.num_rows > 1:
        table = table.take(_order(table, keys, first)[: plan.limit])
    return table, cut


def _order(table: pa.Table, keys: list[str], descending: str) -> pa.Array:
    """Positions of the rows in order; nulls last. A few hundred rows take Polars 0.5 ms, Arrow 0.05."""
    typed = [name for name in keys if _has_order(table[name].type)]
    if not typed:
        return pa.array(range(table.num_rows))
    columns = [f"k{index}" for index in range(len(typed))]  # a name such as "." is a path to Arrow
    order = ["descending" if name == descending else "ascending" for name in typed]
    table = table.select(typed).rename_columns(columns)
    return pc.sort_indices(table, sort_keys=list(zip(columns, order, strict=True)))


def _has_order(kind: pa.DataType) -> bool:
    return not pa.types.is_null(kind) and not pa.types.is_nested(kind)


def filled(table: pa.Table, plan: FoldPlan, rows_max: int) -> tuple[pa.Table, bool]:
    """A histogram with zero rows for empty buckets, for each group; and whether it was filled.

    From the first to the last bucket of the time range where it is bounded, else of the data. It stays
    as it is when the filled one would exceed `rows_max`.
    """
    fold, time = plan.fold, plan.query.scan.time
    frame: pl.DataFrame = pl.from_arrow(table)  # type: ignore[assignment]
    span = _extent(frame, fold.step_micros, time)
    if span is None:
        return table, True
    groups = frame.select(fold.by).unique(maintain_order=True) if fold.by else None
    count = (span[1] - span[0]) // fold.step_micros + 1
    if count * (len(groups) if groups is not None else 1) > rows_max:
        return table, False
    buckets = pl.DataFrame(
        {BUCKET: pl.int_range(span[0], span[1] + 1, fold.step_micros, eager=True)}
    )
    full = buckets if groups is None else buckets.join(groups, how="cross")
    full = full.join(frame, on=[BUCKET, *fold.by], how="left", nulls_equal=True)
    full = full.with_columns(pl.col("count").fill_null(0))
    return full.to_arrow(compat_level=pl.CompatLevel.oldest()), True


def _extent(frame: pl.DataFrame, step: int, time: TimeRange) -> tuple[int, int] | None:
    """First and last bucket."""
    if time.bounded:
        return time.start // step * step, max(time.start, time.end - 1) // step * step
    if frame.is_empty():
        return None
    column = frame[BUCKET]
    return int(column.min()), int(column.max())  # type: ignore[arg-type]


def extent_step(table: pa.Table) -> int:
    """The step for the extent that an hourly histogram showed."""
    frame: pl.DataFrame = pl.from_arrow(table)  # type: ignore[assignment]
    span = _extent(frame, MICROS_PER_HOUR, TimeRange())
    return nice_step(span[1] - span[0] + MICROS_PER_HOUR) if span else MICROS_PER_HOUR


def present(table: pa.Table, name: str) -> pa.Table:
    """The groups in which the column is not null: rows without the field have no value."""
    return table.filter(table[name].is_valid())


def shown(table: pa.Table) -> pa.Table:
    """`_bucket` as a `timestamp`."""
    if BUCKET not in table.column_names:
        return table
    stamps = table[BUCKET].cast(pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    rest = table.drop_columns([BUCKET])
    return rest.add_column(0, "timestamp", stamps)
