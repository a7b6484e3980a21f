"""A reader that has not heard of a split is told by owners of the home shard, and reads all shards."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from query.coordinator import ReadCoordinator
from query.plan import plan_rows
from query.stats import plan_stats
from tests.support.fake_store import FakeCluster, make_entry
from tests.unit.query.helpers import NOW, coordinator, row, soon

SPLIT_EPOCH = 2
HOME, ELSEWHERE = 0, 1


def split_cluster(arrives: bool = True) -> FakeCluster:
    """Six rows of `pay`, half of them in a shard that only the newer state has; owners know of that."""
    cluster = FakeCluster(n=3, w=2, r=2)
    for number, shard in enumerate((HOME, ELSEWHERE) * 3):
        one = row(number, f"row {number}") | {"service": "pay"}
        cluster.write(make_entry(number, shard, [one], received_at=NOW + number))
    for store in cluster.stores.values():
        plain = store.scan

        async def knowing(request: Any, deadline: Any, plain: Any = plain) -> Any:
            reply, table = await plain(request, deadline)
            return replace(reply, ring_epoch=SPLIT_EPOCH), table

        store.scan = knowing  # type: ignore[method-assign]

    async def changed(after_index: int, timeout: float) -> Any:
        await asyncio.sleep(min(timeout, 0.02))
        if arrives:
            cluster.view.ring_epoch = SPLIT_EPOCH
        return cluster.view

    def shards_holding(tenant: str, service: str) -> tuple[int, ...]:
        return (HOME, ELSEWHERE) if cluster.view.ring_epoch >= SPLIT_EPOCH else (HOME,)

    cluster.changed = changed  # type: ignore[method-assign]
    cluster.view.shards_holding = shards_holding  # type: ignore[method-assign]
    return cluster


async def _rows(reader: ReadCoordinator) -> int:
    answer = await reader.query(plan_rows({"service": "pay"}.items(), NOW), soon())
    assert answer.complete
    return answer.table.num_rows


async def _count(reader: ReadCoordinator) -> int:
    plan = plan_stats([("service", "pay"), ("agg", "count")], NOW, 1, "default")
    answer = await reader.fold(plan.query, soon())
    assert answer.complete
    return answer.table.column("count").to_pylist()[0]


async def _streamed(reader: ReadCoordinator, until: int | None = None) -> int:
    plan = plan_rows({"service": "pay"}.items(), NOW, stream=True)
    plan = replace(plan, scan=replace(plan.scan, received_until=until))
    async with aclosing(reader.stream(plan)) as stream:
        found = [table.num_rows async for table in stream]
        assert stream.complete
    return sum(found)


async def _continued(reader: ReadCoordinator) -> int:
    return await _streamed(reader, until=NOW + 100)


@pytest.mark.parametrize("ask", [_rows, _count, _streamed, _continued])
async def test_all_shards_are_read_once_the_split_is_heard_of(
    ask: Callable[[ReadCoordinator], Awaitable[int]],
) -> None:
    """Pages, counts, streams, and streams of a snapshot that is given."""
    async with coordinator(split_cluster()) as reader:
        assert await ask(reader) == 6


async def test_an_answer_without_the_split_is_not_called_complete() -> None:
    """It does not arrive here in time: what is missing is named."""
    async with coordinator(split_cluster(arrives=False)) as reader:
        answer = await reader.query(plan_rows({"service": "pay"}.items(), NOW), soon())

    assert not answer.complete
    assert "knows ring 2, this node 1" in answer.missing[0]["reason"]
