"""The real Transport: frames as HTTP/1.1 POST bodies over kept-alive connections (aiohttp).

Every operation is idempotent, so a connection that breaks is answered by one immediate repeat on a
fresh one: a keep-alive connection that the peer closed in between looks exactly like that.
"""

import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from cluster.transport import CLUSTER_HEADER, DEADLINE_HEADER, MAX_FRAME_BYTES, NODE_HEADER
from records import envelope
from records.errors import ConnectionLost, DeadlineExceeded, NotFound, error_from_dict
from runtime.deadline import Deadline

#: Seconds to connect on a local network; a dead host must not eat a write's deadline.
CONNECT_SECONDS = 1.0
#: Bytes read from the socket per wake-up; blocks are a few 100 KB.
READ_BUFFER_BYTES = 1 << 20


Frame = tuple[bytes, bytes | memoryview]
"""Head and payload, sent one after the other without being joined."""


async def _parts(frame: Frame) -> AsyncIterator[bytes | memoryview]:
    for part in frame:
        if len(part):
            yield part


def cluster_token(secret: bytes) -> str:
    """What peers show each other: derived from the cluster's secret, which itself never travels."""
    return hmac.new(secret, b"quorumlog peer", hashlib.sha256).hexdigest()


class HttpTransport:
    """Calls peers at the addresses that `address_of` gives."""

    def __init__(
        self,
        node_id: str,
        token: str,
        address_of: Callable[[str], str | None],
        observed: Callable[[str, bool], None],
    ) -> None:
        """`observed(node, ok)` hears of each success and each lost connection."""
        self._address_of = address_of
        self._observed = observed
        self._headers = {CLUSTER_HEADER: token, NODE_HEADER: node_id}
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Opens the connection pool."""
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=64, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )

    async def stop(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()

    async def call(
        self,
        node: str,
        operation: str,
        head: dict[str, Any],
        payload: bytes | memoryview,
        deadline: Deadline,
    ) -> tuple[dict[str, Any], memoryview]:
        """See Transport."""
        address = self._address_of(node)
        if not address:
            raise NotFound(f"no address of node {node!r} is known")
        frame = (envelope.encode_head(head, len(payload)), payload)
        try:
            data = await self._post(f"http://{address}/rpc/{operation}", frame, deadline)
        except aiohttp.ClientConnectorError as error:
            self._observed(node, False)
            raise ConnectionLost(f"cannot connect to {node}: {error}", definite=True) from error
        except TimeoutError as error:
            self._observed(node, False)
            raise DeadlineExceeded(f"{operation} on {node}: no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            self._observed(node, False)
            raise ConnectionLost(f"{operation} on {node}: {error!r}") from error
        self._observed(node, True)
        answer, body = envelope.decode(data)
        if "error" in answer:
            raise error_from_dict(answer["error"])
        return answer, body

    async def _post(self, url: str, frame: Frame, deadline: Deadline) -> bytes:
        try:
            return await self._post_once(url, frame, deadline)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) or deadline.expired:
                raise
            return await self._post_once(url, frame, deadline)

    async def _post_once(self, url: str, frame: Frame, deadline: Deadline) -> bytes:
        if self._session is None:
            raise ConnectionLost("the transport is not started", definite=True)
        left = deadline.remaining()
        if left <= 0:
            raise TimeoutError
        timeout = aiohttp.ClientTimeout(total=left, sock_connect=min(CONNECT_SECONDS, left))
        headers = {
            DEADLINE_HEADER: str(int(left * 1000)),
            "Content-Length": str(sum(len(part) for part in frame)),
        }
        body = _parts(frame)
        async with self._session.post(url, data=body, headers=headers, timeout=timeout) as answer:
            length = answer.content_length
            if length is not None and length > MAX_FRAME_BYTES:
                raise ConnectionLost(f"answer of {length} bytes exceeds {MAX_FRAME_BYTES}")
            return await answer.read()
