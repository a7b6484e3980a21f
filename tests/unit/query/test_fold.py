"""Merging partial aggregates: any split of the rows over replicas gives the same values."""

import math
import statistics

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.fold import merge_folds
from query.stats import parse_aggregates
from records.predicates import Aggregate, Fold
from tests.support.fake_store import Row, partials
from tests.unit.query.helpers import row

AGGREGATES = "count,count(x),sum(x),min(x),max(x),avg(x),uniq(x),p25(x),min(message)"
rows = st.builds(
    lambda at, level, x: row(at, f"m{at}", level=level, **({} if x is None else {"x": x})),
    st.integers(0, 50),
    st.sampled_from(["info", "error"]),
    st.none() | st.integers(-9, 9),
)


def quartile(values: list[int]) -> float | None:
    """Linear interpolation between the closest ranks (NumPy's default, DuckDB's quantile_cont)."""
    if not values:
        return None
    ordered, at = sorted(values), (len(values) - 1) * 0.25
    low, high = ordered[math.floor(at)], ordered[math.ceil(at)]
    return low + (high - low) * (at - math.floor(at))


def wanted(group: list[Row]) -> tuple:
    """The aggregates of one group, by hand."""
    xs = [r["x"] for r in group if "x" in r]
    return (
        len(group), len(xs), sum(xs) if xs else None, min(xs, default=None), max(xs, default=None),
        statistics.fmean(xs) if xs else None, len(set(xs)), quartile(xs),
        min((r["message"] for r in group), default=None),
    )  # fmt: skip


@settings(max_examples=100)
@given(st.lists(st.lists(rows, max_size=6), max_size=4), st.booleans(), st.booleans())
def test_any_split_of_the_rows_gives_the_same_values(
    replicas: list[list[Row]], by_level: bool, stepped: bool
) -> None:
    """Rows dealt over up to four replicas; groups by level and by buckets of ten microseconds."""
    fold = Fold(("level",) if by_level else (), parse_aggregates(AGGREGATES), 10 if stepped else 0)
    groups: dict[tuple, list[Row]] = {}
    for one in (r for part in replicas for r in part):
        bucket = (one["timestamp"] // 10 * 10,) if stepped else ()
        groups.setdefault((*bucket, *((one["level"],) if by_level else ())), []).append(one)
    if not by_level and not stepped:
        groups.setdefault((), [])

    merged = merge_folds([partials(part, fold) for part in replicas], fold)

    names = (["_bucket"] if stepped else []) + list(fold.by)
    found = {
        tuple(o[n] for n in names): tuple(o[a.name] for a in fold.aggregates)
        for o in merged.to_pylist()
    }
    assert found.keys() == groups.keys()
    for group, members in groups.items():
        assert found[group] == pytest.approx(wanted(members))


def test_partials_of_different_types_meet() -> None:
    """One replica's x is whole numbers, another's text, a third has no x at all."""
    fold = Fold(("level",), parse_aggregates("uniq(x),max(x)"))
    whole = pa.table({"level": ["a"], "uniq(x)__values": [[1, 2]], "max(x)": [2]})
    text = pa.table({"level": ["a"], "uniq(x)__values": [["1", "z"]], "max(x)": ["z"]})
    none = pa.table(
        {"level": ["a"], "uniq(x)__values": pa.array([[]], pa.list_(pa.null())), "max(x)": [None]}
    )

    merged = merge_folds([whole, text, none], fold).to_pylist()

    assert merged == [{"level": "a", "uniq(x)": 3, "max(x)": "z"}]


def test_rows_without_the_group_field_are_a_group() -> None:
    """Null is a group, and adds up over replicas that know the column and such that do not."""
    fold = Fold(("color",), parse_aggregates("count"))
    knows = pa.table({"color": ["red", None], "count": [1, 2]})
    knows_not = pa.table({"color": pa.nulls(1), "count": [5]})

    merged = merge_folds([knows, knows_not], fold).to_pylist()

    assert {one["color"]: one["count"] for one in merged} == {"red": 1, None: 7}


def test_no_rows_anywhere() -> None:
    """Without groups one row of zeros and nulls; with groups none."""
    aggregates = parse_aggregates("count,sum(x),uniq(x)")

    assert merge_folds([], Fold((), aggregates)).to_pylist() == [
        {"count": 0, "sum(x)": None, "uniq(x)": 0}
    ]
    assert merge_folds([pa.table({})], Fold(("level",), aggregates, 60)).num_rows == 0


VALUES = st.dictionaries(st.integers(-8, 8).map(lambda n: n / 4), st.integers(1, 5), max_size=6)
PARTS = st.lists(
    st.tuples(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), st.booleans())
)


@settings(max_examples=100)
@given(PARTS, st.booleans())
def test_values_may_come_counted(parts: list, grouped: bool) -> None:
    """Some replicas send each value once with its count, others each as often as it occurs."""
    fold = Fold(("g",) if grouped else (), (Aggregate("q", "quantile", "x", 0.25),))
    groups: dict[str, list[float]] = {}
    tables = []
    for values_of, counted in parts:
        lists, counts = [], []
        for name, found in values_of.items():
            repeated = [value for value, count in found.items() for _ in range(count)]
            groups.setdefault(name if grouped else "", []).extend(repeated)
            lists.append(list(found) if counted else repeated)
            counts.append(list(found.values()))
        columns = {"q__values": pa.array(lists, pa.list_(pa.float64()))}
        if grouped:
            columns["g"] = pa.array(list(values_of), pa.string())
        if counted:
            columns["q__counts"] = pa.array(counts, pa.list_(pa.int64()))
        tables.append(pa.table(columns))

    merged = merge_folds(tables, fold)

    found = {one.get("g", ""): one["q"] for one in merged.to_pylist()}
    expected = {name: quartile(values) for name, values in groups.items()}  # type: ignore[arg-type]
    assert found == (expected if grouped else {"": None} | expected)
