"""Plans of folds: aggregates, steps, empty buckets."""

import json

import pyarrow as pa
import pytest

from query.groups_out import groups_json
from query.stats import (
    BUCKETS_MAX,
    FoldPlan,
    extent_step,
    filled,
    nice_step,
    parse_aggregates,
    plan_histogram,
    plan_stats,
    plan_values,
    present,
    ranked,
    shown,
    step_text,
)
from records.errors import InvalidRequest
from records.predicates import Aggregate, Fold
from records.timestamps import MICROS_PER_HOUR, MICROS_PER_MINUTE
from tests.unit.query.helpers import HOUR, NOW

MINUTE = MICROS_PER_MINUTE


def test_aggregates_are_named_as_written() -> None:
    """All functions, with blanks, dots and commas where they may stand."""
    found = parse_aggregates(
        "count, count(x),sum(x),min(x),max(x),avg(x),mean(y),uniq(http.code),median(x),"
        "p95(duration_ms),p99.9(x),quantile(0.25, x)"
    )

    assert found == (
        Aggregate("count", "count"),
        Aggregate("count(x)", "count", "x"),
        Aggregate("sum(x)", "sum", "x"),
        Aggregate("min(x)", "min", "x"),
        Aggregate("max(x)", "max", "x"),
        Aggregate("avg(x)", "avg", "x"),
        Aggregate("mean(y)", "avg", "y"),
        Aggregate("uniq(http.code)", "count_distinct", "http.code"),
        Aggregate("median(x)", "quantile", "x", 0.5),
        Aggregate("p95(duration_ms)", "quantile", "duration_ms", 0.95),
        Aggregate("p99.9(x)", "quantile", "x", 0.9990000000000001),
        Aggregate("quantile(0.25, x)", "quantile", "x", 0.25),
    )


@pytest.mark.parametrize(
    "text",
    ["", "sum", "sum()", "foo(x)", "p(x)", "p95", "quantile(2,x)", "count,count", "sum(x", "(x)"],
)
def test_bad_aggregates_are_refused(text: str) -> None:
    """By the name of the parameter."""
    with pytest.raises(InvalidRequest) as caught:
        parse_aggregates(text)

    assert caught.value.details["parameter"] == "agg"


def test_stats_plan() -> None:
    """Groups, aggregates, step and the filters of /query."""
    pairs = [("by", "level,service"), ("agg", "count"), ("step", "5m"), ("level", "error")]
    plan = plan_stats(pairs, NOW, 1000)

    assert plan.fold == Fold(("level", "service"), (Aggregate("count", "count"),), 5 * MINUTE)
    assert plan.query.scan.filter == ("eq", "level", "error")
    assert plan.limit == 1000


@pytest.mark.parametrize(
    ("pairs", "parameter"),
    [
        ([("by", "timestamp")], "by"),
        ([("by", "count")], "by"),
        ([("by", ",".join(f"f{i}" for i in range(11)))], "by"),
        ([("step", "x")], "step"),
        ([("step", "10us")], "step"),
        ([("step", "1s"), ("from", "0"), ("to", "now")], "step"),
        ([("limit", "1001")], "limit"),
        ([("agg", "foo")], "agg"),
    ],
)
def test_bad_stats_name_the_parameter(pairs: list[tuple[str, str]], parameter: str) -> None:
    """Also more than BUCKETS_MAX buckets."""
    assert BUCKETS_MAX == 11_000
    with pytest.raises(InvalidRequest) as caught:
        plan_stats(pairs, NOW, 1000)

    assert caught.value.details["parameter"] == parameter


def test_steps_are_chosen_round() -> None:
    """About sixty buckets, in steps that people read."""
    assert nice_step(HOUR) == MINUTE
    assert nice_step(24 * HOUR) == 30 * MINUTE
    assert nice_step(7 * 24 * HOUR) == 3 * HOUR
    assert nice_step(0) == 1_000_000
    assert nice_step(365 * 24 * HOUR) == 7 * 24 * HOUR
    assert [step_text(s) for s in (MINUTE, 90_000_000, HOUR, 48 * HOUR, 250_000)] == [
        "1m", "90s", "1h", "2d", "250ms"
    ]  # fmt: skip


def test_a_histogram_without_range_and_step_is_hourly_first() -> None:
    """The hours that hold rows then tell the step; with a range it is known at once."""
    auto = plan_histogram([], NOW, 1000)
    ranged = plan_histogram([("from", "now-1h"), ("to", "now")], NOW, 1000)

    assert auto.auto
    assert auto.fold.step_micros == MICROS_PER_HOUR
    assert not ranged.auto
    assert ranged.fold.step_micros == MINUTE
    hours = pa.table({"_bucket": [0, 23 * HOUR], "count": [1, 1]})
    assert extent_step(hours) == 30 * MINUTE
    assert extent_step(hours.slice(0, 0)) == HOUR


def histogram(*pairs: tuple[str, str]) -> FoldPlan:
    """A plan in steps of a minute."""
    return plan_histogram([("step", "1m"), *pairs], NOW, 1000)


def test_empty_buckets_are_filled() -> None:
    """Between first and last, for each group; over the whole range if it is bounded."""
    base = NOW // MINUTE * MINUTE
    table = pa.table({"_bucket": [base, base + 2 * MINUTE], "count": [5, 7]})
    full, done = filled(table, histogram(), 100)
    assert done
    assert full["count"].to_pylist() == [5, 0, 7]

    grouped = table.append_column("level", pa.array(["a", None]))
    full, _ = filled(grouped, histogram(("by", "level")), 100)
    assert full["count"].to_pylist() == [5, 0, 0, 0, 0, 7]

    ranged = histogram(("from", "now-4m"), ("to", "now"))
    full, _ = filled(table.slice(0, 1), ranged, 100)
    assert full["count"].to_pylist() == [0, 0, 0, 0, 5]


def test_too_many_buckets_stay_as_they_are() -> None:
    """And the caller is told."""
    table = pa.table({"_bucket": [0, 1000 * MINUTE], "count": [1, 1]})

    same, done = filled(table, histogram(), 100)

    assert not done
    assert same.num_rows == 2


def test_groups_are_ranked_and_cut() -> None:
    """The first aggregate descending; with a step the buckets ascending before that."""
    plan = plan_stats([("by", "level"), ("limit", "2")], NOW, 1000)
    table = pa.table({"level": ["a", "b", "c"], "count": [1, 3, 2]})
    top, cut = ranked(table, plan)
    assert cut
    assert top["level"].to_pylist() == ["b", "c"]

    plan = plan_stats([("step", "1m")], NOW, 1000)
    table = pa.table({"_bucket": [MINUTE, 0], "count": [9, 1]})
    ordered, cut = ranked(table, plan)
    assert not cut
    assert shown(ordered)["timestamp"].cast(pa.int64()).to_pylist() == [0, MINUTE]


def test_nulls_come_last_whatever_the_order() -> None:
    """Groups without a value of the first aggregate, and rows without the field; a column of nulls alone."""
    plan = plan_stats([("by", "host,zone"), ("agg", "max(x)")], NOW, 1000)
    hosts, largest = ["b", None, "a", "c", None], [7, 7, 7, None, 9]
    table = pa.table({"host": hosts, "zone": pa.nulls(5), "max(x)": largest})

    found, _ = ranked(table, plan)

    assert found["host"].to_pylist() == [None, "a", "b", None, "c"]
    assert found["max(x)"].to_pylist() == [9, 7, 7, 7, None]
    assert ranked(pa.table({"host": pa.nulls(2), "zone": pa.nulls(2), "max(x)": pa.nulls(2)}), plan)[
        0
    ].num_rows == 2  # fmt: skip


def test_groups_under_dictionaries_are_ranked() -> None:
    """As several replicas' partials come merged: text by codes, of any width."""
    plan = plan_stats([("by", "host"), ("step", "1m")], NOW, 1000)
    texts = pa.array(["b", "a"], pa.large_string())
    hosts = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.uint32()), texts)
    table = pa.table({"_bucket": [0, 0, 0], "host": hosts, "count": [1, 1, 1]})

    found, _ = ranked(table, plan)

    assert found["host"].to_pylist() == ["a", "b", None]
    assert json.loads(groups_json(shown(found)))[0] == {
        "timestamp": "1970-01-01T00:00:00.000000Z", "host": "a", "count": 1,
    }  # fmt: skip


def test_values_need_their_field() -> None:
    """And rows without it are no value."""
    plan = plan_values([("field", "color")], NOW, 1000)
    assert plan.fold.by == ("color",)
    assert present(pa.table({"color": ["red", None], "count": [1, 2]}), "color").num_rows == 1
    for pairs in ([], [("field", "a"), ("by", "b")]):
        with pytest.raises(InvalidRequest):
            plan_values(pairs, NOW, 1000)


@pytest.mark.parametrize(
    "text", ["p" + " " * 300_000 + "x", "count(" + " " * 300_000, "a9" * 100_000]
)
def test_aggregates_are_read_in_linear_time(text: str) -> None:
    """Long nonsense is refused at once: a parser that tries each blank twice would take hours here."""
    with pytest.raises(InvalidRequest):
        parse_aggregates(text)
