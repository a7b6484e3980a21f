"""Planted bugs of splits: where rows are looked for, where they go, who is fenced."""

from collections.abc import Sequence
from typing import Any

import cluster.view
import ingestor.elsewhere
from chaos.mutants.planting import Place, mutant
from chaos.sim.plan import SPLIT
from ring.shards import shard_of

HOT = (SPLIT,) * 3


@mutant("reads of a split service forget its home shard", "I4", "I1", quick=True, faults=HOT)
def _() -> Sequence[Place]:
    real = cluster.view.ClusterView.shards_holding

    def shards_holding(self: Any, tenant: str, service: str) -> tuple[int, ...]:
        found, home = real(self, tenant, service), self.shard_of(tenant, service, "", 0)
        return tuple(one for one in found if one != home) or found

    return [(cluster.view.ClusterView, "shards_holding", shards_holding)]


@mutant("rows of old epochs follow the newest split", "I5", "I2", "I9", "I1", faults=HOT)
def _() -> Sequence[Place]:
    def place(self: Any, tenant: str, service: str, producer: str, _epoch: int) -> int:
        factor = self.generations(tenant, service)[-1].factor
        return int(shard_of(tenant, service, factor, producer, self.shard_count))

    return [(cluster.view.ClusterView, "shard_of", place)]


@mutant("a producer is not fenced in the shards of its older generations", "I11", faults=HOT)
def _() -> Sequence[Place]:
    async def seal(*_: object) -> None:
        return None

    return [(ingestor.elsewhere.Elsewhere, "seal", seal)]
