"""Ten questions that people ask of logs, to us over HTTP and to DuckDB in SQL, with equal answers.

Each answer is brought to the same plain form (tuples, sorted where no order was asked for) before
anything is timed; a difference ends the run.
"""

import hashlib
import http.client
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from bench.nodes import ask

Plain = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Question:
    """One question: our path and parameters, the SQL, and how either answer becomes plain."""

    name: str
    path: str
    params: dict[str, Any]
    sql: str
    plain: Callable[[dict[str, Any]], Plain]


def _moments(answer: dict[str, Any]) -> Plain:
    return [(_naive(row["timestamp"]), row["message"]) for row in answer["rows"]]


def _naive(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


def _groups(*names: str) -> Callable[[dict[str, Any]], Plain]:
    def plain(answer: dict[str, Any]) -> Plain:
        return sorted(tuple(_rounded(row[name]) for name in names) for row in answer["rows"])

    return plain


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _buckets(answer: dict[str, Any]) -> Plain:
    rows = answer.get("rows") or answer.get("buckets") or []
    name = next(
        one for one in ("time", "bucket", "timestamp", "_bucket", "start") if one in rows[0]
    )
    found = [(_naive(row[name]), row["level"], row["count"]) for row in rows if row["count"]]
    return sorted(found)


def questions(table: pa.Table) -> list[Question]:
    """The questions, bound to things that occur in `table` (rich rows, timestamps as text)."""
    times = table["timestamp"].to_pylist()
    third = len(times) // 3
    start, end = times[third], times[2 * third]
    middle = table.slice(third, 1).to_pylist()[0]
    order = next(
        text.rpartition("ord-")[2].split()[0]
        for text in table["message"].slice(third).to_pylist()
        if "order ord-" in text
    )
    newest = "ORDER BY timestamp DESC LIMIT 100"
    rows = "SELECT timestamp, message FROM logs"
    phrase = "card declined"
    return [
        Question(
            "count by level", "/query/stats", {"by": "level", "agg": "count"},
            "SELECT level, count(*) FROM logs GROUP BY level", _groups("level", "count"),
        ),
        Question(
            "count by service, a third of the time", "/query/stats",
            {"by": "service", "agg": "count", "from": start, "to": end},
            "SELECT service, count(*) FROM logs WHERE timestamp >= "
            f"TIMESTAMP '{start[:-1]}' AND timestamp < TIMESTAMP '{end[:-1]}' GROUP BY service",
            _groups("service", "count"),
        ),
        Question(
            "histogram by minute and level", "/query/histogram", {"step": "1m", "by": "level"},
            "SELECT time_bucket(INTERVAL 1 MINUTE, timestamp), level, count(*) FROM logs GROUP BY ALL",
            _buckets,
        ),
        Question("newest 100 rows", "/query", {"limit": 100}, f"{rows} {newest}", _moments),
        Question(
            "newest 100 errors of a service", "/query",
            {"limit": 100, "service": "payments", "level": "error"},
            f"{rows} WHERE service = 'payments' AND level = 'error' {newest}", _moments,
        ),
        Question(
            "phrase, counted", "/query/stats", {"agg": "count", "search": f'"{phrase}"'},
            f"SELECT count(*) FROM logs WHERE contains(message, '{phrase}')", _groups("count"),
        ),
        Question(
            "rare word", "/query", {"limit": 100, "search": f'"ord-{order}"'},
            f"{rows} WHERE contains(message, 'ord-{order}') {newest}", _moments,
        ),
        Question(
            "regex, counted", "/query/stats",
            {"agg": "count", "regex": r"charged [0-9]+\.90 EUR for ord-[0-9]*7$"},
            "SELECT count(*) FROM logs WHERE regexp_matches(message,"
            r" 'charged [0-9]+\.90 EUR for ord-[0-9]*7$')", _groups("count"),
        ),
        Question(
            "one trace", "/query", {"limit": 1000, "trace_id": middle["trace_id"]},
            f"{rows} WHERE trace_id = '{middle['trace_id']}' ORDER BY timestamp DESC", _moments,
        ),
        Question(
            "p95 of a duration by service", "/query/stats",
            {"by": "service", "agg": "p95(duration_ms),avg(duration_ms)"},
            "SELECT service, quantile_cont(duration_ms, 0.95), avg(duration_ms) FROM logs GROUP BY service",
            _groups("service", "p95(duration_ms)", "avg(duration_ms)"),
        ),
    ]  # fmt: skip


def ours(link: http.client.HTTPConnection, question: Question) -> Plain:
    """Our answer; it must be complete."""
    answer = ask(link, question.path, question.params)
    if not answer["complete"]:
        raise RuntimeError(f"{question.name}: partial answer: {answer['missing']}")
    return question.plain(answer)


def theirs(rows: Plain, question: Question) -> Plain:
    """An SQL answer in the same form."""
    plain = [tuple(_rounded(value) for value in row) for row in rows]
    return plain if question.path == "/query" else sorted(plain)


def digest(plain: Plain) -> str:
    """A short name of an answer."""
    return hashlib.sha256(repr(plain).encode()).hexdigest()[:8]
