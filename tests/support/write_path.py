"""Batches and a write path over fake replicas, for the tests of the ingestor."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ingestor.batch import Batch, Identity
from ingestor.batch import Sequence as Numbered
from ingestor.block_put import Missed, no_hints
from ingestor.coordinator import WriteCoordinator
from ingestor.write_settings import WriteSettings
from records.columns import DICTIONARY
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from runtime.entropy import SeededEntropy
from runtime.metrics import Metrics
from runtime.tasks import Workers
from tests.support.fake_replica import FakeReplicas, FakeView, FakeViews

BASE = 1_790_000_000_000_000
TIMES = pa.timestamp("us", tz="UTC")


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Canonical columns from rows of `service`, `message`, ... (timestamp: offset in µs from BASE)."""
    names = sorted({name for row in rows for name in row} - {"timestamp", "service", "level"})
    columns: dict[str, Any] = {
        "timestamp": pa.array(
            [BASE + row.get("timestamp", i) for i, row in enumerate(rows)], TIMES
        ),
        "service": pa.array([row.get("service", "shop") for row in rows]).dictionary_encode(),
        "level": pa.array([row.get("level", "info") for row in rows]).dictionary_encode(),
    }
    for name in names:
        columns[name] = pa.array([row.get(name) for row in rows])
    return pa.table(columns)


def body_batch(rows: Sequence[dict[str, Any]], tenant: str = "default", **extra: Any) -> Batch:
    """An unsequenced batch named by the digest of what it says."""
    digest = hashlib.sha256(repr(rows).encode()).digest()
    return Batch(tenant, table_of(rows), Identity(b"scope", digest), **extra)


def rows(count: int, first: int = 1, service: str = "shop", text: str = "row") -> list[dict]:
    """`count` rows that differ in their message."""
    return [{"service": service, "message": f"{text} {i}"} for i in range(first, first + count)]


def numbered_batch(
    seqs: Sequence[int],
    producer: str = "p1",
    epoch: int = 1,
    service: str = "shop",
    text: str = "row",
    skips: Any = (),
    **extra: Any,
) -> Batch:
    """A sequenced batch whose rows are a function of their seq (and `text`)."""
    listed = [
        {"service": service, "message": f"{text} {seq}", "seq": seq, "timestamp": seq}
        for seq in seqs
    ]
    table = table_of(listed) if listed else empty_table()
    digest = hashlib.sha256(repr((listed, skips)).encode()).digest()
    sequence = Numbered(service, producer, epoch, tuple(skips))
    return Batch("default", table, Identity(b"scope", digest), sequence=sequence, **extra)


def empty_table() -> pa.Table:
    """No rows, canonical columns."""
    return pa.table(
        {
            "timestamp": pa.array([], TIMES),
            "service": pa.array([], DICTIONARY),
            "level": pa.array([], DICTIONARY),
            "message": pa.array([], pa.string()),
        }
    )


async def until(happened: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns once `happened()`; the machine may be slow, so only its absence fails."""
    limit = Deadline.after(SystemClock(), seconds)
    while not happened():
        assert not limit.expired, "it did not happen"
        await asyncio.sleep(0.005)


@dataclass
class Path:
    """A write coordinator of node `node` over shared fake replicas."""

    writer: WriteCoordinator
    replicas: Any
    views: FakeViews
    metrics: Metrics
    clock: Any

    async def write(self, batch: Batch, *, ack: str | None = None, seconds: float = 5.0) -> Any:
        return await self.writer.write(batch, ack=ack, deadline=self.deadline(seconds))

    def deadline(self, seconds: float = 5.0) -> Deadline:
        return Deadline.after(self.clock, seconds)

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        found = self.metrics.snapshot()
        return sum(v for k, v in found.items() if k.split("{")[0] == name)


class SteppedClock(SystemClock):
    """The machine's clock with a wall that the test sets."""

    def __init__(self, wall: int = BASE + 10_000_000) -> None:
        self.wall = wall

    def wall_micros(self) -> int:
        return self.wall


@asynccontextmanager
async def write_path(
    replicas: Any = None,
    views: FakeViews | None = None,
    settings: WriteSettings | None = None,
    clock: Any = None,
    seed: int = 1,
    missed: Missed = no_hints,
) -> AsyncIterator[Path]:
    """A started write path; stopped at the end."""
    replicas = replicas or FakeReplicas("a", "b", "c")
    views = views or FakeViews(FakeView())
    clock = clock or SteppedClock()
    metrics, workers = Metrics(), Workers(2)
    writer = WriteCoordinator(
        views,
        replicas,
        clock,
        SeededEntropy(seed),
        metrics,
        settings or WriteSettings(),
        workers,
        missed,
    )
    await writer.start()
    try:
        yield Path(writer, replicas, views, metrics, clock)
    finally:
        await writer.stop()
        workers.close()
