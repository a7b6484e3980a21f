"""From results and errors to what the client reads: bodies and headers of sections 1 and 2. Pure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ingestor.batch import MAX_LISTED_REJECTS, Batch, RejectedRow, WriteResult
from records.block import Spans
from records.errors import (
    DeadlineExceeded,
    InvalidRequest,
    QuorumlogError,
    QuorumUnavailable,
    TooLarge,
)

MISSING_MAX = 1000
#: Errors with a name of their own on the ACK protocol; others are their code in lower case.
_NAMES: dict[type[QuorumlogError], str] = {
    QuorumUnavailable: "not_enough_replicas",
    DeadlineExceeded: "not_enough_replicas",
}


@dataclass(slots=True)
class Tally:
    """What became of a request that may have been committed in pieces."""

    grade: int = 3
    batch_id: str = ""
    accepted: int = 0
    duplicates: int = 0
    rejected_count: int = 0
    rejected: list[RejectedRow] = field(default_factory=list)
    conflicts: int = 0
    durable: int | None = None
    owners: int = 0
    ack_till: int = 0
    max_seen: int = 0
    missing: Spans = ()
    asked: tuple[tuple[str, Spans], ...] = ()
    new_epoch: bool = False

    def add(self, batch: Batch, result: WriteResult | None, rows_before: int) -> None:
        """One piece; `rows_before`: rows of the pieces before it. No result: nothing was to write."""
        self.rejected_count += batch.rejected_count
        self._list(batch.rejected, rows_before)
        self.grade = batch.identity.grade if batch.sequence is None else 1
        if result is None:
            return
        self.batch_id = self.batch_id or result.batch_id
        self.accepted += result.accepted
        self.duplicates += result.duplicates
        self.durable = result.durable if self.durable is None else min(self.durable, result.durable)
        self.owners = max(self.owners, result.owners)
        self.ack_till, self.max_seen = result.ack_till, result.max_seen
        self.missing, self.asked = result.missing, result.asked
        self.new_epoch = result.new_epoch
        self.conflicts += len(result.conflicts)
        self.rejected_count += len(result.conflicts)
        self._list(result.conflicts, rows_before)

    def _list(self, rows: Iterable[RejectedRow], before: int) -> None:
        for row in rows:
            if len(self.rejected) >= MAX_LISTED_REJECTS:
                return
            self.rejected.append(RejectedRow(row.row + before, row.code, row.reason, row.seq))

    @property
    def all_bad(self) -> bool:
        """Rows came, and not one of them was good."""
        return self.rejected_count > 0 and self.accepted + self.duplicates == 0

    @property
    def durable_text(self) -> str:
        """`a/N`."""
        return f"{self.durable or 0}/{self.owners}"


def headers_of(tally: Tally) -> dict[str, str]:
    """Our headers of section 0.6."""
    headers = {"X-Quorumlog-Durable": tally.durable_text}
    headers["X-Quorumlog-Dedupe"] = f"grade={tally.grade}; duplicates={tally.duplicates}"
    if tally.rejected_count:
        headers["X-Quorumlog-Rejected"] = str(tally.rejected_count)
    return headers


def progress_of(result: WriteResult | Tally) -> dict[str, Any]:
    """`ackTill`, `missing` (at most 1000, then `missingTruncated`), `missingRanges`, `status`.

    `replay`, if operators ask this producer for rows again: `[{id, ranges}]`. `newEpoch`, if the service was
    split: an epoch issued now would spread the load, once all that was sent is acknowledged.
    """
    seqs: list[int] = []
    for first, last in result.missing:
        seqs.extend(range(first, min(last, first + MISSING_MAX - len(seqs)) + 1))
        if len(seqs) > MISSING_MAX:
            break
    body: dict[str, Any] = {"ackTill": result.ack_till, "missing": seqs[:MISSING_MAX]}
    if len(seqs) > MISSING_MAX:
        body["missingTruncated"] = True
    body["missingRanges"] = [list(span) for span in result.missing]
    body["status"] = "partial" if result.missing else "complete"
    if result.asked:
        body["replay"] = [{"id": name, "ranges": spans} for name, spans in result.asked]
    if result.new_epoch:
        body["newEpoch"] = True
    return body


def ingest_body(tally: Tally) -> dict[str, Any]:
    """The answer of `/ingest`."""
    body: dict[str, Any] = {"batchId": tally.batch_id, **progress_of(tally)}
    body["durable"] = tally.durable_text
    body["accepted"] = tally.accepted
    body["duplicates"] = tally.duplicates
    body["rejectedCount"] = tally.rejected_count
    body["rejected"] = [row.to_dict() for row in tally.rejected]
    if tally.conflicts:
        body["error"] = "conflict"
    return body


def logs_body(tally: Tally) -> dict[str, Any]:
    """The answer of `/logs`."""
    return {
        "batchId": tally.batch_id,
        "accepted": tally.accepted,
        "duplicates": tally.duplicates,
        "rejectedCount": tally.rejected_count,
        "rejected": [row.to_dict() for row in tally.rejected],
        "durable": tally.durable_text,
    }


def ingest_status(tally: Tally, sequenced: bool) -> int:
    """409 for a conflict, 400 if all rows are bad (not numbered ones: their seqs are settled), else 200."""
    if tally.conflicts:
        return 409
    return 400 if tally.all_bad and not sequenced else 200


def ingest_error(error: QuorumlogError) -> tuple[int, dict[str, Any], dict[str, str]]:
    """(status, flat body, headers) of an error on the ACK protocol."""
    details = {k: v for k, v in error.details.items() if k != "reason"}
    status = 503 if error.http_status == 504 else error.http_status
    if isinstance(error, InvalidRequest | TooLarge):
        name = str(error.details.get("reason") or error.code.lower())
        body: dict[str, Any] = {"error": name, "reason": error.message, **_plain(details)}
        return status, body, {}
    body = {"error": _NAMES.get(type(error), error.code.lower())}
    headers: dict[str, str] = {}
    if status in (429, 503, 507):
        seconds = error.retry_after_seconds or 1
        body["retryable"] = True
        body["retryAfterMs"] = int(details.pop("retry_after_ms", seconds * 1000))
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    acks, owners = details.pop("acks", None), details.pop("owners", None)
    if "durable" not in details and acks is not None and owners is not None:
        body["durable"] = f"{acks}/{owners}"
    if "ack_till" in details:
        body["ackTill"] = details.pop("ack_till")
    details.pop("retry_after_seconds", None)
    said = {"code": error.code, "message": error.message, "definite": error.definite}
    return status, {**body, **said, **_plain(details)}, headers


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in details.items() if isinstance(v, str | int | float | list | dict)}
