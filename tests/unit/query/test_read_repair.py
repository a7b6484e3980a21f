"""Read repair: only what is stable, bounded, counted, and harmless when holders or targets fail."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from query import read_repair
from query.compare import compare
from query.read_repair import ReadRepair
from query.settings import QuerySettings
from records.timestamps import TimeRange
from runtime.clock import SystemClock
from runtime.metrics import Metrics
from runtime.tasks import Workers
from tests.support.fake_store import FakeCluster, FakeEntry, make_entry
from tests.unit.query.helpers import coordinator, plan, row, soon


def entry(number: int, shard: int = 0) -> FakeEntry:
    """One row."""
    return make_entry(number, shard, [row(number)], received_at=number)


made: list[Workers] = []


@pytest.fixture(scope="module", autouse=True)
def _workers() -> Iterator[None]:
    """One pool for all repairers of these tests."""
    made.append(Workers(1))
    yield
    made.pop().close()


def repairer(cluster: FakeCluster, metrics: Metrics, **settings: Any) -> ReadRepair:
    """A repairer that hardly waits."""
    chosen = QuerySettings(**{"repair_delay_seconds": 0.01, **settings})
    return ReadRepair(cluster, cluster, SystemClock(), metrics, chosen, made[0])


def difference(cluster: FakeCluster, shard: int = 0) -> dict:
    """What a read would have found now."""
    lists = {
        node: tuple(e.ref for e in store.entries_by_id.values() if e.header.shard == shard)
        for node, store in cluster.stores.items()
    }
    return {shard: compare("n0", lists)}


async def test_after_a_read_every_owner_that_was_asked_holds_everything() -> None:
    """Three owners, each lacking something else; reads repair them all, then find nothing to repair."""
    cluster, metrics = FakeCluster(), Metrics()
    for number in range(12):
        cluster.write(entry(number, number % 4), on=[number % 3, (number + 1) % 3])
    async with coordinator(cluster, metrics) as reader:
        for _ in range(6):
            answer = await reader.query(plan(), soon())
            assert answer.table.num_rows == 12
            await reader.repair.idle()
        last = await reader.query(plan(consistency="all"), soon())

    assert last.stats["repaired"] == 0
    assert all(len(store.entries_by_id) == 12 for store in cluster.stores.values())
    assert metrics.snapshot()["quorumlog_read_repair_entries_total"] == 12
    repairs = [what for store in cluster.stores.values() for m, what in store.calls if m == "put"]
    assert repairs
    assert all(repairs)  # each says PutOptions(repair=True)


async def test_a_write_in_flight_is_not_repaired() -> None:
    """The entry reaches the owner between the two looks: nothing is fetched or put."""
    cluster, metrics = FakeCluster(), Metrics()
    late = cluster.write(entry(1), on=["n1", "n2"])
    repair = repairer(cluster, metrics, repair_delay_seconds=0.05)

    repair.submit(difference(cluster), TimeRange())
    await asyncio.sleep(0.01)
    cluster.stores["n0"].add(late)
    await repair.idle()
    await repair.stop()

    assert cluster.calls("put") == cluster.calls("fetch") == 0
    assert metrics.snapshot()["quorumlog_read_repair_settled_total"] == 1


async def test_lists_are_compared_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a full shard take most of a second, in which no heartbeat would go out."""
    cluster, threads = FakeCluster(), []
    cluster.write(entry(1), on=["n1", "n2"])
    found = difference(cluster)

    def noted(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return compare(*args)

    monkeypatch.setattr(read_repair, "compare", noted)
    repair = repairer(cluster, Metrics())
    repair.submit(found, TimeRange())
    await repair.idle()
    await repair.stop()

    assert threads
    assert threading.main_thread() not in threads


async def test_the_queue_is_bounded_and_drops_are_counted() -> None:
    """Two may wait; the third shard, and a shard that waits already, are dropped by reason."""
    cluster, metrics = FakeCluster(), Metrics()
    for shard in range(4):
        cluster.write(entry(shard, shard), on=["n1", "n2"] if shard == 0 else [1])
    repair = repairer(cluster, metrics, repair_queue_max=2)
    found = {shard: difference(cluster, shard)[shard] for shard in range(4)}

    repair.submit(found, TimeRange())
    repair.submit({0: found[0]}, TimeRange())
    await repair.idle()
    await repair.stop()

    counted = metrics.snapshot()
    assert counted['quorumlog_read_repair_dropped_total{reason="queue full"}'] == 2
    assert counted['quorumlog_read_repair_dropped_total{reason="already queued"}'] == 1


async def test_a_holder_that_fails_is_replaced_by_another() -> None:
    """n1 cannot be fetched from; n2 holds the entry too."""
    cluster, metrics = FakeCluster(), Metrics()
    cluster.write(entry(1), on=["n1", "n2"])
    found = difference(cluster)

    def on_call(node: str, method: str) -> None:
        if method == "fetch":
            cluster.stores["n1"].dead = True

    for store in cluster.stores.values():
        store.on_call = on_call
    repair = repairer(cluster, metrics)
    repair.submit(found, TimeRange())
    await repair.idle()
    await repair.stop()

    assert len(cluster.stores["n0"].entries_by_id) == 1
    assert metrics.snapshot()['quorumlog_read_repair_failures_total{code="CONNECTION_LOST"}'] == 1


async def test_a_target_that_is_down_costs_a_counter_and_the_worker_lives() -> None:
    """The repair of one shard fails; the next shard is repaired all the same."""
    cluster, metrics = FakeCluster(), Metrics()
    cluster.write(entry(1, 0), on=["n1", "n2"])
    cluster.write(entry(2, 1), on=["n0", "n2"])
    found = {0: difference(cluster, 0)[0], 1: difference(cluster, 1)[1]}
    cluster.stores["n0"].dead = True
    repair = repairer(cluster, metrics)

    repair.submit(found, TimeRange())
    await repair.idle()
    await repair.stop()

    assert not any(e.header.shard == 0 for e in cluster.stores["n0"].entries_by_id.values())
    assert any(e.header.shard == 1 for e in cluster.stores["n1"].entries_by_id.values())


async def test_stop_ends_a_repair_in_the_middle() -> None:
    """Nothing is left running, whatever it waits for."""
    cluster, metrics = FakeCluster(), Metrics()
    cluster.write(entry(1), on=["n1", "n2"])
    repair = repairer(cluster, metrics)
    for store in cluster.stores.values():
        store.delay_seconds = 30.0

    repair.submit(difference(cluster), TimeRange())
    await asyncio.sleep(0.05)
    await repair.stop()

    assert len(asyncio.all_tasks()) == 1
