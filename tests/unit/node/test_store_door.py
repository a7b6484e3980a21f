"""A store is used by nobody until the cluster has admitted it, and no more once it knows another."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from cluster.replica_client import LocalReplica, ReplicaSet
from cluster.server import Operation
from node import joining
from node.store_door import StoreDoor
from storage.service import StorageService
from tests.unit.storage.samples import service_on


class Peers:
    """What peers may ask."""

    def __init__(self) -> None:
        self.served: set[str] = set()

    def add(self, operations: dict[str, Operation]) -> None:
        assert not self.served & operations.keys()
        self.served |= operations.keys()

    def remove(self, names: Iterable[str]) -> None:
        self.served -= set(names)


class Moves:
    """The part of node.moving."""

    local: Any = None

    def open_local(self, storage: StorageService) -> None:
        self.local = storage

    def close_local(self) -> None:
        self.local = None

    def operations(self) -> dict[str, Any]:
        return {"hand_over": None}


class Around:
    """A store in a folder, and the doors to it that a process opens one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = service_on(folder)

    def start(self) -> StoreDoor:
        """A process starts."""
        nothing: Any = None
        self.peers, self.moves = Peers(), Moves()
        self.replicas = ReplicaSet("me", None, nothing, lambda _: True)
        around: Any = (self.peers, self.replicas, self.moves, nothing)
        door = StoreDoor(self.folder, "me", self.storage, *around)
        door.enter()
        return door

    @property
    def open(self) -> bool:
        """Whether all use it; False if none does."""
        ways = {
            {"put", "scan", "tree", "hand_over", "repair"} <= self.peers.served,
            self.moves.local is self.storage,
            isinstance(self.replicas.get("me"), LocalReplica),
        }
        assert len(ways) == 1
        assert ways == {True} or not self.peers.served
        return ways.pop()


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    joining.mark_if_new(tmp_path)
    made = Around(tmp_path)
    await made.storage.start()
    yield made
    await made.storage.stop()


async def test_a_new_store_is_shut_until_it_is_admitted_over_any_restart(around: Around) -> None:
    around.start()
    assert not around.open
    door = around.start()
    assert not around.open

    door.admitted()

    assert around.open
    around.start()
    assert around.open


async def test_a_store_that_the_cluster_does_not_know_shuts_and_stays_shut(around: Around) -> None:
    """An old disk is plugged in again: what was promised since is not on it."""
    around.start().admitted()
    door = around.start()
    assert around.open

    door.refused()
    door.refused()

    assert not around.open
    again = around.start()
    assert not around.open
    again.admitted()  # its owner was taken out of the ring
    assert around.open
