"""WHERE to filters: what is pushed, what is exact; what is not sure is left to DuckDB."""

import pytest

from query.sql_plan import Pushdown, Select, needed_fields, pushdown, pushed_limit, selects
from query.sql_where import superset_pattern
from records.predicates import TRUE, Filter
from records.timestamps import MAX_MICROS, MIN_MICROS, TimeRange
from tests.unit.query.sql_trees import statement


def only(sql: str) -> Select:
    """The one SELECT over `logs`."""
    found = selects(statement(sql))
    assert found is not None
    (select,) = found
    return select


def there(name: str, tree: Filter) -> Filter:
    """A negation, as it is pushed: the field is there, and it is not so."""
    return ("and", ("exists", name), ("not", tree))


PUSHED: list[tuple[str, Filter, bool, set[tuple[str, str]]]] = [
    ("service = 'pay'", ("eq", "service", "pay"), True, set()),
    ("'pay' = SERVICE", ("eq", "service", "pay"), True, set()),
    ("service <> 'pay'", there("service", ("eq", "service", "pay")), True, set()),
    ("NOT service = 'pay'", there("service", ("eq", "service", "pay")), True, set()),
    ("level = 'error'", ("eq", "level", "error"), True, set()),
    ("level = 'ERROR'", ("eq", "level", "ERROR"), False, set()),
    ("level <> 'ERROR'", ("exists", "level"), False, set()),
    ("service IN ('a', 'b')", ("in", "service", ("a", "b")), True, set()),
    ("status >= 500", ("range", "status", 500, None), True, {("status", "number")}),
    ("500 > status", ("range", "status", None, 500), True, {("status", "number")}),
    ("status = 4.5", ("eq", "status", 4.5), True, {("status", "number")}),
    ("status = -3", ("eq", "status", -3), True, {("status", "number")}),
    ("status > 9007199254740993", TRUE, False, set()),
    ("user = 'ann'", ("eq", "user", "ann"), True, {("user", "text")}),
    ("user <> '500'", TRUE, False, set()),
    ("user > 'a'", TRUE, False, set()),
    ("user IS NULL", ("not", ("exists", "user")), True, set()),
    ("NOT user IS NULL", ("exists", "user"), True, set()),
    ("message LIKE '%a b%'", ("phrase", "a b"), True, set()),
    ("message NOT LIKE '%ab%'", there("message", ("phrase", "ab")), True, set()),
    ("message LIKE '%a_b%' ESCAPE '!'", TRUE, False, set()),
    ("message ILIKE '%a%'", TRUE, False, set()),
    ("service LIKE 'p%'", ("regex", "service", "^p(?s:.*)$"), True, set()),
    ("user LIKE 'a.b'", ("regex", "user", "^a\\.b$"), True, {("user", "text")}),
    ("contains(message, 'x')", ("phrase", "x"), True, set()),
    ("NOT contains(message, 'x')", there("message", ("phrase", "x")), True, set()),
    ("regexp_matches(message, 'a[0-9]')", ("regex", "message", "a[0-9]"), False, set()),
    ("NOT regexp_matches(message, 'a')", TRUE, False, set()),
    ("service = 'a' OR host = 'b'", ("or", ("eq", "service", "a"), ("eq", "host", "b")), True, set()),
    ("service = 'a' OR lower(user) = 'b'", TRUE, False, set()),
    ("service = 'a' AND lower(user) = 'b'", ("eq", "service", "a"), False, set()),
    ("service = 5", TRUE, False, set()),
    ("seq = 5", TRUE, False, set()),
    ("ok", TRUE, False, set()),
    ("service = host", TRUE, False, set()),
    ("_id = 'x'", TRUE, False, set()),
    ("service = (SELECT 'a')", TRUE, False, set()),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "tree", "exact", "probes"), PUSHED)
def test_conditions(
    condition: str, tree: Filter, exact: bool, probes: set[tuple[str, str]]
) -> None:
    """One by one."""
    where = only(f"SELECT service FROM logs WHERE {condition}").where

    assert (where.filter, where.exact, set(where.probes)) == (tree, exact, probes)


@pytest.mark.parametrize(
    ("sql", "tree"),
    [
        ("SELECT upper(service) AS lv FROM logs WHERE lv = 'A'", TRUE),
        ("SELECT upper(service) AS service FROM logs WHERE service = 'A'", ("eq", "service", "A")),
        ("SELECT 1 FROM logs l WHERE l.service = 'a'", ("eq", "service", "a")),
        ("SELECT 1 FROM logs l WHERE m.service = 'a'", TRUE),
        ("SELECT 1 FROM logs l (a, b) WHERE a = 'x'", TRUE),
        ("SELECT 1 FROM logs WHERE service = 'x' USING SAMPLE 5 ROWS", TRUE),
        ("SELECT 1 FROM logs TABLESAMPLE 5% WHERE service = 'x'", TRUE),
    ],
)
def test_names_mean_what_sql_means(sql: str, tree: Filter) -> None:
    """Columns before aliases; another table's column, or a renamed one, is none of `logs`."""
    assert only(sql).where.filter == tree


def test_several_selects_share_a_union() -> None:
    """What any of them needs; joins need everything."""
    union = statement(
        "SELECT 1 FROM logs WHERE service = 'a' UNION SELECT 2 FROM logs WHERE service = 'b'"
    )
    shared = pushdown(selects(union), [])

    assert shared.filter == ("or", ("eq", "service", "a"), ("eq", "service", "b"))
    assert not shared.exact
    assert selects(statement("SELECT 1 FROM logs a JOIN logs b USING (x)")) is None
    assert pushdown(None, []) == Pushdown()


@pytest.mark.parametrize(
    ("where", "values", "time"),
    [
        ("timestamp >= 'x' AND timestamp < 'y'", [10, 20], TimeRange(10, 20)),
        ("timestamp > 'x' AND timestamp <= 'y'", [10, 20], TimeRange(11, 21)),
        ("timestamp BETWEEN 'x' AND 'y'", [10, 20], TimeRange(10, 21)),
        ("timestamp = 'x'", [10], TimeRange(10, 11)),
        ("'x' < timestamp", [10], TimeRange(11, MAX_MICROS)),
        ("timestamp > 'x'", [None], TimeRange(MIN_MICROS, MAX_MICROS)),
        ("timestamp > 'x' AND timestamp < 'y'", [20, 10], TimeRange(21, 21)),
        ("timestamp > 'x' OR service = 'a'", [], TimeRange(MIN_MICROS, MAX_MICROS)),
        ("timestamp > random()", [], TimeRange(MIN_MICROS, MAX_MICROS)),
        ("timestamp <> 'x'", [], TimeRange(MIN_MICROS, MAX_MICROS)),
    ],
)
def test_times(where: str, values: list[int | None], time: TimeRange) -> None:
    """Half-open, to the microsecond; constants are the engine's to evaluate."""
    found = selects(statement(f"SELECT 1 FROM logs WHERE {where}"))
    constants = [("TIMESTAMP", value) for value in values]

    assert found is not None
    assert len(found[0].moments) == len(values)
    assert pushdown(found, constants).time == time


def test_times_of_other_precision_are_wider() -> None:
    """A nanosecond constant may lie between two microseconds: not exact."""
    found = selects(statement("SELECT 1 FROM logs WHERE timestamp > 'x'"))
    bound = pushdown(found, [("TIMESTAMP_NS", 10)])

    assert not bound.exact
    assert bound.time.start < 11


@pytest.mark.parametrize(
    ("sql", "limit"),
    [
        ("SELECT message FROM logs LIMIT 5", (5, True)),
        ("SELECT * FROM logs WHERE service = 'a' ORDER BY timestamp LIMIT 5 OFFSET 2", (7, False)),
        ("SELECT upper(level) FROM logs ORDER BY timestamp DESC LIMIT 5", (5, True)),
        ("SELECT message FROM logs ORDER BY level LIMIT 5", (0, True)),
        ("SELECT message FROM logs ORDER BY timestamp, level LIMIT 5", (0, True)),
        ("SELECT DISTINCT message FROM logs LIMIT 5", (0, True)),
        ("SELECT count(*) FROM logs LIMIT 5", (0, True)),
        ("SELECT some_function(message) FROM logs LIMIT 5", (0, True)),
        ("SELECT row_number() OVER () FROM logs LIMIT 5", (0, True)),
        ("SELECT message FROM logs WHERE lower(level) = 'a' LIMIT 5", (0, True)),
        ("SELECT message FROM logs WHERE status = 5 LIMIT 5", (0, True)),
        ("SELECT -timestamp AS timestamp FROM logs ORDER BY timestamp LIMIT 5", (0, True)),
        ("SELECT unnest([1, 2]) FROM logs LIMIT 5", (0, True)),
        ("SELECT level FROM logs GROUP BY level LIMIT 5", (0, True)),
        ("SELECT message FROM logs LIMIT 10%", (0, True)),
        ("SELECT * FROM (SELECT * FROM logs) LIMIT 5", (0, True)),
    ],
)
def test_limits_go_down_only_where_any_such_rows_will_do(sql: str, limit: tuple[int, bool]) -> None:
    """The first n in the order of time."""
    parsed = statement(sql)
    found = selects(parsed)

    assert pushed_limit(parsed, found, pushdown(found, [])) == limit


def test_the_fields() -> None:
    """Core names in their own spelling, others as written."""
    sql = "SELECT Service, userId, _id FROM logs WHERE LEVEL = 'a'"

    assert set(needed_fields(statement(sql))) == {"service", "userId", "level"}


@pytest.mark.parametrize(
    ("pattern", "same"),
    [
        ("id=dead[0-9a-f]{4}", "id=dead[0-9a-f]{4}"),
        ("a.b|^c$", "a(?s:.)b|^c$"),
        (r"\d+\.x", r"\d+\.x"),
        (r"\w", None),
        (r"\bx", None),
        ("[^a]", None),
        ("[[:alpha:]]", None),
        (r"[\d]", None),
        ("(?i)a", None),
        ("ä", None),
        ("[a-]", None),
        ("a\\", None),
        ("x" * 501, None),
    ],
)
def test_only_patterns_that_both_engines_read_alike_are_pushed(
    pattern: str, same: str | None
) -> None:
    """RE2 in DuckDB, Rust's regex at the replicas."""
    assert superset_pattern(pattern) == same
