"""Rows as bytes: serialised once, when they are buffered, and never again.

A row is one JSON object on one line whose first key is `seq`, so that a batch is the rows joined by
commas, and a row gets another number (after the loss of a buffer) without being parsed.
Invariant: the bytes of a (epoch, seq) never change between the buffer and each send.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from .errors import InvalidRow

#: Spellings of the wire protocol for names that a Python caller writes with underscores.
_WIRE_NAMES = {
    "trace_id": "traceId",
    "span_id": "spanId",
    "parent_id": "parentId",
    "request_id": "requestId",
}
_RESERVED = frozenset({"seq", "service"})


def encode_row(fields: Mapping[str, Any], now_ns: int) -> bytes:
    """The row as a JSON object without its `seq`; `timestamp` is `now_ns` unless given.

    Values that JSON lacks become text: datetimes as RFC 3339, NaN and infinities by name, bytes as
    UTF-8, others by `str`. Lone surrogates become `?`.

    Raises:
        InvalidRow: a reserved name (`seq`, `service`), or a value that has no text.
    """
    if not _RESERVED.isdisjoint(fields):
        names = ", ".join(sorted(_RESERVED.intersection(fields)))
        raise InvalidRow(f"reserved field names: {names} (the producer sets them)")
    given = fields.get("timestamp")
    row: dict[str, Any] = {"timestamp": rfc3339(now_ns) if given is None else given}
    for name, value in fields.items():
        wire = _WIRE_NAMES.get(name, name)
        if wire == "timestamp" or (wire != name and wire in fields):
            continue
        row[wire] = value
    return _to_json(row).encode("utf-8", "replace")


def with_seq(body: bytes, seq: int) -> bytes:
    """`body` from `encode_row`, numbered."""
    return b'{"seq":%d,%b' % (seq, body[1:])


def renumber(row: bytes, seq: int) -> bytes:
    """A numbered row under another number; the rest of its bytes is kept."""
    return b'{"seq":%d%b' % (seq, row[row.index(b",") :])


_second_cached: tuple[int, str] = (-1, "")


def rfc3339(now_ns: int) -> str:
    """UTC with microseconds and `Z`. The text of the second is cached: rows come in runs."""
    global _second_cached
    second, rest = divmod(now_ns, 1_000_000_000)
    cached, text = _second_cached
    if cached != second:
        text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        _second_cached = (second, text)
    return f"{text}.{rest // 1000:06d}Z"


def _text_of(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return str(value)


_fast = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=_text_of, allow_nan=False
)


def _to_json(row: dict[str, Any]) -> str:
    try:
        return _fast.encode(row)
    except (ValueError, TypeError, RecursionError) as first:
        try:
            return _fast.encode(_plain(row, depth=0))
        except Exception as error:
            raise InvalidRow(f"row cannot be written as JSON: {first}") from error
    except Exception as error:  # a value's own __str__ raised
        raise InvalidRow(f"row cannot be written as JSON: {error!r}") from error


def _plain(value: Any, depth: int) -> Any:
    """The slow path: a copy in which all names are text and each number is finite."""
    if depth > 200:
        return _text_of(type(value).__name__)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {_text_of(name): _plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return value
