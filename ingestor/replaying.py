"""Finds the gaps that nobody tells of, and asks producers on an operator's behalf.

Gaps show in the answers to a producer (`sequenced`). But a producer may be silent, or its shard may have
a new leader: so each leader asks the owners now and then which producers have gaps, and looks at those as
if they had asked themselves. An owner that does not answer only delays what it knows; nothing is
concluded from its silence, and a gap that one owner has is none if W others hold the rows.

An operator's request is kept by its shard's leader, and a note of it by the other ingestors (`remember`):
whoever leads the shard next opens it again, under the same id. What had come is then asked for again, and
counted as duplicates.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.replica_client import Replicas
from cluster.view import ClusterView, ViewSource
from ingestor.leases import ShardLeases
from ingestor.replay_book import ReplayRequest
from ingestor.replay_desk import ReplayDesk
from ingestor.sequenced import SequencedWriter
from ingestor.write_settings import WriteSettings
from records.block import Spans
from records.errors import (
    InvalidRequest,
    NotReady,
    Overloaded,
    QuorumlogError,
    QuorumUnavailable,
)
from records.intervals import SeqIntervals
from records.messages import (
    EntriesRequest,
    ProducerEpochKey,
    ProducersRequest,
    ProducerState,
)
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.entropy import Entropy
from runtime.logs import get_logger
from runtime.metrics import Metrics
from runtime.tasks import Supervisor

log = get_logger(__name__)

#: Seconds for the owners to list their producers, and for one producer's state.
LIST_SECONDS = 2.0
#: Producers looked at in one round; the next round goes on behind them.
LOOKED_AT_MAX = 200
#: Producers that one request of an operator may be about.
PRODUCERS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Ask:
    """What an operator wants: `spans`, or the rows of the time `start`..`end` (µs, end excluded)."""

    tenant: str
    service: str
    producer: str = ""
    epoch: int = 0
    spans: Spans = ()
    start: int = 0
    end: int = 0
    reason: str = ""

    def to_head(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> "Ask":
        """The inverse."""
        fields = {name: head[name] for name in cls.__dataclass_fields__}
        fields["spans"] = tuple((int(a), int(b)) for a, b in head["spans"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Note:
    """An operator's open request, as the ingestors that do not lead its shard keep it."""

    id: str
    key: ProducerEpochKey
    spans: Spans
    reason: str

    def to_list(self) -> list[Any]:
        """Plain values."""
        return [self.id, self.key, self.spans, self.reason]

    @classmethod
    def from_list(cls, values: list[Any]) -> "Note":
        """The inverse."""
        name, (tenant, service, producer, epoch), spans, reason = values
        key = (str(tenant), str(service), str(producer), int(epoch))
        return cls(str(name), key, tuple((int(a), int(b)) for a, b in spans), str(reason))


class Replays:
    """The replay requests of the shards that this node leads."""

    def __init__(
        self,
        views: ViewSource,
        replicas: Replicas,
        leases: ShardLeases,
        writer: SequencedWriter,
        desk: ReplayDesk,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
        settings: WriteSettings,
    ) -> None:
        self.desk = desk
        self._views = views
        self._replicas = replicas
        self._leases = leases
        self._writer = writer
        self._clock = clock
        self._entropy = entropy
        self._look_seconds = settings.replay_look_seconds
        self._notes: OrderedDict[str, tuple[Note, float]] = OrderedDict()
        self._notes_max = settings.replay_open_max
        self._note_seconds = settings.replay_age_seconds
        #: Told of operators' requests that ended, so that notes of them can be forgotten.
        self.on_ended: Callable[[list[str]], Awaitable[None]] | None = None
        self._behind: tuple[int, ProducerEpochKey] | None = None
        self._failures = metrics.counter(
            "quorumlog_replay_look_failures_total", "Looks for gaps that failed, by code", ("code",)
        )

    def start(self, tasks: Supervisor) -> None:
        """Looks for gaps now and then."""
        tasks.spawn("replay", tasks.forever(lambda: self._look_seconds, self.look))

    def leads(self, key: ProducerEpochKey) -> bool:
        """Whether this node leads the shard of a producer's epoch, and has sealed it."""
        return _place(self._views.current(), key) in self._leases.sealed_shards()

    # -- gaps that nobody tells of -----------------------------------------------------------------

    async def look(self) -> None:
        """One round: forget, expire, open again what is noted, look at producers with gaps."""
        view, sealed = self._views.current(), frozenset(self._leases.sealed_shards())
        if not view.ready:
            return
        moved = self.desk.tidy(lambda key: _place(view, key) in sealed)
        self.remember(Note(one.id, one.key, one.waiting, one.reason) for one in moved)
        ended = self.desk.take_ended()
        if ended and self.on_ended is not None:
            await self.on_ended(ended)
        await self._reopen(sealed)
        if not sealed:
            return
        behind = self._behind
        after = () if behind is None else (behind[0], *behind[1])
        request = ProducersRequest(
            tuple(sorted(sealed)), gaps=True, most=LOOKED_AT_MAX, after=after
        )
        owners = {owner for shard in sealed for owner in view.owners(shard)}
        found, _ = await self._list(sorted(owners), request)
        keys = {(shard, state.producer) for shard, state in found}
        places = ((_place(view, one.key), one.key) for one in self.desk.book.open_gaps())
        keys |= {(shard, key) for shard, key in places if shard is not None}
        for place in self._next(sorted(keys)):
            await self._look_at(place[1])

    def _next(
        self, places: Sequence[tuple[int, ProducerEpochKey]]
    ) -> Sequence[tuple[int, ProducerEpochKey]]:
        """At most LOOKED_AT_MAX of `places`, behind those of the round before."""
        behind = self._behind
        later = [one for one in places if behind is not None and one > behind]
        chosen = (later or places)[:LOOKED_AT_MAX]
        self._behind = chosen[-1] if len(chosen) == LOOKED_AT_MAX else None
        return chosen

    async def _look_at(self, key: ProducerEpochKey) -> None:
        try:
            standing = await self._writer.standing(*key, self._soon())
        except QuorumlogError as error:
            self._failures.labels(error.code).inc()
            return
        self.desk.note(key, standing.progress.missing)

    async def _list(
        self, owners: Iterable[str], request: ProducersRequest
    ) -> tuple[list[tuple[int, ProducerState]], int]:
        """What those owners list that answer in time, and how many they are."""
        deadline = self._soon()

        async def one(owner: str) -> list[tuple[int, ProducerState]] | None:
            try:
                return await self._replicas.get(owner).producers(request, deadline)
            except QuorumlogError as error:
                self._failures.labels(error.code).inc()
                return None

        answers = await asyncio.gather(*(one(owner) for owner in owners))
        heard = [answer for answer in answers if answer is not None]
        return [state for answer in heard for state in answer], len(heard)

    def _soon(self) -> Deadline:
        return Deadline.after(self._clock, LIST_SECONDS)

    # -- what operators ask ------------------------------------------------------------------------

    async def ask(self, shard: int, ask: Ask, deadline: Deadline) -> list[ReplayRequest]:
        """Opens a request for each producer that `ask` is about and that has rows in `shard`; all or none.

        Raises:
            NotLeader: this node does not lead `shard`. NotReady: it does not yet.
            InvalidRequest: no such rows. QuorumUnavailable: too few owners answered.
            Overloaded: too many producers or requests.
        """
        await self._leases.hold(shard, deadline)
        if not ask.spans and ask.start >= ask.end:
            raise InvalidRequest("sequences or a time range are needed; from lies before to")
        producers = [ask.producer] if ask.producer else await self._producers(shard, ask, deadline)
        filed = {} if ask.spans else await self._filed(shard, ask, deadline)
        found: list[tuple[ProducerEpochKey, Spans, Spans]] = []
        view = self._views.current()
        for producer in producers:
            epoch = ask.epoch or await self.newest_epoch(ask, producer, deadline)
            if view.shard_of(ask.tenant, ask.service, producer, epoch) != shard:
                continue  # this shard has rows of its older epochs alone
            standing = await self._writer.standing(
                ask.tenant, ask.service, producer, epoch, deadline
            )
            key = (ask.tenant, ask.service, producer, standing.epoch)
            spans = ask.spans or filed.get(key, ())
            seen = standing.progress.max_seen
            wanted = tuple((a, min(b, seen)) for a, b in SeqIntervals(spans) if a <= seen)
            if wanted or ask.producer:
                found.append((key, wanted, standing.progress.missing))
        self.desk.book.check_room(len(found))
        return [
            self.desk.ask(f"ask-{self._entropy.bytes(10).hex()}", *one, ask.reason) for one in found
        ]

    async def newest_epoch(self, ask: Ask, producer: str, deadline: Deadline) -> int:
        """See `SequencedWriter.newest_epoch`."""
        return await self._writer.newest_epoch(ask.tenant, ask.service, producer, deadline)

    async def _producers(self, shard: int, ask: Ask, deadline: Deadline) -> list[str]:
        request = ProducersRequest((shard,), ask.tenant, ask.service, most=PRODUCERS_MAX + 1)
        view = self._views.current()
        owners = view.owners(shard)
        found, heard = await deadline.wait(self._list(owners, request))
        _check_heard(heard, len(owners), view.acked_on, "producers")
        names = sorted({state.producer[2] for _, state in found})
        if len(names) > PRODUCERS_MAX:
            text = f"more than {PRODUCERS_MAX} producers of {ask.service}: name one"
            raise Overloaded(text, retry_after_seconds=1)
        return names

    async def _filed(
        self, shard: int, ask: Ask, deadline: Deadline
    ) -> dict[ProducerEpochKey, Spans]:
        """From the first to the last sequence of each producer in the hours that the time touches."""
        view = self._views.current()
        owners = view.owners(shard)
        request = EntriesRequest(shard, ask.start, ask.end)
        answers = await asyncio.gather(
            *(self._replicas.get(owner).entries(request, deadline) for owner in owners),
            return_exceptions=True,
        )
        replies = [one for one in answers if not isinstance(one, BaseException)]
        _check_heard(len(replies), len(owners), view.acked_on, "entries")
        ends: dict[ProducerEpochKey, tuple[int, int]] = {}
        for reply in replies:
            for entry in reply.entries:
                key = entry.producer
                if key and key[:2] == (ask.tenant, ask.service) and entry.seqs:
                    low, high = ends.get(key, entry.seqs[0])
                    ends[key] = min(low, entry.seqs[0][0]), max(high, entry.seqs[-1][1])
        return {key: (one,) for key, one in ends.items()}

    # -- notes of what others lead -----------------------------------------------------------------

    def remember(self, notes: Iterable[Note]) -> None:
        """Keeps notes of requests that another node leads; the oldest go when there are too many."""
        for note in notes:
            self._notes[note.id] = (note, self._clock.monotonic())
        while len(self._notes) > self._notes_max:
            self._notes.popitem(last=False)

    def forget(self, names: Iterable[str]) -> None:
        """These requests have ended."""
        for name in names:
            self._notes.pop(name, None)

    async def _reopen(self, sealed: frozenset[int]) -> None:
        """Opens noted requests of shards that this node leads by now."""
        now, view = self._clock.monotonic(), self._views.current()
        for note, since in list(self._notes.values()):
            if now - since > self._note_seconds:
                self.forget([note.id])
            elif _place(view, note.key) in sealed:
                try:
                    standing = await self._writer.standing(*note.key, self._soon())
                    missing = standing.progress.missing
                    self.desk.ask(note.id, note.key, note.spans, missing, note.reason)
                except QuorumlogError as error:
                    self._failures.labels(error.code).inc()
                    continue
                self.forget([note.id])


def _place(view: ClusterView, key: ProducerEpochKey) -> int | None:
    """The shard of a producer's epoch; None if it is of a split that is not known here yet."""
    try:
        return view.shard_of(*key)
    except NotReady:
        return None


def _check_heard(heard: int, owners: int, w: int, what: str) -> None:
    """Fewer than N - W + 1 owners may all lack what W others hold: their silence is no "there is none".

    Raises:
        QuorumUnavailable: ask again.
    """
    needed = max(1, owners - w + 1)
    if heard < needed:
        text = f"{heard} owners listed their {what}, {needed} are needed"
        raise QuorumUnavailable(text, acks=heard, needed=needed)
