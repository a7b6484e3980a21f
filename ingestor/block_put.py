"""One block on its way to its owners: encoded once, sent to all, acknowledged piece by piece.

The block is settled when each of its pieces has an outcome; owners that are late then go on in the
background, with what they were sent, and are not asked again. Of a block that is acknowledged the owners
whose last try failed are hinted (cluster.handoff); one that is merely slow is waited for until its try
ends. A hint is no ack. Anti-entropy sees to the rest.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.quorum_call import Caller, QuorumCall
from cluster.replica_client import Replicas
from ingestor.dedupe import Calls
from ingestor.outcomes import Submission, Verdict
from ingestor.write_metrics import WriteMetrics
from records.block import BlockHeader, ProducerKey
from records.block_codec import EncodedBlock
from records.errors import DiskFull, Overloaded, QuorumlogError, Refused, StaleRingEpoch, Unknown
from records.messages import EntryStatus, ProducerEpochKey, ProducerState, PutOptions, PutReply
from runtime.clock import Clock
from runtime.deadline import Deadline

#: Told of an owner that missed an acknowledged block, and of owners that hold all of it. Must not wait.
Missed = Callable[[str, BlockHeader, Sequence[str]], None]
_HELD = (EntryStatus.STORED, EntryStatus.DUPLICATE)


def no_hints(_: str, __: BlockHeader, ___: Sequence[str]) -> None:
    """Where nobody keeps hints."""


class Lanes:
    """Bytes under way to each owner. Bounds what a slow or frozen owner can hold in memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._bytes: dict[str, int] = {}

    def enter(self, owner: str, count: int) -> None:
        """Counts `count` bytes, or refuses; one block always fits.

        Raises:
            Overloaded: the owner has enough to do.
        """
        under_way = self._bytes.get(owner, 0)
        if under_way and under_way + count > self._max:
            raise Overloaded(f"{under_way} bytes are under way to {owner}")
        self._bytes[owner] = under_way + count

    def leave(self, owner: str, count: int) -> None:
        """The bytes have arrived, or are given up."""
        self._bytes[owner] -= count


@dataclass(frozen=True, slots=True)
class PutParts:
    """What puts need of their surroundings."""

    replicas: Replicas
    calls: Calls
    lanes: Lanes
    caller: Caller
    clock: Clock
    metrics: WriteMetrics
    disk_full_hold_seconds: float
    missed: Missed = no_hints


class BlockPut:
    """Puts one block and tells each submission how it went."""

    def __init__(
        self,
        block: EncodedBlock,
        submissions: list[Submission],
        parts: "PutParts",
    ) -> None:
        self._block = block
        self._parts = parts
        self._metrics = parts.metrics
        self._started = parts.clock.monotonic()
        self._submissions = submissions
        self._unsettled = len(submissions)
        #: Owners that hold the whole block, and those whose last try failed.
        self._holders: list[str] = []
        self._failed: dict[str, None] = {}
        #: Owners that a try is under way to.
        self._trying: set[str] = set()
        self._firsts: list[int] = []
        first = 0
        for submission in submissions:
            self._firsts.append(first)
            first += len(submission.entries)
            submission.done.add_done_callback(self._one_settled)
        self._sessions = frozenset(s.session for s in submissions if s.session is not None)
        self.deadline = max((s.deadline for s in submissions), key=lambda one: one.at)
        self._call = QuorumCall(
            "put", self._put, self._answer, self._failure, parts.caller, self.deadline
        )

    def start(self) -> None:
        """Sends the block to all owners."""
        self._call.start(self._submissions[0].piece.owners)

    async def _put(self, owner: str, limit: Deadline) -> tuple[int, PutReply]:
        size = len(self._block.data)
        parts, header = self._parts, self._block.header
        self._failed.pop(owner, None)
        parts.lanes.enter(owner, size)
        self._trying.add(owner)
        begun, sent = parts.clock.monotonic(), parts.calls.tick()
        try:
            told = _told(self._submissions)
            options = PutOptions(ring_epoch=int(header.ring_epoch), told=told)
            reply = await parts.replicas.get(owner).put(self._block, options, limit)
        finally:
            self._trying.discard(owner)
            parts.lanes.leave(owner, size)
            self._metrics.put.labels(owner).observe(parts.clock.monotonic() - begun)
        answered = (reply.statuses, reply.duplicate_rows, reply.conflict_seqs)
        if any(len(one) != len(header.entries) for one in answered):
            raise Unknown(f"{owner} answered for {len(reply.statuses)} entries")
        return sent, reply

    def _answer(self, owner: str, answer: tuple[int, PutReply]) -> None:
        sent, reply = answer
        if self._call.settled:
            self._metrics.late.labels(owner, "stored").inc()
        self._hear(owner, reply.producers, sent)
        if all(status in _HELD for status in reply.statuses):
            self._holders.append(owner)
        for submission, first in zip(self._submissions, self._firsts, strict=True):
            submission.take(owner, reply, first)

    def _hear(self, owner: str, states: Iterable[ProducerState], sent: int) -> None:
        """Tells each producer's session what the owner holds of it by now."""
        now = self._parts.calls.tick()
        found: dict[ProducerKey, list[ProducerState]] = {}
        for state in states:
            found.setdefault(state.producer[:3], []).append(state)
        for session in self._sessions:
            session.hear(owner, found.get(session.producer, ()), sent, now)

    def _failure(self, owner: str, error: Exception) -> bool:
        code: Any = error.code if isinstance(error, QuorumlogError) else type(error).__name__
        self._metrics.put_failures.labels(owner, code).inc()
        if self._call.settled:
            self._metrics.late.labels(owner, "failed").inc()
            self._hint(owner)
        self._failed[owner] = None
        unknown = not (isinstance(error, Refused) or _definite(error))
        for submission in self._submissions:
            if isinstance(error, StaleRingEpoch):
                submission.fail(error)
            elif isinstance(error, DiskFull):
                submission.full.add(owner)
            elif unknown:
                submission.may_be_stored(owner)
        patience = 2 if self._trying else 1  # an answer under way makes the outcome definite
        held = self._parts.clock.monotonic() - self._started
        if isinstance(error, DiskFull) and held >= patience * self._parts.disk_full_hold_seconds:
            self._give_up()
        return True

    def _give_up(self) -> None:
        """Ends the requests that full disks alone keep from their acks.

        The block goes on with the rows of all as long as one of its requests does: only if none is left, and
        no try is under way, nothing will be stored any more.
        """
        over = not self._trying and all(one.settled or one.disk_full for one in self._submissions)
        if over:
            self._call.settle()  # at once: what rests between two tries may wake before any callback
        for submission in self._submissions:
            if submission.disk_full:
                submission.expire(over=over)

    def _one_settled(self, _: object) -> None:
        self._unsettled -= 1
        if not self._unsettled:
            self._metrics.quorum.observe(self._parts.clock.monotonic() - self._started)
            self._call.settle()
            for owner in self._failed:  # those that rest between two tries: no other begins
                self._hint(owner)

    def _hint(self, owner: str) -> None:
        """`owner` lacks the block, or may; unless an entry of the block was not acknowledged.

        A repair does not ask whether an entry is fenced or in conflict: delivered, it would store what the
        owners refused.
        """
        entries = (one for submission in self._submissions for one in submission.entries)
        if self._holders and all(one.verdict is Verdict.WON for one in entries):
            self._parts.missed(owner, self._block.header, self._holders)


def _told(submissions: Iterable[Submission]) -> tuple[tuple[ProducerEpochKey, int], ...]:
    """What was answered to the producers of these rows, for their owners to remember."""
    found: dict[ProducerEpochKey, int] = {}
    for one in submissions:
        if one.session is None:
            continue
        for entry in one.piece.entries:
            epoch = int(entry.producer_epoch)
            if entry.sequenced and (till := one.session.told(epoch)):
                found[*entry.producer_key, epoch] = till
    return tuple(found.items())


def _definite(error: Exception) -> bool:
    return isinstance(error, QuorumlogError) and error.details.get("definite") is True
