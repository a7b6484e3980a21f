"""Retention within a node: what the state hides is told to its store; the leader's loop; the routes.

A store serves no read before the node has registered: the state that holds the registration holds all that
was hidden while the node was away.
"""

from aiohttp import web

from cluster.consensus import Consensus
from cluster.lease_keeper import LeaseKeeper
from cluster.retention import retention_of
from cluster.retention_keeper import RetentionKeeper, RetentionSettings
from cluster.state_types import ClusterState
from cluster.transport import Transport
from cluster.view import ViewSource
from node.retention_http import RetentionApi
from query.coordinator import ReadCoordinator
from records.errors import QuorumlogError
from runtime.clock import Clock
from runtime.entropy import Entropy
from runtime.logs import get_logger
from runtime.metrics import Metrics
from runtime.tasks import Supervisor
from storage.service import StorageService

log = get_logger(__name__)


class NodeRetention:
    """What a node does for retention. `storage`: its own store, if it has one."""

    def __init__(self, storage: StorageService | None) -> None:
        self._storage = storage
        self._known: tuple[object, object] | None = None
        if storage is not None:
            storage.hold_reads()

    def observe(self, state: ClusterState) -> None:
        """From now on the store hides what `state` hides. To be called from the registration on."""
        if self._storage is None:
            return
        hidden = (state.watermarks, state.deletes)
        try:
            if hidden != self._known:
                self._storage.observe_retention(retention_of(state))
            self._known = hidden
            self._storage.observe_index(state.applied_index)
        except (
            QuorumlogError
        ) as error:  # what is known stays hidden; if nothing is, no read is served
            log.error("the state's deletes cannot be read", error=error)

    def routes(
        self,
        node_id: str,
        views: ViewSource,
        consensus: Consensus,
        transport: Transport,
        clock: Clock,
        entropy: Entropy,
        reader: ReadCoordinator | None,
    ) -> list[web.RouteDef]:
        """The routes for clients."""
        api = RetentionApi(
            node_id, views, consensus, transport, clock, entropy, self._storage, reader
        )
        return api.routes()


def spawn_keeper(
    supervisor: Supervisor,
    consensus: Consensus,
    keeper: LeaseKeeper,
    managers: int,
    settings: RetentionSettings,
    metrics: Metrics,
) -> None:
    """Moves watermarks on while this manager leads, and hears of a majority of the managers."""
    most = managers // 2 + 1
    loop = RetentionKeeper(consensus, lambda: keeper.median_wall_micros(most), settings, metrics)
    pause = lambda: settings.interval_seconds  # noqa: E731
    supervisor.spawn("retention", supervisor.forever(pause, loop.step))
