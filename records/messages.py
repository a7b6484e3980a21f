"""The node-to-node protocol: what a replica is asked and what it answers. Frozen, plain values.

Each message is `to_head() -> dict` (packed by `records.envelope`) beside at most one payload of bytes:
a block for puts and fetches, an Arrow IPC stream for scans. `cluster.replica_client` sends them,
`storage.service` answers them; in one process they meet without any bytes being made.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from records.block import Spans
from records.ids import EntryId
from records.predicates import ScanPlan
from records.timestamps import TimeRange
from records.visibility import EntryRef

ProducerEpochKey = tuple[str, str, str, int]


class EntryStatus(StrEnum):
    """What a put found for one entry. STORED and DUPLICATE are both acks."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    FENCED = "fenced"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class RowName:
    """A row by its 16-byte run and its number there (records.ids)."""

    run: bytes
    number: int


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where a row stands: its time in microseconds, service and tenant."""

    timestamp: int
    service: str
    tenant: str


@dataclass(frozen=True, slots=True)
class PutOptions:
    """How to take a block. `ring_epoch` fences; `repair` puts skip the shard-epoch check.

    `told`: for producers in the block, the ackTill that the leader has answered; replicas keep the max.
    """

    ring_epoch: int
    repair: bool = False
    told: tuple[tuple[ProducerEpochKey, int], ...] = ()

    def to_head(self) -> dict[str, Any]:
        """Plain values."""
        return {"ring_epoch": self.ring_epoch, "repair": self.repair, "told": self.told}

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> "PutOptions":
        """The inverse."""
        told = tuple(((t, s, p, int(e)), int(k)) for (t, s, p, e), k in head["told"])
        return cls(int(head["ring_epoch"]), bool(head["repair"]), told)


@dataclass(frozen=True, slots=True)
class ProducerState:
    """What a replica holds of one producer epoch: rows or skips at `spans`, `told` the ackTill told.

    `newest_epoch` is the newest epoch of this producer that the replica has sealed or seen. `gone`: those of
    `spans` above `told` whose rows are below a watermark; told only where all states of a producer are asked.
    """

    producer: ProducerEpochKey
    spans: Spans
    told: int
    newest_epoch: int
    gone: Spans = ()

    def to_list(self) -> list[Any]:
        """Plain values; older nodes know nothing of `gone`, and take a state without any."""
        values = [self.producer, self.spans, self.told, self.newest_epoch]
        return [*values, self.gone] if self.gone else values

    @classmethod
    def from_list(cls, values: list[Any]) -> "ProducerState":
        """The inverse."""
        (tenant, service, producer, epoch), spans, told, newest, *gone = values
        key = tenant, service, producer, int(epoch)
        pairs, lost = (
            tuple((int(a), int(b)) for a, b in one) for one in (spans, gone[0] if gone else ())
        )
        return cls(key, pairs, int(told), int(newest), lost)


@dataclass(frozen=True, slots=True)
class PutReply:
    """Statuses in entry order (after fdatasync returned), and the state of each producer in the block.

    `duplicate_rows[i]`: rows of entry i that this replica held already (all of a duplicate's).
    `conflict_seqs[i]`: sequences of entry i that are held with other bytes.
    """

    statuses: tuple[EntryStatus, ...]
    duplicate_rows: tuple[int, ...]
    conflict_seqs: tuple[Spans, ...]
    producers: tuple[ProducerState, ...]

    def to_head(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "statuses": [str(one) for one in self.statuses],
            "duplicate_rows": self.duplicate_rows,
            "conflict_seqs": self.conflict_seqs,
            "producers": [one.to_list() for one in self.producers],
        }

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> "PutReply":
        """The inverse."""
        return cls(
            tuple(EntryStatus(one) for one in head["statuses"]),
            tuple(head["duplicate_rows"]),
            tuple(tuple((a, b) for a, b in spans) for spans in head["conflict_seqs"]),
            tuple(ProducerState.from_list(one) for one in head["producers"]),
        )


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """Evaluate `plan` over `data_shards`; report digests of data and digest shards, one snapshot.

    `hide`: sequences to leave out, by entry (none: the whole entry), where the coordinator knows of copies
    that this replica lacks. `only`: restrict to these entries, and show of them all but what `hide` says:
    the replica's own view of who hides whom does not count. `deadline_ms`: what is left, on arrival.
    `compared`: the range that digests (and `overlaps`) are about where `plan` reads a slice of it.
    `outline`: instead of an answer, tell in at most so many lines what would be read (storage.scan_outline).
    `hidden_index`: the replica must have applied the replicated state up to here before it answers: the
    asking node knows of watermarks or deletes that are this new.
    """

    plan: ScanPlan
    data_shards: tuple[int, ...]
    digest_shards: tuple[int, ...]
    only: tuple[EntryId, ...] | None = None
    hide: tuple[tuple[EntryId, Spans], ...] = ()
    deadline_ms: int = 30_000
    counted: bool = False
    compared: TimeRange | None = None
    outline: int = 0
    hidden_index: int = 0

    def to_head(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "plan": self.plan.to_dict(),
            "data_shards": self.data_shards,
            "digest_shards": self.digest_shards,
            "only": self.only,
            "hide": self.hide,
            "deadline_ms": self.deadline_ms,
            "counted": self.counted,
            "compared": self.compared and [self.compared.start, self.compared.end],
            "outline": self.outline,
            "hidden_index": self.hidden_index,
        }

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> "ScanRequest":
        """The inverse."""
        return cls(
            ScanPlan.from_dict(head["plan"]),
            tuple(head["data_shards"]),
            tuple(head["digest_shards"]),
            None if head["only"] is None else tuple(head["only"]),
            tuple((i, tuple((a, b) for a, b in spans)) for i, spans in head["hide"]),
            int(head["deadline_ms"]),
            bool(head.get("counted", False)),
            TimeRange(*head["compared"]) if head.get("compared") else None,
            int(head.get("outline", 0)),
            int(head.get("hidden_index", 0)),
        )


@dataclass(frozen=True, slots=True)
class ScanReply:
    """Digest by shard (entry count, 16 bytes) over the plan's hours; `payload` is an Arrow IPC stream.

    `digests`: of plans with `received_until`, of what was received by then, by another sum. Equal or not is
    all that they are for.
    `received_max`: the largest received_at (microseconds) this replica has heard of, for snapshots: no less
    than that of any copy of an entry that it has vouched for.
    `truncated`: a memory or row cap cut the answer (never silently: the coordinator must say so).
    `overlaps`: of a slice (`compared`): sequences of the entries in that range overlap, so who hides whom
    may be seen otherwise on a replica that has some of them in blocks of another age.
    `ring_epoch`: the newest ring that the replica knew before it looked; a reader by an older one may have
    asked former owners.
    `lost`: how many blocks the replica has set aside for damage. If it has grown since it listed its entries,
    some of these may lack in this answer.
    `holes`: shards of which damage took entries that are not all back: what is told of them is true, and
    need not be all that was acknowledged, so the replica does not count to R there (storage.holes).
    """

    digests: dict[int, tuple[int, bytes]]
    received_max: int
    rows_scanned: int
    blocks_scanned: int
    blocks_pruned: int
    truncated: bool = False
    overlaps: bool = False
    ring_epoch: int = 0
    lost: int = 0
    holes: tuple[int, ...] = ()

    def to_head(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> "ScanReply":
        """The inverse."""
        fields = {name: head[name] for name in cls.__dataclass_fields__ if name in head}
        fields["digests"] = {int(k): (int(c), bytes(d)) for k, (c, d) in head["digests"].items()}
        fields["holes"] = tuple(head.get("holes", ()))  # older nodes say nothing of them
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class SealRequest:
    """Fence `shard` at `epoch` for `leader`: nothing with a lower shard epoch is stored after it."""

    shard: int
    epoch: int
    leader: str


@dataclass(frozen=True, slots=True)
class EpochSealed:
    """What an owner says when a producer's epoch is sealed. Everything below `newest` is refused from now on.

    `raised`: this very call made it the newest. So one caller at most hears it of an owner and an epoch,
    and nobody if that one's answer is lost.
    """

    newest: int
    raised: bool

    def to_head(self) -> dict[str, Any]:
        """Plain values."""
        return {"epoch": self.newest, "raised": self.raised}

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> "EpochSealed":
        """The inverse."""
        return cls(
            int(head["epoch"]), bool(head.get("raised", False))
        )  # older nodes do not know it


@dataclass(frozen=True, slots=True)
class ProducerStates:
    """Every epoch known of a producer, ascending. `hole`: damage took entries of the shard, and they are not
    all back (see ScanReply): what is told is true, and need not be all that was acknowledged.
    """

    states: tuple[ProducerState, ...]
    hole: bool = False

    def to_head(self) -> dict[str, Any]:
        """Plain values."""
        return {"states": [one.to_list() for one in self.states], "hole": self.hole}

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> "ProducerStates":
        """The inverse."""
        states = tuple(ProducerState.from_list(one) for one in head["states"])
        return cls(states, bool(head.get("hole", False)))  # older nodes say nothing of it


@dataclass(frozen=True, slots=True)
class ProducersRequest:
    """List producer epochs of `shards`: those with gaps, or those of a service.

    At most `most`, in the order of (shard, tenant, service, producer, epoch); `after`: those behind that one.
    """

    shards: tuple[int, ...]
    tenant: str = ""
    service: str = ""
    gaps: bool = False
    most: int = 1_000
    after: tuple[int, str, str, str, int] | tuple[()] = ()

    def to_head(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> "ProducersRequest":
        """The inverse."""
        return cls(
            tuple(int(one) for one in head["shards"]),
            str(head["tenant"]),
            str(head["service"]),
            bool(head["gaps"]),
            int(head["most"]),
            tuple(head.get("after", ())),  # older nodes say nothing of it
        )


@dataclass(frozen=True, slots=True)
class EntriesRequest:
    """List the entries of `shard` filed under hours that `start`..`end` (microseconds) touches."""

    shard: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class EntriesReply:
    """The entries, in no order. `hole`: damage took some, and they are not all back (see ScanReply)."""

    entries: tuple[EntryRef, ...]
    hole: bool = False

    def to_head(self) -> dict[str, Any]:
        """Plain values."""
        return {"entries": [one.to_list() for one in self.entries], "hole": self.hole}

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> "EntriesReply":
        """The inverse."""
        entries = tuple(EntryRef.from_list(one) for one in head["entries"])
        return cls(entries, bool(head.get("hole", False)))
