"""Block: an immutable image of many entries. This is its header, the part that is decoded often.

An *entry* is the rows of one batch that belong to one shard: the unit of identity, dedupe and repair.
Its rows are contiguous in the block. A sequenced entry's rows ascend by seq, so row i of the entry has
the i-th sequence of `seqs`; `skips` are sequences declared lost, durable like rows but without any.

Invariants: entries tile 0..rows without gaps; min_ts <= max_ts; an entry without rows has only skips.
"""

from dataclasses import dataclass
from typing import Any

from records.errors import BlockCorrupt
from records.ids import (
    NO_PRODUCER_EPOCH,
    NO_SHARD_EPOCH,
    BlockId,
    EntryId,
    ProducerEpoch,
    RingEpoch,
    ShardEpoch,
    ShardId,
)
from records.timestamps import hours_touched

Spans = tuple[tuple[int, int], ...]
ProducerKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class EntryHeader:
    """What a block says of one entry. Times in microseconds; spans are closed.

    `previous` is the id that the same bytes would have had in the dedupe window before, or empty:
    an entry whose `previous` is present as well is hidden. `producer` is empty when unsequenced.
    """

    entry_id: EntryId
    content_hash: bytes
    shard: ShardId
    tenant: str
    row_start: int
    row_count: int
    min_ts: int
    max_ts: int
    received_at: int
    service: str = ""
    producer: str = ""
    producer_epoch: ProducerEpoch = NO_PRODUCER_EPOCH
    shard_epoch: ShardEpoch = NO_SHARD_EPOCH
    seqs: Spans = ()
    skips: Spans = ()
    previous: bytes = b""

    @property
    def sequenced(self) -> bool:
        """Whether a producer numbered the rows."""
        return bool(self.producer)

    @property
    def producer_key(self) -> ProducerKey:
        """(tenant, service, producer)."""
        return (self.tenant, self.service, self.producer)

    @property
    def hours(self) -> tuple[int, ...]:
        """The hours the entry is filed under."""
        return hours_touched(self.min_ts, self.max_ts)

    def to_list(self) -> list[Any]:
        """Plain values in field order; the header's wire form."""
        return [getattr(self, name) for name in _ENTRY_FIELDS]

    @classmethod
    def from_list(cls, values: list[Any]) -> "EntryHeader":
        """The inverse; extra values of a newer writer are ignored."""
        fields = dict(zip(_ENTRY_FIELDS, values, strict=False))
        try:
            for name in ("seqs", "skips"):
                fields[name] = tuple((int(a), int(b)) for a, b in fields[name])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise BlockCorrupt(f"entry header: {error}") from error


_ENTRY_FIELDS = tuple(EntryHeader.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """The whole block in brief. `columns` are the names in the Parquet body."""

    block_id: BlockId
    ring_epoch: RingEpoch
    rows: int
    min_ts: int
    max_ts: int
    columns: tuple[str, ...]
    entries: tuple[EntryHeader, ...]

    def __post_init__(self) -> None:
        at = 0
        for entry in self.entries:
            if entry.row_start != at or entry.row_count < 0:
                raise BlockCorrupt(f"entries do not tile the block at row {at}")
            at += entry.row_count
        if at != self.rows:
            raise BlockCorrupt(f"entries hold {at} rows, the block {self.rows}")

    @property
    def shards(self) -> frozenset[ShardId]:
        """The shards that the entries belong to."""
        return frozenset(entry.shard for entry in self.entries)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for msgpack."""
        return {
            "block_id": self.block_id,
            "ring_epoch": self.ring_epoch,
            "rows": self.rows,
            "min_ts": self.min_ts,
            "max_ts": self.max_ts,
            "columns": list(self.columns),
            "entries": [entry.to_list() for entry in self.entries],
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "BlockHeader":
        """The inverse.

        Raises:
            BlockCorrupt: a field is missing or an invariant broken.
        """
        try:
            return cls(
                block_id=BlockId(bytes(fields["block_id"])),
                ring_epoch=RingEpoch(fields["ring_epoch"]),
                rows=int(fields["rows"]),
                min_ts=int(fields["min_ts"]),
                max_ts=int(fields["max_ts"]),
                columns=tuple(fields["columns"]),
                entries=tuple(EntryHeader.from_list(item) for item in fields["entries"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BlockCorrupt(f"block header: {error!r}") from error
