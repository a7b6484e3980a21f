"""The command line's way to a cluster: one request at a time, to the first server that answers.

Built on the client library's wire and its reading of answers. A server that cannot be reached, or
whose answer does not say what became of the request, is followed by the next one; an answer that
is final (400, 401, 404 …) is not.
"""

import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from aiohttp import ClientResponse

from node.cli_errors import CliError
from quorumlog.answers import error_from, read_json
from quorumlog.backoff import is_transient
from quorumlog.errors import ConnectionLost, QuorumlogError
from quorumlog.leaders import normalise
from quorumlog.wire import Reply, Wire, WireSettings

#: Where `quorumlog up` listens, if no server is named.
DEFAULT_SERVERS = ("http://127.0.0.1:7171", "http://127.0.0.1:7181", "http://127.0.0.1:7191")
#: Longer than the server's own default deadline for a query (30 s).
REQUEST_SECONDS = 40.0
#: Seconds for which a server that could not be reached is asked last.
DOWN_SECONDS = 2.0
NO_ANSWER = "no server answers: "


def _reason(error: ConnectionLost) -> str:
    """Why a connection failed, in a few words."""
    cause = error.__cause__
    number = getattr(getattr(cause, "os_error", None), "errno", None)
    return os.strerror(number) if isinstance(number, int) else str(cause or error)


class Api:
    """Requests to the servers of one cluster, tried in turn. Belongs to one event loop."""

    def __init__(
        self, servers: Sequence[str], tenant: str | None = None, seconds: float = REQUEST_SECONDS
    ) -> None:
        self.servers = [normalise(one) for one in servers] or list(DEFAULT_SERVERS)
        self._wire = Wire(WireSettings(tenant=tenant, request_timeout_seconds=seconds))
        self._at = 0
        self._down_until: dict[str, float] = {}

    async def __aenter__(self) -> "Api":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.close()

    def turn(self) -> None:
        """Prefer the next server from now on."""
        self._at += 1

    async def reply(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        server: str | None = None,
    ) -> Reply:
        """The answer of any status from the first server that gives one.

        Raises:
            ConnectionLost: none did.
        """
        servers = [server] if server else self._in_turn()
        failures: list[str] = []
        for url in servers:
            try:
                return await self._wire.request(
                    method, url + path, params=params, headers=headers, data=data
                )
            except ConnectionLost as error:
                failures.append(f"{url} ({_reason(error)})")
                self._down_until[url] = time.monotonic() + DOWN_SECONDS
        raise ConnectionLost(NO_ANSWER + ", ".join(failures))

    def _in_turn(self) -> list[str]:
        at, now = self._at % len(self.servers), time.monotonic()
        servers = self.servers[at:] + self.servers[:at]
        return sorted(servers, key=lambda url: self._down_until.get(url, 0.0) > now)

    def add_servers(self, urls: Sequence[str]) -> None:
        """More members to ask, after those that were named."""
        known = [normalise(url) for url in urls if url]
        self.servers = list(dict.fromkeys([*self.servers, *known]))

    async def get(
        self, path: str, params: Mapping[str, str] | None = None, server: str | None = None
    ) -> dict[str, Any]:
        """The JSON object at `path`; a transient error is followed by the next server.

        Raises:
            QuorumlogError: the last error.
        """
        last: QuorumlogError | None = None
        lost: list[str] = []
        for url in [server] if server else self._in_turn():
            try:
                reply = await self.reply("GET", path, params, server=url)
                return read_json(reply.status, reply.headers, reply.body)
            except ConnectionLost as error:
                lost.append(str(error).removeprefix(NO_ANSWER))
            except QuorumlogError as error:
                if not is_transient(error):
                    raise
                last = error
        raise last or ConnectionLost(NO_ANSWER + ", ".join(lost))

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], accept: str
    ) -> AsyncIterator[ClientResponse]:
        """A 200 answer whose body is still to be read, from the first server that gives one."""
        last: QuorumlogError | None = None
        for url in self._in_turn():
            opened = False
            try:
                async with self._wire.stream(
                    url + path, params=params, headers={"Accept": accept}
                ) as answer:
                    if answer.status == 200:
                        opened = True
                        yield answer
                        return
                    error = error_from(answer.status, answer.headers, await answer.read())
            except ConnectionLost as lost:
                if opened:
                    raise
                error = lost
            if not is_transient(error):
                raise error
            last = error
        raise last or CliError("no server was named", "give one with --server URL")
