"""Planted bugs of what a replica accepts: identity, fences, puts at the same time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ingestor.answers
import ingestor.dedupe
import ingestor.leases
import ingestor.outcomes
import ingestor.recovery
import ingestor.sequenced
import ingestor.shards
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
from records.messages import EntryStatus, EpochSealed
from storage.judge import Judge, Judgement


@mutant("entry id check dropped on put", "I2", "I8", "I15", quick=True)
def _() -> Sequence[Place]:
    real = Judge._same_id

    def same_id(self: Any, entry: Any) -> Any:
        return real(self, entry) if self._repair else None

    return [(Judge, "_same_id", same_id)]


@mutant("duplicate of a write in flight acked at once", "I9", sync=0.4, repeat=0.5, delay=0.1)
def _() -> Sequence[Place]:
    real = Judge.judge

    def judge(self: Any, index: int) -> Judgement:
        found = real(self, index)
        if found.status is EntryStatus.DUPLICATE:
            found.waits = set()
        return found

    return [(Judge, "judge", judge)]


@mutant("puts of the same rows don't wait for each other", "I2", "I8", "I15", "I9", "BUG")
def _() -> Sequence[Place]:
    writing = storage.judge.Writing
    return [(writing, "with_id", lambda *_: None), (writing, "overlapping", lambda *_: set())]


@mutant("other bytes under the same row id taken as a duplicate", "I3", skew=0.0)
def _() -> Sequence[Place]:
    def same(_hot: Any, _block: Any, wanted: Any, _held: Any) -> Any:
        return {pair: (True, ()) for pair, _ in wanted.pairs}

    return [(storage.putting, "compare_pairs", same)]


@mutant("owner ignores the ring epoch", "I11", delay=0.1, faults=("ring",) * 5)
def _() -> Sequence[Place]:
    real = storage.engine.Engine.decide

    def decide(self: Any, header: Any, options: Any, proofs: Any) -> Any:
        return real(self, header, replace(options, ring_epoch=self.ring_epoch), proofs)

    return [(storage.engine.Engine, "decide", decide)]


@mutant(
    "owner ignores the shard epoch",
    "I11",
    "I5",
    "I9",
    delay=0.1,
    faults=("zombie",) * 3,
)
def _() -> Sequence[Place]:
    real = Judge._fenced

    def fenced(self: Any, entry: Any) -> Any:
        found = real(self, entry)
        return None if found is EntryStatus.STALE else found

    return [(Judge, "_fenced", fenced)]


@mutant("sealed producer epoch still accepted", "I11", faults=("newer producer",) * 2)
def _() -> Sequence[Place]:
    real = Judge._fenced

    async def unchecked(*_: object) -> bool:
        return True

    def fenced(self: Any, entry: Any) -> Any:
        found = real(self, entry)
        return None if found is EntryStatus.FENCED else found

    return [
        (Judge, "_fenced", fenced),
        (ingestor.sequenced.SequencedWriter, "_check_epoch", unchecked),
    ]


@mutant(
    "producer epoch answered before it is durable", "I11",
    faults=("newer producer", "newer producer", "power all", "power all", "leader"),
)  # fmt: skip
def _() -> Sequence[Place]:
    async def seal(
        self: Any, shard: int, producer: Any, epoch: int, ring_epoch: int
    ) -> EpochSealed:
        _, raised = self._engine.claim_producer(shard, producer, epoch, ring_epoch)
        newest = self._engine.holdings.producers.newest_epoch(shard, producer)
        return EpochSealed(newest, raised)

    return [(storage.service.StorageService, "seal_producer_epoch", seal)]


@mutant(
    "producer epoch issued though another call raised it", "I11",
    faults=("zombie",) * 6 + ("newer producer",) * 6,
)  # fmt: skip
def _() -> Sequence[Place]:
    real = ingestor.recovery.Recovery.seal_epoch

    async def seal(self: Any, *args: Any) -> bool:
        await real(self, *args)
        return True

    return [(ingestor.recovery.Recovery, "seal_epoch", seal)]
