"""What a node answers to its peers: `POST /rpc/<operation>` on the node-to-node port.

A peer shows the cluster token (derived from the shared secret, compared in constant time); without it
nothing is read. Errors travel as a head `{"error": {...}}` with status 200: the frame is the protocol,
HTTP only carries it.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from cluster.http_transport import READ_BUFFER_BYTES
from cluster.replica_client import table_to_ipc
from cluster.transport import CLUSTER_HEADER, DEADLINE_HEADER, MAX_FRAME_BYTES
from records import envelope
from records.block_codec import EncodedBlock, decode_header
from records.errors import NotFound, QuorumlogError
from records.messages import EntriesRequest, PutOptions, ScanRequest, SealRequest
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.logs import get_logger
from storage.service import StorageService

log = get_logger(__name__)

#: Deadline of a call that names none, in milliseconds.
DEFAULT_DEADLINE_MS = 10_000

Answer = tuple[dict[str, Any], Any]
Operation = Callable[[dict[str, Any], memoryview, Deadline], Awaitable[Answer]]


class StorageOperations:
    """The replica's operations by name, as frames in and frames out."""

    def __init__(self, storage: StorageService) -> None:
        self._storage = storage

    def table(self) -> dict[str, Operation]:
        """Name -> operation."""
        return {
            "put": self.put,
            "scan": self.scan,
            "entries": self.entries,
            "fetch": self.fetch,
            "seal": self.seal,
            "producer_states": self.producer_states,
            "seal_producer_epoch": self.seal_producer_epoch,
        }

    async def put(self, head: dict[str, Any], payload: memoryview, _: Deadline) -> Answer:
        """Stores a block; answers after fdatasync. The store checks sidecar and body, once."""
        block = EncodedBlock(decode_header(payload), payload)
        reply = await self._storage.put(block, PutOptions.from_head(head))
        return reply.to_head(), b""

    async def scan(self, head: dict[str, Any], _: memoryview, deadline: Deadline) -> Answer:
        """Evaluates a plan."""
        reply, table = await deadline.wait(self._storage.scan(ScanRequest.from_head(head)))
        return reply.to_head(), table_to_ipc(table)

    async def entries(self, head: dict[str, Any], _: memoryview, deadline: Deadline) -> Answer:
        """Lists entries."""
        request = EntriesRequest(int(head["shard"]), int(head["start"]), int(head["end"]))
        reply = await deadline.wait(self._storage.entries(request))
        return reply.to_head(), b""

    async def fetch(self, head: dict[str, Any], _: memoryview, deadline: Deadline) -> Answer:
        """Sends blocks restricted to entries."""
        blocks = await deadline.wait(self._storage.fetch(tuple(head["entry_ids"])))
        lengths = [len(block.data) for block in blocks]
        return {"lengths": lengths}, b"".join(block.data for block in blocks)

    async def seal(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        """Fences a shard."""
        request = SealRequest(int(head["shard"]), int(head["epoch"]), str(head["leader"]))
        await self._storage.seal(request)
        return {}, b""

    async def producer_states(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        """What is held of a producer."""
        tenant, service, producer = head["producer"]
        states = await self._storage.producer_states(
            int(head["shard"]), (tenant, service, producer)
        )
        return {"states": [one.to_list() for one in states]}, b""

    async def seal_producer_epoch(
        self, head: dict[str, Any], _: memoryview, __: Deadline
    ) -> Answer:
        """Makes a producer epoch the newest."""
        tenant, service, producer = head["producer"]
        newest = await self._storage.seal_producer_epoch(
            int(head["shard"]), (tenant, service, producer), int(head["epoch"])
        )
        return {"epoch": newest}, b""


class PeerServer:
    """Serves operations to peers on an address of its own."""

    def __init__(self, token: str, clock: Clock) -> None:
        self._token = token.encode()
        self._clock = clock
        self._operations: dict[str, Operation] = {}
        self._runner: web.AppRunner | None = None

    def add(self, operations: dict[str, Operation]) -> None:
        """Adds operations; names must be new."""
        clash = self._operations.keys() & operations.keys()
        if clash:
            raise ValueError(f"operations registered twice: {sorted(clash)}")
        self._operations.update(operations)

    async def start(self, host: str, port: int) -> None:
        """Listens. A peer that goes away cancels what it asked for."""
        app = web.Application(client_max_size=MAX_FRAME_BYTES)
        app.router.add_post("/rpc/{operation}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, read_bufsize=READ_BUFFER_BYTES
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, backlog=1024).start()

    async def stop(self) -> None:
        """Stops listening and ends open requests."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        shown = request.headers.get(CLUSTER_HEADER, "").encode()
        if not hmac.compare_digest(shown, self._token):
            return web.Response(status=403, text="not a peer of this cluster\n")
        left = int(request.headers.get(DEADLINE_HEADER, DEFAULT_DEADLINE_MS))
        deadline = Deadline.after(self._clock, left / 1000)
        try:
            head, payload = await self._perform(request, deadline)
        except QuorumlogError as error:
            head, payload = {"error": error.to_dict()}, b""
        return web.Response(
            body=envelope.encode(head, payload), content_type="application/octet-stream"
        )

    async def _perform(self, request: web.Request, deadline: Deadline) -> Answer:
        name = request.match_info["operation"]
        operation = self._operations.get(name)
        if operation is None:
            raise NotFound(f"this node does not serve {name!r}")
        head, payload = envelope.decode(await request.read())
        return await operation(head, payload, deadline)
