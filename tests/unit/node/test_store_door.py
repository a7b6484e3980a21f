"""A store is used by nobody until the cluster has admitted it, and no more once it knows another."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster.replica_client import LocalReplica, ReplicaSet
from cluster.server import Operation
from node.store_door import StoreDoor
from records.errors import NotReady
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from storage.service import StorageService
from tests.unit.storage.samples import service_on


class Peers:
    """What peers may ask."""

    def __init__(self) -> None:
        self.served: dict[str, Operation] = {}

    def add(self, operations: dict[str, Operation]) -> None:
        assert not self.served.keys() & operations.keys()
        self.served |= operations


class Moves:
    """The part of node.moving."""

    local: Any = None

    def open_local(self, storage: StorageService) -> None:
        self.local = storage

    def close_local(self) -> None:
        self.local = None

    def operations(self) -> dict[str, Any]:
        async def hand_over(*_: Any) -> Any:
            return {}, b""

        return {"hand_over": hand_over}


class Around:
    """A store, and the doors to it that a process opens one after the other."""

    def __init__(self, folder: Path) -> None:
        self.storage = service_on(folder)

    def start(self) -> StoreDoor:
        """A process starts."""
        nothing: Any = None
        self.peers, self.moves = Peers(), Moves()
        self.replicas = ReplicaSet("me", None, nothing, lambda _: True)
        around: Any = (self.peers, self.replicas, self.moves, nothing)
        door = StoreDoor("me", self.storage, *around)
        door.enter()
        return door

    async def open(self) -> bool:
        """Whether all use it; False if none does."""
        assert {
            "put",
            "seal",
            "producer_states",
            "scan",
            "tree",
            "repair",
        } <= self.peers.served.keys()
        seal = {"shard": 0, "epoch": 1, "leader": "a"}
        ways = {
            await self.answered("seal", seal),
            await self.answered("hand_over", {}),
            self.moves.local is self.storage,
            isinstance(self.replicas.get("me"), LocalReplica),
        }
        assert len(ways) == 1
        return ways.pop()

    async def answered(self, name: str, head: dict[str, Any]) -> bool:
        """Whether a peer gets an answer."""
        deadline = Deadline.after(SystemClock(), 5.0)
        try:
            await self.peers.served[name](head, memoryview(b""), deadline)
        except NotReady:
            return False
        return True


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    made = Around(tmp_path)
    await made.storage.start()
    yield made
    await made.storage.stop()


async def test_each_start_waits_for_the_cluster_to_know_the_store(around: Around) -> None:
    """It may be an older disk under the same name: nobody can tell but the replicated state."""
    around.start().admitted()
    door = around.start()
    assert not await around.open()

    door.admitted()

    assert await around.open()
    door.refused()
    assert not await around.open()


async def test_a_store_that_the_cluster_does_not_know_stays_shut(around: Around) -> None:
    """An old disk is plugged in again: what was promised since is not on it."""
    around.start().admitted()
    door = around.start()

    door.refused()
    door.refused()

    assert not await around.open()
    door.admitted()  # its owner was taken out of the ring
    assert await around.open()
