"""What a sender puts into a request and reads out of an answer; its settings and counts. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .answers import Rejected, read_json
from .errors import Fenced, InvalidRequest, QuorumlogError, ServerFailed, TooLarge
from .frames import Meta

#: (first seq, last seq, reason): rows that will never come.
Skip = tuple[int, int, str]

#: 400s that are about a row rather than about us; other 400s never cost a row.
_ROW_CODES = frozenset({"BAD_JSON", "BAD_ROW", "ROW_TOO_LARGE", "TOO_LARGE"})


@dataclass(slots=True)
class ProducerStats:
    """Counts since the start. `rows_refused_full` were never taken: `send` raised BufferFull."""

    rows_sent: int = 0
    rows_acked: int = 0
    duplicates: int = 0
    rejected: int = 0
    retries: int = 0
    conflicts: int = 0
    epochs_issued: int = 0
    rows_refused_full: int = 0
    rows_given_up: int = 0
    unfillable: int = 0
    #: Rows sent again because somebody asked, and of rows asked those that the buffer no longer has.
    rows_replayed: int = 0
    rows_gone: int = 0
    rows_skipped: int = 0
    loop_errors: int = 0
    retries_by_reason: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SendSettings:
    """How rows are cut into requests. `batch_rows` at most 50 000, the server's limit."""

    batch_rows: int = 5000
    batch_bytes: int = 8 << 20
    linger_seconds: float = 0.05
    max_in_flight: int = 1
    ack: str | None = None
    replay_poll_seconds: float = 300.0
    spread: bool = True


def batch_body(meta: Meta, rows: Sequence[bytes], skips: Sequence[Skip]) -> bytes:
    """The JSON of `POST /ingest`: rows as they are in the buffer, byte for byte."""
    head = json.dumps(
        {"service": meta.service, "producer": meta.producer, "epoch": meta.epoch},
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
    tail = b"]}"
    if skips:
        named = [{"from": low, "to": high, "reason": why} for low, high, why in skips]
        tail = b'],"skip":%b}' % json.dumps(named, separators=(",", ":")).encode()
    return b'%b,"logs":[%b%b' % (head[:-1], b",".join(rows), tail)


def is_conflict(item: Rejected) -> bool:
    return item.code.upper() == "CONFLICT"


def is_final_for_rows(error: QuorumlogError) -> bool:
    """True for errors that are about the rows sent, or about our right to be: no use to repeat."""
    about_rows = isinstance(error, TooLarge) or error.code in _ROW_CODES
    return isinstance(error, Fenced) or (isinstance(error, InvalidRequest) and about_rows)


def read_epoch(status: int, headers: Mapping[str, str], body: bytes) -> int:
    epoch = read_json(status, headers, body).get("epoch")
    if not isinstance(epoch, int) or epoch < 1:
        raise ServerFailed(f"no epoch in the answer: {body[:200]!r}", status=status)
    return epoch
