"""Statements as the engine's parser sees them, without its process."""

import duckdb

from query.sql_guard import Statement, checked

_PARSER = duckdb.connect(":memory:", config={"errors_as_json": "true"})


def statement(sql: str) -> Statement:
    """The checked statement; raises what the guard raises."""
    found = _PARSER.execute(
        "SELECT json_serialize_sql(?::VARCHAR, skip_null := true, skip_empty := true)", [sql]
    ).fetchall()
    return checked(sql, found[0][0])
