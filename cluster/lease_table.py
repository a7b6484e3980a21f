"""Who gets which shard: the rules of the lease table, without a clock, a task or a message.

The Raft leader keeps one. It hears heartbeats, and on each sweep says which shards need another
leader. A shard is *orphaned* when nobody leads it, when its leader has been silent for a TTL, or when
its leader is a process that has since been restarted under a higher incarnation.

A lease is not a right. Being wrong here costs a needless move, never a row: the shard's epoch rises
with each assignment and the storage nodes refuse the older one. That is why a new Raft leader may
take its predecessor's shards at once, even if the predecessor lives.

Why not let a shard's leader extend its own lease in the replicated state? Heartbeats would be
commands; a hundred nodes would keep the log busy with nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median_low

from cluster.state_types import ClusterState

Assignment = tuple[int, str, int]
"""(shard, node, expected epoch)."""


@dataclass(frozen=True, slots=True)
class LeaseRules:
    """Times in seconds of CLOCK_BOOTTIME; a slower network multiplies them all."""

    #: Silence after which a node's shards go to others; five heartbeats.
    ttl: float = 0.5
    #: Between two sweeps.
    sweep: float = 0.05
    #: After a takeover, before shards move for balance alone.
    balance_pause: float = 10.0
    #: Between two shards that move for balance or drain.
    move_interval: float = 0.5
    #: How long the very first assignment waits for all expected ingestors.
    initial_wait: float = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one sweep decided. `takeovers` first; `move` (planned) only when there are none."""

    takeovers: tuple[Assignment, ...] = ()
    move: Assignment | None = None


@dataclass(slots=True)
class _Pulse:
    """What was last heard of a node; `at` is boottime, `wall` its own clock in microseconds."""

    at: float
    incarnation: int
    ring_epoch: int = 0
    held: bytes = b""
    wall: int | None = None
    load: float = 0.0
    #: Nothing was heard in this reign: the TTL is a gift.
    granted: bool = False


class LeaseTable:
    """The Raft leader's opinion of who is alive. One per reign; `begin` starts it anew."""

    def __init__(
        self, self_id: str, rules: LeaseRules | None = None, expected: Iterable[str] = ()
    ) -> None:
        """`expected` are the ingestors that the first assignment waits for, for a while."""
        self.rules = rules or LeaseRules()
        self.late_sweeps = 0
        self._self_id = self_id
        self._expected = frozenset(expected)
        self._pulses: dict[str, _Pulse] = {}
        self._draining: set[str] = set()
        self._last_sweep: float | None = None
        self._first_live: float | None = None
        self._last_takeover = float("-inf")
        self._last_move = float("-inf")

    # -- events ----------------------------------------------------------------------------------

    def begin(self, state: ClusterState, now: float, predecessor: str | None) -> None:
        """A new reign: everybody has a fresh TTL except the leader before, who has none."""
        self._last_sweep = None
        self._first_live = None
        for member in state.with_role("ingestor"):
            if member.id == predecessor and member.id != self._self_id:
                self._pulses.pop(member.id, None)
            else:
                self._pulses[member.id] = _Pulse(now, member.incarnation, granted=True)

    def heard(
        self,
        node: str,
        incarnation: int,
        now: float,
        *,
        ring_epoch: int = 0,
        held: bytes = b"",
        wall: int | None = None,
        load: float = 0.0,
    ) -> None:
        """A heartbeat. One of an older incarnation than was heard before is ignored."""
        known = self._pulses.get(node)
        if known is None or incarnation >= known.incarnation:
            self._pulses[node] = _Pulse(now, incarnation, ring_epoch, held, wall, load)

    def drain_only(self, nodes: Iterable[str]) -> None:
        """The shards of these nodes move away one by one, and they get no others; all others may lead."""
        self._draining = set(nodes)

    def took_over(self, now: float) -> None:
        """Takeovers of a sweep were committed."""
        self._last_takeover = now

    def moved(self, now: float) -> None:
        """A planned move was committed, or tried."""
        self._last_move = now

    # -- questions -------------------------------------------------------------------------------

    def live(self, state: ClusterState, now: float) -> list[str]:
        """Ingestors heard within the TTL under their current incarnation, by id."""
        return [
            member.id
            for member in state.with_role("ingestor")
            if (pulse := self._pulses.get(member.id)) is not None
            and pulse.incarnation >= member.incarnation
            and now - pulse.at <= self.rules.ttl
        ]

    def median_wall(self, now: float, at_least: int = 1) -> int | None:
        """Microseconds: the median of the live nodes' wall clocks; one wrong clock cannot move it.

        None if fewer than `at_least` are heard of.
        """
        walls = [
            pulse.wall + round((now - pulse.at) * 1e6)
            for pulse in self._pulses.values()
            if pulse.wall is not None and now - pulse.at <= self.rules.ttl
        ]
        return median_low(walls) if len(walls) >= max(1, at_least) else None

    # -- decisions -------------------------------------------------------------------------------

    def sweep(self, state: ClusterState, now: float) -> Plan:
        """What should change now. Pure but for the memory of this sweep's time."""
        self._renew(state, now)
        live = self.live(state, now)
        if not live or self._waiting_for_the_first(state, live, now):
            return Plan()
        counts = self._counts(state, live)
        orphans = [s for s in range(state.shard_count) if self._orphaned(state, s, live)]
        if orphans:
            targets = self._targets(live, counts) or live
            return Plan(takeovers=self._spread(state, orphans, targets, counts))
        return Plan(move=self._planned_move(state, live, counts, now))

    def _renew(self, state: ClusterState, now: float) -> None:
        """This node lives if it sweeps; and if the sweep itself was late, nobody was unheard."""
        rules, last = self.rules, self._last_sweep
        self._last_sweep = now
        me = state.members.get(self._self_id)
        if me is not None and me.has("ingestor"):
            mine = self._pulses.setdefault(me.id, _Pulse(now, me.incarnation))
            mine.at, mine.incarnation, mine.granted = now, me.incarnation, False
        if last is None or now - last <= rules.sweep + rules.ttl / 2:
            return
        self.late_sweeps += 1
        for pulse in self._pulses.values():
            if last - pulse.at <= rules.ttl:
                pulse.at = max(pulse.at, now)

    def _waiting_for_the_first(self, state: ClusterState, live: list[str], now: float) -> bool:
        if self._first_live is None:
            self._first_live = now
        heard = {node for node in live if not self._pulses[node].granted}
        if state.leaders or self._expected <= heard:
            return False
        return now - self._first_live < self.rules.initial_wait

    def _orphaned(self, state: ClusterState, shard: int, live: list[str]) -> bool:
        leader = state.leaders.get(shard)
        if leader is None or leader.node not in live:
            return True
        return leader.incarnation < state.members[leader.node].incarnation

    def _counts(self, state: ClusterState, live: list[str]) -> dict[str, int]:
        """Shards that each live node leads and keeps."""
        counts = dict.fromkeys(live, 0)
        for shard, leader in state.leaders.items():
            if leader.node in counts and not self._orphaned(state, shard, live):
                counts[leader.node] += 1
        return counts

    def _targets(self, live: list[str], counts: Mapping[str, int]) -> list[str]:
        """Who may get a shard. A node dead for long lives by a gift at the start of a reign; it
        leads nothing, and must not attract everything."""
        return [
            node
            for node in live
            if node not in self._draining and (counts[node] or not self._pulses[node].granted)
        ]

    def _rank(self, counts: Mapping[str, int], node: str) -> tuple[int, float, str]:
        return counts[node], self._pulses[node].load, node

    def _spread(
        self,
        state: ClusterState,
        shards: list[int],
        targets: list[str],
        counts: dict[str, int],
    ) -> tuple[Assignment, ...]:
        """Each shard to the node that leads fewest; ties by load, then by id."""
        plan: list[Assignment] = []
        for shard in shards:
            node = min(targets, key=lambda n: self._rank(counts, n))
            counts[node] += 1
            plan.append((shard, node, _epoch(state, shard)))
        return tuple(plan)

    def _planned_move(
        self, state: ClusterState, live: list[str], counts: dict[str, int], now: float
    ) -> Assignment | None:
        """At most one shard, for drain or balance; never soon after a takeover."""
        if now - self._last_move < self.rules.move_interval:
            return None
        targets = [node for node in self._targets(live, counts) if self._heard_lately(node, now)]
        if not targets:
            return None
        to = min(targets, key=lambda n: self._rank(counts, n))
        for node in sorted(self._draining & set(live)):
            if counts[node]:
                return self._one_of(state, node, to)
        source = max(targets, key=lambda n: (counts[n], n))
        settled = now - self._last_takeover >= self.rules.balance_pause
        if settled and counts[source] - counts[to] > 1:
            return self._one_of(state, source, to)
        return None

    def _heard_lately(self, node: str, now: float) -> bool:
        """A shard that is led moves to nobody who may be dying: in half a TTL there are two heartbeats."""
        return now - self._pulses[node].at <= self.rules.ttl / 2

    def _one_of(self, state: ClusterState, source: str, to: str) -> Assignment:
        shard = min(state.shards_of(source))
        return shard, to, _epoch(state, shard)


def _epoch(state: ClusterState, shard: int) -> int:
    return state.leaders[shard].epoch if shard in state.leaders else 0
