"""What a parser hands to the write path: one request's good rows as columns, its bad rows as reasons.

`Batch.table` has the canonical columns of `records.columns` (timestamp, service, level and message
without nulls) plus the rows' own fields; never per-entry facts (tenant, received_at, producer): the
batcher adds those. Rows keep their order of arrival; a sequenced batch also has the column `seq`.
"""

from dataclasses import dataclass, field

import pyarrow as pa

from records.block import Spans

MAX_LISTED_REJECTS = 100


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A permanently bad row: its number in the request (from 1), its seq if it had one, and why."""

    row: int
    code: str
    reason: str
    seq: int | None = None

    def to_dict(self) -> dict[str, object]:
        """As answered."""
        body: dict[str, object] = {"row": self.row, "code": self.code, "reason": self.reason}
        if self.seq is not None:
            body["seq"] = self.seq
        return body


@dataclass(frozen=True, slots=True)
class Sequence:
    """Who numbered the rows: one (service, producer, epoch), and sequences declared lost."""

    service: str
    producer: str
    epoch: int
    skips: Spans = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """What names an unsequenced request: `scope` (tenant, surface, principal, peer) and `content`.

    `ages`: whether the identity ends with its dedupe window (a body digest) or never (a key that the
    client chose). `grade` as in docs/protocol.md: 1 explicit id, 3 body digest, 4 none.
    """

    scope: bytes
    content: bytes
    ages: bool = True
    grade: int = 3


@dataclass(frozen=True, slots=True)
class Batch:
    """One parsed request. `failed`: the raw bytes of bad rows as rows of the service `_failed`.

    `received_at`: the receive time (microseconds) that rows without a timestamp were given; 0 lets
    the write path stamp it. It is no part of a row's identity.
    """

    tenant: str
    table: pa.Table
    identity: Identity
    rejected_count: int = 0
    rejected: tuple[RejectedRow, ...] = ()
    failed: pa.Table | None = None
    sequence: Sequence | None = None
    received_at: int = 0


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of one batch. `durable`: fewest owners that hold its rows; `owners`: N.

    `ack_till`, `missing` and `max_seen` only mean something for a sequenced batch; `conflicts` are rows
    whose sequence is held with other bytes (they are not stored). `asked`: (id, sequences) of the replay
    requests that operators have opened for this producer. `new_epoch`: the service was split since its epoch
    was issued, and a new one would be written in another shard.
    """

    batch_id: str
    accepted: int
    duplicates: int
    durable: int
    owners: int
    conflicts: tuple[RejectedRow, ...] = ()
    ack_till: int = 0
    max_seen: int = 0
    missing: Spans = field(default=())
    asked: tuple[tuple[str, Spans], ...] = ()
    new_epoch: bool = False
