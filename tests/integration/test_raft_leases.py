"""Leases over a real group: founding, leaders for all shards, and their move when one is killed."""

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.raft_group import CallFailed, ManagerProcess, RaftGroup, until

pytestmark = pytest.mark.integration
NODES = ("n0", "n1", "n2")
FOUNDING = {
    "cluster_id": "test",
    "n": 3,
    "w": 2,
    "r": 2,
    "shard_count": 32,
    "storage": list(NODES),
}


class Pulse:
    """Heartbeats of every living manager to every living manager, each 0.1 s."""

    def __init__(self, group: RaftGroup) -> None:
        self._group = group
        self._ended = False
        self._task = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while not self._ended:  # wait_for of Python 3.11 may swallow a cancellation
            for manager in self._group.running:
                for node in [m.node for m in self._group.running]:
                    with contextlib.suppress(CallFailed, ConnectionError, TimeoutError):
                        await manager.call("heartbeat", wait=1.0, node=node, incarnation=1)
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        self._ended = True
        await self._task


async def assigned(group: RaftGroup) -> dict[str, Any]:
    """The leaders of all shards, once all of them are led by the living."""

    async def look() -> Any:
        living = {m.node for m in group.running}
        for manager in group.running:
            leaders = (await manager.call("state"))["leaders"]
            if len(leaders) == 32 and {node for node, _ in leaders.values()} <= living:
                return leaders
        return None

    return await until(look, 15)


async def register(group: RaftGroup) -> None:
    for node in NODES:
        args = {"id": node, "roles": ["ingestor", "storage"], "incarnation": 1}
        await group.propose("RegisterNode", args)


@pytest.mark.parametrize("victim", ["raft leader", "follower"])
async def test_a_killed_ingestors_shards_move_to_the_living(tmp_path: Path, victim: str) -> None:
    """Founded by itself; then kill -9, of the Raft leader (which led shards too) or of another."""
    group = RaftGroup(tmp_path, time_scale=3.0)  # a busy machine must not move leaders by itself
    for manager in group.managers.values():
        manager.extra = {"founding": FOUNDING}
    async with group:
        await register(group)
        pulse = Pulse(group)
        first = await assigned(group)
        leader = await group.leader()
        dead: ManagerProcess = (
            leader if victim == "raft leader" else next(m for m in group.running if m is not leader)
        )
        await dead.kill()
        second = await assigned(group)
        await pulse.stop()
        state = await group.states_agree()

    counts = Counter(node for node, _ in first.values())
    assert state["ring_epoch"] == 1
    assert max(counts.values()) - min(counts.values()) <= 1
    moved = [shard for shard, (node, _) in first.items() if node == dead.node]
    assert len(moved) in (10, 11)
    assert all(second[shard][1] > first[shard][1] for shard in moved)
    assert dead.node not in {node for node, _ in second.values()}
