"""A Writer and a gate that remember what they were given; scripted errors come first."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ingestor.batch import Batch, WriteResult
from records.errors import QuorumlogError
from runtime.deadline import Deadline


class FakeWriter:
    """Answers each write with `results` in turn (the last for ever), after raising `errors`."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.acks: list[str | None] = []
        self.deadlines: list[Deadline] = []
        self.results: list[WriteResult] = []
        self.errors: list[QuorumlogError] = []
        self.epoch = 1
        self.asked: list[tuple] = []
        self.replaced = False

    def _answer(self) -> WriteResult | None:
        if self.errors:
            raise self.errors.pop(0)
        if self.results:
            return self.results.pop(0) if len(self.results) > 1 else self.results[0]
        return None

    async def write(self, batch: Batch, *, ack: str | None, deadline: Deadline) -> WriteResult:
        """Keeps `batch`; all its rows are new."""
        self.batches.append(batch)
        self.acks.append(ack)
        self.deadlines.append(deadline)
        rows = batch.table.num_rows
        return self._answer() or WriteResult("01JD4Z0K6Q0000000000000001", rows, 0, 2, 3)

    async def new_producer_epoch(
        self, tenant: str, service: str, producer: str, deadline: Deadline
    ) -> int:
        """2, 3, …"""
        self._answer()
        self.asked.append((tenant, service, producer))
        self.epoch += 1
        return self.epoch

    async def producer_progress(
        self, tenant: str, service: str, producer: str, epoch: int, deadline: Deadline
    ) -> WriteResult:
        """The next of `results`."""
        self.asked.append((tenant, service, producer, epoch))
        return self._answer() or WriteResult("", 0, 0, 3, 3)

    def still_leads(self, shard: int, node: str, shard_epoch: int) -> bool:
        """True until `replaced` is set."""
        return not self.replaced


class FakeGate:
    """Admits everything, or raises `error`; `held` is what is inside now."""

    def __init__(self) -> None:
        self.error: QuorumlogError | None = None
        self.held = 0
        self.asked: list[int] = []

    @asynccontextmanager
    async def acquire(self, body_bytes: int) -> AsyncIterator[None]:
        """As Admission.acquire."""
        if self.error is not None:
            raise self.error
        self.asked.append(body_bytes)
        self.held += body_bytes
        try:
            yield
        finally:
            self.held -= body_bytes
