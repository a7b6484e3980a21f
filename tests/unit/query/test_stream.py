"""Streams: all rows in order over one snapshot, in bounded memory, at the consumer's pace."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query import coordinator as coordinator_module
from query import stream as stream_module
from query.coordinator import ReadCoordinator
from query.plan import QueryPlan, plan_rows
from records.errors import Overloaded, QuorumUnavailable
from runtime.metrics import Metrics
from tests.support.fake_store import FakeCluster, brute_rows, key_tuple, make_entry
from tests.unit.query.divergent import Case, cases
from tests.unit.query.helpers import NOW, coordinator, keys, row


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of a few rows, so that little data makes many."""
    monkeypatch.setattr(stream_module, "GROUP_ROWS_MIN", 3)


def asked(**params: str) -> QueryPlan:
    """The plan of a stream."""
    return plan_rows(params.items(), NOW, stream=True)


async def drained(reader: ReadCoordinator, plan: QueryPlan) -> list[tuple]:
    """All keys, in the order given out."""
    found: list[tuple] = []
    async with aclosing(reader.stream(plan)) as stream:
        async for table in stream:
            found += keys(table)
        assert stream.complete
    return found


def filled(entries: int = 30, **shape: Any) -> FakeCluster:
    """Equal owners; four rows an entry, that interleave in time."""
    cluster = FakeCluster(**shape)
    for number in range(entries):
        rows = [row(number + i * 17, f"{number} {i}") for i in range(4)]
        cluster.write(make_entry(number, number % 4, rows, received_at=NOW + number))
    return cluster


@settings(max_examples=40)
@given(
    cases(fewest=2),
    st.sampled_from(["asc", "desc"]),
    st.integers(0, 9),
    st.sampled_from([None, 0, 1, 2]),
)
def test_a_stream_is_all_rows_in_order_once(
    case: Case, order: str, limit: int, dead: int | None
) -> None:
    """Divergent owners, one of them dead perhaps."""

    async def run() -> None:
        cluster = case.cluster()
        if dead is not None:
            cluster.stores[f"n{dead}"].dead = True
        plan = asked(order=order, **({"limit": str(limit)} if limit else {}))
        async with coordinator(cluster, page_rows=3) as reader:
            found = await drained(reader, plan)
        assert found == [key_tuple(key) for key, _ in brute_rows(case.entries, plan.scan)]

    asyncio.run(run())


async def test_rows_received_after_the_start_stay_out() -> None:
    """The snapshot is fixed at the first page: rows that arrive meanwhile do not come."""
    cluster = filled()
    at_start = [key_tuple(key) for key, _ in brute_rows(cluster.written, asked().scan)]
    found: list[tuple] = []
    async with (
        coordinator(cluster, page_rows=8) as reader,
        aclosing(reader.stream(asked())) as stream,
    ):
        number = 100
        async for table in stream:
            found += keys(table)
            late = [row(i * 11, "late") for i in range(4)]
            cluster.write(make_entry(number, number % 4, late, received_at=NOW + number))
            number += 1

    assert number > 105
    assert found == at_start


async def test_a_stream_ends_as_a_page_began() -> None:
    """A cursor works for a stream: the rest of the rows over the page's snapshot."""
    cluster = filled()
    async with coordinator(cluster) as reader:
        first = await reader.query(plan_rows([("limit", "10")], NOW), reader.deadline(asked()))
        rest = await drained(reader, asked(cursor=first.next_cursor or ""))

    everything = [key_tuple(key) for key, _ in brute_rows(cluster.written, asked().scan)]
    assert keys(first.table) + rest == everything


async def test_a_slow_consumer_holds_two_pages_of_each_group_at_most() -> None:
    """Nothing is read ahead beyond one page a group, however long the consumer waits."""
    cluster = filled()
    async with (
        coordinator(cluster, page_rows=4) as reader,
        aclosing(reader.stream(asked(consistency="one"))) as stream,
    ):
        await anext(stream)
        await asyncio.sleep(0.05)
        before = cluster.calls("scan")
        await asyncio.sleep(0.05)
        assert cluster.calls("scan") == before

    assert before <= 3 + 2 * 4


async def test_slow_consumers_together_hold_no_more_than_their_room() -> None:
    """The second stream's first page waits until the first one's is read, or is refused in the end."""
    cluster = filled()
    async with coordinator(cluster, page_rows=4) as reader:
        reader.room.limit_bytes = 1
        async with aclosing(reader.stream(asked(consistency="one"))) as slow:
            await anext(slow)
            with pytest.raises(Overloaded, match="clients read slowly"):
                await drained(reader, asked(consistency="one", timeout="100ms"))
            waiting = asyncio.create_task(drained(reader, asked(consistency="one")))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            async for _ in slow:
                pass
        rows = await asyncio.wait_for(waiting, 10)

    assert rows == [key_tuple(key) for key, _ in brute_rows(cluster.written, asked().scan)]


async def test_pages_of_wide_rows_are_asked_for_as_wide_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first page finds out how many fit; further ones ask for so many, not for too many each time."""
    monkeypatch.setattr(stream_module, "NARROW_BYTES", 0)
    cluster = filled(60)
    for store in cluster.stores.values():
        store.max_rows = 11
    async with coordinator(cluster, page_rows=1_000) as reader:
        found = await drained(reader, asked())

    pages = -(-240 // 10) + 4
    scans = sum(len(store.calls) for store in cluster.stores.values())
    assert len(found) == 240
    assert scans <= 3 * 3 + 2 * pages + 2 * 4


async def test_narrow_rows_after_wide_ones_come_in_large_pages_again() -> None:
    """Once they fit, four times as many are asked for, up to a page."""
    cluster = filled(400)
    for store in cluster.stores.values():
        store.max_rows = 2
    async with coordinator(cluster, page_rows=4_000) as reader:
        stream = reader.stream(asked())
        await anext(stream)
        for store in cluster.stores.values():
            store.max_rows = None
            store.calls.clear()
        rest = 0
        async with aclosing(stream):
            async for table in stream:
                rest += table.num_rows

    assert rest > 1_500
    assert sum(len(store.calls) for store in cluster.stores.values()) < 100


async def test_a_closed_stream_leaves_nothing_running() -> None:
    """The client leaves in the middle: reads on their way are cancelled, places are free."""
    cluster = filled()
    metrics = Metrics()
    async with coordinator(cluster, metrics, page_rows=4) as reader:
        async with aclosing(reader.stream(asked())) as stream:
            await anext(stream)
            for store in cluster.stores.values():
                store.delay_seconds = 30.0
            await asyncio.sleep(0.02)

        assert len(asyncio.all_tasks()) == 1
        assert metrics.snapshot()["quorumlog_query_running"] == 0


async def test_an_owner_that_dies_in_the_middle_is_not_noticed() -> None:
    """Pages after its death come from other owners: same rows, same order, still complete."""
    cluster = filled()
    wanted = [key_tuple(key) for key, _ in brute_rows(cluster.written, asked().scan)]
    found: list[tuple] = []
    async with (
        coordinator(cluster, page_rows=8) as reader,
        aclosing(reader.stream(asked())) as stream,
    ):
        async for table in stream:
            found += keys(table)
            cluster.stores["n0"].dead = True
        assert stream.complete

    assert found == wanted


async def test_what_cannot_be_read_completely_is_told() -> None:
    """Two of three owners die: the stream goes on, and knows that it is not complete."""
    cluster = filled()
    async with (
        coordinator(cluster, page_rows=8) as reader,
        aclosing(reader.stream(asked())) as stream,
    ):
        await anext(stream)
        assert stream.complete
        cluster.stores["n1"].dead = cluster.stores["n2"].dead = True
        async for _ in stream:
            pass
        assert not stream.complete
        assert {one["shard"] for one in stream.missing.values()} == {0, 1, 2, 3}


async def test_a_snapshot_of_too_few_owners_is_not_called_complete() -> None:
    """n2 alone is heard when the stream begins, and lacks the newest; then the others answer every page.

    What n2 has heard of is no bound of what was acknowledged before, so the stream may lack some.
    """
    cluster = filled()
    last = make_entry(99, 1, [row(99)], received_at=NOW + 99)
    cluster.write(last, on=["n0", "n1"])
    asked_before = 0

    def back(node: str, method: str) -> None:
        nonlocal asked_before
        asked_before += 1
        if node == "n2" and asked_before > 3:
            cluster.stores["n0"].dead = cluster.stores["n1"].dead = False

    for store in cluster.stores.values():
        store.on_call = back
    cluster.stores["n0"].dead = cluster.stores["n1"].dead = True
    found: list[tuple] = []
    async with (
        coordinator(cluster, page_rows=8) as reader,
        aclosing(reader.stream(asked())) as stream,
    ):
        async for table in stream:
            found += keys(table)

        assert len(found) == 30 * 4
        assert {one["shard"] for one in stream.missing.values()} == {0, 1, 2, 3}
        assert all("1 of 2 owners" in one["reason"] for one in stream.missing.values())


async def test_a_snapshot_by_a_ring_that_is_over_is_not_called_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other nodes may own the shards by then, and have received more. The newer ring comes with the pages."""
    monkeypatch.setattr(coordinator_module, "RING_SECONDS", 0.02)
    cluster = filled()
    for store in cluster.stores.values():
        scan = store.scan

        async def knowing(request: Any, deadline: Any, scan: Any = scan) -> Any:
            if request.data_shards:
                cluster.view.ring_epoch = 2
            reply, table = await scan(request, deadline)
            return replace(reply, ring_epoch=2), table

        store.scan = knowing  # type: ignore[method-assign]
    async with (
        coordinator(cluster, page_rows=8) as reader,
        aclosing(reader.stream(asked())) as stream,
    ):
        async for _ in stream:
            pass

        assert {one["shard"] for one in stream.missing.values()} == {0, 1, 2, 3}


async def test_no_owner_at_all_is_an_error_before_the_first_row() -> None:
    """503 instead of an empty stream."""
    cluster = filled()
    for store in cluster.stores.values():
        store.dead = True
    async with coordinator(cluster) as reader:
        with pytest.raises(QuorumUnavailable):
            await anext(reader.stream(asked()))


async def test_no_rows_is_an_empty_stream() -> None:
    """Nothing matches: no table at all."""
    async with coordinator(filled()) as reader:
        plan = asked()
        plan = replace(plan, scan=replace(plan.scan, filter=("eq", "level", "none")))
        assert await drained(reader, plan) == []
