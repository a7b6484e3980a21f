"""A hint: which entries an owner missed. It names them; the rows are in the keeper's own store.

Whoever keeps a hint is an owner that acknowledged the same entries, so a hint needs no copy of any row: it is
16 bytes an entry, and what is delivered later is what the keeper holds then (docs/adr/0022). It is never
counted as a replica, and losing every hint loses nothing: anti-entropy finds the same difference.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from records.block import BlockHeader
from records.errors import InvalidRequest
from records.ids import ID_BYTES, EntryId

#: Bytes of a target's name; those of members are shorter.
_NAME_BYTES = 256
#: Bytes of ids in one hint: a block has fewer entries than rows.
_IDS_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Hint:
    """Entries that `target` missed: for each shard their ids, end to end (16 bytes each).

    `max_ts` is the newest timestamp among their rows, `ring_epoch` that of the put that failed: both are
    told, and decide nothing.
    """

    target: str
    ring_epoch: int
    max_ts: int
    shards: tuple[tuple[int, bytes], ...]

    def __post_init__(self) -> None:
        if not self.target or len(self.target.encode()) > _NAME_BYTES:
            raise InvalidRequest("a hint names no node")
        if sum(len(ids) for _, ids in self.shards) > _IDS_BYTES:
            raise InvalidRequest("a hint names too many entries")
        if any(not ids or len(ids) % ID_BYTES for _, ids in self.shards):
            raise InvalidRequest("a hint's ids are cut")
        if any(shard < 0 for shard, _ in self.shards):
            raise InvalidRequest("a hint of no shard")

    @classmethod
    def of(cls, target: str, header: BlockHeader) -> "Hint":
        """The hint that `target` missed a block."""
        found: dict[int, list[bytes]] = defaultdict(list)
        for entry in header.entries:
            found[int(entry.shard)].append(entry.entry_id)
        shards = tuple((shard, b"".join(ids)) for shard, ids in sorted(found.items()))
        return cls(target, int(header.ring_epoch), header.max_ts, shards)

    @property
    def entries(self) -> int:
        """How many entries it names."""
        return sum(len(ids) for _, ids in self.shards) // ID_BYTES

    def ids(self, shard: int) -> Iterator[EntryId]:
        """The ids of one shard."""
        for number, ids in self.shards:
            if number == shard:
                yield from (EntryId(ids[at : at + ID_BYTES]) for at in range(0, len(ids), ID_BYTES))

    def to_list(self) -> list[Any]:
        """Plain values."""
        return [self.target, self.ring_epoch, self.max_ts, [list(one) for one in self.shards]]

    @classmethod
    def from_list(cls, values: Any) -> "Hint":
        """The inverse; values of a newer writer after ours are ignored.

        Raises:
            InvalidRequest: these are no such values.
        """
        try:
            target, ring_epoch, max_ts, shards = values[:4]
            pairs = tuple((shard, ids) for shard, ids in shards)
            numbers = (ring_epoch, max_ts, *(shard for shard, _ in pairs))
            if type(target) is not str or any(type(one) is not int for one in numbers):
                raise ValueError("a value of another type")
            if any(type(ids) is not bytes for _, ids in pairs):  # bytes(10**12) would be made
                raise ValueError("ids that are no bytes")
            return cls(target, ring_epoch, max_ts, pairs)
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidRequest(f"not a hint: {error}") from error
