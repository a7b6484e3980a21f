"""Serves operations to peers on the node-to-node port: hello, then requests and answers (peer_link).

A peer shows the cluster token (derived from the shared secret, compared in constant time) in its first
frame; without it nothing more is read. Errors travel as a head `{"error": {...}}`. Bounds: a number of
connections, seconds for the hello, for a request to come whole and for a peer to take its answer.
"""

import asyncio
import hmac
from typing import Any

from cluster.peer_link import HELLO_BYTES, VERSION, Part, PeerConnection
from cluster.server import Operation
from cluster.transport import MAX_FRAME_BYTES
from records import envelope
from records.errors import Forbidden, NotFound, QuorumlogError, TooLarge, Unknown
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.logs import get_logger
from runtime.tasks import Supervisor

log = get_logger(__name__)

#: Connections at once. Each peer opens at most peer_transport.CONNECTIONS_MAX.
CONNECTIONS_MAX = 4096
#: Seconds for a stranger to say who it is and ask something.
HELLO_SECONDS = 5.0
#: Seconds from one answer until the next request is there whole. More than a client keeps a connection.
IDLE_SECONDS = 120.0
#: Of a frame, kept for an answer's head; the payload of a scan's answer is up to 64 MiB and what frames it.
HEAD_ROOM_BYTES = envelope.MAX_HEAD_BYTES + (1 << 20)
#: Seconds for a peer to take its answer.
DRAIN_SECONDS = 60.0


class PeerServer:
    """Listens for peers; one task a connection."""

    def __init__(self, token: str, clock: Clock) -> None:
        self._token = token.encode()
        self._clock = clock
        self._operations: dict[str, Operation] = {}
        self._server: asyncio.Server | None = None
        self._tasks = Supervisor("peers")
        self._connections: set[_Served] = set()

    def add(self, operations: dict[str, Operation]) -> None:
        """Adds operations; names must be new."""
        clash = self._operations.keys() & operations.keys()
        if clash:
            raise ValueError(f"operations registered twice: {sorted(clash)}")
        self._operations.update(operations)

    async def start(self, host: str, port: int) -> None:
        """Listens. A peer that goes away cancels what it asked for."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Served(self), host, port, backlog=1024, reuse_address=True
        )

    async def stop(self) -> None:
        """Stops listening and ends open requests."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        await self._tasks.stop()

    def accepted(self, connection: "_Served") -> None:
        """Begins to serve a connection, or closes it if there are too many."""
        if len(self._connections) >= CONNECTIONS_MAX:
            connection.abort()
            return
        self._connections.add(connection)
        connection.task = self._tasks.spawn("connection", self._serve(connection))

    def gone(self, connection: "_Served") -> None:
        """Ends what a lost connection asked for."""
        self._connections.discard(connection)
        if connection.task is not None:
            connection.task.cancel()

    async def _serve(self, connection: "_Served") -> None:
        try:
            while True:
                seconds = IDLE_SECONDS if connection.welcome else HELLO_SECONDS
                async with asyncio.timeout(seconds):
                    frame = await connection.frame()
                connection.send(await self._answer(frame))
                async with asyncio.timeout(DRAIN_SECONDS):
                    await connection.drained()
        except (TimeoutError, OSError, QuorumlogError):
            connection.abort()

    def refusal(self, hello: memoryview) -> QuorumlogError | None:
        """Why a peer is not welcome; None if it knows the token."""
        head, _ = envelope.decode(hello)
        shown = str(head.get("token", "")).encode()
        if not hmac.compare_digest(shown, self._token):
            return Forbidden("not a peer of this cluster")
        if head.get("version") != VERSION:
            return Forbidden(f"version {VERSION} of the peers' protocol is spoken here")
        return None

    async def _answer(self, frame: memoryview) -> tuple[Part, Part]:
        try:
            head, payload = await self._perform(frame)
        except QuorumlogError as error:
            head, payload = {"error": error.to_dict()}, b""
        except Exception as error:  # noqa: BLE001 - a bug; the peer must not wait for its deadline
            log.error("operation failed", error=error)
            head, payload = {"error": Unknown(f"an unexpected error: {error!r}").to_dict()}, b""
        view = memoryview(payload)
        if len(view) > MAX_FRAME_BYTES - HEAD_ROOM_BYTES:
            refusal = TooLarge(
                f"an answer of {len(view) >> 20} MiB, more than {MAX_FRAME_BYTES - HEAD_ROOM_BYTES >> 20}; "
                "narrow the question, or ask for fewer rows, fields or distinct values"
            )
            head, view = {"error": refusal.to_dict()}, memoryview(b"")
        return envelope.encode_head(head, len(view)), view

    async def _perform(self, frame: memoryview) -> tuple[dict[str, Any], Any]:
        request, payload = envelope.decode(frame)
        name = str(request.get("op"))
        operation = self._operations.get(name)
        if operation is None:
            raise NotFound(f"this node does not serve {name!r}")
        deadline = Deadline.after(self._clock, int(request["ms"]) / 1000)
        return await operation(request["head"], payload, deadline)


class _Served(PeerConnection):
    """The server's end of a connection. A stranger's first frame must be short."""

    def __init__(self, server: PeerServer) -> None:
        super().__init__(HELLO_BYTES)
        self._server = server
        self.welcome = False
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer, or a stranger, is there."""
        super().connection_made(transport)
        self._server.accepted(self)

    def arrived(self, frame: memoryview) -> None:
        """A request; or the hello, looked at before anything else is read."""
        if self.welcome:
            super().arrived(frame)
            return
        refusal = self._server.refusal(frame)
        if refusal is not None:
            self.send((envelope.encode_head({"error": refusal.to_dict()}, 0),))
            self.close()
            raise refusal
        self.welcome, self.reader.limit = True, MAX_FRAME_BYTES

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        super().connection_lost(exc)
        self._server.gone(self)
