"""The HTTP port of a node: the server; what it serves is in node.routes."""

from aiohttp import web

from cluster.http_front import front_middleware, http_logger
from ingestor.listeners.http import RUNNER_OPTIONS
from ingestor.listeners.slow_clients import ConnectionSweeper
from runtime.clock import Clock
from runtime.entropy import Entropy
from runtime.metrics import Metrics
from runtime.tasks import Supervisor

#: Bytes read from a client's socket per wake-up. Agents send megabytes; 64 KiB would mean 16 wake-ups
#: and 16 pauses a megabyte.
READ_BUFFER_BYTES = 1 << 20

Routes = list[web.RouteDef]


class HttpPort:
    """The server. `start` returns when the port is open."""

    def __init__(
        self, host: str, port: int, clock: Clock, entropy: Entropy, metrics: Metrics
    ) -> None:
        self._host, self._port = host, port
        self._clock, self._entropy, self._metrics = clock, entropy, metrics
        self._runner: web.AppRunner | None = None

    async def start(self, routes: Routes, supervisor: Supervisor) -> None:
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
