"""What the tests of the read path share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pyarrow as pa

from query.coordinator import ReadCoordinator
from query.limits import StreamRoom
from query.plan import QueryPlan, plan_rows
from query.settings import QuerySettings
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from runtime.metrics import Metrics
from runtime.tasks import Workers
from tests.support.fake_store import FakeCluster, Row

NOW = 1_795_000_000_000_000
HOUR = 3_600_000_000


def row(
    at: int, text: str = "hello", service: str = "pay", level: str = "info", **more: Any
) -> Row:
    """A row `at` microseconds after NOW."""
    return {"timestamp": NOW + at, "service": service, "level": level, "message": text, **more}


def plan(*pairs: tuple[str, str], **params: str) -> QueryPlan:
    """The plan of /query with these parameters."""
    return plan_rows([*params.items(), *pairs], NOW)


@asynccontextmanager
async def coordinator(
    cluster: FakeCluster, metrics: Metrics | None = None, **settings: Any
) -> AsyncIterator[ReadCoordinator]:
    """A running coordinator over a fake cluster."""
    workers = Workers(2)
    settings = {"repair_delay_seconds": 0.01, **settings}
    made = ReadCoordinator(
        cluster,
        cluster,
        SystemClock(),
        metrics or Metrics(),
        QuerySettings(**settings),
        workers,
    )
    try:
        yield made
        await _given_back(made.room)
    finally:
        await made.stop()
        workers.close()


async def _given_back(room: StreamRoom) -> None:
    """Streams that ended hold no room; a handler may need a moment after its client has gone."""
    for _ in range(200):
        if room.held_bytes == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{room.held_bytes} bytes of room are held for ever")


def soon(seconds: float = 5.0) -> Deadline:
    """A deadline."""
    return Deadline.after(SystemClock(), seconds)


def keys(table: pa.Table) -> list[tuple[int, bytes, int]]:
    """The row keys of a table, in its order."""
    stamps = table["timestamp"].cast(pa.int64()).to_pylist()
    return list(zip(stamps, table["_run"].to_pylist(), table["_number"].to_pylist(), strict=True))
