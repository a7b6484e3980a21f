"""Aggregates as folds: which statements fit, what the fold is, when its types send it back."""

import pyarrow as pa
import pytest

from query.sql_partial import Partial, partial, typed_sums, with_step
from query.sql_plan import pushdown, selects
from tests.unit.query.sql_trees import statement

MINUTE, HOUR = 60_000_000, 3_600_000_000


def fold_of(sql: str) -> Partial | None:
    """The fold of a statement; a `time_bucket` of five minutes."""
    parsed = statement(sql)
    found = selects(parsed)
    made = partial(parsed, found, pushdown(found, []))
    return made and with_step(made, ("INTERVAL", 5 * MINUTE))


@pytest.mark.parametrize(
    ("sql", "by", "step", "aggregates"),
    [
        ("SELECT count(*) FROM logs", (), 0, [("count", "")]),
        ("SELECT service, count(*) FROM logs GROUP BY service", ("service",), 0, [("count", "")]),
        ("SELECT service s, count(x) FROM logs GROUP BY s", ("service",), 0, [("count", "x")]),
        (
            "SELECT level, Service, sum(x) FROM logs GROUP BY 2, 1",
            ("service", "level"),
            0,
            [("sum", "x")],
        ),
        (
            "SELECT host, max(timestamp) FROM logs GROUP BY ALL",
            ("host",),
            0,
            [("max", "timestamp")],
        ),
        (
            "SELECT date_trunc('minute', timestamp) m, count(*) FROM logs GROUP BY m",
            (),
            MINUTE,
            [("count", "")],
        ),
        (
            "SELECT date_trunc('hour', l.timestamp), level, avg(x) FROM logs l GROUP BY ALL",
            ("level",),
            HOUR,
            [("avg", "x")],
        ),
        (
            "SELECT time_bucket(INTERVAL 5 MINUTE, timestamp) b, count(*) FROM logs GROUP BY b",
            (),
            5 * MINUTE,
            [("count", "")],
        ),
        (
            "SELECT service FROM logs GROUP BY 1 HAVING count(*) > 1 ORDER BY min(x) LIMIT 3",
            ("service",),
            0,
            [("count", ""), ("min", "x")],
        ),
        (
            "SELECT sum(x) / count(*) AS y FROM logs WHERE service = 'a'",
            (),
            0,
            [("sum", "x"), ("count", "")],
        ),
        ("SELECT count(*), count(*) FROM logs", (), 0, [("count", "")]),
    ],
)
def test_what_fits(
    sql: str, by: tuple[str, ...], step: int, aggregates: list[tuple[str, str]]
) -> None:
    """Groups by text columns and one bucket of time; each aggregate once."""
    made = fold_of(sql)

    assert made is not None
    assert (made.by, made.step, sorted(made.aggregates)) == (by, step, sorted(aggregates))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(DISTINCT service) FROM logs",
        "SELECT count(*) FILTER (WHERE level = 'a') FROM logs",
        "SELECT string_agg(service, ',' ORDER BY service) FROM logs",
        "SELECT median(x) FROM logs",
        "SELECT sum(x + 1) FROM logs",
        "SELECT sum(seq) FROM logs",
        "SELECT min(message) FROM logs",
        "SELECT x, count(*) FROM logs GROUP BY x",
        "SELECT message, count(*) FROM logs GROUP BY message",
        "SELECT upper(service), count(*) FROM logs GROUP BY 1",
        "SELECT date_trunc('week', timestamp), count(*) FROM logs GROUP BY 1",
        "SELECT date_trunc('minute', timestamp), date_trunc('hour', timestamp) FROM logs GROUP BY 1, 2",
        "SELECT service, count(*) FROM logs GROUP BY ROLLUP (service)",
        "SELECT service, count(*) FROM logs GROUP BY GROUPING SETS ((service), ())",
        "SELECT host, count(*) FROM logs GROUP BY service",
        "SELECT service, count(*) FROM logs GROUP BY 3",
        "SELECT service, sum(count(*)) OVER () FROM logs GROUP BY 1",
        "SELECT count(*) FROM logs WHERE lower(service) = 'a'",
        "SELECT count(*) FROM logs WHERE level = 'ERROR'",
        "SELECT count(*) FROM (SELECT * FROM logs)",
        "SELECT count(*), (SELECT 1) FROM logs",
        "SELECT count(*) FROM logs USING SAMPLE 10%",
        "SELECT count(*) FROM logs a, logs b",
        "SELECT count(*) FROM logs UNION SELECT 1",
        "SELECT service FROM logs",
        "SELECT 1 FROM logs",
    ],
)
def test_what_does_not(sql: str) -> None:
    """Then the rows are read."""
    made = fold_of(sql)

    assert made is None or not (made.aggregates or made.by)


@pytest.mark.parametrize(
    "constant",
    [None, ("VARCHAR", 60), ("INTERVAL", 0), ("INTERVAL", 7 * MINUTE), ("INTERVAL", None)],
)
def test_buckets_that_do_not_divide_a_day(constant: tuple[str, int | None] | None) -> None:
    """DuckDB counts buckets from a Monday in 2000, we from 1970: they agree where a day is whole."""
    parsed = statement(
        "SELECT time_bucket(INTERVAL 7 MINUTE, timestamp), count(*) FROM logs GROUP BY 1"
    )
    found = selects(parsed)
    made = partial(parsed, found, pushdown(found, []))

    assert made is not None
    assert with_step(made, constant) is None


def shaped(sql: str, **columns: pa.Array) -> object:
    """What comes of a fold's result."""
    made = fold_of(sql)
    assert made is not None
    return made.shaped(pa.table(columns))


def test_types_decide_whether_a_fold_counts() -> None:
    """Sums of integers stay integers; text, or sums that left the integers, send it back."""
    one, text, real = pa.array([1]), pa.array(["1"]), pa.array([1.0])
    total = "SELECT sum(x) FROM logs"

    assert shaped(total, a0=one, **{"t:x": one}) is not None
    assert shaped(total, a0=real, **{"t:x": real}) is not None
    assert shaped(total, a0=real, **{"t:x": one}) is None
    assert shaped(total, a0=one, **{"t:x": text}) is None
    assert shaped("SELECT max(x) FROM logs", a0=text) is None
    assert shaped("SELECT max(x) FROM logs", a0=pa.array([True])) is None
    numbers = "SELECT count(*) FROM logs WHERE x > 5"
    assert shaped(numbers, a0=one, **{"t:x": text}) is None
    assert shaped(numbers, a0=one, **{"t:x": real}) is not None
    texts = "SELECT count(*) FROM logs WHERE x = 'a'"
    assert shaped(texts, a0=one, **{"t:x": one}) is None
    assert shaped(texts, a0=one, **{"t:x": text}) is not None


def test_sums_are_cast_to_what_sql_gives() -> None:
    """HUGEINT for integers, DOUBLE else."""
    made = fold_of("SELECT sum(x), sum(y) FROM logs")
    assert made is not None
    text = str(typed_sums(made.tree, {"x": pa.int64(), "y": pa.float64()}))

    assert "HUGEINT" in text
    assert "DOUBLE" in text
    assert "SUM_TYPE" not in text
