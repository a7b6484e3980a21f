"""Planted bugs that only a rare order of events shows (chaos.sim.rifts): seals, doors, rings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cluster.membership
import cluster.rebalance
import cluster.state_ops
import ingestor.leases
import node.store_door
import query.settle
import storage.service
from chaos.mutants.planting import Place, mutant
from chaos.sim.plan import WIPE


@mutant("seal needs N-W owners only", "I5", "I1", quick=True, calm=True, faults=("torn reign",) * 2)
def _() -> Sequence[Place]:
    real = ingestor.leases.ask_quorum

    async def ask(name: str, nodes: Any, call: Any, needed: Any, *args: Any, **more: Any) -> Any:
        fewer = [replace(one, needed=max(1, one.needed - 1)) for one in needed]
        return await real(name, nodes, call, fewer, *args, **more)

    return [(ingestor.leases, "ask_quorum", ask)]


def _volatile_seal() -> Place:
    async def seal(self: Any, request: Any) -> None:
        self._check_writable()
        self._engine.seal(request)

    return storage.service.StorageService, "seal", seal


def _open_door() -> Place:
    return node.store_door.StoreDoor, "_guarded", lambda _self, operation: operation


@mutant(
    "seal answered before it is durable, by a store that is open before its node has registered",
    "I5", "I1", calm=True, faults=("short seal",) * 3,
)  # fmt: skip
def _() -> Sequence[Place]:
    return [_volatile_seal(), _open_door()]


@mutant(
    "reads served before a node has registered",
    "I7",
    faults=("deaf start",) * 3 + ("delete",) * 3,
)
def _() -> Sequence[Place]:
    return [
        (storage.service.StorageService, "hold_reads", lambda _self: None),
        _open_door(),
    ]


@mutant(
    "a shard finishes before its old owners know the ring",
    "I4",
    "I1",
    quick=True,
    calm=True,
    faults=("outpaced",),
)
def _() -> Sequence[Place]:
    async def know(*_: object) -> bool:
        return True

    return [(cluster.rebalance.Rebalancer, "_owners_know", know)]


@mutant(
    "copy from fewer owners than meet each quorum",
    "I4",
    "I1",
    quick=True,
    calm=True,
    faults=("lone copy",),
)
def _() -> Sequence[Place]:
    real = cluster.rebalance._task
    return [(cluster.rebalance, "_task", lambda *args: replace(real(*args), needed=1))]


@mutant(
    "owners of a page compared by all they hold", "I4", quick=True, calm=True, faults=("again",) * 3
)
def _() -> Sequence[Place]:
    real = query.settle.compare
    return [(query.settle, "compare", lambda base, told, _until=None: real(base, told))]


@mutant("node with a wiped disk rejoins under its old id", "I4", "I1", "I5", calm=True, 
        faults=(WIPE,))  # fmt: skip
def _() -> Sequence[Place]:
    return [(cluster.state_ops, "_lost_its_store", lambda *_: False)]
