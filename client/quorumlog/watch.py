"""Is a silent server at work, or hung? A server may hold a request for seconds while a leader changes.

While an answer is late the same server is asked for its health, on another connection. Does it not
answer that either (stopped, cut off, its disk hangs), the request is given up: it is safe to send again
elsewhere. A cluster that is slow as a whole must not be left in circles, so patience doubles with each
server given up, until one answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from .errors import ConnectionLost
from .wire import Reply, Wire

#: Seconds an answer may take before its server is asked for its health, and again after each answer to that.
LATE_SECONDS = 0.4
#: Seconds for an answer about health. Less leaves busy servers, more waits longer for hung ones.
HEALTH_SECONDS = 0.6
HEALTH_SECONDS_MAX = 12.0


class Watch:
    """Waits for the answers of one producer's requests."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._patience = HEALTH_SECONDS

    async def answer(self, url: str, request: Coroutine[Any, Any, Reply]) -> Reply:
        """The answer to `request`, which was made for the server `url`.

        Raises:
            ConnectionLost: as `request` does, or the server is silent to everything.
        """
        waiting = asyncio.ensure_future(request)
        try:
            while not (await asyncio.wait({waiting}, timeout=LATE_SECONDS))[0]:
                if not await self._lives(url) and not waiting.done():
                    self._patience = min(2 * self._patience, HEALTH_SECONDS_MAX)
                    raise ConnectionLost(f"{url} is silent, also about its health")
            self._patience = HEALTH_SECONDS
            return waiting.result()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _lives(self, url: str) -> bool:
        try:
            await self._wire.request("GET", f"{url}/health", timeout_seconds=self._patience)
        except ConnectionLost:
            return False
        return True
