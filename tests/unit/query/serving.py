"""A client of some routes over a fake cluster."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster.http_front import front_middleware
from query.coordinator import ReadCoordinator
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.metrics import Metrics
from tests.support.fake_store import FakeCluster
from tests.unit.query.helpers import coordinator


@asynccontextmanager
async def serving(
    cluster: FakeCluster,
    routes: Callable[[ReadCoordinator, Metrics], list[web.RouteDef]],
    metrics: Metrics | None = None,
    **settings: Any,
) -> AsyncIterator[TestClient]:
    """The routes that `routes` makes of a coordinator."""
    metrics = metrics or Metrics()
    async with coordinator(cluster, metrics, **settings) as reader:
        app = web.Application(
            middlewares=[front_middleware(SystemClock(), SystemEntropy(), metrics)]
        )
        app.router.add_routes(routes(reader, metrics))
        async with TestClient(TestServer(app)) as client:
            yield client
