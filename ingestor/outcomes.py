"""What became of one request's rows on their owners: pure counting, entry by entry.

A `Submission` is a piece on its way with the acks it needs; each entry has a tally. An entry is won when
enough owners hold it (stored or duplicate). Until then one owner's CONFLICT, FENCED or STALE decides:
an ack that has been given is a fact, one that has not is not given against an owner's word.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from cluster.quorum_tally import Group, QuorumTally
from ingestor.producers import ProducerSession
from ingestor.shards import Piece
from records.block import EntryHeader, Spans
from records.errors import DiskFull, QuorumlogError, QuorumUnavailable
from records.ids import EntryId
from records.intervals import SeqIntervals
from records.messages import EntryStatus, PutReply
from runtime.deadline import Deadline


class Verdict(Enum):
    """How an entry stands."""

    OPEN = "open"
    WON = "won"
    CONFLICT = "conflict"
    FENCED = "fenced"
    STALE = "stale"


_VERDICTS = {
    EntryStatus.CONFLICT: Verdict.CONFLICT,
    EntryStatus.FENCED: Verdict.FENCED,
    EntryStatus.STALE: Verdict.STALE,
}


class EntryTally:
    """One entry's answers."""

    __slots__ = ("_w", "conflicts", "entry", "tally", "verdict")

    def __init__(self, entry: EntryHeader, groups: Sequence[Group], w: int) -> None:
        self.entry = entry
        self._w = w
        self.tally = QuorumTally(groups)
        self.verdict = Verdict.OPEN
        self.conflicts: SeqIntervals | None = None

    def take(self, owner: str, status: EntryStatus, held: int, conflicts: Spans) -> None:
        """Counts one owner's answer; a verdict once reached stays."""
        if status in (EntryStatus.STORED, EntryStatus.DUPLICATE):
            self.tally.ack(owner, held)
            if self.verdict is Verdict.OPEN and self.tally.success:
                self.verdict = Verdict.WON
            return
        self.tally.refuse(owner)
        if conflicts:
            self.conflicts = self.conflicts or SeqIntervals()
            self.conflicts.update(conflicts)
        if self.verdict is Verdict.OPEN:
            self.verdict = _VERDICTS[status]

    @property
    def duplicates(self) -> int:
        """Rows that W owners held before this write."""
        return min(self.tally.held_before(self._w), self.entry.row_count)


#: Entries that this write has put on an owner, or may have: (entry id, owner). A DUPLICATE there
#: says nothing about an earlier write.
Mine = set[tuple[EntryId, str]]


@dataclass(eq=False, slots=True)
class Submission:
    """One piece on its way: `needed` acks of each owner set end it (of all owners if `every`).

    W copies held before make a duplicate. `session`: that of the producer of its numbered rows.

    `done` ends with None (then `entries` say how each stands) or with an error.
    """

    piece: Piece
    needed: int
    w: int
    deadline: Deadline
    mine: Mine
    done: "asyncio.Future[None]"
    session: ProducerSession | None = None
    queued_at: float = 0.0
    every: bool = False
    entries: tuple[EntryTally, ...] = field(init=False)
    full: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        groups = [Group(frozenset(one), self._needed_of(one)) for one in self.piece.groups]
        self.entries = tuple(EntryTally(one, groups, self.w) for one in self.piece.entries)

    def _needed_of(self, owners: Sequence[str]) -> int:
        """Acks of one owner set; the sets of a shard that moves may differ in size, W holds for each."""
        if self.every or self.needed > len(owners):
            return max(self.w, len(owners))
        return self.needed

    @property
    def settled(self) -> bool:
        """Whether there is an outcome."""
        return self.done.done()

    @property
    def acks(self) -> int:
        """Fewest owners over the entries."""
        return min(one.tally.acks for one in self.entries)

    def take(self, owner: str, reply: PutReply, first: int) -> None:
        """Counts one owner's reply, in which this piece's entries begin at `first`."""
        for index, one in enumerate(self.entries, first):
            status = reply.statuses[index]
            held = reply.duplicate_rows[index]
            if status is EntryStatus.DUPLICATE:
                held = one.entry.row_count
            if (one.entry.entry_id, owner) in self.mine:
                held = 0
            elif status is EntryStatus.STORED:
                self.mine.add((one.entry.entry_id, owner))
            one.take(owner, status, held, reply.conflict_seqs[index])
        self.full.discard(owner)
        if not self.settled and all(one.verdict is not Verdict.OPEN for one in self.entries):
            self.done.set_result(None)

    def may_be_stored(self, owner: str) -> None:
        """A try to put it on `owner` ended without a known outcome."""
        self.mine.update((one.entry.entry_id, owner) for one in self.entries)

    @property
    def disk_full(self) -> bool:
        """Whether full disks alone leave too few owners."""
        return any(
            len(set(group) - self.full) < self._needed_of(group) for group in self.piece.groups
        )

    def fail(self, error: QuorumlogError) -> None:
        """Ends it with an error, if it has no outcome yet."""
        if not self.settled:
            self.done.set_exception(error)

    def expire(self, *, over: bool = False) -> None:
        """Its time is over: fewer than the needed owners confirmed.

        Args:
            over: no try to put it is under way, and none will begin.
        """
        acks, owners = self.acks, len(self.piece.owners)
        facts = {"acks": acks, "needed": self.needed, "durable": f"{acks}/{owners}"}
        if self.disk_full:
            text = f"too many disks are full: {', '.join(sorted(self.full))}"
            definite = over and self.full.issuperset(self.piece.owners) and not self.mine
            self.fail(DiskFull(text, retry_after_seconds=5, definite=definite, **facts))
        else:
            text = f"{acks} of {owners} owners confirmed, {self.needed} needed"
            self.fail(QuorumUnavailable(text, retry_after_seconds=1, **facts))
