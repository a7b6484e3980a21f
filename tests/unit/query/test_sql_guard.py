"""What SQL may say: one SELECT over `logs`; everything else is refused with its place."""

import pytest

from query.sql_guard import refused
from records.errors import InvalidRequest
from tests.unit.query.sql_trees import statement

ALLOWED = [
    "SELECT * FROM logs",
    "FROM logs",
    "SELECT service, count(*) FROM logs GROUP BY ALL ORDER BY ALL LIMIT 3",
    "WITH a AS (SELECT * FROM logs), b AS (FROM a) SELECT * FROM b JOIN a USING (service)",
    "SELECT 1 UNION ALL SELECT 2",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t",
    "SELECT list_transform([1], lambda x: x + 1), row_number() OVER (ORDER BY timestamp) FROM logs",
    "SELECT * FROM range(10) r, unnest([1, 2]) u",
    "SELECT attributes->>'$.a', j.key FROM logs, json_each(attributes) j",
    "SELECT (SELECT max(x) FROM logs), EXISTS (SELECT 1 FROM logs)",
    "DESCRIBE logs",
    "SUMMARIZE SELECT service FROM logs",
    "VALUES (1, 2)",
    "SELECT DISTINCT ON (service) * FROM logs USING SAMPLE 10%",
    "SELECT COLUMNS('s.*') FROM LOGS",
    "SELECT now(), current_date, CASE WHEN true THEN 1 END, TRY_CAST('1' AS INT)",
]
REFUSED = [
    ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
    ("SELECT * FROM '/etc/passwd'", "/etc/passwd"),
    ("SELECT * FROM logs WHERE x IN (SELECT content FROM read_text('/etc/passwd'))", "read_text"),
    ("WITH a AS (SELECT * FROM glob('/*')) SELECT * FROM a", "glob"),
    ("SELECT * FROM parquet_scan('x')", "parquet_scan"),
    ("SELECT * FROM query('SELECT 1')", "query"),
    ("SELECT * FROM query_table('logs')", "query_table"),
    ("SELECT * FROM json_execute_serialized_sql('{}')", "json_execute_serialized_sql"),
    ("SELECT * FROM duckdb_settings()", "duckdb_settings"),
    ("SELECT * FROM pragma_version()", "pragma_version"),
    ("SELECT * FROM information_schema.tables", "information_schema"),
    ("SELECT * FROM main.logs", "logs"),
    ("SELECT * FROM pg_class", "pg_class"),
    ("SELECT getenv('HOME')", "getenv"),
    ("SELECT current_setting('memory_limit')", "current_setting"),
    ("SELECT getvariable('x')", "getvariable"),
    ("SELECT sleep_ms(1000)", "sleep_ms"),
    ("SELECT pg_sleep(1)", "pg_sleep"),
    ("SELECT main.current_setting('x')", "schema"),
    ("SELECT count(*) FILTER (WHERE getenv('A') = 'b') FROM logs", "getenv"),
    ("SELECT sum(1) OVER (ORDER BY current_setting('x')) FROM logs", "current_setting"),
    ("COPY logs TO '/tmp/x'", "only SELECT"),
    ("COPY (SELECT 1) TO '/tmp/x'", "only SELECT"),
    ("ATTACH '/tmp/x.db'", "only SELECT"),
    ("INSTALL httpfs", "only SELECT"),
    ("LOAD httpfs", "only SELECT"),
    ("SET memory_limit = '9GB'", "only SELECT"),
    ("RESET memory_limit", "only SELECT"),
    ("PRAGMA version", "only SELECT"),
    ("CALL pragma_version()", "only SELECT"),
    ("EXPORT DATABASE '/tmp/x'", "only SELECT"),
    ("CREATE TABLE x AS SELECT 1", "only SELECT"),
    ("INSERT INTO logs VALUES (1)", "only SELECT"),
    ("DELETE FROM logs", "only SELECT"),
    ("DROP TABLE logs", "only SELECT"),
    ("EXPLAIN SELECT 1", "only SELECT"),
    ("CREATE MACRO f() AS 1", "only SELECT"),
    ("PREPARE x AS SELECT 1", "only SELECT"),
    ("CHECKPOINT", "only SELECT"),
    ("SELECT 1; SELECT 2", "2 statements"),
    ("SELECT 1; DROP TABLE logs", "only SELECT"),
    ("", "0 statements"),
    ("-- nothing", "0 statements"),
    ("SELECT $1", "parameter"),
    ("SELECT ?", "parameter"),
    ("SHOW TABLES", "SHOW"),
    ("FROM logs PIVOT (count(*) FOR level IN ('a'))", "pivot"),
    ("WITH logs AS (SELECT 1) SELECT * FROM logs", "another name"),
    ("SELECT * FROM logs AT (VERSION => 1)", "logs"),
    ("SELECT " + "abs(" * 400 + "1" + ")" * 400, "nested"),
]  # fmt: skip


@pytest.mark.parametrize("sql", ALLOWED)
def test_selects_are_allowed(sql: str) -> None:
    """Whatever reads only `logs` and computes."""
    assert statement(sql).sql == sql


@pytest.mark.parametrize(("sql", "reason"), REFUSED)
def test_everything_else_is_refused(sql: str, reason: str) -> None:
    """The reason names what was not allowed."""
    with pytest.raises(InvalidRequest) as refusal:
        statement(sql)

    assert reason in refusal.value.message


def test_a_refusal_tells_the_place() -> None:
    """The character counts as the user counts, also behind letters of several bytes; and the line."""
    with pytest.raises(InvalidRequest) as refusal:
        statement("SELECT 'Größe',\n  getenv('X')")

    assert refusal.value.details == {"parameter": "query", "position": 18, "line": 2}
    assert "line 2, near \"getenv('X')\"" in refusal.value.message
    assert "position" not in refused("x", "SELECT", 99).details


@pytest.mark.parametrize(
    ("sql", "names", "star"),
    [
        (
            "SELECT service, l.Status FROM logs l WHERE x > 1 ORDER BY y",
            "service Status x y",
            False,
        ),
        ("SELECT count(*) FROM logs", "", False),
        ("SELECT * FROM logs", "", True),
        ("SELECT logs.* EXCLUDE (x) FROM logs", "", True),
        ("SELECT * FROM (SELECT service FROM logs)", "service", False),
        ("WITH a AS (SELECT level FROM logs) SELECT a.* FROM a", "level", False),
        ("SELECT l FROM logs l", "l", True),
        ("SELECT a.x FROM logs a JOIN logs b USING (trace_id)", "x trace_id", False),
        ("SELECT * FROM logs a, (SELECT 1) b", "", True),
        ("SELECT a.level FROM logs a NATURAL JOIN logs b", "level", True),
        ("SELECT thing.part FROM logs", "thing part", False),
        ("SUMMARIZE logs", "", True),
    ],
)
def test_the_columns_that_are_read(sql: str, names: str, star: bool) -> None:
    """By name as written; `*` only where it stands for columns of `logs`."""
    found = statement(sql)

    assert found.names == set(names.split())
    assert found.star is star


def test_names_that_the_query_defines() -> None:
    """Aliases, CTEs, lambdas: a column of that name need not be a field."""
    found = statement(
        "WITH c AS (SELECT x AS Y FROM logs t) SELECT list_filter([1], lambda z: z > y) FROM c"
    )

    assert {"c", "y", "t", "z", "logs"} <= found.defined
    assert found.nested
    assert found.scans == 1
