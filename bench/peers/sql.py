"""The questions in SQL, for stores that differ in a handful of words."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.questions import PAGE_ROWS, TOP_ROWS, Facts


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a store says what SQL leaves open. `word` finds a whole word, `phrase` a piece of text."""

    micros: str
    minute: str
    time: Callable[[str], str]
    word: Callable[[str], str]
    phrase: Callable[[str], str]
    regex: Callable[[str], str]
    p95: str


def _like(text: str) -> str:
    return f"message LIKE '%{text}%'"


def _stamp(text: str) -> str:
    return f"TIMESTAMP '{text.rstrip('Z').replace('T', ' ')}'"


DUCKDB = Dialect(
    micros="epoch_us(timestamp)",
    minute="epoch_us(date_trunc('minute', timestamp))",
    time=_stamp,
    word=lambda text: f"contains(message, '{text}')",
    phrase=lambda text: f"contains(message, '{text}')",
    regex=lambda text: f"regexp_matches(message, '{text}')",
    p95="quantile_cont(duration_ms, 0.95)",
)
POSTGRES = Dialect(
    micros="(extract(epoch FROM timestamp) * 1000000)::bigint",
    minute="(extract(epoch FROM date_trunc('minute', timestamp)) * 1000000)::bigint",
    time=_stamp,
    word=_like,
    phrase=_like,
    regex=lambda text: f"message ~ '{text}'",
    p95="percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms)",
)
CLICKHOUSE = Dialect(
    micros="toUnixTimestamp64Micro(timestamp)",
    minute="toUnixTimestamp(toStartOfMinute(timestamp)) * 1000000",
    time=lambda text: f"toDateTime64('{text.rstrip('Z').replace('T', ' ')}', 6, 'UTC')",
    word=lambda text: f"hasToken(message, '{text}')",
    phrase=_like,
    regex=lambda text: f"match(message, '{text}')",
    p95="quantile(0.95)(duration_ms)",
)


def queries(dialect: Dialect, table: str, facts: Facts) -> dict[str, str]:
    """Each question's SQL over `table`."""
    rows = f"SELECT {dialect.micros}, message FROM {table} WHERE"
    newest = f"ORDER BY timestamp DESC LIMIT {PAGE_ROWS}"
    count = f"SELECT count(*) FROM {table} WHERE"
    hour = f"timestamp >= {dialect.time(facts.hour_start)} AND timestamp < {dialect.time(facts.hour_end)}"
    chosen = f"service = '{facts.service}' AND level = '{facts.level}'"
    return {
        "count by level": f"SELECT level, count(*) FROM {table} GROUP BY level",
        "latest 100 of a service and level in an hour": f"{rows} {chosen} AND {hour} {newest}",
        "rare word": f"{rows} {dialect.word(facts.word)} {newest}",
        "phrase count": f"{count} {dialect.phrase(facts.phrase)}",
        "rows per minute per service": f"SELECT {dialect.minute} AS minute, service, count(*)"
        f" FROM {table} GROUP BY minute, service",
        "regex count": f"{count} {dialect.regex(facts.regex)}",
        "one trace_id": f"{rows} trace_id = '{facts.trace_id}' {newest}",
        "one user_id": f"{rows} user_id = '{facts.user_id}' {newest}",
        "p95 duration by service": f"SELECT service, {dialect.p95} FROM {table} GROUP BY service",
        "top 10 hosts by errors": f"SELECT host, count(*) AS n FROM {table} WHERE level = 'error'"
        f" GROUP BY host ORDER BY n DESC, host LIMIT {TOP_ROWS}",
    }
