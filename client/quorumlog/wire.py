"""The HTTP shell: one session, one request, one answer or one typed error. Decides nothing.

Each failure of the connection is `ConnectionLost`, not definite: the request may have arrived.
"""

from __future__ import annotations

import contextlib
import io
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field

import aiohttp

from .errors import ConnectionLost


@dataclass(frozen=True, slots=True)
class WireSettings:
    """How to reach the servers.

    `request_timeout_seconds` stands above the 10 s for which a server may hold a request while a
    leader changes; `connect_timeout_seconds` is how long a host that is gone may keep us.
    """

    token: str | None = field(default=None, repr=False)
    tenant: str | None = None
    tls: ssl.SSLContext | None = None
    connect_timeout_seconds: float = 2.0
    request_timeout_seconds: float = 12.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of any status, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """A session of HTTP connections. Belongs to the event loop it was made on."""

    def __init__(self, settings: WireSettings) -> None:
        headers = {"User-Agent": "quorumlog-client"}
        if settings.token is not None:
            headers["Authorization"] = f"Bearer {settings.token}"
        if settings.tenant is not None:
            headers["X-Scope-OrgID"] = settings.tenant
        self._settings = settings
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(ssl=settings.tls or True, ttl_dns_cache=300),
            read_bufsize=1 << 20,
            auto_decompress=True,
        )

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        timeout_seconds: float | None = None,
    ) -> Reply:
        """Sends one request and reads the whole answer; `timeout_seconds` instead of the setting.

        Raises:
            ConnectionLost: no whole answer came in time.
        """
        # As a file the body is written in pieces, so that megabytes do not hold the event loop.
        content = None if data is None else io.BytesIO(data)
        total = timeout_seconds or self._settings.request_timeout_seconds
        patience = aiohttp.ClientTimeout(
            total=total, sock_connect=self._settings.connect_timeout_seconds
        )
        with _typed(url):
            async with self._session.request(
                method, url, params=params, headers=headers, data=content, timeout=patience,
                allow_redirects=False,
            ) as answer:  # fmt: skip
                return Reply(answer.status, answer.headers, await answer.read())

    @contextlib.asynccontextmanager
    async def stream(
        self, url: str, *, params: Mapping[str, str], headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer whose body is still to be read; each read may raise `ConnectionLost`.

        There is no limit on the whole, only on the silence between two pieces.
        """
        patience = aiohttp.ClientTimeout(
            total=None,
            sock_connect=self._settings.connect_timeout_seconds,
            sock_read=self._settings.request_timeout_seconds * 5,
        )
        with _typed(url):
            async with self._session.get(
                url, params=params, headers=headers, timeout=patience, allow_redirects=False
            ) as answer:
                yield answer

    async def close(self) -> None:
        """Closes all connections. May be called again."""
        await self._session.close()


@contextlib.contextmanager
def _typed(url: str) -> Iterator[None]:
    try:
        yield
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise ConnectionLost(f"{url}: {error or type(error).__name__}") from error
