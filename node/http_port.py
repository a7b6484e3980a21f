"""The HTTP port of a node: which routes its roles serve, and the server that serves them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from cluster.cluster_http import ClusterApi
from cluster.http_front import front_middleware, http_logger
from cluster.moves_http import MovesApi
from cluster.repair_http import RepairApi
from dashboard import app as dashboard
from ingestor.listeners.http import RUNNER_OPTIONS
from ingestor.listeners.slow_clients import ConnectionSweeper
from node.files_http import FilesApi
from node.splits_http import SplitsApi
from query import http as query_http
from query.context import ContextApi
from query.facets import FacetsApi
from query.sql_http import SqlApi
from query.tail import TailApi
from runtime.clock import Clock
from runtime.entropy import Entropy
from runtime.metrics import Metrics
from runtime.tasks import Supervisor

if TYPE_CHECKING:
    from node.node import Node

#: Bytes read from a client's socket per wake-up. Agents send megabytes; 64 KiB would mean 16 wake-ups
#: and 16 pauses a megabyte.
READ_BUFFER_BYTES = 1 << 20


class HttpPort:
    """The server. `start` returns when the port is open."""

    def __init__(
        self, host: str, port: int, clock: Clock, entropy: Entropy, metrics: Metrics
    ) -> None:
        self._host, self._port = host, port
        self._clock, self._entropy, self._metrics = clock, entropy, metrics
        self._runner: web.AppRunner | None = None

    async def start(self, routes: Iterable[web.RouteDef], supervisor: Supervisor) -> None:
        """Serves `routes`; slow clients are looked after by `supervisor`."""
        middleware = front_middleware(self._clock, self._entropy, self._metrics)
        app = web.Application(middlewares=[middleware], client_max_size=0)
        app.router.add_routes(routes)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=http_logger(self._metrics),
            handler_cancellation=True,
            read_bufsize=READ_BUFFER_BYTES,
            **RUNNER_OPTIONS,
        )
        await self._runner.setup()
        sweeper = ConnectionSweeper(self._runner.server, self._clock, self._metrics)
        supervisor.spawn("sweeper", sweeper.run())
        await web.TCPSite(self._runner, self._host, self._port, backlog=1024).start()

    async def stop(self) -> None:
        """Ends connections; no more come."""
        if self._runner is not None:
            await self._runner.cleanup()


def node_routes(node: "Node") -> list[web.RouteDef]:
    """The routes of all roles that the node has."""
    routes = [*_cluster_routes(node), *_retention_routes(node)]
    for part in (node.ingest, node.replay_api):
        routes += part.routes() if part is not None else []
    if node.reader is not None and node.sql is not None:
        routes += query_http.routes(node.reader)
        routes += SqlApi(node.reader, node.sql).routes()
        routes += FacetsApi(node.reader).routes()
        routes += ContextApi(node.reader).routes()
        routes += TailApi(node.reader, node.metrics).routes()
    if node.storage is not None:
        me = node.settings.node.id
        routes += FilesApi(me, node.storage, node.views, node.replicas, node.clock).routes()
    if "dashboard" in node.settings.node.roles:
        routes += dashboard.routes()
    return routes


def _cluster_routes(node: "Node") -> list[web.RouteDef]:
    api = ClusterApi(
        node.views,
        node.consensus,
        node.membership,
        node.transport,
        node.events,
        node.metrics,
        node.clock,
        node.not_ready,
        node.local_status,
    )
    repair = RepairApi(node.settings.node.id, node.views, node.transport, node.clock, node.sync)
    moves = MovesApi(node.consensus, node.moving.settings, node.moving.figures)
    splits = SplitsApi(node.views, node.consensus, node.clock)
    return [*api.routes(), *repair.routes(), *moves.routes(), *splits.routes()]


def _retention_routes(node: "Node") -> list[web.RouteDef]:
    views, consensus, transport = node.views, node.consensus, node.transport
    me, clock, entropy = node.settings.node.id, node.clock, node.entropy
    return node.retention.routes(me, views, consensus, transport, clock, entropy, node.reader)
