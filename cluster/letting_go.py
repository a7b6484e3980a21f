"""Removes copies of shards that this node does not own any more, when no change of the ring is running.

What a node may remove is decided by a state that held after a barrier, and again by the store: it refuses
if it has heard of a newer ring, under which the shard may be its own again. A change ends only when the
owners that stay have been filled up from a quorum (cluster.shard_copy), so what is removed here is a copy
too many. Why not when its shard has moved? The blocks of a node hold many shards each: to rewrite them once
is cheaper than once for each shard.
"""

from cluster.consensus import Consensus
from cluster.state_types import ClusterState
from records.errors import QuorumlogError
from ring.serde import ring_of
from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.metrics import Metrics
from storage.service import StorageService

log = get_logger(__name__)
BARRIER_SECONDS = 2.0
#: Seconds between two looks.
LOOK_SECONDS = 1.0


class LettingGo:
    """One per storage node; `step` is called again and again."""

    def __init__(
        self,
        node_id: str,
        consensus: Consensus,
        storage: StorageService,
        clock: Clock,
        metrics: Metrics,
        after_seconds: float,
    ) -> None:
        self._node_id, self._consensus, self._storage = node_id, consensus, storage
        self._clock, self._after_seconds = clock, after_seconds
        self._seen: tuple[int, float] = (-1, 0.0)
        self._removed = metrics.counter(
            "quorumlog_shed_entries_total", "Entries removed, of shards this node does not own."
        )

    async def step(self) -> None:
        """Removes what is foreign, once the ring has stood still for a while."""
        state = self._consensus.snapshot()
        now = self._clock.monotonic()
        if self._seen[0] != state.ring_epoch:
            self._seen = (state.ring_epoch, now)
        if now - self._seen[1] < self._after_seconds or not self._foreign(state):
            return
        try:
            state = await self._consensus.barrier(BARRIER_SECONDS)
            foreign = self._foreign(state)
            if foreign:
                self._removed.inc(self._storage.moves.let_go(foreign, state.ring_epoch))
        except QuorumlogError as error:
            log.debug("copies too many stay for now", error=error)

    def _foreign(self, state: ClusterState) -> list[int]:
        """Shards that this node has entries of and does not own; none while anything moves."""
        if state.ring is None or state.change is not None or state.moves:
            return []
        table = ring_of(state.ring).table
        strange = [s for s, owners in enumerate(table) if self._node_id not in owners]
        return [s for s in strange if self._storage.digest(s)[0]]
