"""Random rows, random SQL over them, and what DuckDB says of the whole table: the reference for POST /sql."""

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import duckdb
import pyarrow as pa

from tests.support.fake_store import FakeEntry, Row, make_entry, table_of
from tests.unit.query.helpers import HOUR, NOW

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SERVICES = ("pay", "shop", "auth", "käse")
LEVELS = ("info", "warn", "error")
WORDS = ("card", "declined", "100%", "id=dead0", "a_b", "Größe", "(x)", "line\nbreak", "")
#: Fields that only some blocks have, or only as attributes; their types never vary.
FIELDS = ("status", "d", "user", "ok", "region")


def random_rows(rng: Random, count: int, start: int) -> list[Row]:
    """Rows of one service within three hours; several at one moment, some fields absent."""
    service = rng.choice(SERVICES)
    rows = []
    for _ in range(count):
        row: Row = {
            "timestamp": start + rng.randrange(3 * HOUR) // 1000 * 1000,
            "service": service,
            "level": rng.choice(LEVELS),
            "message": " ".join(rng.choice(WORDS) for _ in range(3)),
            "host": rng.choice(["h1", "h2", None]),
            "trace_id": rng.choice([None, None, f"t{rng.randrange(9)}"]),
            "status": rng.choice([200, 404, 500, None]),
            "d": rng.choice([None, 0.0, -1.5, rng.random() * 100]),
            "user": rng.choice([None, "ann", "bob", "ANN", "x'y"]),
            "ok": rng.choice([True, False, None]),
            "region": rng.choice([None, "eu", "us"]),
        }
        rows.append({name: value for name, value in row.items() if value is not None})
    dropped = [name for name in FIELDS if rng.random() < 0.3]
    return [{n: v for n, v in row.items() if n not in dropped} for row in rows]


def stored(rows: list[Row]) -> list[Row]:
    """The rows as they are written: `region` lies in the attributes."""
    result = []
    for row in rows:
        kept = {name: value for name, value in row.items() if name != "region"}
        if "region" in row:
            kept["attributes"] = json.dumps({"region": row["region"], "deep": {"x": 1}})
        result.append(kept)
    return result


def random_entries(rng: Random, count: int, shard_of: Any) -> tuple[list[FakeEntry], list[Row]]:
    """(entries, all their rows as the reference sees them)."""
    entries, everything = [], []
    for number in range(count):
        rows = random_rows(rng, rng.randrange(1, 60), NOW + rng.randrange(4) * HOUR)
        shard = shard_of(rows[0]["service"])
        entries.append(make_entry(number, shard, stored(rows), received_at=NOW + number))
        everything += rows
    return entries, everything


def reference(rows: list[Row]) -> duckdb.DuckDBPyConnection:
    """A database with all rows as the table `logs`."""
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'").fetchall()
    table = table_of([{**row, "timestamp": row["timestamp"]} for row in rows])
    columns = {name: table[name] for name in table.column_names}
    for name, column in columns.items():
        if pa.types.is_dictionary(column.type):
            columns[name] = column.cast(pa.string())
    columns.setdefault("attributes", pa.nulls(table.num_rows, pa.string()))
    connection.register("logs", pa.table(columns))
    return connection


def _moment(rng: Random) -> str:
    micros = NOW + rng.randrange(-HOUR, 8 * HOUR) // 1000 * 1000
    form = rng.choice(["stamp", "interval", "text", "zone"])
    if form == "interval":
        return (
            f"to_timestamp({NOW // 1_000_000}) + INTERVAL ({(micros - NOW) // 60_000_000}) MINUTE"
        )
    text = (EPOCH + timedelta(microseconds=micros)).isoformat(" ").removesuffix("+00:00")
    if form == "zone":
        return f"TIMESTAMPTZ '{text}+02:00'"
    return f"TIMESTAMP '{text}'" if form == "stamp" else f"'{text}'"


def condition(rng: Random, depth: int = 0, simple: bool = False) -> str:
    """One condition; `simple`: a comparison that begins with the column's name."""
    pick = rng.randrange(6 if simple else 19 if depth < 2 else 16)
    text = rng.choice(["service", "level", "host", "trace_id", "user", "region"])
    value = rng.choice(["pay", "error", "ERROR", "h1", "t3", "ann", "eu", "käse", "x''y", "500"])
    number, operator = rng.choice(["status", "d"]), rng.choice(["=", "<>", "<", "<=", ">", ">="])
    if pick < 3:
        return f"{text} {rng.choice(['=', '<>'])} '{value}'"
    if pick == 3:
        return f"{text} {rng.choice(['IN', 'NOT IN'])} ('{value}', 'info', 'shop')"
    if pick in (4, 5):
        return f"{number} {operator} {rng.choice(['404', '200', '0', '-1.5', '33.3'])}"
    if pick == 6:
        return f"{number} {rng.choice(['', 'NOT '])}BETWEEN 0 AND 404"
    if pick == 7:
        return f"{rng.choice([*FIELDS, 'host', 'trace_id'])} IS {rng.choice(['', 'NOT '])}NULL"
    if pick in (8, 9, 10):
        return f"timestamp {rng.choice(['<', '<=', '>', '>=', '='])} {_moment(rng)}"
    if pick == 11:
        return f"timestamp BETWEEN {_moment(rng)} AND {_moment(rng)}"
    if pick == 12:
        pattern = rng.choice(
            ["%card%", "card%", "%decl%id%", "%100!%%", "_ard%", "%a_b%", "", "%(x)"]
        )
        escape = " ESCAPE '!'" if "!" in pattern else ""
        return f"message {rng.choice(['LIKE', 'NOT LIKE', 'ILIKE'])} '{pattern}'{escape}"
    if pick == 13:
        pattern = rng.choice(
            ["dead[0-9]", "card.declined", "^card", r"\d", "(x|y)", "Gr..e", "a{1,2}"]
        )
        return f"regexp_matches(message, '{pattern}')"
    if pick == 14:
        return rng.choice(
            [
                "contains(message, 'card')",
                "lower(user) = 'ann'",
                "ok",
                "NOT ok",
                "length(message) > 9",
            ]
        )
    if pick == 15:
        name, pattern = (
            rng.choice(["service", "user", "host"]),
            rng.choice(["p%", "%n_", "h%", "ann"]),
        )
        return f"{name} {rng.choice(['LIKE', 'NOT LIKE'])} '{pattern}'"
    parts = [condition(rng, depth + 1) for _ in range(2)]
    if pick == 16:
        return f"NOT ({parts[0]})"
    return "(" + f" {rng.choice(['AND', 'OR'])} ".join(parts) + ")"


def where(rng: Random) -> str:
    """ " WHERE …" of none to three conditions."""
    parts = [condition(rng) for _ in range(rng.randrange(4))]
    return f" WHERE {' AND '.join(parts)}" if parts else ""


_KEYS = ("service", "level", "host", "user", "status", "date_trunc('hour', timestamp)",
         "time_bucket(INTERVAL 15 MINUTE, timestamp)", "date_trunc('week', timestamp)",
         "upper(level)")  # fmt: skip
_VALUES = ("count(*)", "count(status)", "count(DISTINCT user)", "sum(status)", "avg(status)", "min(d)",
           "max(d)",
           "min(timestamp)", "max(timestamp)", "sum(status) / count(*)", "min(trace_id)", "max(service)",
           "count(*) FILTER (WHERE level = 'error')", "quantile_cont(d, 0.5)", "count(region)",
           "count(*) * 2 + 1", "max(region)")  # fmt: skip


def random_query(rng: Random) -> str:
    """A SELECT whose answer does not depend on the order of rows."""
    chosen = where(rng)
    pick = rng.randrange(8)
    if pick < 4:
        easy = pick < 2  # what storage nodes can do: such queries shall not be rare
        keys = rng.sample(_KEYS[:3] if easy else _KEYS, rng.randrange(3))
        values = rng.sample(_VALUES[:2] + _VALUES[3:12] if easy else _VALUES, rng.randrange(1, 4))
        listed = [f"{one} AS k{i}" if rng.random() < 0.5 else one for i, one in enumerate(keys)]
        grouped = ", ".join(rng.choice([one, str(i + 1)]) for i, one in enumerate(keys))
        group = f" GROUP BY {rng.choice([grouped, 'ALL'])}" if keys else ""
        having = rng.choice(["", "", " HAVING count(*) > 2"]) if keys else ""
        return f"SELECT {', '.join([*listed, *values])} FROM logs{chosen}{group}{having}"
    if pick == 4:
        names = rng.sample(
            ["timestamp", "service", "level", "message", "status", "d", "user", "region", "host"], 3
        )
        return f"SELECT {rng.choice(['', 'DISTINCT '])}{', '.join(names)} FROM logs AS l{chosen}"
    if pick == 5:
        order = rng.choice(["", " ORDER BY timestamp", " ORDER BY timestamp DESC"])
        limit = rng.choice([1, 3, 1000])
        return (
            f"SELECT count(*), min(timestamp) FROM (SELECT timestamp FROM logs{chosen}{order} LIMIT {limit})"
            if order
            else f"SELECT count(*) FROM (SELECT 1 FROM logs{chosen} LIMIT {limit})"
        )
    if pick == 6:
        other = where(rng)
        return (
            f"WITH a AS (SELECT service, count(*) AS n FROM logs{chosen} GROUP BY 1), b AS (SELECT * FROM a) "
            f"SELECT a.service, a.n, (SELECT count(*) FROM logs{other}) FROM a JOIN b USING (service)"
        )
    return (
        f"SELECT level, count(*) FROM logs{chosen} GROUP BY 1 UNION ALL "
        f"SELECT service, count(*) FROM logs{where(rng)} GROUP BY 1"
    )
