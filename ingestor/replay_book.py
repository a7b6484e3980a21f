"""Replay requests: what producers are asked to send again, and how far that has come. Pure.

Two kinds. A *gap* is derived: while the owners of a shard lack sequences below the largest one seen of a
producer epoch, there is one request for them, under an id that follows from the producer alone, so that a
new leader makes the same request from what is stored. An *asked* one is an operator's: a producer sends
some sequences once more, whether they are held or not; what is held counts as a duplicate.

    pending -> streaming -> completed     rows (or skips) come; in the end nothing is waited for
    pending, streaming   -> expired       nothing came for `age_micros`; a gap's comes back to life
                         -> cancelled     an operator's only

Invariants: a sequence leaves `waiting` only by rows or a skip that W owners hold, or (asked) by the
producer's word that it is gone; never by time. Expiry ends the waiting, not the gap: `missing` goes on
naming it. Requests are bounded: beyond `open_max` none is opened, and that is counted.

Source: reliability.md 2.2 ("Gap that will never be filled"); Kafka's and RELP's resend-from windows.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import Any

from records.block import Spans
from records.errors import InvalidRequest, Overloaded
from records.intervals import SeqIntervals
from records.messages import ProducerEpochKey

#: Spans of one request that an answer lists at most; the rest is told when these have come.
SPANS_TOLD = 100
#: An operator's requests that one answer tells a producer of at most.
REQUESTS_TOLD = 4
#: Services with sums of their own; further ones are summed under OTHERS.
SERVICES_MAX = 1_000
OTHERS = "(others)"


class State(StrEnum):
    """Of a request; see the module's text."""

    PENDING = "pending"
    STREAMING = "streaming"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Kind(StrEnum):
    """Where a request comes from."""

    GAP = "gap"
    ASKED = "asked"


@dataclass(slots=True)
class Rows:
    """Rows of a request, or of all of a service's, by what became of them."""

    asked: int = 0
    replayed: int = 0
    duplicate: int = 0
    skipped: int = 0
    gone: int = 0

    def to_dict(self) -> dict[str, int]:
        """As answered."""
        names = ("asked", "replayed", "duplicate", "skipped", "gone")
        return {f"rows{name.capitalize()}": getattr(self, name) for name in names}


@dataclass(slots=True)
class ReplayRequest:
    """One request. `waiting`: not come yet; `lacking`: what of that the owners lack. Times: wall µs."""

    id: str
    key: ProducerEpochKey
    kind: Kind
    created: int
    waiting: Spans
    lacking: Spans
    reason: str = ""
    state: State = State.PENDING
    changed: int = 0
    rows: Rows = field(default_factory=Rows)

    def to_dict(self) -> dict[str, Any]:
        """As answered; `ranges` are the sequences still waited for, at most SPANS_TOLD of them."""
        _, service, producer, epoch = self.key
        waiting = size(self.waiting)
        body: dict[str, Any] = {
            "id": self.id,
            "kind": str(self.kind),
            "state": str(self.state),
            "service": service,
            "producer": producer,
            "epoch": epoch,
            "reason": self.reason,
            "ranges": [list(span) for span in self.waiting[:SPANS_TOLD]],
            "rowsWaiting": waiting,
            **self.rows.to_dict(),
            "createdMicros": self.created,
            "changedMicros": self.changed,
        }
        if len(self.waiting) > SPANS_TOLD:
            body["rangesTruncated"] = True
        return body


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """Bounds: open requests, finished ones that are remembered, µs without progress until expiry."""

    open_max: int
    finished_max: int
    age_micros: int


class ReplayBook:
    """The requests of the producers whose shards one node leads."""

    def __init__(
        self, limits: ReplayLimits, on_finished: Callable[[ReplayRequest], None] = lambda _: None
    ) -> None:
        """`on_finished` is told of each request that ended, once."""
        self._limits = limits
        self._on_finished = on_finished
        self._gaps: dict[ProducerEpochKey, ReplayRequest] = {}
        self._asked: dict[ProducerEpochKey, list[ReplayRequest]] = {}
        self._finished: OrderedDict[str, ReplayRequest] = OrderedDict()
        self._open: dict[str, ReplayRequest] = {}
        #: Gaps for which there was no room.
        self.refused = 0
        self.totals = Rows()
        self.services: dict[tuple[str, str], Rows] = {}

    def __len__(self) -> int:
        """Requests that are not finished; an expired gap's is not."""
        return len(self._open)

    # -- what happens ------------------------------------------------------------------------------

    def observe(
        self,
        key: ProducerEpochKey,
        missing: Spans,
        now: int,
        came: Spans = (),
        skips: Spans = (),
        heard: bool = True,
    ) -> None:
        """A producer epoch stands at `missing` now, after rows `came` and `skips` became durable.

        `heard`: the producer itself was here; else somebody looked at what the owners hold.
        """
        gap = self._gaps.get(key)
        if gap is not None:
            self._advance_gap(gap, missing, now, skips, heard)
        elif missing:
            self._open_gap(key, missing, now)
        for one in tuple(self._asked.get(key, ())):
            self._advance_asked(one, missing, now, came, skips)

    def _open_gap(self, key: ProducerEpochKey, missing: Spans, now: int) -> None:
        if len(self._open) >= self._limits.open_max:
            self.refused += 1
            return
        one = ReplayRequest(gap_id(key), key, Kind.GAP, now, missing, missing, changed=now)
        self._count(one, "asked", size(missing))
        self._gaps[key] = self._open[one.id] = one

    def _advance_gap(
        self, one: ReplayRequest, missing: Spans, now: int, skips: Spans, heard: bool
    ) -> None:
        if heard and one.state is State.EXPIRED:
            one.state, one.changed = State.PENDING, now
        if missing == one.waiting:
            return
        filled, fresh = minus(one.waiting, missing), minus(missing, one.waiting)
        skipped = size(common(filled, skips))
        self._count(one, "skipped", skipped)
        self._count(one, "replayed", size(filled) - skipped)
        self._count(one, "asked", size(fresh))
        one.waiting = one.lacking = missing
        one.changed = now
        if not missing:
            self._finish(one, State.COMPLETED, now)
        elif filled:
            one.state = State.STREAMING

    def _advance_asked(
        self, one: ReplayRequest, missing: Spans, now: int, came: Spans, skips: Spans
    ) -> None:
        arrived = common(one.waiting, came)
        left = minus(one.waiting, arrived)
        skipped = common(left, skips)
        new = size(common(arrived, one.lacking))
        self._count(one, "replayed", new)
        self._count(one, "duplicate", size(arrived) - new)
        self._count(one, "skipped", size(skipped))
        self._wait_for(one, minus(left, skipped), now, bool(arrived or skipped))
        one.lacking = common(one.waiting, missing)

    def _wait_for(self, one: ReplayRequest, waiting: Spans, now: int, moved: bool) -> None:
        one.waiting = waiting
        if moved:
            one.state, one.changed = State.STREAMING, now
        if not waiting:
            self._finish(one, State.COMPLETED, now)

    def ask(
        self, name: str, key: ProducerEpochKey, spans: Spans, missing: Spans, now: int, reason: str
    ) -> ReplayRequest:
        """Opens an operator's request under the id `name`; the one there is if it is known already.

        Raises:
            InvalidRequest: no sequences. Overloaded: too many open requests.
        """
        known = self._of_id(name)
        if known is not None:
            return known
        if not spans:
            raise InvalidRequest("no sequences of this producer are in that range")
        self.check_room(1)
        lacking = common(spans, missing)
        one = ReplayRequest(name, key, Kind.ASKED, now, spans, lacking, reason, changed=now)
        self._count(one, "asked", size(spans))
        self._asked.setdefault(key, []).append(one)
        self._open[name] = one
        return one

    def check_room(self, count: int) -> None:
        """Whether so many more requests may be opened.

        Raises:
            Overloaded: too many are open.
        """
        if len(self._open) + count > self._limits.open_max:
            self.refused += count
            raise Overloaded(f"{len(self)} replay requests are open", retry_after_seconds=10)

    def gone(self, name: str, spans: Spans, now: int) -> ReplayRequest | None:
        """The producer no longer has `spans`; None if there is no such open request of an operator."""
        one = self._of_id(name)
        if one is None or one.kind is not Kind.ASKED or one.state in _ENDS:
            return one
        found = common(one.waiting, spans)
        self._count(one, "gone", size(found))
        self._wait_for(one, minus(one.waiting, found), now, bool(found))
        return one

    def cancel(self, name: str, now: int) -> ReplayRequest | None:
        """Ends an operator's request; None if it is not known.

        Raises:
            InvalidRequest: a gap is not cancelled; it ends by rows or by a skip.
        """
        one = self._of_id(name)
        if one is not None and one.kind is Kind.GAP and one.state is not State.COMPLETED:
            raise InvalidRequest(
                "a gap is not cancelled: it ends when its rows come, or when the producer skips them"
            )
        if one is not None and one.state not in _ENDS:
            self._finish(one, State.CANCELLED, now)
        return one

    def expire(self, now: int) -> None:
        """Ends the waiting for whom nothing has come for the limit's age."""
        for one in list(self._open.values()):
            if now - one.changed < self._limits.age_micros or one.state is State.EXPIRED:
                continue
            if one.kind is Kind.GAP:
                one.state, one.changed = State.EXPIRED, now
            else:
                self._finish(one, State.EXPIRED, now)

    def keep(self, leads: Callable[[ProducerEpochKey], bool]) -> list[ReplayRequest]:
        """Forgets the open requests of producers that are led elsewhere now; nothing ended by that.

        Returns the operators' requests among them.
        """
        for key in [key for key in self._gaps if not leads(key)]:
            del self._open[self._gaps.pop(key).id]
        moved: list[ReplayRequest] = []
        for key in [key for key in self._asked if not leads(key)]:
            moved += self._asked.pop(key)
        for one in moved:
            del self._open[one.id]
        return moved

    def _finish(self, one: ReplayRequest, state: State, now: int) -> None:
        one.state, one.changed = state, now
        del self._open[one.id]
        if one.kind is Kind.GAP:
            del self._gaps[one.key]
        else:
            left = [other for other in self._asked.pop(one.key) if other is not one]
            if left:
                self._asked[one.key] = left
        self._finished.pop(one.id, None)
        self._finished[one.id] = one
        while len(self._finished) > self._limits.finished_max:
            self._finished.popitem(last=False)
        self._on_finished(one)

    def _count(self, one: ReplayRequest, what: str, rows: int) -> None:
        name = one.key[:2]
        if name not in self.services and len(self.services) >= SERVICES_MAX:
            name = (name[0], OTHERS)
        sums = self.services.setdefault(name, Rows())
        for total in (one.rows, self.totals, sums):
            setattr(total, what, getattr(total, what) + rows)

    # -- what is asked -----------------------------------------------------------------------------

    def knows(self, key: ProducerEpochKey) -> bool:
        """Whether anything is open for a producer epoch."""
        return key in self._gaps or key in self._asked

    def due(self, key: ProducerEpochKey) -> tuple[tuple[str, Spans], ...]:
        """(id, sequences) that operators ask of a producer epoch: the first few of each."""
        found = self._asked.get(key, ())
        return tuple((one.id, one.waiting[:SPANS_TOLD]) for one in found[:REQUESTS_TOLD])

    def listed(
        self,
        tenant: str,
        service: str = "",
        producer: str = "",
        states: Collection[str] = (),
        name: str = "",
    ) -> list[ReplayRequest]:
        """The tenant's requests that fit, the newest first; finished ones among them."""
        found = [
            one
            for one in (*self._open.values(), *self._finished.values())
            if one.key[0] == tenant
            and service in ("", one.key[1])
            and producer in ("", one.key[2])
            and (not states or str(one.state) in states)
            and name in ("", one.id)
        ]
        return sorted(found, key=lambda one: (one.created, one.id), reverse=True)

    def open_gaps(self) -> list[ReplayRequest]:
        """The requests for gaps, expired ones too."""
        return list(self._gaps.values())

    def counts(self, tenant: str | None = None) -> dict[str, int]:
        """How many open requests are in each state: of one tenant, or all."""
        found = {str(state): 0 for state in (State.PENDING, State.STREAMING, State.EXPIRED)}
        for one in self._open.values():
            if tenant in (None, one.key[0]):
                found[str(one.state)] += 1
        return found

    def _of_id(self, name: str) -> ReplayRequest | None:
        return self._open.get(name) or self._finished.get(name)


_ENDS = frozenset({State.COMPLETED, State.EXPIRED, State.CANCELLED})


def gap_id(key: ProducerEpochKey) -> str:
    """The id of a producer epoch's gap: the same at every leader."""
    text = "\x00".join(map(str, key)).encode("utf-8", "surrogatepass")
    return f"gap-{blake2b(text, digest_size=10).hexdigest()}"


def size(spans: Iterable[tuple[int, int]]) -> int:
    """How many sequences disjoint spans hold."""
    return sum(last - first + 1 for first, last in spans)


def common(spans: Spans, others: Spans) -> Spans:
    """The sequences in both, ascending."""
    if not spans or not others:
        return ()
    held = SeqIntervals(others)
    return tuple(part for first, last in spans for part in held.overlap(first, last))


def minus(spans: Spans, others: Spans) -> Spans:
    """The sequences of `spans` that are not in `others`, ascending."""
    if not others:
        return spans
    held = SeqIntervals(others)
    return tuple(gap for first, last in spans for gap in held.gaps(first, last))
