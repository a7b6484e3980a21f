"""Planted bugs of retention and deletes: clocks, floors, what is forgotten, what comes back."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cluster.lease_table
import cluster.retention
import cluster.retention_keeper
import cluster.state
import cluster.state_ops
import storage.judge
import storage.retention
import storage.retention_door
import storage.retiring
import storage.service
from chaos.mutants.planting import Place, mutant
from records.timestamps import MIN_MICROS

RULES = ("rule",) * 3


@mutant("watermark by a local clock", "I13", "I7", skew=3.0, quick=True, faults=RULES)
def _() -> Sequence[Place]:
    def median_wall(self: Any, _now: float, _at_least: int = 1) -> int | None:
        mine = self._pulses.get(self._self_id)
        return mine and mine.wall

    return [(cluster.lease_table.LeaseTable, "median_wall", median_wall)]


@mutant("watermark by the clock that is ahead", "I13", "I7", skew=3.0, faults=RULES)
def _() -> Sequence[Place]:
    return [(cluster.lease_table, "median_low", max)]


@mutant("delete predicate forgotten by time", "I7", faults=("delete",) * 3)
def _() -> Sequence[Place]:
    return [
        (cluster.state_ops, "below_watermarks", lambda *_: True),
        (cluster.retention_keeper, "below_watermarks", lambda *_: True),
    ]


@mutant("delete forgets how late rows were received", "I7", skew=2.0, faults=("delete",) * 3)
def _() -> Sequence[Place]:
    real = storage.retention.Delete.from_plain

    def from_plain(name: str, body: Any) -> Any:
        found = real(name, body)
        return replace(found, received_until=found.received_until - 1_500_000)

    return [(storage.retention.Delete, "from_plain", staticmethod(from_plain))]


@mutant("repair ignores the watermark", "I7", "I8", loss=0.3, faults=(*RULES, "partition", "power"))
def _() -> Sequence[Place]:
    return [(storage.judge.Judge, "_expired", lambda *_: False)]


@mutant("first watermark of a service begins at nothing", "I7", faults=("rule",) * 6)
def _() -> Sequence[Place]:
    def set_watermark(state: Any, args: Any) -> Any:
        key = (args["tenant"], args["service"])
        mark = max(args["t"], state.watermarks.get(key, 0))
        return replace(state, watermarks={**state.watermarks, key: mark}), mark

    ops = {**cluster.state_ops.OPS, "SetWatermark": set_watermark}
    return [(cluster.state_ops, "OPS", ops), (cluster.state, "OPS", ops)]


@mutant("a read does not wait for the deletes it names", "I7", delay=0.002,
        faults=("delete", "delete", "rule", "rule", *(["zombie"] * 4)))  # fmt: skip
def _() -> Sequence[Place]:
    async def wait_for(*_: Any) -> None:
        return None

    return [(storage.retiring.Retiring, "wait_for", wait_for)]


@mutant("reads are served before the node has registered", "I7",
        faults=("delete", "delete", "rule", "rule", *(["zombie", "power all"] * 3)))  # fmt: skip
def _() -> Sequence[Place]:
    return [(storage.service.StorageService, "hold_reads", lambda _self: None)]


@mutant("entries are dropped by the highest watermark", "I13", "I7", "I1", "I8", quick=True,
        faults=("rule",) * 5)  # fmt: skip
def _() -> Sequence[Place]:
    def floor(self: Any, tenant: str, _service: str = "") -> int:
        return max((mark for (t, _), mark in self.marks.items() if t == tenant), default=MIN_MICROS)

    return [(storage.retention.Retention, "floor", floor)]


@mutant("watermark hides nothing until entries are dropped", "I7", quick=True, faults=RULES)
def _() -> Sequence[Place]:
    real = storage.retention._rule_of_mark

    def rule(tenant: str, service: str, mark: int, own: Any) -> Any:
        return replace(
            real(tenant, service, mark, own), tree=("range", "timestamp", None, MIN_MICROS)
        )

    return [(storage.retention, "_rule_of_mark", rule)]


@mutant("store that is behind keeps an older state's deletes", "I7", faults=("delete",) * 3)
def _() -> Sequence[Place]:
    def observe(self: Any, retention: Any) -> None:
        self.seen(retention.index)
        if not self._engine.holdings.retention.deletes:
            self._engine.holdings.retention = retention

    return [(storage.retiring.Retiring, "observe", observe)]
