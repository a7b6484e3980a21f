"""What an HTTP answer means: a typed value, or a typed error. Pure: status, headers and bytes in.

The error's body is either `{"error": {"code", "message", "definite", "retry_after_ms", "leader"}}`
or, on the ACK protocol, flat: `{"error": "fenced", "epoch": 2, "retryAfterMs": 1000}`. An answer that
cannot be read says nothing about the write, so it is `ServerFailed`: not definite, send again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from .errors import (
    Fenced,
    InvalidRequest,
    NotLeader,
    Overloaded,
    QuorumlogError,
    QuorumUnavailable,
    ServerFailed,
    TooLarge,
    Unauthorized,
)
from .leaders import hint_from
from .ranges import Range

#: The longest pause that a server can make us take, seconds.
RETRY_AFTER_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that the server will never take. `row` counts from 1 in its request."""

    row: int
    seq: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class IngestAnswer:
    """The answer of `POST /ingest`. `conflict`: a seq was seen before with other bytes."""

    batch_id: str
    ack_till: int
    missing: tuple[Range, ...]
    status: str
    durable: str
    accepted: int
    duplicates: int
    rejected_count: int
    rejected: tuple[Rejected, ...]
    conflict: bool
    #: What operators ask to have again: (id, ranges).
    replay: tuple[tuple[str, tuple[Range, ...]], ...] = ()
    #: The service was split: rows under a new epoch would be written in another shard.
    new_epoch: bool = False


def read_json(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The object in a 2xx answer; raises the typed error of any other status."""
    if not 200 <= status < 300:
        raise error_from(status, headers, body)
    return _object(status, body)


def read_ingest(status: int, headers: Mapping[str, str], body: bytes) -> IngestAnswer:
    """The answer to a batch. 409 `conflict` is an answer: its good rows are durable."""
    if status != 409 or _word(_try_object(body)) != "CONFLICT":
        raw = read_json(status, headers, body)
        conflict = False
    else:
        raw, conflict = _object(status, body), True
    try:
        return _ingest_answer(raw, conflict)
    except (KeyError, TypeError, ValueError) as error:
        raise ServerFailed(f"answer cannot be read: {error!r}", status=status) from error


def _ingest_answer(raw: dict[str, Any], conflict: bool) -> IngestAnswer:
    ranges = raw.get("missingRanges")
    if ranges is None:
        if raw.get("missingTruncated"):
            raise ValueError("missing is truncated and there are no missingRanges")
        ranges = [[seq, seq] for seq in raw.get("missing", [])]
    rejected = tuple(
        Rejected(
            row=int(item.get("row") or 0),
            seq=int(item.get("seq") or 0),
            code=str(item.get("code", "")),
            reason=str(item.get("reason", "")),
        )
        for item in raw.get("rejected", [])
    )
    return IngestAnswer(
        batch_id=str(raw.get("batchId", "")),
        ack_till=int(raw["ackTill"]),
        missing=tuple((int(first), int(last)) for first, last in ranges),
        status=str(raw.get("status", "")),
        durable=str(raw.get("durable", "")),
        accepted=int(raw.get("accepted", 0)),
        duplicates=int(raw.get("duplicates", 0)),
        rejected_count=int(raw.get("rejectedCount", len(rejected))),
        rejected=rejected,
        conflict=conflict,
        replay=tuple(
            (str(one["id"]), tuple((int(first), int(last)) for first, last in one["ranges"]))
            for one in raw.get("replay", [])
        ),
        new_epoch=raw.get("newEpoch") is True,
    )


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> QuorumlogError:
    """The error that an answer outside 2xx means."""
    raw = _try_object(body)
    detail = raw.get("error")
    fields: Mapping[str, Any] = detail if isinstance(detail, Mapping) else raw
    code = _word(raw)
    message = str(fields.get("message") or fields.get("reason") or _excerpt(body))
    text = f"{status} {code}: {message}" if code else f"{status}: {message}"
    pause = _retry_after(status, headers, fields)
    given = fields.get("definite")
    definite = given if isinstance(given, bool) else None
    if code == "NOT_LEADER":
        return NotLeader(text, leader=hint_from(fields.get("leader")), retry_after_seconds=pause)
    if code.startswith("STALE_"):  # it knows an older ring or leader than we were told of
        return NotLeader(text, leader=None, retry_after_seconds=pause)
    if code == "FENCED":
        return Fenced(text, epoch=int(fields.get("epoch") or 0))
    kind = _kind(status, definite)
    return kind(text, code=code, status=status, retry_after_seconds=pause, definite=definite)


def _kind(status: int, definite: bool | None) -> type[QuorumlogError]:
    if status in (401, 403):
        return Unauthorized
    if status == 413:
        return TooLarge
    if status in (429, 507) or (status == 503 and definite is True):
        return Overloaded
    if status == 503:
        return QuorumUnavailable
    if status in (408, 421, 425) or status >= 500 or status < 400 or status == 409:
        return ServerFailed
    return InvalidRequest


def _word(raw: Mapping[str, Any]) -> str:
    detail = raw.get("error")
    if isinstance(detail, Mapping):
        detail = detail.get("code")
    return detail.upper() if isinstance(detail, str) else ""


def _retry_after(
    status: int, headers: Mapping[str, str], fields: Mapping[str, Any]
) -> float | None:
    """Seconds to wait: the longer of header and body, at most `RETRY_AFTER_SECONDS_MAX`."""
    pauses: list[float] = []
    for name in ("retry_after_ms", "retryAfterMs"):
        value = fields.get(name)
        if isinstance(value, int | float):
            pauses.append(value / 1000)
    in_seconds = fields.get("retry_after_seconds")
    if isinstance(in_seconds, int | float):
        pauses.append(in_seconds)
    header = headers.get("Retry-After", "")
    if header.isdecimal():
        pauses.append(float(header))
    elif header:
        try:
            until = parsedate_to_datetime(header)
            pauses.append((until - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            pauses.append(1.0)  # unreadable: the shortest pause that the protocol knows
    if not pauses:
        return 1.0 if status in (429, 507) else None
    return min(max(0.0, *pauses), RETRY_AFTER_SECONDS_MAX)


def _object(status: int, body: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(body)
    except ValueError as error:
        text = f"answer is not JSON: {_excerpt(body)}"
        raise ServerFailed(text, status=status) from error
    if not isinstance(raw, dict):
        raise ServerFailed(f"answer is not an object: {_excerpt(body)}", status=status)
    return raw


def _try_object(body: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(body)
    except ValueError:
        return {}
    return raw if isinstance(raw, dict) else {}


def _excerpt(body: bytes) -> str:
    text = body[:200].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "?" for char in text)
