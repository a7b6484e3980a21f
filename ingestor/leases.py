"""ShardLeases: which shards this node leads, and the order of steps by which it comes to lead one.

    1. The assignment (shard -> this node, shard epoch) is committed and in the view.
    2. Seal(epoch) to all owners; N-W+1 must answer. The leader before can then reach at most W-1.
    3. Of each producer, at its first batch: what N-W+1 owners hold, and what it was told (`recovery`).
    4. Rows of its tail that fewer than W of them hold are put again.
    5. Its batches are taken.

A newer epoch in any answer ends the takeover: another assignment has won. What makes it safe is the
fence on the owners, not this table: a lease is not a right. A reign also ends with its ring epoch, as new
owners have not been sealed; the same shard epoch is then sealed again.

Source: raft.md 9.3; Gray and Cheriton, "Leases" (SOSP 1989), for what is deliberately not used.
"""

import asyncio
from dataclasses import dataclass, replace

from cluster.quorum_call import Caller, ask_quorum
from cluster.quorum_tally import Group
from cluster.replica_client import Replicas
from cluster.view import ClusterView, ViewSource
from ingestor.producers import Reign
from ingestor.write_metrics import WriteMetrics
from records.errors import NotLeader, NotReady, QuorumUnavailable, StaleShardEpoch
from records.messages import SealRequest
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.logs import get_logger
from runtime.tasks import Supervisor

log = get_logger(__name__)
#: Seconds after which a seal that found too few owners looks at the view again.
SEAL_ROUND_SECONDS = 5.0
#: Seconds between two looks at the view when nothing announces a change.
LOOK_SECONDS = 1.0
#: Seconds of rest after each look, so that a failing one does not spin.
STEP_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Led:
    """A shard that this node leads and has sealed, and the view that said so."""

    view: ClusterView
    reign: Reign

    @property
    def shard(self) -> int:
        """The shard."""
        return self.reign[0]

    @property
    def epoch(self) -> int:
        """Its shard epoch."""
        return self.reign[1]

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Its owner sets under the reign's ring: two while the shard moves."""
        return self.view.write_groups(self.reign[0])

    @property
    def owners(self) -> tuple[str, ...]:
        """All that are written to."""
        return tuple(dict.fromkeys(owner for group in self.groups for owner in group))

    @property
    def writers(self) -> tuple[Group, ...]:
        """W of each owner set: what makes a row durable."""
        return tuple(Group(frozenset(one), self.view.quorum.w) for one in self.groups)

    @property
    def deciders(self) -> tuple[Group, ...]:
        """As `writers`, and more than half of each owner set: no two callers have so many for themselves."""
        return tuple(
            Group(one.members, max(one.needed, len(one.members) // 2 + 1)) for one in self.writers
        )

    @property
    def overlap(self) -> tuple[Group, ...]:
        """N-W+1 of each owner set: so many owners meet every set of W.

        W is the least that something may have been acknowledged with: that of before, if it was raised.
        """
        w = self.view.acked_on
        return tuple(Group(frozenset(one), max(1, len(one) - w + 1)) for one in self.groups)


@dataclass(eq=False, slots=True)
class _Takeover:
    """One reign's way to being sealed. `sealed` ends with True, or False: superseded."""

    led: Led
    sealed: "asyncio.Future[bool]"
    begun: float
    lost: bool = False


def not_leader(view: ClusterView, shard: int, **details: object) -> NotLeader:
    """The refusal that tells a producer where to go: the leader as this view knows it."""
    lead = view.leader(shard)
    hint = None
    if lead is not None:
        member = view.member(lead[0])
        hint = {
            "node": lead[0],
            "http": member.http if member else "",
            "shard": shard,
            "shard_epoch": lead[1],
            "ring_epoch": view.ring_epoch,
        }
    text = f"shard {shard} is led by {lead[0]}" if lead else f"shard {shard} has no leader"
    return NotLeader(text, leader=hint, retry_after_ms=100, retry_after_seconds=1, **details)


def _same_quorum(one: ClusterView, other: ClusterView) -> bool:
    """Another W raises no epoch, but what was sealed for the one before need not meet it."""
    return (one.quorum, one.acked_on) == (other.quorum, other.acked_on)


class ShardLeases:
    """The shards of this node, kept in step with the view."""

    def __init__(
        self,
        views: ViewSource,
        replicas: Replicas,
        caller: Caller,
        clock: Clock,
        metrics: WriteMetrics,
        tasks: Supervisor,
    ) -> None:
        self._views = views
        self._replicas = replicas
        self._caller = replace(caller, tasks=tasks)
        self._clock = clock
        self._metrics = metrics
        self._tasks = tasks
        self._takeovers: dict[int, _Takeover] = {}
        metrics.shards_led.set_function(lambda: len(self.sealed_shards()))

    def sealed_shards(self) -> list[int]:
        """Shards that this node leads and has sealed."""
        return [
            shard
            for shard, one in self._takeovers.items()
            if one.sealed.done() and one.sealed.result() and not one.lost
        ]

    def start(self) -> None:
        """Follows the view, so that a shard is sealed before its first batch comes."""
        self._tasks.spawn("leases", self._tasks.forever(lambda: STEP_SECONDS, self._follow))

    async def _follow(self) -> None:
        view = self._views.current()
        if view.ready:
            self._match(view)
        await self._views.changed(view.index, LOOK_SECONDS)

    def _match(self, view: ClusterView) -> None:
        for shard in range(view.shard_count):
            lead = view.leader(shard)
            if lead is not None and lead[0] == view.node_id:
                self._begin(view, shard, lead[1])
            elif shard in self._takeovers:
                self._end(shard)

    def _begin(self, view: ClusterView, shard: int, epoch: int) -> _Takeover:
        reign = (shard, epoch, view.ring_epoch)
        known = self._takeovers.get(shard)
        if known is not None and known.led.reign == reign and _same_quorum(known.led.view, view):
            return known
        if known is not None:
            self._end(shard)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        one = _Takeover(Led(view, reign), future, self._clock.monotonic())
        self._takeovers[shard] = one
        self._tasks.spawn(f"seal:{shard}", self._seal(one))
        return one

    def _end(self, shard: int) -> None:
        gone = self._takeovers.pop(shard)
        gone.lost = True
        if not gone.sealed.done():
            gone.sealed.set_result(False)

    async def _seal(self, one: _Takeover) -> None:
        led = one.led
        request = SealRequest(led.shard, led.epoch, led.view.node_id)

        async def seal(owner: str, limit: Deadline) -> None:
            await self._replicas.get(owner).seal(request, limit)

        while not one.sealed.done():
            limit = Deadline.after(self._clock, SEAL_ROUND_SECONDS)
            fatal = (StaleShardEpoch,)
            try:
                await ask_quorum(
                    "seal", led.owners, seal, led.overlap, self._caller, limit, fatal=fatal
                )
                outcome = not one.sealed.done()
            except StaleShardEpoch:
                outcome = False
            except QuorumUnavailable as error:
                log.warning("shard not sealed yet", shard=led.shard, error=error)
                continue
            self._sealed(one, outcome)

    def _sealed(self, one: _Takeover, outcome: bool) -> None:
        self._metrics.takeovers.labels("sealed" if outcome else "superseded").inc()
        if outcome:
            self._metrics.takeover.observe(self._clock.monotonic() - one.begun)
        if not one.sealed.done():
            one.sealed.set_result(outcome)

    async def hold(self, shard: int, deadline: Deadline) -> Led:
        """The reign over `shard`, once it is sealed.

        Raises:
            NotLeader: another node leads it (details: `leader`), or nobody by the deadline.
            NotReady: this node leads it, but could not seal it by the deadline.
        """
        while True:
            view = self._views.current()
            lead = view.leader(shard) if view.ready else None
            if lead is not None and lead[0] != view.node_id:
                raise not_leader(view, shard)
            if lead is not None:
                one = self._begin(view, shard, lead[1])
                if not one.sealed.done():
                    await asyncio.wait([one.sealed], timeout=deadline.remaining())
                if one.sealed.done() and one.sealed.result() and not one.lost:
                    return one.led
            if deadline.expired:
                raise self._out_of_time(view, shard)
            await self._views.changed(view.index, deadline.clamp(LOOK_SECONDS))

    def _out_of_time(self, view: ClusterView, shard: int) -> Exception:
        lead = view.leader(shard)
        if lead is not None and lead[0] == view.node_id:
            return NotReady(f"shard {shard} is being taken over here", retry_after_seconds=1)
        return not_leader(view, shard)

    def refused(self, led: Led) -> None:
        """An owner knows a newer epoch than `led`'s: this reign is over, whatever the view says."""
        one = self._takeovers.get(led.shard)
        if one is not None and one.led.reign == led.reign:
            one.lost = True
            self._metrics.takeovers.labels("lost").inc()
