"""The keeper's loop against a consensus that commits at once, refuses, or loses answers."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from cluster.consensus import CommandRefused, NotCommitted, OutcomeUnknown
from cluster.lease_founding import FoundingSettings
from cluster.lease_keeper import LeaseKeeper
from cluster.lease_table import LeaseRules
from cluster.state import ClusterState, apply, encode_command

FOUNDING = FoundingSettings("c", 3, 2, 2, 8, frozenset({"a", "b", "c"}))


class Committing:
    """A leader's consensus in one place; `fail` is raised by proposals, after `lost` ones commit."""

    def __init__(self) -> None:
        self.state = ClusterState()
        self.leading = True
        self.term = 1
        self.before: str | None = None
        self.proposals: list[str] = []
        self.fail: Exception | None = None
        self.lose_answers = False
        self._number = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def propose(self, op: str, args: Mapping[str, Any], timeout: float = 2.0) -> Any:
        self.proposals.append(op)
        if self.fail is not None:
            raise self.fail
        self._number += 1
        command = encode_command(op, args, ("k", 1, self._number), level=1)
        self.state, result = apply(self.state, command, self.state.applied_index + 1)
        if self.lose_answers:
            raise OutcomeUnknown("lost")
        if result[0] == "err":
            raise CommandRefused(result[1], result[2])
        return result[1]

    async def barrier(self, timeout: float = 2.0) -> ClusterState:
        await self.propose("Noop", {}, timeout)
        return self.state

    def snapshot(self) -> ClusterState:
        return self.state

    async def watch(self, after: int = -1) -> AsyncIterator[ClusterState]:
        yield self.state

    def is_leader_hint(self) -> bool:
        return self.leading

    def leader_hint(self) -> str | None:
        return "a" if self.leading else None

    def predecessor(self) -> str | None:
        return self.before

    def status(self) -> dict[str, Any]:
        return {}

    def register(self, *names: str, incarnation: int = 1) -> None:
        for name in names:
            args = {"id": name, "roles": ["ingestor", "storage"], "incarnation": incarnation}
            self._number += 1
            command = encode_command("RegisterNode", args, ("k", 1, self._number), level=1)
            self.state, _ = apply(self.state, command, self.state.applied_index + 1)


class HandClock:
    """Time moves only by sleep, which gives every other task a turn."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def boottime(self) -> float:
        return self.now

    def wall_micros(self) -> int:
        return int(self.now * 1e6)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class World:
    """A keeper that runs for so many seconds while the living send heartbeats."""

    def __init__(self, **options: Any) -> None:
        self.consensus = Committing()
        self.clock = HandClock()
        self.keeper = LeaseKeeper("a", self.consensus, self.clock, FOUNDING, **options)

    async def run(self, seconds: float, alive: str = "abc", incarnation: int = 1) -> None:
        task = asyncio.create_task(self.keeper.run())
        end = self.clock.now + seconds
        while self.clock.now < end and not task.done():
            for name in alive:
                self.keeper.on_heartbeat(name, incarnation, 0, b"", self.clock.wall_micros())
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def led(self) -> dict[str, int]:
        state = self.consensus.state
        return {name: len(state.shards_of(name)) for name in sorted(state.members)}


async def test_a_new_cluster_is_founded_in_order() -> None:
    """Quorum settings; the first ring once all storage members are there; then leaders."""
    world = World()
    world.consensus.register("a", "b")
    await world.run(1.0, alive="ab")
    early = (world.consensus.state.cluster_epoch, world.consensus.state.ring)
    world.consensus.register("c")

    await world.run(1.0)

    state = world.consensus.state
    assert early == (1, None)
    assert (state.cluster_id, state.quorum, state.shard_count) == ("c", (3, 2, 2), 8)
    assert state.ring_epoch == 1
    assert state.ring is not None
    assert [row[0] for row in state.ring["members"]] == ["a", "b", "c"]
    assert set(state.leaders) == set(range(8))
    assert world.consensus.proposals.count("SetRing") == 1


async def test_nothing_is_decided_before_the_reigns_own_barrier() -> None:
    """A leader without a majority commits nothing, so it must decide nothing."""
    world = World()
    world.consensus.register("a", "b", "c")
    world.consensus.fail = NotCommitted("no quorum")

    await world.run(1.0)

    assert set(world.consensus.proposals) == {"Noop"}
    assert not world.keeper.status()["reigning"]


async def test_a_node_that_does_not_lead_proposes_nothing() -> None:
    """Heartbeats may arrive anywhere."""
    world = World()
    world.consensus.leading = False

    await world.run(1.0)

    assert world.consensus.proposals == []


async def test_a_dead_ingestors_shards_move_in_one_command() -> None:
    """A takeover is one proposal, whatever the number of shards."""
    world = World()
    world.consensus.register("a", "b", "c")
    await world.run(1.0)
    before = len(world.consensus.proposals)

    await world.run(1.0, alive="ac")

    assert world.led() == {"a": 4, "b": 0, "c": 4}
    assert world.consensus.proposals[before:] == ["Assign"]


async def test_a_new_term_is_a_new_reign_with_its_predecessor_out() -> None:
    """Re-elected after b: b's shards go at once, although b is heard."""
    world = World(rules=LeaseRules(balance_pause=1e9))
    world.consensus.register("a", "b", "c")
    await world.run(1.0)
    epochs = dict(world.consensus.state.shards_of("b"))
    world.consensus.term, world.consensus.before = 3, "b"

    await world.run(0.06, alive="")

    leaders = world.consensus.state.leaders
    assert all(leaders[shard].node != "b" for shard in epochs)
    assert all(leaders[shard].epoch == epoch + 1 for shard, epoch in epochs.items())
    assert world.keeper.status()["reigns"] == 2


@pytest.mark.parametrize("lost", [True, False])
async def test_a_lost_answer_or_a_failure_is_looked_at_again(lost: bool) -> None:
    """Unknown is an outcome: the next sweep reads the state, and assigns no shard twice."""
    world = World()
    world.consensus.register("a", "b", "c")
    await world.run(0.2)
    before = {s: lead.epoch for s, lead in world.consensus.state.leaders.items()}
    moved = set(world.consensus.state.shards_of("b"))
    if lost:
        world.consensus.lose_answers = True
    else:
        world.consensus.fail = NotCommitted("no quorum")
    await world.run(0.8, alive="ac")
    world.consensus.lose_answers, world.consensus.fail = False, None

    await world.run(0.5, alive="ac")

    after = {s: lead.epoch for s, lead in world.consensus.state.leaders.items()}
    assert after == {s: epoch + (s in moved) for s, epoch in before.items()}
    assert world.keeper.status()["proposals_failed"] > 0


async def test_a_planned_move_asks_the_old_leader_to_stop_first() -> None:
    """Drain: release, then Assign."""
    released: list[tuple[str, int, int]] = []

    async def release(node: str, shard: int, epoch: int) -> None:
        assert world.consensus.state.leaders[shard][:2] == (node, epoch)
        released.append((node, shard, epoch))

    world = World(release=release)
    world.consensus.register("a", "b", "c")
    await world.run(1.0)
    world.keeper.drain_only(frozenset("b"))

    await world.run(5.0)

    assert world.led()["b"] == 0
    assert [node for node, _, _ in released] == ["b"] * 3
    assert world.keeper.status()["moves"] == 3


async def test_a_cluster_that_is_founded_already_keeps_its_settings() -> None:
    """Other settings in the file of a later start change nothing."""
    world = World()
    await world.consensus.propose(
        "SetQuorum", {"expected_cluster_epoch": 0, "n": 1, "w": 1, "r": 1, "shard_count": 4}
    )
    world.consensus.register("a")

    await world.run(1.0, alive="a")

    assert world.consensus.state.quorum == (1, 1, 1)
    assert world.led() == {"a": 4}
    assert world.keeper.median_wall_micros() is not None


async def test_a_sweep_that_fails_for_any_reason_is_followed_by_another() -> None:
    """A bug must not leave the shards of dead nodes without a leader until somebody notices."""
    world = World()
    world.consensus.register("a", "b", "c")
    world.consensus.fail = ValueError("odd")
    await world.run(1.0)
    world.consensus.fail = None

    await world.run(5.0)

    assert sum(world.led().values()) == 8
    assert world.keeper.status()["sweeps_failed"] > 0
