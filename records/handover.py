"""What a new owner of a shard takes over beside the rows: fences, producers' epochs, what was told, receipts.

Rows can be read back from entries; these can not. Each only rises, so taking over twice, late or
from several owners is one operation: the maximum. One message each way, bounded by `PRODUCERS_MAX`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from records.block import ProducerKey
from records.messages import ProducerEpochKey

#: Producers of one shard in one message: about 100 bytes each, of the 8 MiB that a head may have.
PRODUCERS_MAX = 50_000


@dataclass(frozen=True, slots=True)
class Handover:
    """The state of one shard on one owner. `newest`: each producer's newest epoch.

    `vouched`: no copy of what it vouched for was received later (microseconds); 0 of an older node.
    """

    shard: int
    fence: int = 0
    leader: str = ""
    newest: tuple[tuple[ProducerKey, int], ...] = ()
    told: tuple[tuple[ProducerEpochKey, int], ...] = ()
    vouched: int = 0

    def to_head(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "shard": self.shard,
            "fence": self.fence,
            "leader": self.leader,
            "newest": self.newest,
            "told": self.told,
            "vouched": self.vouched,
        }

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> "Handover":
        """The inverse."""
        newest = tuple(((t, s, p), int(epoch)) for (t, s, p), epoch in head["newest"])
        told = tuple(((t, s, p, int(e)), int(till)) for (t, s, p, e), till in head["told"])
        vouched = int(head.get("vouched", 0))
        return cls(
            int(head["shard"]), int(head["fence"]), str(head["leader"]), newest, told, vouched
        )


def united(handovers: Iterable[Handover]) -> Handover:
    """The greatest of each, over several owners of one shard; at least one."""
    rows = list(handovers)
    highest = max(rows, key=lambda one: (one.fence, one.leader))
    newest: dict[ProducerKey, int] = {}
    told: dict[ProducerEpochKey, int] = {}
    for one in rows:
        for producer, epoch in one.newest:
            newest[producer] = max(epoch, newest.get(producer, 0))
        for key, till in one.told:
            told[key] = max(till, told.get(key, 0))
    return Handover(
        highest.shard,
        highest.fence,
        highest.leader,
        tuple(sorted(newest.items())),
        tuple(sorted(told.items())),
        max(one.vouched for one in rows),
    )
