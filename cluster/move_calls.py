"""The calls that only moving shards needs, to the store in this process or to one far away."""

from typing import Any

import numpy as np

from cluster.server import Answer, Operation
from cluster.transport import Transport
from records.errors import NotReady
from records.handover import Handover
from runtime.deadline import Deadline
from storage.service import StorageService

#: An entry id as a column has it. Ids have one length, so the zeros that numpy hides at the end of a text
#: make no two of them alike.
ENTRY_ID = np.dtype("S16")


class MoveCalls:
    """hand_over, raise_ring, entry_ids and take_over by node; the operations that answer them.

    `local` is None while the store here is not admitted: an owner that lost its disk must not answer for
    what was promised on the one before, nor to the executor in its own process (node.store_door).
    """

    def __init__(self, node_id: str, local: StorageService | None, transport: Transport) -> None:
        self._node_id, self._local, self._transport = node_id, local, transport

    def open_local(self, local: StorageService) -> None:
        """From now on this process's own store is asked directly, and peers may ask it."""
        self._local = local

    def close_local(self) -> None:
        """It may not be asked any more."""
        self._local = None

    async def hand_over(
        self, node: str, shard: int, ring_epoch: int, deadline: Deadline
    ) -> Handover:
        """See storage.moving."""
        if node == self._node_id and self._local is not None:
            return await deadline.wait(self._local.moves.hand_over(shard, ring_epoch))
        fields = {"shard": shard, "ring_epoch": ring_epoch}
        head, _ = await self._transport.call(node, "hand_over", fields, b"", deadline)
        return Handover.from_head(head)

    async def raise_ring(self, node: str, ring_epoch: int, deadline: Deadline) -> None:
        """See storage.moving."""
        if node == self._node_id and self._local is not None:
            await deadline.wait(self._local.moves.raise_ring(ring_epoch))
            return
        await self._transport.call(node, "raise_ring", {"ring_epoch": ring_epoch}, b"", deadline)

    async def entry_ids(
        self, node: str, shard: int, deadline: Deadline, whole: bool = False
    ) -> np.ndarray:
        """The ids of the entries that `node` holds of `shard`, in the order of their blocks.

        `whole`: refused (NotReady) while damage took some that are not back.
        """
        if node == self._node_id and self._local is not None:
            data: Any = self._local.moves.entry_ids(shard, whole)
        else:
            head = {"shard": shard, "whole": whole}
            _, data = await self._transport.call(node, "entry_ids", head, b"", deadline)
        return np.frombuffer(data, ENTRY_ID)

    async def take_over(
        self, node: str, handed: Handover, ring_epoch: int, deadline: Deadline
    ) -> None:
        """See storage.moving."""
        if node == self._node_id and self._local is not None:
            await deadline.wait(self._local.moves.take_over(handed, ring_epoch))
            return
        fields = {"ring_epoch": ring_epoch, **handed.to_head()}
        await self._transport.call(node, "take_over", fields, b"", deadline)

    def operations(self) -> dict[str, Operation]:
        """What peers may ask of the store here."""
        return {
            "hand_over": self._hand_over,
            "take_over": self._take_over,
            "entry_ids": self._entry_ids,
            "raise_ring": self._raise_ring,
        }

    def _store(self) -> StorageService:
        if self._local is None:
            raise NotReady("this node has no store")
        return self._local

    async def _hand_over(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        shard, ring_epoch = int(head["shard"]), int(head["ring_epoch"])
        return (await self._store().moves.hand_over(shard, ring_epoch)).to_head(), b""

    async def _raise_ring(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        await self._store().moves.raise_ring(int(head["ring_epoch"]))
        return {}, b""

    async def _entry_ids(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        whole = bool(head.get("whole", False))  # older nodes do not ask
        return {}, self._store().moves.entry_ids(int(head["shard"]), whole)

    async def _take_over(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        await self._store().moves.take_over(Handover.from_head(head), int(head["ring_epoch"]))
        return {}, b""
