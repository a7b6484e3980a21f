"""Passing a sequenced request on to its shard's leader: one hop, the bytes as they came.

A leader that hangs keeps its connections open and answers nothing. So whoever waits for it looks whether
it still leads, and leaves it when it was replaced: the same rows may then go to the next one, as numbered
rows are stored once however often they come, and what the old one still sends is fenced.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from aiohttp import web

from records.errors import ConnectionLost
from runtime.deadline import Deadline

PROXIED = "X-Quorumlog-Proxied"
#: What is left of the request's time, milliseconds; the leader holds no longer than that.
DEADLINE = "X-Quorumlog-Deadline-Ms"
#: Seconds to reach the leader. A node that takes longer is treated as gone.
CONNECT_SECONDS = 1.0
#: Seconds between two looks whether the leader that was asked still leads. A view is read, no network. It
#: is the most that a failover takes longer where a leader hangs than where it died.
WATCH_SECONDS = 0.05
_PASSED_ON = (
    "Content-Type",
    "Content-Encoding",
    "X-Scope-OrgID",
    "X-Quorumlog-W",
    "Authorization",
    "Idempotency-Key",
)
_PASSED_BACK = (
    "Content-Type",
    "Retry-After",
    "X-Quorumlog-Durable",
    "X-Quorumlog-Dedupe",
    "X-Quorumlog-Rejected",
)


class LeaderProxy:
    """Sends requests to leaders over kept connections. Belongs to one event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def pass_on(
        self,
        request: web.Request,
        leader: Mapping[str, Any],
        body: bytes,
        deadline: Deadline,
        still_leads: Callable[[], bool],
    ) -> web.Response:
        """The leader's answer, whatever it is.

        Raises:
            ConnectionLost: none came, or the leader was replaced before it did (the rows may be stored;
                the same bytes may be sent again).
        """
        asking = asyncio.create_task(self._ask(request, leader, body, deadline), name="ask-leader")
        try:
            while not (await asyncio.wait({asking}, timeout=WATCH_SECONDS))[0]:
                if not still_leads():
                    text = f"the leader at {leader['http']} was replaced before it answered"
                    raise ConnectionLost(text, retry_after_seconds=1)
            return asking.result()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _ask(
        self, request: web.Request, leader: Mapping[str, Any], body: bytes, deadline: Deadline
    ) -> web.Response:
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=True)
        address = str(leader["http"])
        base = address if "://" in address else f"http://{address}"
        left = deadline.remaining()
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        headers |= {PROXIED: "1", DEADLINE: str(int(left * 1000))}
        patience = aiohttp.ClientTimeout(total=left + 1.0, sock_connect=min(CONNECT_SECONDS, left))
        try:
            async with self._session.request(
                request.method,
                base + request.path_qs,
                data=body or None,
                headers=headers,
                timeout=patience,
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            text = f"the leader at {address} did not answer: {type(error).__name__}"
            raise ConnectionLost(text, retry_after_seconds=1) from error
        back = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
        return web.Response(body=content, status=answer.status, headers=back)

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
