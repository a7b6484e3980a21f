"""What the listeners need of the write path; implemented by ingestor.coordinator and ingestor.admission."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from aiohttp import web

from ingestor.batch import Batch, WriteResult
from runtime.deadline import Deadline


class Writer(Protocol):
    """Writes batches. Raises Overloaded, QuorumUnavailable, NotLeader, Fenced, DiskFull, …"""

    async def write(self, batch: Batch, *, ack: str | None, deadline: Deadline) -> WriteResult:
        """Returns once W owners have synced the batch, or as many as `ack` asks for."""
        ...

    async def new_producer_epoch(
        self, tenant: str, service: str, producer: str, deadline: Deadline
    ) -> int:
        """The next epoch of a producer that lost its log."""
        ...

    async def producer_progress(
        self, tenant: str, service: str, producer: str, epoch: int, deadline: Deadline
    ) -> WriteResult:
        """`ack_till`, `max_seen` and `missing` of a producer."""
        ...

    def still_leads(self, shard: int, node: str, shard_epoch: int) -> bool:
        """Whether that node, at that epoch, is the shard's leader as far as is known here."""
        ...


class ReplayAsks(Protocol):
    """What `/logs/replay` answers when it is not about one producer's rows."""

    async def listing(self, request: web.Request) -> web.Response:
        """The replay requests there are."""
        ...

    async def ask(self, request: web.Request) -> web.Response:
        """Opens requests for an operator."""
        ...


class Gate(Protocol):
    """Admission by bytes and requests."""

    def acquire(self, body_bytes: int) -> AbstractAsyncContextManager[None]:
        """Holds a share of the budget while the context lasts. Raises Overloaded."""
        ...
