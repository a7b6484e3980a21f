"""Which HTTP routes the roles of a node serve."""

from aiohttp import web

from cluster.cluster_http import ClusterApi
from cluster.moves_http import MovesApi
from cluster.repair_http import RepairApi
from dashboard import app as dashboard
from node.files_http import FilesApi
from node.http_port import Routes
from node.node import Node
from node.splits_http import SplitsApi
from query import http as query_http
from query.context import ContextApi
from query.facets import FacetsApi
from query.sql_http import SqlApi
from query.tail import TailApi


def node_routes(node: Node) -> Routes:
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


def _cluster_routes(node: Node) -> list[web.RouteDef]:
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


def _retention_routes(node: Node) -> list[web.RouteDef]:
    views, consensus, transport = node.views, node.consensus, node.transport
    me, clock, entropy = node.settings.node.id, node.clock, node.entropy
    return node.retention.routes(me, views, consensus, transport, clock, entropy, node.reader)
