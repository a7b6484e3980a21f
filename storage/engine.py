"""The replica's decisions: put-if-absent, fences, producer epochs. Events in, effects out. Pure.

    decide(put) -> Wait      another put of the same rows is being written: ask again when it is done
                 | Compare   rows are held under another entry or hash: compare them, ask again with proofs
                 | Verdict   statuses, and the records that must be durable before the reply
    apply(put)               its records are durable: file the block
    abandon(put)             writing failed: forget it was there

Rules, per entry, in this order (raft.md 9.2, reliability.md 2.1, design.md "Identity"):
1. sequenced, not a repair, shard epoch below the fence          -> STALE
2. sequenced, not a repair, producer epoch below the newest       -> FENCED
3. below the watermark as a whole, and a repair or unsequenced         -> DUPLICATE, not stored, counted
4. id held: same hash, or other hash but equal rows               -> DUPLICATE; else CONFLICT
5. sequences held as rows with other contents                     -> CONFLICT, not stored (a repair is stored
   all the same: replicas must reach the same set; the oldest block's rows show)
6. else                                                           -> STORED, overlapping rows masked

A fence is raised in memory before it is durable (stricter is always safe) and answered after.
A put registers nothing while it waits, so puts cannot deadlock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from records.block import BlockHeader, EntryHeader, ProducerKey, Spans
from records.errors import BlockCorrupt, StaleRingEpoch, StaleShardEpoch
from records.messages import (
    EntryStatus,
    ProducerEpochKey,
    ProducerState,
    PutOptions,
    PutReply,
    SealRequest,
)
from storage.holdings import BlockPlace, Holdings
from storage.judge import Judge, Judgement, Pair, Proof, Writing, length
from storage.log_format import Record, RecordType
from storage.producers import group_key


@dataclass(frozen=True, slots=True)
class Wait:
    """Puts that must be done first."""

    puts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """Pairs of entries whose rows must be compared: at `spans`, or row by row if None."""

    pairs: tuple[tuple[Pair, Spans | None], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision. `accepted` entries are stored; `records` precede the block in the log."""

    statuses: tuple[EntryStatus, ...]
    duplicate_rows: tuple[int, ...]
    conflict_seqs: tuple[Spans, ...]
    accepted: tuple[int, ...]
    records: tuple[Record, ...]
    told: tuple[tuple[ProducerEpochKey, int], ...] = ()
    ring_epoch: int = 0
    #: Rows of entries that are below the watermark and were not stored.
    expired_rows: int = 0

    def reply(self, producers: tuple[ProducerState, ...]) -> PutReply:
        """What the coordinator is told."""
        return PutReply(self.statuses, self.duplicate_rows, self.conflict_seqs, producers)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A put whose records are being written."""

    header: BlockHeader
    verdict: Verdict


class Engine:
    """Fences, pending puts and the holdings of one node."""

    def __init__(self, holdings: Holdings | None = None) -> None:
        self.holdings = holdings or Holdings()
        self.fences: dict[int, tuple[int, str]] = {}
        self.ring_epoch = 0
        self.dirty_fences: set[int] = set()
        self._durable_ring_epoch = 0
        self._pending: dict[int, _Pending] = {}
        self.writing = Writing()

    # -- puts -------------------------------------------------------------------------------------

    def decide(
        self, header: BlockHeader, options: PutOptions, proofs: Mapping[Pair, Proof]
    ) -> Wait | Compare | Verdict:
        """Judges a block. Changes nothing but fences, and the newest receipt heard of.

        Raises:
            StaleRingEpoch: this node knows a newer ring.
            BlockCorrupt: an entry's rows and sequences differ in number.
        """
        if options.ring_epoch < self.ring_epoch:
            raise StaleRingEpoch("a newer ring is known here", epoch=self.ring_epoch)
        _check_entries(header.entries)
        judge = Judge(self.holdings, self.fences, self.writing, header, options.repair, proofs)
        found = [judge.judge(index) for index in range(len(header.entries))]
        if waits := {put for one in found for put in one.waits}:
            return Wait(tuple(sorted(waits)))
        if pairs := tuple(pair for one in found for pair in one.pairs):
            return Compare(pairs)
        return self._verdict(header, options, found)

    def _verdict(
        self, header: BlockHeader, options: PutOptions, found: Sequence[Judgement]
    ) -> Verdict:
        accepted = tuple(i for i, one in enumerate(found) if one.status is EntryStatus.STORED)
        records: list[Record] = []
        if options.ring_epoch > self._durable_ring_epoch:
            self.ring_epoch = options.ring_epoch
            records.append(Record(RecordType.RING_EPOCH, options.ring_epoch))
        if not options.repair:
            records += self._raised_fences(header.entries)
        self.holdings.hear(entry.received_at for entry in header.entries)
        told = tuple(
            (key, k) for key, k in options.told if k > self.holdings.producers.told.get(key, 0)
        )
        if told:
            records.append(Record(RecordType.TOLD, [[list(key), k] for key, k in told]))
        return Verdict(
            tuple(one.status for one in found),
            tuple(one.duplicates for one in found),
            tuple(one.conflicts for one in found),
            accepted,
            tuple(records),
            told,
            options.ring_epoch,
            sum(one.duplicates for one in found if one.expired),
        )

    def _raised_fences(self, entries: Sequence[EntryHeader]) -> list[Record]:
        records = []
        for entry in entries:
            known = self.fences.get(entry.shard, (0, ""))[0]
            if entry.sequenced and entry.shard_epoch > known:
                self._set_fence(entry.shard, int(entry.shard_epoch), "")
                record = [int(entry.shard), int(entry.shard_epoch), ""]
                records.append(Record(RecordType.FENCE, record))
        return records

    def _set_fence(self, shard: int, epoch: int, leader: str) -> None:
        known, known_leader = self.fences.get(shard, (0, ""))
        if epoch > known or (epoch == known and leader and not known_leader):
            self.fences[shard] = (epoch, leader)
            self.dirty_fences.add(shard)

    def begin(self, put: int, header: BlockHeader, verdict: Verdict) -> None:
        """The put's records are on their way; until `apply` or `abandon` others wait for it."""
        self._pending[put] = _Pending(header, verdict)
        self.writing.add(put, [header.entries[index] for index in verdict.accepted])

    def abandon(self, put: int) -> None:
        """Writing failed. The rows may exist after a restart; nobody was told that they do."""
        pending = self._pending.pop(put)
        entries = [pending.header.entries[index] for index in pending.verdict.accepted]
        self.writing.discard(put, entries)

    def apply(self, put: int, place: BlockPlace | None) -> None:
        """The put's records are durable; `place` is its block's, None if no entry was accepted."""
        pending = self._pending[put]
        self.abandon(put)
        if place is not None:
            self.file_block(pending.header, pending.verdict.accepted, place)
        self.holdings.producers.raise_told(pending.verdict.told)
        self.replay_ring_epoch(pending.verdict.ring_epoch)

    def file_block(self, header: BlockHeader, accepted: Sequence[int], place: BlockPlace) -> None:
        """Adds a durable block; at start, from the log."""
        self.holdings.add_block(header, accepted, place)
        for index in accepted:
            entry = header.entries[index]
            if entry.sequenced:
                self._set_fence(entry.shard, int(entry.shard_epoch), "")

    def still_absent(self, header: BlockHeader, accepted: Sequence[int]) -> list[int]:
        """Of entries accepted long ago, those to file at start: put-if-absent again."""
        absent: dict[bytes, int] = {}
        for index in accepted:
            entry_id = header.entries[index].entry_id
            if entry_id not in absent and self.holdings.table.find(entry_id) is None:
                absent[entry_id] = index
        return list(absent.values())

    def producer_replies(self, header: BlockHeader) -> tuple[ProducerState, ...]:
        """The state of each producer epoch in a block."""
        keys = dict.fromkeys(group_key(entry) for entry in header.entries if entry.sequenced)
        return tuple(self.holdings.producers.state(key) for key in keys)

    # -- epochs -----------------------------------------------------------------------------------

    def seal(self, request: SealRequest) -> Record:
        """Raises a fence; the record must be durable before the answer.

        Raises:
            StaleShardEpoch: a newer epoch, or another leader at this one, is known.
        """
        epoch, leader = self.fences.get(request.shard, (0, ""))
        same = request.epoch == epoch and leader in ("", request.leader)
        if request.epoch < epoch or (request.epoch == epoch and not same):
            raise StaleShardEpoch(
                f"shard {request.shard} is fenced at {epoch}", shard=request.shard, epoch=epoch
            )
        self._set_fence(request.shard, request.epoch, request.leader)
        return Record(RecordType.FENCE, [request.shard, request.epoch, request.leader])

    def claim_producer(
        self, shard: int, producer: ProducerKey, epoch: int, ring_epoch: int
    ) -> tuple[Record, bool]:
        """As `seal_producer`, by who knows the newest ring; and whether this call raised it.

        No other call does, also if the record does not become durable: then nobody is told that he did.

        Raises:
            StaleRingEpoch: this node knows a newer ring.
        """
        if ring_epoch < self.ring_epoch:
            raise StaleRingEpoch("a newer ring is known here", epoch=self.ring_epoch)
        raised = epoch > self.holdings.producers.newest_epoch(shard, producer)
        return self.seal_producer(shard, producer, epoch), raised

    def seal_producer(self, shard: int, producer: ProducerKey, epoch: int) -> Record:
        """Makes `epoch` the newest if it is greater; the record must be durable before the answer."""
        newest = self.holdings.producers.raise_newest(shard, producer, epoch)
        return Record(RecordType.PRODUCER_EPOCH, [shard, *producer, newest])

    def observe(self, ring_epoch: int, shard_epochs: Mapping[int, int]) -> None:
        """Epochs from the metadata snapshot. Not logged: the snapshot tells them again."""
        self.ring_epoch = max(self.ring_epoch, ring_epoch)
        for shard, epoch in shard_epochs.items():
            self._set_fence(shard, epoch, "")

    def replay(self, kind: int, meta: object) -> None:
        """A durable record other than a block, at start."""
        values: list = meta if isinstance(meta, list) else [meta]
        if kind == RecordType.FENCE:
            self._set_fence(int(values[0]), int(values[1]), str(values[2]))
        elif kind == RecordType.PRODUCER_EPOCH:
            shard, tenant, service, producer, epoch = values
            self.holdings.producers.raise_newest(shard, (tenant, service, producer), epoch)
        elif kind == RecordType.RING_EPOCH:
            self.replay_ring_epoch(int(values[0]))
        elif kind == RecordType.TOLD:
            self.holdings.producers.raise_told((tuple(key), k) for key, k in values)

    def replay_ring_epoch(self, epoch: int) -> None:
        """A ring epoch that is durable here."""
        self._durable_ring_epoch = max(self._durable_ring_epoch, epoch)
        self.ring_epoch = max(self.ring_epoch, epoch)

    def load_fences(self, fences: Iterable[tuple[int, int, str]]) -> None:
        """Fences from a checkpoint."""
        for shard, epoch, leader in fences:
            self._set_fence(shard, epoch, leader)


def _check_entries(entries: Sequence[EntryHeader]) -> None:
    for entry in entries:
        if entry.seqs and length(entry.seqs) != entry.row_count:
            raise BlockCorrupt("an entry has another number of rows than of sequences")
        if any(b[0] <= a[1] for a, b in zip(entry.seqs, entry.seqs[1:], strict=False)):
            raise BlockCorrupt("an entry's sequences do not ascend")
