"""The real Transport: frames over kept connections, one request at a time on each (peer_link).

Every operation is idempotent, so a connection that breaks is answered by one immediate repeat on a
fresh one: a kept connection that the peer closed in between looks exactly like that.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from cluster.peer_link import VERSION, Part, PeerConnection
from cluster.transport import MAX_FRAME_BYTES
from records import envelope
from records.errors import ConnectionLost, DeadlineExceeded, NotFound, error_from_dict
from runtime.deadline import Deadline

#: Seconds to connect on a local network; a dead host must not eat a write's deadline.
CONNECT_SECONDS = 1.0
#: Requests to one address at once; more wait their turn. Also how many connections are kept.
CONNECTIONS_MAX = 64
#: Seconds that a connection is kept unused; less than the server waits (server.IDLE_SECONDS).
KEEP_SECONDS = 60.0


def cluster_token(secret: bytes) -> str:
    """What peers show each other: derived from the cluster's secret, which itself never travels."""
    return hmac.new(secret, b"quorumlog peer", hashlib.sha256).hexdigest()


class _Unreached(OSError):
    """No connection was made, so nothing was sent."""


class _Pool:
    """Connections to one address: those unused, newest last, with since when."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.host, self.port = host.strip("[]"), int(port)
        self.turns = asyncio.Semaphore(CONNECTIONS_MAX)
        self.unused: list[tuple[PeerConnection, float]] = []

    def kept(self, now: float) -> PeerConnection | None:
        """An unused connection that is still open; closes those that were long unused."""
        while self.unused and (self.unused[0][0].lost or now - self.unused[0][1] > KEEP_SECONDS):
            self.unused.pop(0)[0].close()
        while self.unused:
            connection, _ = self.unused.pop()
            if not connection.lost:
                return connection
        return None

    def close(self) -> None:
        """Closes what is unused."""
        for connection, _ in self.unused:
            connection.close()
        self.unused.clear()


class PeerTransport:
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
        hello = {"version": VERSION, "token": token, "node": node_id}
        self._hello = envelope.encode_head(hello, 0)
        self._pools: dict[str, _Pool] = {}
        self._busy: set[PeerConnection] = set()
        self._open = False

    async def start(self) -> None:
        """From here on peers can be called."""
        self._open = True

    async def stop(self) -> None:
        """Closes all connections; calls under way are lost."""
        self._open = False
        for pool in self._pools.values():
            pool.close()
        for connection in list(self._busy):
            connection.abort()

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
        if not self._open:
            raise ConnectionLost("the transport is not started", definite=True)
        if deadline.expired:  # says nothing of the peer, so nobody hears of it
            raise DeadlineExceeded(f"{operation} on {node}: no time is left", definite=True)
        try:
            async with asyncio.timeout(deadline.remaining()):
                data = await self._ask(address, operation, head, payload, deadline)
        except _Unreached as error:
            self._observed(node, False)
            raise ConnectionLost(f"cannot connect to {node}: {error}", definite=True) from error
        except TimeoutError as error:
            self._observed(node, False)
            raise DeadlineExceeded(f"{operation} on {node}: no answer in time") from error
        except OSError as error:
            self._observed(node, False)
            raise ConnectionLost(f"{operation} on {node}: {error!r}") from error
        self._observed(node, True)
        answer, body = envelope.decode(data)
        if "error" in answer:
            raise error_from_dict(answer["error"])
        return answer, body

    async def _ask(
        self,
        address: str,
        operation: str,
        head: dict[str, Any],
        payload: bytes | memoryview,
        deadline: Deadline,
    ) -> memoryview:
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = _Pool(address)
        async with pool.turns:
            fields = {"op": operation, "ms": int(deadline.remaining() * 1000), "head": head}
            parts = (envelope.encode_head(fields, len(payload)), payload)
            connection = pool.kept(deadline.clock.monotonic())
            try:
                if connection is None:
                    connection = await self._connected(pool)
                return await self._exchange(pool, connection, parts, deadline)
            except (TimeoutError, _Unreached):
                raise
            except OSError:
                if deadline.expired:
                    raise
            return await self._exchange(pool, await self._connected(pool), parts, deadline)

    async def _connected(self, pool: _Pool) -> PeerConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    lambda: PeerConnection(MAX_FRAME_BYTES), pool.host, pool.port
                )
        except OSError as error:  # a TimeoutError is one as well
            raise _Unreached(repr(error)) from error
        connection.send((self._hello,))
        return connection

    async def _exchange(
        self, pool: _Pool, connection: PeerConnection, parts: tuple[Part, Part], deadline: Deadline
    ) -> memoryview:
        """One request and its answer; a connection without an answer is closed, whatever the reason."""
        self._busy.add(connection)
        answered = False
        try:
            connection.send(parts)
            frame = await connection.frame()
            answered = connection.quiet
        finally:
            self._busy.discard(connection)
            if not answered:
                connection.abort()
        if self._open and not connection.lost:
            pool.unused.append((connection, deadline.clock.monotonic()))
        else:
            connection.close()
        return frame
