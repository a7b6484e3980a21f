"""Ends connections that send no request: slow headers, and idle ones kept for too long.

aiohttp has a limit for neither: a client that opens a connection and sends a header byte by byte would
keep it for ever. Bodies have limits of their own (`body.py`). The sweep looks at all connections of a
server every few seconds, which costs about a microsecond for each.
"""

from typing import Any

from runtime.clock import Clock
from runtime.metrics import Metrics

#: Seconds until a fresh connection has sent its first request's head whole.
HEADER_SECONDS = 10.0
#: Seconds for which a connection is kept between two requests.
IDLE_SECONDS = 75.0
SWEEP_SECONDS = 2.5


class ConnectionSweeper:
    """Watches one aiohttp server. Relies on RequestHandler's private counters (aiohttp 3.11 to 3.14)."""

    def __init__(
        self,
        server: Any,
        clock: Clock,
        metrics: Metrics,
        header_seconds: float = HEADER_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._server = server
        self._clock = clock
        self._header_seconds = header_seconds
        self._idle_seconds = idle_seconds
        self._seen: dict[Any, tuple[int, float]] = {}
        self._closed = metrics.counter(
            "quorumlog_http_swept_total", "Connections ended for silence.", ["reason"]
        )

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            self.sweep()
            await self._clock.sleep(SWEEP_SECONDS)

    def sweep(self) -> None:
        """Looks at each connection once."""
        now = self._clock.monotonic()
        seen: dict[Any, tuple[int, float]] = {}
        for handler in self._server.connections:
            requests = handler._request_count
            before, since = self._seen.get(handler, (requests, now))
            busy = handler._current_request is not None or bool(handler._messages)
            if busy or before != requests:
                since = now
            limit = self._idle_seconds if requests else self._header_seconds
            if now - since > limit:
                self._closed.labels("idle" if requests else "slow_header").inc()
                handler.force_close()
                continue
            seen[handler] = (requests, since)
        self._seen = seen
