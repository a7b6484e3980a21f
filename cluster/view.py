"""ClusterView: one consistent picture of the cluster, for whoever writes or reads.

Built from one snapshot of the replicated state, so ring, leaders and quorum belong together. It may be
stale; the storage nodes' fences make that harmless, and say so with STALE_RING_EPOCH.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

from cluster.consensus import Consensus
from cluster.state_moves import write_groups
from cluster.state_types import ClusterState, Member
from records.consistency import QuorumPolicy
from records.errors import NotReady
from ring.generations import (
    EPOCHS_OF_A_GENERATION,
    UNSPLIT,
    Generation,
    generation_of,
    highest_factor,
)
from ring.ring import Ring
from ring.serde import ring_of
from ring.shards import shard_of, shards_of_service, shards_of_services


class ClusterView:
    """Ring, quorum, leaders and members at one applied index. Immutable but for `is_alive`."""

    def __init__(
        self,
        node_id: str,
        state: ClusterState,
        alive: Callable[[str], bool],
        hidden_index: int = 0,
    ) -> None:
        """`hidden_index`: an applied index by which watermarks and deletes were what they are."""
        self.node_id = node_id
        self.state = state
        self.hidden_index = hidden_index
        self._alive = alive
        self.ring: Ring | None = ring_of(state.ring) if state.ring is not None else None
        self.shard_count = state.shard_count
        self._owners: dict[int, tuple[str, ...]] = {}  # asked for a hundred times a read

    @property
    def index(self) -> int:
        """The applied index of the state behind this view."""
        return self.state.applied_index

    @property
    def ready(self) -> bool:
        """Whether there is a ring: before that nothing has a place."""
        return self.ring is not None

    @property
    def ring_epoch(self) -> int:
        """The epoch of the ring; 0 without one."""
        return self.state.ring_epoch

    @cached_property
    def quorum(self) -> QuorumPolicy:
        """N, W and R in force."""
        return QuorumPolicy(*self.state.quorum)

    @property
    def acked_on(self) -> int:
        """On how many owners each acknowledged row is, at least; less than W for long after W was raised."""
        return self.state.acked_on

    def owners(self, shard: int) -> tuple[str, ...]:
        """Storage nodes that a shard is read from, in preference order; empty without a ring."""
        found = self._owners.get(shard)
        if found is None and self.ring:
            found = self._owners[shard] = tuple(self.ring.owners(shard))
        return found or ()

    def write_groups(self, shard: int) -> tuple[tuple[str, ...], ...]:
        """Owner sets of which each must acknowledge a write: one, or two while the shard moves.

        The first is `owners`, those that are read.
        """
        move = self.state.moving.get(shard)
        return write_groups(self.owners(shard), move) if move else (self.owners(shard),)

    def leader(self, shard: int) -> tuple[str, int] | None:
        """(node id, shard epoch) of the shard's leader."""
        found = self.state.leaders.get(shard)
        return (found.node, found.epoch) if found else None

    @property
    def has_splits(self) -> bool:
        """Whether any service is split."""
        return bool(self.state.splits)

    def generations(self, tenant: str, service: str) -> tuple[Generation, ...]:
        """Those of a service, the oldest first."""
        return self.state.splits.get((tenant, service), UNSPLIT)

    def shard_of(self, tenant: str, service: str, producer: str, epoch: int) -> int:
        """Where the rows of a producer's epoch live, for ever.

        Raises:
            NotReady: the epoch is of a generation that this view does not know.
        """
        known, generation = self.generations(tenant, service), generation_of(epoch)
        if generation >= len(known):
            raise NotReady(
                f"epoch {epoch} is of split {generation} of {service}, this node knows of"
                f" {len(known) - 1}; epochs are issued by POST /ingest/epoch alone",
                retry_after_seconds=1,
            )
        factor = known[generation].factor
        return int(shard_of(tenant, service, factor, producer, self.shard_count))

    def shard_under(self, tenant: str, service: str, producer: str, generation: int) -> int:
        """Where the epochs live that are issued under a generation; raises as `shard_of`."""
        return self.shard_of(tenant, service, producer, generation * EPOCHS_OF_A_GENERATION)

    def shards_of_services(self, tenant: str, services: Sequence[str]) -> list[int]:
        """The home shard of each service, in order."""
        return [int(one) for one in shards_of_services(tenant, services, self.shard_count)]

    def shards_holding(self, tenant: str, service: str) -> tuple[int, ...]:
        """Every shard that may hold rows of a service: what a read asks."""
        factor = highest_factor(self.generations(tenant, service))
        shards = shards_of_service(tenant, service, factor, self.shard_count)
        return tuple(int(one) for one in shards)

    def member(self, node: str) -> Member | None:
        """A member by id."""
        return self.state.members.get(node)

    def storage_nodes(self) -> tuple[str, ...]:
        """Members with the storage role, by id."""
        return tuple(one.id for one in self.state.with_role("storage"))

    def is_alive(self, node: str) -> bool:
        """The failure detector's opinion; a hint, never a reason to lose anything."""
        return node == self.node_id or self._alive(node)


class ViewSource(Protocol):
    """Whoever can tell the newest view."""

    def current(self) -> ClusterView:
        """The newest view, without waiting."""
        ...

    async def changed(self, after_index: int, timeout: float) -> ClusterView:
        """The view once its index exceeds `after_index`, or the current one after `timeout` s."""
        ...


class ConsensusViews:
    """Views from a Consensus, made anew when its applied index has changed."""

    #: Seconds between looks while somebody waits for a change.
    POLL_SECONDS = 0.02

    def __init__(self, node_id: str, consensus: Consensus, alive: Callable[[str], bool]) -> None:
        self._node_id = node_id
        self._consensus = consensus
        self._alive = alive
        self._view: ClusterView | None = None

    def current(self) -> ClusterView:
        """The newest view."""
        state = self._consensus.snapshot()
        if self._view is None or self._view.state is not state:
            hidden = self._hidden_index(state)
            self._view = ClusterView(self._node_id, state, self._alive, hidden)
        return self._view

    def _hidden_index(self, state: ClusterState) -> int:
        """Where watermarks or deletes changed last, as far as this node saw; never too early."""
        known = self._view
        if known is None or not (state.watermarks or state.deletes):
            return state.applied_index if state.watermarks or state.deletes else 0
        same = known.state.watermarks == state.watermarks and known.state.deletes == state.deletes
        return known.hidden_index if same else state.applied_index

    async def changed(self, after_index: int, timeout: float) -> ClusterView:
        """The view once its index exceeds `after_index`, or the current one after `timeout` s."""
        deadline = asyncio.get_running_loop().time() + timeout
        while self.current().index <= after_index:
            if asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(self.POLL_SECONDS)
        return self.current()
