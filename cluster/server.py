"""A storage node's operations by name: what `peer_server` answers to peers, frames in and frames out."""

from collections.abc import Awaitable, Callable
from typing import Any

from cluster.replica_client import table_to_ipc
from records.block_codec import EncodedBlock, decode_header
from records.messages import (
    EntriesRequest,
    ProducersRequest,
    PutOptions,
    RowName,
    ScanRequest,
    SealRequest,
)
from records.sync import TreeRequest
from runtime.deadline import Deadline
from storage.service import StorageService

Answer = tuple[dict[str, Any], Any]
#: The ring epoch of a caller that does not tell it: never too old.
ANY_RING = (1 << 63) - 1
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
            "tree": self.tree,
            "fetch": self.fetch,
            "absent": self.absent,
            "locate": self.locate,
            "seal": self.seal,
            "producer_states": self.producer_states,
            "producers": self.producers,
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

    async def tree(self, head: dict[str, Any], _: memoryview, deadline: Deadline) -> Answer:
        """Answers about Merkle trees; their lengths in the head."""
        answers = await deadline.wait(self._storage.tree(TreeRequest.from_head(head)))
        return {"n": [len(one) for one in answers]}, b"".join(answers)

    async def fetch(self, head: dict[str, Any], _: memoryview, deadline: Deadline) -> Answer:
        """Sends blocks restricted to entries."""
        blocks = await deadline.wait(self._storage.fetch(tuple(head["entry_ids"])))
        lengths = [len(block.data) for block in blocks]
        return {"lengths": lengths}, b"".join(block.data for block in blocks)

    async def absent(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        """Which of these entries of a shard lack here; a request's few, so on the event loop."""
        found = self._storage.absent(tuple(head["entry_ids"]), int(head["shard"]))
        return {"entry_ids": found}, b""

    async def locate(self, head: dict[str, Any], _: memoryview, deadline: Deadline) -> Answer:
        """Tells where a row stands; nothing of one that is not held."""
        name = RowName(bytes(head["run"]), int(head["number"]))
        place = await deadline.wait(self._storage.locate(name))
        found = place and {
            "timestamp": place.timestamp, "service": place.service, "tenant": place.tenant,
        }  # fmt: skip
        return {"place": found}, b""

    async def seal(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        """Fences a shard."""
        request = SealRequest(int(head["shard"]), int(head["epoch"]), str(head["leader"]))
        await self._storage.seal(request)
        return {}, b""

    async def producer_states(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        """What is held of a producer."""
        tenant, service, producer = head["producer"]
        found = await self._storage.producer_states(int(head["shard"]), (tenant, service, producer))
        return found.to_head(), b""

    async def producers(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        """Producers with gaps, or of a service."""
        found = await self._storage.producers(ProducersRequest.from_head(head))
        return {"states": [[shard, one.to_list()] for shard, one in found]}, b""

    async def seal_producer_epoch(
        self, head: dict[str, Any], _: memoryview, __: Deadline
    ) -> Answer:
        """Makes a producer epoch the newest."""
        tenant, service, producer = head["producer"]
        ring_epoch = int(head.get("ring_epoch", ANY_RING))  # older nodes do not tell
        sealed = await self._storage.seal_producer_epoch(
            int(head["shard"]), (tenant, service, producer), int(head["epoch"]), ring_epoch
        )
        return sealed.to_head(), b""
