"""The executor against a consensus in one place: order, waiting, failures, a new leader, the dead."""

import asyncio
from typing import Any

from cluster.rebalance import Rebalancer, RebalanceSettings, Surroundings
from cluster.rebalance_plan import begin, ring_drained, ring_with, ring_without
from cluster.shard_copy import CopyReport, CopyTask
from cluster.state_codec import from_bytes, to_bytes
from cluster.state_moves import row_before
from cluster.state_types import COPYING, SETTLING
from records.errors import QuorumUnavailable
from ring.serde import from_dict
from runtime.metrics import Metrics
from tests.unit.cluster.test_lease_keeper import Committing, HandClock
from tests.unit.cluster.test_rebalance_plan import cluster


class World:
    """A rebalancer whose copies succeed at once, unless `fail` says how often they fail."""

    def __init__(self, **options: Any) -> None:
        self.consensus = Committing()
        self.consensus.state = cluster("a", "b", "c", "d", spare=("e",))
        self.clock = HandClock()
        self.copied: list[CopyTask] = []
        self.fail = 0
        self.error: Exception = QuorumUnavailable("too few")
        self.tries = 0
        self.behind: list[str] = []
        self.dead: set[str] = set()
        self.raised: list[tuple[str, int]] = []
        self.drained: frozenset[str] = frozenset()
        self.settings = RebalanceSettings(**options)
        self.metrics = Metrics()
        self.rebalancer = self.made()

    def made(self) -> Rebalancer:
        """Another leader's rebalancer: it knows the state and nothing else."""
        around = Surroundings(
            lambda *_: self.behind,
            lambda node: node not in self.dead,
            self._raise_ring,
            self._drain,
        )
        return Rebalancer(self.consensus, self, around, self.clock, Metrics(), self.settings)

    async def _raise_ring(self, node: str, ring_epoch: int) -> bool:
        self.raised.append((node, ring_epoch))
        return node not in self.dead

    def _drain(self, nodes: frozenset[str]) -> None:
        self.drained = nodes

    async def copy(self, task: CopyTask) -> CopyReport:
        self.tries += 1
        if self.fail:
            self.fail -= 1
            raise self.error
        self.copied.append(task)
        return CopyReport(task.shard)

    async def run(self, looks: int, seconds: float = 0.5) -> None:
        for _ in range(looks):
            self.clock.now += seconds
            await self.rebalancer.step()
            for _ in range(3):
                await asyncio.sleep(0)

    async def begin(self, ring: Any, **more: Any) -> None:
        command = begin(self.consensus.state, ring, "test", **more)
        await self.consensus.propose(command.op, command.args)

    @property
    def state(self) -> Any:
        return self.consensus.state


async def test_a_change_is_carried_out_and_each_replica_is_copied_once() -> None:
    world = World()
    await world.begin(ring_with(world.state, "e"))

    await world.run(30)

    ring = from_dict(world.state.ring)
    assert world.state.change is None
    assert len(world.copied) == len(ring.shards_of("e"))
    assert {task.targets for task in world.copied} == {("e",)}
    assert {task.needed for task in world.copied} == {2}


async def test_no_step_is_taken_while_a_live_member_has_not_heard_of_the_last() -> None:
    world = World()
    await world.begin(ring_with(world.state, "e"))
    world.behind = ["c"]

    await world.run(20)

    assert world.state.moving == {}
    assert world.rebalancer.status()["waiting_for"] == ["c"]
    world.behind = []
    await world.run(30)
    assert world.state.change is None


async def test_a_shard_finishes_only_when_n_r_plus_1_owners_know_the_ring_that_reads_the_new() -> (
    None
):
    """Else a reader cut off with R old owners could take their answer for complete."""
    world = World()
    await world.begin(ring_with(world.state, "e"))
    world.dead = {"a", "b", "c", "d"}

    await world.run(20)

    assert {one.stage for one in world.state.moving.values()} == {SETTLING}
    assert max(epoch for _, epoch in world.raised) == world.state.ring_epoch
    world.dead = {"a"}
    await world.run(30)
    assert world.state.change is None


async def test_a_copy_that_fails_is_made_again_and_told() -> None:
    world = World(parallel=1)
    await world.begin(ring_with(world.state, "e"), parallel=1)
    world.fail = 2

    await world.run(5)
    assert "too few" in str(world.rebalancer.status()["errors"])
    assert {one.stage for one in world.state.moving.values()} == {COPYING}
    await world.run(60)

    assert world.state.change is None


async def test_a_copy_to_a_node_that_falls_silent_waits_for_its_return_alone() -> None:
    """A put to a process that is stopped would hold the shard for its whole deadline, minutes."""
    world = World(parallel=1)
    await world.begin(ring_with(world.state, "e"), parallel=1)
    hanging, ended = asyncio.Event(), 0

    async def hang(_: CopyTask) -> CopyReport:
        nonlocal ended
        try:
            await hanging.wait()
        finally:
            ended += 1
        return CopyReport(0)

    copy, world.copy = world.copy, hang  # type: ignore[method-assign]
    await world.run(5)
    assert (ended, world.rebalancer.status()["waiting_for"]) == (0, [])

    world.dead = {"e"}
    await world.run(1)
    world.dead = set()  # one call to it had failed
    await world.run(2)
    assert (ended, world.rebalancer.status()["waiting_for"]) == (0, [])
    world.dead = {"e"}
    await world.run(5)
    assert ended == 1
    assert world.rebalancer.status()["waiting_for"] == ["e"]

    world.dead, world.copy = set(), copy  # type: ignore[method-assign]
    await world.run(60)
    assert world.state.change is None


async def test_another_leader_goes_on_from_the_state_alone() -> None:
    """It copies again what had not flipped, and nothing else."""
    world = World()
    await world.begin(ring_with(world.state, "e"), parallel=1)
    await world.run(6)
    assert world.state.change is not None
    first = len(world.copied)

    world.rebalancer = world.made()
    await world.run(60)

    assert world.state.change is None
    shards = [task.shard for task in world.copied]
    assert len(shards) - len(set(shards)) <= 1
    assert first < len(shards)


async def test_whoever_does_not_lead_does_nothing() -> None:
    world = World()
    await world.begin(ring_with(world.state, "e"))
    world.consensus.leading = False

    await world.run(20)

    assert world.copied == []
    assert world.state.moving == {}


async def test_a_node_that_is_drained_leads_no_shards() -> None:
    world = World()
    await world.begin(ring_drained(world.state, "d"))

    await world.run(40)

    assert world.state.change is None
    assert world.drained == {"d"}
    assert from_dict(world.state.ring).shards_of("d") == ()


async def test_a_dead_node_is_replaced_only_if_asked_for_and_after_its_time() -> None:
    """Off by default; a node that comes back in time keeps its shards."""
    off, on = World(), World(replace_dead_after_seconds=60.0)
    off.dead = on.dead = {"d"}

    await off.run(400)
    await on.run(100)  # 50 seconds

    assert from_dict(off.state.ring).shards_of("d")
    assert from_dict(on.state.ring).shards_of("d")
    on.dead = set()
    await on.run(10)
    on.dead = {"d"}
    await on.run(100)
    assert from_dict(on.state.ring).shards_of("d")
    await on.run(100)
    assert not from_dict(on.state.ring).shards_of("d")
    assert on.state.change is None


async def test_a_dead_node_stays_where_too_few_would_be_left() -> None:
    world = World(replace_dead_after_seconds=10.0)
    world.consensus.state = cluster("a", "b", "c")
    world.dead = {"c"}

    await world.run(100)

    assert from_dict(world.state.ring).shards_of("c")


async def test_two_nodes_that_died_are_replaced_together() -> None:
    """Neither is given the other's shards: such a copy would never end, nor the change."""
    world = World(replace_dead_after_seconds=10.0)
    world.consensus.state = cluster("a", "b", "c", "d", "e")
    world.dead = {"b", "d"}

    await world.run(30)

    assert world.copied
    assert not {node for task in world.copied for node in task.targets} & world.dead
    ring = from_dict(world.state.change.target if world.state.change else world.state.ring)
    assert {one.id for one in ring.members} == {"a", "c", "e"}


async def test_nobody_is_replaced_while_another_is_silent_for_less() -> None:
    """It may be restarting: it must neither lose its shards nor be given more."""
    world = World(replace_dead_after_seconds=10.0)
    world.consensus.state = cluster("a", "b", "c", "d", "e")
    world.dead = {"b"}
    await world.run(15)
    world.dead = {"b", "d"}

    await world.run(10)
    assert world.state.change is None
    world.dead = {"b"}
    await world.run(2)

    assert world.state.change is not None
    assert "d" in {one.id for one in from_dict(world.state.change.target).members}


async def test_a_copy_that_fails_for_any_reason_rests_before_the_next_try() -> None:
    """A bug, or an answer that cannot be read, is no busy loop; it is told."""
    world = World(parallel=1)
    await world.begin(ring_with(world.state, "e"), parallel=1)
    world.fail, world.error = 1000, ValueError("odd bytes")

    await world.run(100, 0.05)  # 5 s, of which a few pass before the first copy

    assert 1 <= world.tries <= 5
    assert "odd bytes" in str(world.rebalancer.status()["errors"])


async def test_a_step_that_is_refused_is_proposed_again_once_a_second() -> None:
    """A node that is to leave still leads shards: each refusal is an entry of Raft's log, synced by all."""
    world = World()
    await world.begin(ring_without(world.state, "d"), retire="d")
    await world.consensus.propose("Assign", {"assignments": [[0, "d", 0]]})
    await world.run(40)
    assert world.state.change is not None
    before = len(world.consensus.proposals)

    await world.run(200, 0.05)  # 10 s

    tried = world.consensus.proposals[before:]
    assert set(tried) == {"EndChange"}
    assert 5 <= len(tried) <= 11
    await world.consensus.propose("Assign", {"assignments": [[0, "a", 1]]})
    await world.run(5)
    assert world.state.change is None


async def test_many_nodes_that_died_together_are_replaced_however_long_it_takes_to_name_them() -> (
    None
):
    """A rack is gone: all their names are more text than the reason of a change may have."""
    dead = [f"{'r' * 60}-{number}" for number in range(6)]
    world = World(replace_dead_after_seconds=10.0)
    world.consensus.state = cluster("a", "b", "c", *dead)
    world.dead = set(dead)

    await world.run(40)

    target = from_dict(world.state.change.target if world.state.change else world.state.ring)
    assert {one.id for one in target.members} == {"a", "b", "c"}


async def quorum_change(world: World, quorum: list[int], looks: int = 40) -> None:
    """Begins one that moves nothing, and looks."""
    await world.begin(from_dict(world.state.ring), quorum=quorum)
    await world.run(looks)


async def test_r_rises_only_when_each_reader_by_the_old_one_must_hear_of_it() -> None:
    """3/3/1 to 3/1/3: a reader that asks one owner, and was cut off, would miss what the new W wrote."""
    world = World()
    await quorum_change(world, [3, 3, 1])
    assert (world.state.change, world.state.quorum, world.state.read_by) == (None, (3, 3, 1), 1)
    world.dead = {"a"}

    await quorum_change(world, [3, 1, 3])

    assert world.state.change is not None
    assert not world.state.moving
    assert world.rebalancer.status()["waiting_for"] == ["a"]
    assert world.state.quorum == (3, 3, 3)
    world.dead = set()
    await world.run(10)
    assert (world.state.change, world.state.quorum, world.state.read_by) == (None, (3, 1, 3), 3)


async def test_an_aborted_rise_of_r_is_over_at_once_and_not_forgotten() -> None:
    """W stays the greater one; what lowers it later waits for whom the abort did not."""
    world = World()
    await quorum_change(world, [3, 3, 1])
    world.dead = {"a"}
    await quorum_change(world, [3, 2, 2])
    assert world.state.change is not None

    await world.consensus.propose("AbortChange", {"id": world.state.change.id})
    await world.run(10)

    assert (world.state.change, world.state.quorum, world.state.read_by) == (None, (3, 3, 2), 1)
    await quorum_change(world, [3, 2, 2])
    assert world.rebalancer.status()["waiting_for"] == ["a"]
    assert from_bytes(to_bytes(world.state)).read_by == 1
    world.dead = set()
    await world.run(10)
    assert (world.state.quorum, world.state.read_by) == ((3, 2, 2), 2)


async def test_old_owners_are_left_by_the_r_that_readers_may_still_go_by() -> None:
    """R was raised without asking anybody (SetQuorum): who missed it still reads one owner."""
    world = World()
    await quorum_change(world, [3, 3, 1])
    epoch = {"expected_cluster_epoch": world.state.cluster_epoch}
    await world.consensus.propose("SetQuorum", {**epoch, "n": 3, "w": 3, "r": 2})
    assert (world.state.quorum.r, world.state.read_by) == (2, 1)
    world.dead = {"a"}

    await world.begin(ring_with(world.state, "e"))
    await world.run(60)

    table = from_dict(world.state.ring).table
    waits = [s for s, move in world.state.moving.items() if "a" in row_before(move, table[s])]
    assert waits
    assert {world.state.moving[s].stage for s in waits} == {SETTLING}
