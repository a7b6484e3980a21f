"""The questions people ask of logs, and what makes two answers equal. Each store has its own words for them.

A *plain* answer is a list of tuples, and says the same for every store:

    groups    (value, …, count) in any order; times as microseconds UTC
    rows      (microseconds, message), the newest 100 at most. Rows as old as the last of a full page
              are left out: which of several equally old ones is shown is nobody's promise
    top       (value, count), the largest ten; who of several equal ones is the tenth is left out too
    quantile  (value, quantile), interpolated; a store that estimates may be off by ESTIMATE_SHARE
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as arrow_compute

from bench import corpus

pc: Any = arrow_compute
Plain = list[tuple[Any, ...]]
PAGE_ROWS = 100
TOP_ROWS = 10
#: How far an estimated quantile may be from the exact one.
ESTIMATE_SHARE = 0.05
_EPOCH, _MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)  # noqa: DTZ001 - both are naive UTC


@dataclass(frozen=True, slots=True)
class Question:
    """`kind`: the corpus it is asked of; `goal_ms`: what we want to need at most, p50."""

    name: str
    kind: str
    shape: str
    goal_ms: float


QUESTIONS = (
    Question("count by level", "slim", "groups", 5),
    Question("latest 100 of a service and level in an hour", "slim", "rows", 6),
    Question("rare word", "slim", "rows", 3.8),
    Question("phrase count", "slim", "groups", 100),
    Question("rows per minute per service", "slim", "groups", 5),
    Question("regex count", "slim", "groups", 140),
    Question("one trace_id", "rich", "rows", 6),
    Question("one user_id", "rich", "rows", 8),
    Question("p95 duration by service", "rich", "quantile", 29),
    Question("top 10 hosts by errors", "rich", "top", 12),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the questions are about. Times: RFC 3339 text, UTC; from `start`, before `end`."""

    start: str
    end: str
    hour_start: str
    hour_end: str
    word: str
    trace_id: str
    user_id: str
    service: str = "catalog"
    level: str = "error"
    phrase: str = "search returned"
    regex: str = "id=dead[0-9a-f]{4}"


def facts(pieces: int, piece_rows: int) -> Facts:
    """Things that occur in the first `pieces` pieces: a trace and a user of a row in the middle."""
    middle = pieces // 2
    table = corpus.rows(corpus.SEED, piece_rows, middle)
    row = table.slice(piece_rows // 3, 1).to_pylist()[0]
    first = corpus.START_MICROS
    last = first + pieces * piece_rows * (1_000_000 // corpus.ROWS_PER_SECOND)
    minute, hour = 60_000_000, 3_600_000_000
    end = (last // minute + 2) * minute
    return Facts(
        start=time_text(first),
        end=time_text(end),
        hour_start=time_text(max(first, end - hour)),
        hour_end=time_text(end),
        word=corpus.rare_word(middle),
        trace_id=row["trace_id"],
        user_id=row["user_id"],
    )


def time_text(micros: int) -> str:
    """Microseconds as RFC 3339 text with six digits."""
    return pc.strftime(pa.scalar(micros, pa.timestamp("us")), format="%Y-%m-%dT%H:%M:%SZ").as_py()


def micros(text: str) -> int:
    """RFC 3339 text in UTC as microseconds; digits beyond the sixth are cut.

    It is within the time of a question, once a row: so no Arrow here, which takes 0.1 ms for one value.
    """
    whole, _, digits = text.rstrip("Z").partition(".")
    return (datetime.fromisoformat(whole) - _EPOCH) // _MICROSECOND + int((digits + "000000")[:6])


def canonical(plain: Plain, shape: str) -> Plain:
    """An answer in the form that is compared."""
    if shape == "rows":
        found = sorted(plain, reverse=True)
        full = len(found) >= PAGE_ROWS
        return [row for row in found if not full or row[0] > found[-1][0]]
    if shape == "top":
        found = sorted(plain, key=lambda row: (-row[1], row[0]))
        least = found[-1][1] if found else 0
        return [row if row[1] > least else ("", row[1]) for row in found]
    if shape == "quantile":
        return sorted((one, round(float(value), 6)) for one, value in plain)
    return sorted(row for row in plain if row[-1])


def same(mine: Plain, theirs: Plain, shape: str, estimates: bool = False) -> bool:
    """Whether two canonical answers say the same."""
    if shape != "quantile" or not estimates:
        return mine == theirs
    return [row[0] for row in mine] == [row[0] for row in theirs] and all(
        abs(a[1] - b[1]) <= ESTIMATE_SHARE * abs(a[1]) for a, b in zip(mine, theirs, strict=True)
    )


def digest(plain: Plain) -> str:
    """A short name of an answer."""
    return hashlib.sha256(repr(plain).encode()).hexdigest()[:8]
