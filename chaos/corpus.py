"""Rows that can be regenerated: the content of a row is a function of (seed, client, number). Pure.

So no payload is kept to compare with: what is read back is digested, and the digest compared with
that of the row as it must have been sent. A row names itself in fields of its own (`chaos_client`,
`chaos_number`), and belongs to a group of GROUP_ROWS neighbours, which a reader can ask for.

The content is awkward on purpose: texts with quotes, line ends, several scripts and none, integers
beyond 2**53, floats that need all their digits, times with all six, spread over several hours.

Source: Cassandra's Harry (a model that is inverted instead of stored).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

#: Rows with neighbouring numbers that a reader asks for together.
GROUP_ROWS = 100
#: Times of rows lie in so many microseconds before the start of the run.
SPREAD_MICROS = 3 * 3_600_000_000
LEVELS = ("debug", "info", "info", "info", "warn", "error")
WORDS = (
    "card declined", "ümläut", "支払い", "дом", "emoji 🪵", 'a "quote"', "back\\slash", "tab\there",
    "line\nend", "{json: [1, 2]}", "a=b c=d", "%d %s", "<b>", "0x00", "null", "", "\u2028", "e\u0301",
)  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def row_name(client: str, number: int) -> str:
    """How a row is called in histories and verdicts."""
    return f"{client}:{number}"


def split_name(name: str) -> tuple[str, int] | None:
    """(client, number); None if no row of ours can be called that."""
    client, separator, number = name.rpartition(":")
    if not separator or not client or not number.isdecimal():
        return None
    return client, int(number)


def group_of(client: str, number: int) -> str:
    """The group that a row belongs to; numbers start at 1."""
    return f"{client}:{(number - 1) // GROUP_ROWS}"


def group_range(group: str) -> tuple[str, int, int]:
    """(client, first number, last number) of a group."""
    client, _, index = group.rpartition(":")
    first = int(index) * GROUP_ROWS + 1
    return client, first, first + GROUP_ROWS - 1


@dataclass(frozen=True, slots=True)
class Corpus:
    """The rows of one run. `start_micros`: when it began, microseconds since 1970."""

    seed: int
    start_micros: int

    def row(self, client: str, number: int, service: str) -> dict[str, Any]:
        """The row as a client sends it; without `service` if that is empty."""
        bits = int.from_bytes(
            hashlib.blake2b(f"{self.seed}:{client}:{number}".encode(), digest_size=32).digest()
        )
        words = [WORDS[(bits >> 5 * i) % len(WORDS)] for i in range(bits % 7)]
        micros = self.start_micros - (bits >> 40) % SPREAD_MICROS
        row = {
            "timestamp": time_text(micros),
            "level": LEVELS[(bits >> 90) % len(LEVELS)],
            "message": f"chaos {number} of {client}: " + "; ".join(words) + ".",
            "chaos_client": client,
            "chaos_number": number,
            "chaos_group": group_of(client, number),
            "chaos_big": (bits >> 100) % (1 << 62),
            "chaos_ratio": ((bits >> 170) % (1 << 52) + 0.5) / (1 << 53),
            "chaos_text": "x" * ((bits >> 230) % 120) + WORDS[(bits >> 240) % len(WORDS)] + "|",
        }
        return {"service": service, **row} if service else row

    def digest(self, client: str, number: int, service: str) -> str:
        """The digest that the row has wherever it is read."""
        return row_digest(self.row(client, number, service))


def moment_micros(corpus: Corpus, client: str, number: int) -> int:
    """The time that a row bears, microseconds since 1970."""
    moment = datetime.fromisoformat(corpus.row(client, number, "")["timestamp"])
    return (moment - _EPOCH) // timedelta(microseconds=1)


def time_text(micros: int) -> str:
    """RFC 3339 with six digits and Z."""
    moment = _EPOCH + timedelta(microseconds=micros)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


#: What a client sends and a reader must get back, in this order. A server's own fields are not in it.
_FIELDS = (
    "service", "level", "message", "chaos_client", "chaos_number", "chaos_group", "chaos_big",
    "chaos_ratio", "chaos_text",
)  # fmt: skip


def row_digest(row: Mapping[str, Any]) -> str:
    """12 hex digits of the fields that came from a client; the time counts as a moment, not as a text."""
    given = [_moment(row.get("timestamp")), *(row.get(name) for name in _FIELDS)]
    text = json.dumps(given, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _moment(text: Any) -> Any:
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except (TypeError, ValueError):
        return text  # not the time that was sent, whatever it is


def name_in(row: Mapping[str, Any]) -> str:
    """The name a row that was read gives itself; `?…` if it has none."""
    client, number = row.get("chaos_client"), row.get("chaos_number")
    if isinstance(client, str) and isinstance(number, int):
        return row_name(client, number)
    return "?" + str(row.get("_id", row))[:80]
