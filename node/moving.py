"""What a node brings to changes of the ring: the executor on managers, the store's part on storage nodes."""

from typing import Any

from cluster.consensus import Consensus
from cluster.lease_keeper import LeaseKeeper
from cluster.letting_go import LOOK_SECONDS, LettingGo
from cluster.membership import Membership
from cluster.move_calls import MoveCalls
from cluster.pace import Pace
from cluster.rebalance import Rebalancer, RebalanceSettings, Surroundings
from cluster.replica_client import ReplicaSet
from cluster.server import Operation
from cluster.shard_copy import ShardCopier
from cluster.transport import Transport
from node.settings import Settings
from records.errors import QuorumlogError, StaleRingEpoch
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.metrics import Metrics
from runtime.settings import build
from runtime.tasks import Supervisor
from storage.service import StorageService

#: Seconds to wait for the Raft leader's figures.
FIGURES_SECONDS = 1.0


class Moving:
    """The parts, put together. The store is not asked before `open_local`: then it is admitted."""

    def __init__(
        self,
        settings: Settings,
        consensus: Consensus,
        storage: StorageService | None,
        replicas: ReplicaSet,
        transport: Transport,
        membership: Membership,
        keeper: LeaseKeeper | None,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.settings = build(RebalanceSettings, settings.table("rebalance"), "rebalance")
        self._node_id = settings.node.id
        self._consensus, self._transport, self._clock = consensus, transport, clock
        self._calls = MoveCalls(self._node_id, None, transport)
        self._rebalancer: Rebalancer | None = None
        self._letting_go: LettingGo | None = None
        if keeper is not None:
            copier = ShardCopier(
                self._calls,
                replicas,
                clock,
                Pace(clock),
                lambda: consensus.snapshot().ring_epoch,
                self._told,
                membership.heard_alive,
            )
            around = Surroundings(
                membership.lagging, membership.heard_alive, self._raise_ring, keeper.drain_only
            )
            self._rebalancer = Rebalancer(consensus, copier, around, clock, metrics, self.settings)
        if storage is not None:
            after = self.settings.let_go_after_seconds
            self._letting_go = LettingGo(self._node_id, consensus, storage, clock, metrics, after)

    def _told(self, report: Any) -> None:
        if self._rebalancer is not None:
            self._rebalancer.told(report)

    async def _raise_ring(self, node: str, ring_epoch: int) -> bool:
        deadline = Deadline.after(self._clock, FIGURES_SECONDS)
        try:
            await self._calls.raise_ring(node, ring_epoch, deadline)
        except StaleRingEpoch:
            return True  # it knows a newer one
        except QuorumlogError:
            return False
        return True

    def open_local(self, storage: StorageService) -> None:
        """The store is admitted."""
        self._calls.open_local(storage)

    def close_local(self) -> None:
        """The store is not the one that the cluster knows."""
        self._calls.close_local()

    def operations(self) -> dict[str, Operation]:
        """What peers may ask of the store here."""
        return self._calls.operations()

    def start(self, tasks: Supervisor) -> None:
        """Begins the loops; they end with `tasks`."""
        if self._rebalancer is not None:
            tasks.spawn("rebalance", self._rebalancer.run())
        if self._letting_go is not None:
            letting_go = self._letting_go
            tasks.spawn("letting-go", tasks.forever(lambda: LOOK_SECONDS, letting_go.step))

    async def stop(self) -> None:
        """Ends copies that run here."""
        if self._rebalancer is not None:
            await self._rebalancer.stop()

    def status(self) -> dict[str, Any]:
        """Figures of the change under way, on the Raft leader; {} elsewhere."""
        return self._rebalancer.status() if self._rebalancer is not None else {}

    async def figures(self) -> dict[str, Any]:
        """Those of the Raft leader, asked of it; {} if it does not answer."""
        leader = self._consensus.leader_hint()
        if leader is None or leader == self._node_id:
            return self.status()
        deadline = Deadline.after(self._clock, FIGURES_SECONDS)
        try:
            head, _ = await self._transport.call(leader, "status", {}, b"", deadline)
        except QuorumlogError:
            return {}
        return head["status"].get("moves", {})
