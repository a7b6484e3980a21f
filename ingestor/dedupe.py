"""The ack arithmetic of sequenced producers: what a quorum holds, and what is still missing.

Replicas are the authority on which rows exist; each answer carries the interval set of the producer's
epoch. A `ProducerLedger` keeps the newest set of each owner and counts: a sequence is durable when W of
the owners' sets hold it (rows and skips alike). Never counted: what was merely received or sent.

Invariants: `ack_till` never falls (`told` remembers what was answered, here or by an earlier leader);
nothing above `told` counts that fewer than W sets in hand hold, so it may only be an under-estimate.

An owner's set may also shrink (a lost disk, a quarantined block). So a set replaces the one before, if
it answers a call begun after that one was in hand; sets of calls that overlapped in time are united.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.quorum_tally import Group
from records.block import Spans
from records.intervals import SeqIntervals, counted_at_least
from records.messages import ProducerEpochKey, ProducerState


@dataclass(frozen=True, slots=True)
class Progress:
    """All of 1..ack_till is durable; of ack_till+1..max_seen all but `missing` is."""

    ack_till: int
    max_seen: int
    missing: Spans

    @property
    def complete(self) -> bool:
        """Whether nothing below the largest sequence seen is missing."""
        return not self.missing


class ProducerLedger:
    """The sets of one producer epoch, by owner. `call` numbers grow with time; see `Calls`."""

    __slots__ = ("_gone", "_heard", "_sets", "key", "told")

    def __init__(self, key: ProducerEpochKey) -> None:
        self.key = key
        self.told = 0
        self._sets: dict[str, SeqIntervals] = {}
        self._heard: dict[str, int] = {}
        #: Below a watermark, as an owner that had them said: needed on none any more.
        self._gone = SeqIntervals()

    def hear(self, owner: str, state: ProducerState, sent: int, now: int) -> None:
        """Takes an owner's state; `sent`: when its call began, `now`: when the answer came."""
        spans = SeqIntervals(state.spans)
        if sent <= self._heard.get(owner, -1):
            spans.update(self._sets[owner])
        self._sets[owner] = spans
        self._heard[owner] = now
        self._gone.update(state.gone)
        self.told = max(self.told, state.told)

    def held_by(self, owner: str) -> SeqIntervals:
        """What `owner` holds as far as known."""
        return self._sets.get(owner, SeqIntervals())

    def progress(self, groups: Iterable[Group]) -> Progress:
        """Where the producer stands: a sequence counts that enough owners of each group hold.

        The caller answers it, so it becomes `told`.
        """
        asked = tuple(groups)
        counted = self._counted(asked)
        if self.told:
            counted.add(1, self.told)
        self.told = counted.contiguous_end
        seen = max((one.largest for group in asked for one in self._sets_of(group)), default=0)
        seen = max(seen, self.told)
        missing = tuple(counted.gaps(self.told + 1, seen)) if seen > self.told else ()
        return Progress(self.told, seen, missing)

    def _sets_of(self, group: Group) -> list[SeqIntervals]:
        return [self._sets[owner] for owner in group.members if owner in self._sets]

    def _counted(self, groups: Sequence[Group]) -> SeqIntervals:
        """What enough owners of each group hold."""
        counted: SeqIntervals | None = None
        for group in groups:
            firm = counted_at_least(self._sets_of(group), group.needed)
            if counted is None:
                counted = firm
            else:
                both = (part for a, b in counted.spans() for part in firm.overlap(a, b))
                counted = SeqIntervals(both)
        if counted is None:
            return SeqIntervals()
        counted.update(self._gone)
        return counted

    def judges(self, spans: Spans, groups: Iterable[Group]) -> frozenset[str] | None:
        """Owners to ask first whether rows with these sequences are those that they hold; None: nobody.

        They are known to hold all that is durable of `spans`, while another owner may lack some of it: that
        one would take other bytes under the same names. What was told is durable, whoever holds it: owners
        that are not known here hold it then too. None: nothing is durable, or every owner can judge.
        """
        asked = tuple(groups)
        durable = self._durable(spans, asked)
        owners = {owner for group in asked for owner in group.members}
        able = {o for o in owners if not any(self.held_by(o).gaps(a, b) for a, b in durable)}
        return frozenset(able) if durable and able != owners else None

    def witnesses(self, spans: Spans, groups: Iterable[Group]) -> list[tuple[str, Spans]]:
        """Where nobody can judge all of `spans`: owners that hold it together, with the part of each.

        Empty if every owner holds some of it: then each refuses an entry with other bytes by itself.
        """
        asked = tuple(groups)
        left = self._durable(spans, asked)
        held = {owner: self.held_by(owner) for group in asked for owner in sorted(group.members)}
        if all(any(one.overlap(a, b) for a, b in left) for one in held.values()):
            return []
        found: list[tuple[str, Spans]] = []
        while left and held:
            parts = {
                o: [part for a, b in left for part in one.overlap(a, b)] for o, one in held.items()
            }
            owner = max(parts, key=lambda one: sum(b - a + 1 for a, b in parts[one]))
            left = [gap for a, b in left for gap in held.pop(owner).gaps(a, b)]
            if parts[owner]:
                found.append((owner, tuple(parts[owner])))
        return found

    def _durable(self, spans: Spans, groups: Sequence[Group]) -> list[tuple[int, int]]:
        """What is durable of `spans`, as far as is known here."""
        largest = max((one.largest for one in self._sets.values()), default=0)
        if not spans or spans[0][0] > max(largest, self.told):
            return []
        firm = self._counted(groups)
        if self.told:
            firm.add(1, self.told)
        return [part for a, b in spans for part in firm.overlap(a, b)]

    def thin(self, groups: Iterable[Group]) -> list[tuple[int, int]]:
        """Spans above `told` that some owners hold, but in some group too few of them."""
        asked = tuple(groups)
        sets = [one for group in asked for one in self._sets_of(group)]
        if not sets:
            return []
        firm = self._counted(asked)
        found: list[tuple[int, int]] = []
        for first, last in counted_at_least(sets, 1):
            if last > self.told:
                found += firm.gaps(max(first, self.told + 1), last)
        return found

    def may_be_acked(
        self, spans: Iterable[tuple[int, int]], overlap: Iterable[Group], heard: Iterable[str]
    ) -> bool:
        """Whether some of `spans` may have been acknowledged, as far as those `heard` can tell.

        It was not, if of each owner set as many as meet every quorum (`overlap`) answered and lack it. One
        set is enough: before the shard began to move there was no other.
        """
        asked, heard_of = tuple(spans), frozenset(heard)
        for group in overlap:
            answered = group.members & heard_of
            quorum = len(group.members) - group.needed + 1
            holders = quorum - (len(group.members) - len(answered))
            firm = counted_at_least([self.held_by(one) for one in answered], max(1, holders))
            if holders <= 0 or any(firm.overlap(a, b) for a, b in asked):
                return True
        return False


class Calls:
    """Numbers that order the beginnings and ends of calls in one process."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def tick(self) -> int:
        """A number larger than all before."""
        self._next += 1
        return self._next
