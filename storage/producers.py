"""What a replica holds of each producer: sequences, skips, the newest epoch, the ackTill told. Pure.

A producer is filed by (shard, tenant, service, producer, epoch): what is visible must follow from a
shard's own entries, or replicas that own different shards would disagree.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from records.block import EntryHeader, ProducerKey, Spans
from records.ids import ProducerEpoch
from records.intervals import SeqIntervals
from records.messages import ProducerEpochKey, ProducersRequest, ProducerState

#: (shard, tenant, service, producer, epoch)
GroupKey = tuple[int, str, str, str, int]


def group_key(entry: EntryHeader) -> GroupKey:
    """The group a sequenced entry belongs to."""
    return (int(entry.shard), *entry.producer_key, int(entry.producer_epoch))


@dataclass(slots=True)
class Held:
    """Sequences of one producer epoch that are here: as rows, and as declared skips."""

    rows: SeqIntervals = field(default_factory=SeqIntervals)
    skips: SeqIntervals = field(default_factory=SeqIntervals)

    def spans(self) -> Spans:
        """Both together."""
        if not len(self.skips):
            return tuple(self.rows.spans())
        both = self.rows.copy()
        both.update(self.skips)
        return tuple(both.spans())

    def has_gap(self) -> bool:
        """Whether something below the largest sequence is neither here nor skipped."""
        if not len(self.skips):
            return self.rows.contiguous_end < self.rows.largest
        spans = self.spans()
        return len(spans) > 1 or min(first for first, _ in spans) > 1


class ProducerBook:
    """All producers. `dirty` collects the keys that changed, for the checkpoint; `gapped` have gaps."""

    def __init__(self) -> None:
        self.held: dict[GroupKey, Held] = {}
        self.newest: dict[tuple[int, ProducerKey], int] = {}
        self.told: dict[ProducerEpochKey, int] = {}
        self._epochs: dict[tuple[int, ProducerKey], set[int]] = {}
        self._told_epochs: dict[ProducerKey, set[int]] = {}
        self.dirty: set[GroupKey] = set()
        self.gapped: set[GroupKey] = set()
        self.dirty_newest: set[tuple[int, ProducerKey]] = set()
        self.dirty_told: set[ProducerEpochKey] = set()

    def add(self, entry: EntryHeader) -> None:
        """Adds what a stored entry brings."""
        self.insert(group_key(entry), entry.seqs, entry.skips)

    def insert(
        self, key: GroupKey, seqs: Iterable[Iterable[int]], skips: Iterable[Iterable[int]]
    ) -> None:
        """Adds sequences to a group."""
        held = self.held.get(key)
        if held is None:
            held = self.held[key] = Held()
            self._epochs.setdefault((key[0], key[1:4]), set()).add(key[4])
        held.rows.update(seqs)
        held.skips.update(skips)
        self.dirty.add(key)
        if held.has_gap():
            self.gapped.add(key)
        else:
            self.gapped.discard(key)
        self.raise_newest(key[0], key[1:4], key[4])

    def reset(self, key: GroupKey) -> None:
        """Forgets a group's sequences (they are added again from what is left); epochs stay."""
        self.held[key] = Held()
        self.dirty.add(key)
        self.gapped.discard(key)

    def overlap(self, entry: EntryHeader) -> Spans:
        """The sequences of `entry` that are here as rows."""
        held = self.held.get(group_key(entry))
        if held is None:
            return ()
        return tuple(part for a, b in entry.seqs for part in held.rows.overlap(a, b))

    def raise_newest(self, shard: int, producer: ProducerKey, epoch: int) -> int:
        """Makes `epoch` the newest if it is greater; the newest."""
        key = (shard, producer)
        known = self.newest.get(key, 0)
        if epoch > known:
            self.newest[key] = known = epoch
            self.dirty_newest.add(key)
        return known

    def newest_epoch(self, shard: int, producer: ProducerKey) -> int:
        """The newest epoch sealed or seen; 0 if none."""
        return self.newest.get((shard, producer), 0)

    def raise_told(self, told: Iterable[tuple[ProducerEpochKey, int]]) -> None:
        """Keeps the largest ackTill told of each producer epoch."""
        for key, value in told:
            if value > self.told.get(key, 0):
                self.told[key] = value
                self.dirty_told.add(key)
                self._told_epochs.setdefault(key[:3], set()).add(key[3])

    def state(self, key: GroupKey) -> ProducerState:
        """What a reply says of one producer epoch."""
        held = self.held.get(key)
        producer = (key[1], key[2], key[3], key[4])
        return ProducerState(
            producer,
            held.spans() if held else (),
            self.told.get(producer, 0),
            self.newest_epoch(key[0], key[1:4]),
        )

    def listed(self, request: ProducersRequest) -> list[tuple[int, ProducerState]]:
        """(shard, state) of the producer epochs asked for, ascending; the first `most` behind `after`.

        Cost: those with gaps, or (a service's) one pass over all that are held.
        """
        shards = frozenset(request.shards)
        found = [
            key
            for key in (self.gapped if request.gaps else self.held)
            if key[0] in shards
            and request.tenant in ("", key[1])
            and request.service in ("", key[2])
            and key > request.after
        ]
        return [(key[0], self.state(key)) for key in sorted(found)[: request.most]]

    def states(self, shard: int, producer: ProducerKey) -> list[ProducerState]:
        """Every known epoch of a producer, ascending; a sealed epoch without rows is listed too."""
        epochs = set(self._epochs.get((shard, producer), ()))
        if newest := self.newest_epoch(shard, producer):
            epochs.add(ProducerEpoch(newest))
        epochs |= self._told_epochs.get(producer, set())
        return [self.state((shard, *producer, epoch)) for epoch in sorted(epochs)]
