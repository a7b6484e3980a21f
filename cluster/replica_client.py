"""Typed calls to a replica: the same methods for the store in this process and for one far away.

`LocalReplica` calls the StorageService directly (no bytes are made); `HttpReplica` sends frames over a
Transport. Errors say whether the request may have arrived: Refused is definite, ConnectionLost and
DeadlineExceeded are not (unless details say `definite`: the connection was refused).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import pyarrow as pa

from cluster.transport import Transport
from records.block import ProducerKey
from records.block_codec import EncodedBlock, decode_block
from records.errors import NotFound
from records.ids import EntryId
from records.messages import (
    EntriesReply,
    EntriesRequest,
    EpochSealed,
    ProducersRequest,
    ProducerState,
    ProducerStates,
    PutOptions,
    PutReply,
    RowName,
    RowPlace,
    ScanReply,
    ScanRequest,
    SealRequest,
)
from records.sync import TreeRequest
from runtime.deadline import Deadline
from storage.service import StorageService

#: Entries of a reply that are made values on the event loop, in some 15 ms; those of more on a thread.
ENTRIES_INLINE = 1_000


class Replica(Protocol):
    """What can be asked of a storage node. Each call ends by its deadline."""

    async def put(
        self, block: EncodedBlock, options: PutOptions, deadline: Deadline
    ) -> PutReply: ...

    async def scan(
        self, request: ScanRequest, deadline: Deadline
    ) -> tuple[ScanReply, pa.Table]: ...

    async def entries(self, request: EntriesRequest, deadline: Deadline) -> EntriesReply: ...

    async def tree(self, request: TreeRequest, deadline: Deadline) -> list[bytes]: ...

    async def fetch(
        self, entry_ids: tuple[EntryId, ...], deadline: Deadline
    ) -> list[EncodedBlock]: ...

    async def absent(
        self, shard: int, entry_ids: Sequence[EntryId], deadline: Deadline
    ) -> list[EntryId]: ...

    async def raise_ring(self, ring_epoch: int, deadline: Deadline) -> None: ...

    async def locate(self, name: RowName, deadline: Deadline) -> RowPlace | None: ...

    async def seal(self, request: SealRequest, deadline: Deadline) -> None: ...

    async def producer_states(
        self, shard: int, producer: ProducerKey, deadline: Deadline
    ) -> ProducerStates: ...

    async def producers(
        self, request: ProducersRequest, deadline: Deadline
    ) -> list[tuple[int, ProducerState]]: ...

    async def seal_producer_epoch(
        self, shard: int, producer: ProducerKey, epoch: int, ring_epoch: int, deadline: Deadline
    ) -> EpochSealed: ...


class Replicas(Protocol):
    """Where replicas are found."""

    def get(self, node: str) -> Replica:
        """The replica on `node`. Raises NotFound if no such member is known."""
        ...


class LocalReplica:
    """The storage service of this process."""

    def __init__(self, service: StorageService) -> None:
        self._service = service

    async def put(self, block: EncodedBlock, options: PutOptions, deadline: Deadline) -> PutReply:
        return await deadline.wait(self._service.put(block, options))

    async def scan(self, request: ScanRequest, deadline: Deadline) -> tuple[ScanReply, pa.Table]:
        return await deadline.wait(self._service.scan(request))

    async def entries(self, request: EntriesRequest, deadline: Deadline) -> EntriesReply:
        return await deadline.wait(self._service.entries(request))

    async def tree(self, request: TreeRequest, deadline: Deadline) -> list[bytes]:
        return await deadline.wait(self._service.tree(request))

    async def fetch(self, entry_ids: tuple[EntryId, ...], deadline: Deadline) -> list[EncodedBlock]:
        return await deadline.wait(self._service.fetch(entry_ids))

    async def absent(
        self, shard: int, entry_ids: Sequence[EntryId], deadline: Deadline
    ) -> list[EntryId]:
        return self._service.absent(entry_ids, shard)

    async def raise_ring(self, ring_epoch: int, deadline: Deadline) -> None:
        await deadline.wait(self._service.moves.raise_ring(ring_epoch))

    async def locate(self, name: RowName, deadline: Deadline) -> RowPlace | None:
        return await deadline.wait(self._service.locate(name))

    async def seal(self, request: SealRequest, deadline: Deadline) -> None:
        await deadline.wait(self._service.seal(request))

    async def producer_states(
        self, shard: int, producer: ProducerKey, deadline: Deadline
    ) -> ProducerStates:
        return await deadline.wait(self._service.producer_states(shard, producer))

    async def producers(
        self, request: ProducersRequest, deadline: Deadline
    ) -> list[tuple[int, ProducerState]]:
        return await deadline.wait(self._service.producers(request))

    async def seal_producer_epoch(
        self, shard: int, producer: ProducerKey, epoch: int, ring_epoch: int, deadline: Deadline
    ) -> EpochSealed:
        sealing = self._service.seal_producer_epoch(shard, producer, epoch, ring_epoch)
        return await deadline.wait(sealing)


class HttpReplica:
    """A storage node behind a Transport."""

    def __init__(self, node: str, transport: Transport) -> None:
        self._node = node
        self._transport = transport

    async def put(self, block: EncodedBlock, options: PutOptions, deadline: Deadline) -> PutReply:
        head, _ = await self._transport.call(
            self._node, "put", options.to_head(), block.data, deadline
        )
        return PutReply.from_head(head)

    async def scan(self, request: ScanRequest, deadline: Deadline) -> tuple[ScanReply, pa.Table]:
        head, payload = await self._transport.call(
            self._node, "scan", request.to_head(), b"", deadline
        )
        return ScanReply.from_head(head), table_from_ipc(payload)

    async def entries(self, request: EntriesRequest, deadline: Deadline) -> EntriesReply:
        fields = {"shard": request.shard, "start": request.start, "end": request.end}
        head, _ = await self._transport.call(self._node, "entries", fields, b"", deadline)
        if len(head["entries"]) <= ENTRIES_INLINE:
            return EntriesReply.from_head(head)
        return await asyncio.to_thread(EntriesReply.from_head, head)

    async def tree(self, request: TreeRequest, deadline: Deadline) -> list[bytes]:
        head, payload = await self._transport.call(
            self._node, "tree", request.to_head(), b"", deadline
        )
        answers, at = [], 0
        for length in head["n"]:
            answers.append(bytes(payload[at : at + length]))
            at += length
        return answers

    async def fetch(self, entry_ids: tuple[EntryId, ...], deadline: Deadline) -> list[EncodedBlock]:
        head, payload = await self._transport.call(
            self._node, "fetch", {"entry_ids": entry_ids}, b"", deadline
        )
        blocks, at = [], 0
        for length in head["lengths"]:
            blocks.append(decode_block(payload[at : at + length]))
            at += length
        return blocks

    async def absent(
        self, shard: int, entry_ids: Sequence[EntryId], deadline: Deadline
    ) -> list[EntryId]:
        fields = {"shard": shard, "entry_ids": list(entry_ids)}
        head, _ = await self._transport.call(self._node, "absent", fields, b"", deadline)
        return [EntryId(bytes(one)) for one in head["entry_ids"]]

    async def raise_ring(self, ring_epoch: int, deadline: Deadline) -> None:
        fields = {"ring_epoch": ring_epoch}
        await self._transport.call(self._node, "raise_ring", fields, b"", deadline)

    async def locate(self, name: RowName, deadline: Deadline) -> RowPlace | None:
        fields = {"run": name.run, "number": name.number}
        head, _ = await self._transport.call(self._node, "locate", fields, b"", deadline)
        return head["place"] and RowPlace(**head["place"])

    async def seal(self, request: SealRequest, deadline: Deadline) -> None:
        fields = {"shard": request.shard, "epoch": request.epoch, "leader": request.leader}
        await self._transport.call(self._node, "seal", fields, b"", deadline)

    async def producer_states(
        self, shard: int, producer: ProducerKey, deadline: Deadline
    ) -> ProducerStates:
        fields = {"shard": shard, "producer": producer}
        head, _ = await self._transport.call(self._node, "producer_states", fields, b"", deadline)
        return ProducerStates.from_head(head)

    async def producers(
        self, request: ProducersRequest, deadline: Deadline
    ) -> list[tuple[int, ProducerState]]:
        head, _ = await self._transport.call(
            self._node, "producers", request.to_head(), b"", deadline
        )
        return [(int(shard), ProducerState.from_list(one)) for shard, one in head["states"]]

    async def seal_producer_epoch(
        self, shard: int, producer: ProducerKey, epoch: int, ring_epoch: int, deadline: Deadline
    ) -> EpochSealed:
        fields = {"shard": shard, "producer": producer, "epoch": epoch, "ring_epoch": ring_epoch}
        head, _ = await self._transport.call(
            self._node, "seal_producer_epoch", fields, b"", deadline
        )
        return EpochSealed.from_head(head)


class ReplicaSet:
    """Replicas by node id: this process's own store, all others over the transport."""

    def __init__(
        self,
        node_id: str,
        local: StorageService | None,
        transport: Transport,
        known: Callable[[str], bool],
    ) -> None:
        self._transport = transport
        self._known = known
        self._cache: dict[str, Replica] = {}
        if local is not None:
            self._cache[node_id] = LocalReplica(local)

    def open_local(self, node_id: str, local: StorageService) -> None:
        """From now on this process's own store is asked directly."""
        self._cache[node_id] = LocalReplica(local)

    def close_local(self, node_id: str) -> None:
        """This process's own store answers nothing any more: asked as a peer, the node refuses."""
        self._cache.pop(node_id, None)

    def get(self, node: str) -> Replica:
        """The replica on `node`."""
        if node not in self._cache:
            if not self._known(node):
                raise NotFound(f"no member {node!r} is known")
            self._cache[node] = HttpReplica(node, self._transport)
        return self._cache[node]


def table_to_ipc(table: pa.Table) -> pa.Buffer:
    """An Arrow IPC stream of a table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def table_from_ipc(payload: bytes | memoryview) -> pa.Table:
    """The table of an Arrow IPC stream; zero-copy."""
    with pa.ipc.open_stream(pa.py_buffer(payload)) as reader:
        return reader.read_all()
