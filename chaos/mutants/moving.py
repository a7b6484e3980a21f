"""Planted bugs of changes of the ring: quorums, copies, fences, who may let go of what, and when."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cluster.letting_go
import cluster.moves_http
import cluster.rebalance
import cluster.shard_copy
import cluster.state_moves
import cluster.state_ops
import cluster.view
import storage.moving
from chaos.mutants.planting import Place, mutant
from ring.serde import from_dict


@mutant(
    "new owner copies from one old owner", "I1", "I4", loss=0.25,
    faults=("one way", "join", "replace", "replace dead", "one way"),
)  # fmt: skip
def _() -> Sequence[Place]:
    real = cluster.rebalance._task

    def task(state: Any, shard: int) -> Any:
        found = real(state, shard)
        return replace(found, owners=found.owners[-1:], needed=1)

    return [(cluster.rebalance, "_task", task)]


@mutant("copy ends before anything is copied", "I1", "I4", "I8", faults=("replace", "join"))
def _() -> Sequence[Place]:
    async def fill(_self: Any, *_: Any) -> Any:
        return 0, cluster.shard_copy.np.empty(0, cluster.shard_copy.ENTRY_ID)

    return [(cluster.shard_copy.ShardCopier, "_fill", fill)]


@mutant("new owners are read while they are filled", "I1", "I4", faults=("replace", "join"))
def _() -> Sequence[Place]:
    real = cluster.rebalance.next_command

    def next_command(state: Any, _copied: Any) -> Any:
        return real(state, list(state.moving))

    return [(cluster.rebalance, "next_command", next_command)]


@mutant("write needs W of the union of owners only", "I9", "I4", "I1", quick=True,
        loss=0.2, faults=("replace", "join", "executor kill copying"))  # fmt: skip
def _() -> Sequence[Place]:
    real = cluster.view.write_groups

    def union(row: Any, move: Any) -> Any:
        return (tuple(dict.fromkeys(owner for group in real(row, move) for owner in group)),)

    return [(cluster.view, "write_groups", union)]


@mutant("write goes to the owners that are read alone", "I9", "I4", "I1", quick=True,
        loss=0.2, faults=("replace", "join"))  # fmt: skip
def _() -> Sequence[Place]:
    return [(cluster.view, "write_groups", lambda row, _move: (row,))]


@mutant("old copy removed before the change has ended", "I13", "I1", quick=True,
        faults=("replace", "join", "executor kill settling"))  # fmt: skip
def _() -> Sequence[Place]:
    def foreign(self: Any, state: Any) -> list[int]:
        table = from_dict(state.ring).table
        strange = [s for s, owners in enumerate(table) if self._node_id not in owners]
        return [s for s in strange if self._storage.digest(s)[0]]

    places: list[Place] = [(cluster.letting_go.LettingGo, "_foreign", foreign)]
    real = cluster.letting_go.LettingGo.step

    async def step(self: Any) -> None:
        self._after_seconds = 0.0
        await real(self)

    return [*places, (cluster.letting_go.LettingGo, "step", step)]


@mutant("copy of a former owner is kept", "I8", faults=("replace", "join"))
def _() -> Sequence[Place]:
    return [(cluster.letting_go.LettingGo, "_foreign", lambda *_: [])]


@mutant("new owner takes over no producers' epochs", "I15", "I11", "I5", "I2",
        faults=("newer producer", "newer producer", "replace", "join", "power all"))  # fmt: skip
def _() -> Sequence[Place]:
    return [(storage.moving, "take", lambda _engine, _handed: [])]


@mutant("ring that was told of is not durable", "I15", "I11",
        faults=("replace", "join", *(["power all"] * 3)))  # fmt: skip
def _() -> Sequence[Place]:
    async def raise_ring(self: Any, ring_epoch: int) -> None:
        storage.moving.raise_ring_epoch(self._engine, ring_epoch)

    async def hand_over(self: Any, shard: int, ring_epoch: int) -> Any:
        storage.moving.raise_ring_epoch(self._engine, ring_epoch)
        return storage.moving.give(self._engine, shard)

    moves = storage.moving.ShardMoves
    return [(moves, "raise_ring", raise_ring), (moves, "hand_over", hand_over)]


@mutant("change of W fills no owners up", "I4", "I1", loss=0.25, faults=("quorum",) * 5)
def _() -> Sequence[Place]:
    real = cluster.state_moves._quorums

    def quorums(*args: Any) -> Any:
        final, meanwhile, _ = real(*args)
        return final, meanwhile, False

    return [(cluster.state_moves, "_quorums", quorums)]


@mutant("quorum changed at once though old and new do not meet", "I4", "I1", loss=0.25,
        faults=("quorum",) * 5)  # fmt: skip
def _() -> Sequence[Place]:
    return [
        (cluster.state_ops, "_check_quorums_meet", lambda *_: None),
        (cluster.moves_http, "_meets", lambda state, wanted: wanted.n == state.quorum.n),
    ]
