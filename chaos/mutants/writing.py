"""Planted bugs of the way from a batch to its acknowledgement, and of what is agreed."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import cluster.state
import cluster.state_ops
import ingestor.dedupe
import ingestor.leases
import ingestor.outcomes
import ingestor.recovery
import ingestor.sequenced
import ingestor.shards
import records.consistency
import records.errors
import records.visibility
import storage.catalog
import storage.engine
import storage.holdings
import storage.judge
import storage.log_format
import storage.merkle
import storage.opening
import storage.putting
import storage.service
import storage.wal
from chaos.mutants.planting import Place, mutant
from cluster.quorum_tally import Group
from cluster.state_types import ShardLeader
from ingestor.dedupe import Progress
from records.messages import EntryStatus


@mutant("ack at W-1", "I9", quick=True)
def _() -> Sequence[Place]:
    plant = lambda self, _owners: self.w - 1  # noqa: E731
    return [(ingestor.outcomes.Submission, "_needed_of", plant)]


@mutant(
    "refusal counted as an ack",
    "I9",
    "I11",
    delay=0.1,
    faults=("zombie",) * 5,
)
def _() -> Sequence[Place]:
    real = ingestor.outcomes.EntryTally.take

    def take(self: Any, owner: str, status: Any, held: int, conflicts: Any) -> None:
        real(self, owner, EntryStatus.DUPLICATE, held, conflicts)

    return [(ingestor.outcomes.EntryTally, "take", take)]


@mutant("new shard leader starts with empty sequences", "I5", loss=0.2, faults=("leader",) * 5)
def _() -> Sequence[Place]:
    async def refresh(*_: object, **__: object) -> list[str]:
        return []

    return [(ingestor.recovery.Recovery, "refresh", refresh)]


@mutant("ackTill counts what one owner holds", "I9", "I5", quick=True)
def _() -> Sequence[Place]:
    real = ingestor.dedupe.ProducerLedger.progress

    def progress(self: Any, groups: Iterable[Group]) -> Progress:
        return real(self, [replace(one, needed=1) for one in groups])

    return [(ingestor.dedupe.ProducerLedger, "progress", progress)]


@mutant("gap skipped: ackTill is the largest sequence seen", "I9", "I5", quick=True)
def _() -> Sequence[Place]:
    real = ingestor.dedupe.ProducerLedger.progress

    def progress(self: Any, groups: Iterable[Group]) -> Progress:
        found = real(self, groups)
        self.told = found.max_seen
        return Progress(found.max_seen, found.max_seen, ())

    return [(ingestor.dedupe.ProducerLedger, "progress", progress)]


@mutant("repeat of a request gets a new entry id", "I2", quick=True)
def _() -> Sequence[Place]:
    real, numbers = ingestor.shards.digest_entry_id, count()

    def named(shard: int, scope: bytes, content: bytes, window: int) -> Any:
        return real(shard, scope, content + str(next(numbers)).encode(), window)

    return [(ingestor.shards, "digest_entry_id", named)]


@mutant("time-out said to be definite", "I2", "I3", quick=True)
def _() -> Sequence[Place]:
    return [(records.errors.QuorumUnavailable, "definite", True)]


@mutant("no look at the dedupe window before", "I2", loss=0.25)
def _() -> Sequence[Place]:
    return [(storage.holdings.Holdings, "_is_repeat", lambda *_: False), *_no_repeats()]


def _no_repeats() -> Sequence[Place]:
    return [(records.visibility, "_repeats", lambda _listed: [])]


@mutant("two leaders of one shard epoch", "I10", "I11", "I5", quick=True, faults=("leader",) * 3)
def _() -> Sequence[Place]:
    real = cluster.state_ops.assign

    def assign(state: Any, args: Any) -> Any:
        after, value = real(state, args)
        leaders = {
            shard: ShardLeader(lead.node, max(1, lead.epoch - 1), lead.incarnation)
            for shard, lead in after.leaders.items()
        }
        return replace(after, leaders=leaders), value

    ops = {**cluster.state_ops.OPS, "Assign": assign}
    return [(cluster.state_ops, "OPS", ops), (cluster.state, "OPS", ops)]
