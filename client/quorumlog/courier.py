"""Carries one request to whoever can serve it, for as long as it takes.

The same bytes go out on every try. Whom to ask is decided in `leaders`, whether a silent server is
left in `watch`, what an answer means in `answers`, how long to pause in `backoff`; here they are only
put together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import tenacity

from .answers import read_json
from .backoff import is_transient, pause_after
from .errors import (
    ConnectionLost,
    InvalidRequest,
    NotLeader,
    Overloaded,
    QuorumlogError,
    QuorumUnavailable,
    ServerFailed,
    Unauthorized,
)
from .leaders import Leaders
from .watch import Watch
from .wire import Wire

log = logging.getLogger(__name__)

T = TypeVar("T")
Read = Callable[[int, Mapping[str, str], bytes], T]

#: Changes of leader followed at once, in a row, before it counts as a failure and we pause.
_HINTS_AT_ONCE = 3
#: Paths that a node without the role lacks; another node may have them.
NO_SUCH_PATH = frozenset({404, 405, 501})
_DISCOVER_SECONDS = 30.0
_DISCOVER_SECONDS_MIN = 1.0


class Courier:
    """Posts to a shard's leader. `on_failure` is told each failed try, None after a success."""

    def __init__(
        self,
        wire: Wire,
        leaders: Leaders,
        on_failure: Callable[[QuorumlogError | None], None],
        *,
        sleep: Callable[[float], object] = asyncio.sleep,
    ) -> None:
        self._wire = wire
        self._watch = Watch(wire)
        self._leaders = leaders
        self._on_failure = on_failure
        self._sleep = sleep
        self._rediscover = asyncio.Event()

    @property
    def reach(self) -> int:
        """How many nodes there are to ask."""
        return len(self._leaders.known)

    async def post(
        self,
        path: str,
        body: bytes,
        read: Read[T],
        give_up: Callable[[QuorumlogError], bool],
        method: str = "POST",
    ) -> T:
        """Posts `body` until it is answered with a result, or with an error to `give_up` on.

        Retried without end: what is transient, but also missing rights and unknown paths, which
        an operator may mend while the rows wait.
        """

        def again(error: BaseException) -> bool:
            return isinstance(error, QuorumlogError) and not give_up(error) and _is_hopeful(error)

        retrying = tenacity.AsyncRetrying(
            wait=pause_after,
            retry=tenacity.retry_if_exception(again),
            sleep=self._sleep,  # pyright: ignore[reportArgumentType]
            before_sleep=self._note,
            reraise=True,
        )
        result = await retrying(self._try_once, path, body, read, method)
        self._on_failure(None)
        return result

    def _note(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if not isinstance(error, QuorumlogError):
            return
        tries = state.attempt_number
        if tries & (tries - 1) == 0:  # 1, 2, 4, 8 …: an outage doesn't fill the log
            log.warning("try %d failed, the same is sent again: %s", tries, error)
        self._on_failure(error)
        self._rediscover.set()

    async def _try_once(self, path: str, body: bytes, read: Read[T], method: str) -> T:
        hops = 0
        while True:
            target = self._leaders.target(time.monotonic())
            headers = {"Content-Type": "application/json"}
            if target.want_hint:
                headers["X-Quorumlog-Redirect"] = "hint"
            try:
                asked = self._wire.request(
                    method, target.url + path, headers=headers, data=body or None
                )
                reply = await self._watch.answer(target.url, asked)
                result = read(reply.status, reply.headers, reply.body)
            except NotLeader as error:
                hops += 1
                if not self._leaders.on_hint(target.url, error.leader) or hops > _HINTS_AT_ONCE:
                    raise
            except QuorumlogError as error:
                self._on_error(target.url, error)
                raise
            else:
                self._leaders.on_success(target.url)
                return result

    def _on_error(self, url: str, error: QuorumlogError) -> None:
        if isinstance(error, QuorumUnavailable | Overloaded) or error.status == 504:
            self._leaders.on_refusal(url)
        elif isinstance(error, ConnectionLost | ServerFailed) or error.status in NO_SUCH_PATH:
            self._leaders.on_failure(url, time.monotonic())

    async def discover(self) -> None:
        """Keeps the list of members fresh, until cancelled: now and then, and after failures."""
        while True:
            for url in self._leaders.known:
                try:
                    reply = await self._wire.request("GET", f"{url}/cluster/nodes")
                    self._leaders.on_nodes(read_json(reply.status, reply.headers, reply.body))
                    break
                except QuorumlogError as error:
                    log.debug("members not learned from %s: %s", url, error)
            self._rediscover.clear()
            await asyncio.sleep(_DISCOVER_SECONDS_MIN)
            try:
                async with asyncio.timeout(_DISCOVER_SECONDS):
                    await self._rediscover.wait()
            except TimeoutError:
                pass


def _is_hopeful(error: QuorumlogError) -> bool:
    return is_transient(error) or isinstance(error, Unauthorized | InvalidRequest)
