"""The read path over three real StorageServices in one process: quorum, supplement, repair, formats."""

import json
import statistics
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster.http_front import front_middleware
from cluster.replica_client import LocalReplica
from query.coordinator import ReadCoordinator
from query.http import routes
from query.settings import QuerySettings
from query.stats import parse_aggregates
from records.errors import ConnectionLost
from records.messages import EntriesRequest, PutOptions
from records.predicates import Fold
from records.timestamps import MAX_MICROS, MIN_MICROS
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.metrics import Metrics
from runtime.tasks import Workers
from storage.service import StorageService, StorageSettings
from tests.support.fake_store import (
    FakeEntry,
    FakeView,
    brute_rows,
    encoded,
    key_tuple,
    make_entry,
)
from tests.unit.query.divergent import numbered
from tests.unit.query.helpers import HOUR, NOW, keys, plan, row, soon

pytestmark = [pytest.mark.integration, pytest.mark.beside]


class Trio:
    """Three stores with N=3, W=2, R=2 and a coordinator; ViewSource and Replicas as well."""

    def __init__(self, directory: Path) -> None:
        clock = SystemClock()
        self.view = FakeView(["n0", "n1", "n2"], 3, 2, 2, 4)
        self.stores = {
            node: StorageService(directory / node, node, StorageSettings(), clock, Metrics())
            for node in self.view.nodes
        }
        self.dead: set[str] = set()
        self.metrics = Metrics()
        self.workers = Workers(2)
        self.reader = self.coordinator(self.metrics)
        self.written: list[FakeEntry] = []

    def coordinator(self, metrics: Metrics, **more: Any) -> ReadCoordinator:
        """A coordinator over the stores."""
        settings = QuerySettings(repair_delay_seconds=0.01, **more)
        return ReadCoordinator(self, self, SystemClock(), metrics, settings, self.workers)

    def current(self) -> Any:
        """The view."""
        return self.view

    async def changed(self, after_index: int, timeout: float) -> Any:
        """The view."""
        return self.view

    def get(self, node: str) -> Any:
        """A replica."""
        if node in self.dead:
            raise ConnectionLost(f"{node} is dead")
        return LocalReplica(self.stores[node])

    async def write(self, entry: FakeEntry, on: tuple[int, ...] = (0, 1, 2)) -> None:
        """Puts an entry to the owners at these places."""
        owners = self.view.owners(entry.header.shard)
        block = encoded(entry)
        for place in on:
            await self.stores[owners[place]].put(block, PutOptions(ring_epoch=1))
        self.written.append(entry)

    async def stop(self) -> None:
        """Stops all."""
        await self.reader.stop()
        for store in self.stores.values():
            await store.stop()
        self.workers.close()


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[Trio]:
    """Three started stores."""
    made = Trio(tmp_path)
    for store in made.stores.values():
        await store.start()
    yield made
    await made.stop()


async def fill(trio: Trio, divergent: bool) -> None:
    """Entries with columns, attributes, ties in time and overlapping sequences."""
    for number in range(24):
        tail = json.dumps({"color": "red" if number % 2 else "blue", "deep": {"n": number}})
        rows = [
            row(number % 5 * 10 + i, f"card {number} declined {i}", x=i, attributes=tail)
            for i in range(3)
        ]
        on = ((0, 1), (1, 2), (0, 2))[number % 3] if divergent else (0, 1, 2)
        await trio.write(make_entry(number, number % 4, rows, received_at=NOW + number), on)
    for number, (first, last, late) in enumerate([(1, 4, 500), (3, 6, 400), (5, 9, 450)], 100):
        rows = [numbered("a", seq) for seq in range(first, last + 1)]
        entry = make_entry(
            number, 0, rows, received_at=NOW + late, seqs=((first, last),), producer="a"
        )
        await trio.write(entry, ((0, 1), (1, 2), (2, 0))[number % 3] if divergent else (0, 1, 2))


@pytest.mark.parametrize("divergent", [False, True])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"order": "asc", "limit": "7"},
        {"search": "declined"},
        {"q": "x:>0 NOT color:red"},
        {"q": 'message:~"card 1[0-9]"', "fields": "message,color"},
        {"seq": "5"},
    ],
)
async def test_rows_equal_brute_force(trio: Trio, divergent: bool, params: dict[str, str]) -> None:
    """Whatever owner lacks what, the answer is that of the union, and every row comes once."""
    await fill(trio, divergent)
    asked = plan(**params)

    answer = await trio.reader.query(asked, soon())

    flat = [
        replace(e, rows=tuple({**r, **json.loads(r.get("attributes", "{}"))} for r in e.rows))
        for e in trio.written
    ]
    assert answer.complete
    assert keys(answer.table) == [key_tuple(key) for key, _ in brute_rows(flat, asked.scan)]
    assert (answer.stats["repaired"] > 0) == divergent


@pytest.mark.parametrize("divergent", [False, True])
async def test_folds_equal_brute_force(trio: Trio, divergent: bool) -> None:
    """Counts from rollups and sums, medians and distinct values from rows: each row once."""
    await fill(trio, divergent)
    rows = [r for _, r in brute_rows(trio.written, replace(plan().scan, limit=0))]
    asked = plan()
    for by, agg in ((("level",), "count"), ((), "count,sum(x),p50(x),uniq(x),max(message)")):
        fold = Fold(by, parse_aggregates(agg))
        answer = await trio.reader.fold(replace(asked, scan=replace(asked.scan, fold=fold)), soon())
        found = answer.table.to_pylist()
        assert answer.complete
        if by:
            levels = [r["level"] for r in rows]
            assert {o["level"]: o["count"] for o in found} == {v: levels.count(v) for v in levels}
        else:
            xs = [r["x"] for r in rows]
            assert found[0]["count"] == len(rows)
            assert found[0]["sum(x)"] == sum(xs)
            assert found[0]["uniq(x)"] == len(set(xs))
            assert found[0]["max(message)"] == max(r["message"] for r in rows)
            assert found[0]["p50(x)"] == statistics.median(xs)


async def test_a_read_repairs_the_replica_that_missed_puts(trio: Trio) -> None:
    """An owner missed ten puts; after one read and its background repair all owners are equal.

    Shown by the owners' own entry lists and digests, not through the coordinator.
    """
    for number in range(20):
        rows = [row(number * 10 + i, f"m {number}") for i in range(3)]
        on = (0, 1) if number % 2 else (0, 1, 2)
        await trio.write(make_entry(number, number % 4, rows, received_at=NOW + number), on)

    for _ in range(6):
        answer = await trio.reader.query(plan(), soon())
        assert answer.complete
        assert answer.table.num_rows == 60
        await trio.reader.repair.idle()

    for shard in range(4):
        request = EntriesRequest(shard, MIN_MICROS, MAX_MICROS)
        lists = [
            {ref.entry_id for ref in (await store.entries(request)).entries}
            for store in trio.stores.values()
        ]
        assert lists[0] == lists[1] == lists[2]
        assert len({store.digest(shard) for store in trio.stores.values()}) == 1
    assert trio.metrics.snapshot()["quorumlog_read_repair_entries_total"] == 10


async def test_rows_stay_readable_with_one_node_dead(trio: Trio) -> None:
    """Each entry on two of three owners, any one node dead: nothing is missing, nothing doubled."""
    await fill(trio, divergent=False)
    wanted = [key_tuple(key) for key, _ in brute_rows(trio.written, plan().scan)]
    for node in trio.view.nodes:
        trio.dead = {node}
        answer = await trio.reader.query(plan(), soon())
        assert answer.complete
        assert keys(answer.table) == wanted


async def set_aside(trio: Trio, shard: int) -> None:
    """The first owner of a shard finds all its blocks damaged."""
    store = trio.stores[trio.view.owners(shard)[0]]
    for place in list(store._engine.holdings.blocks):
        await store._quarantine(place.ordinal, "planted")


@pytest.mark.parametrize("consistency", ["quorum", "all"])
async def test_an_owner_that_set_a_block_aside_does_not_make_a_quorum(
    trio: Trio, consistency: str
) -> None:
    """A row is on two owners; one loses it. With the third it must not say that there is no row.

    With the other holder away a read is partial and says why; with it the row is there, and once the read
    has repaired the damaged owner that one counts again.
    """
    entry = make_entry(1, 0, [row(1, "acknowledged")], received_at=NOW)
    await trio.write(entry, (0, 1))
    await set_aside(trio, 0)
    hurt, holder, _ = trio.view.owners(0)
    asked = plan(consistency=consistency)
    trio.dead = {holder}
    for _ in range(3):
        answer = await trio.reader.query(asked, soon())
        lacks = {one["shard"]: one["reason"] for one in answer.missing}
        assert not answer.complete
        assert f"damage took rows of {hurt}" in lacks[0]

    trio.dead = set()
    for _ in range(3):
        answer = await trio.reader.query(asked, soon())
        assert answer.table.num_rows == 1
        assert answer.complete or consistency == "all"
        await trio.reader.repair.idle()

    trio.dead = {holder}
    answer = await trio.reader.query(plan(), soon())
    assert answer.complete
    assert answer.table.num_rows == 1


@pytest.mark.parametrize("reader", [0, 2])
async def test_a_block_set_aside_between_scan_and_list_does_not_make_a_quorum(
    trio: Trio, reader: int
) -> None:
    """Owners differ, and the one that has the row loses it before it lists its entries.

    It gave the data, or a digest alone: a node reads from itself.
    """
    await trio.write(make_entry(1, 0, [row(1, "acknowledged")], received_at=NOW), (0, 1))
    hurt, holder, _ = trio.view.owners(0)
    trio.view.node_id = trio.view.owners(0)[reader]
    trio.dead = {holder}
    store, listing = trio.stores[hurt], trio.stores[hurt].entries

    async def late(request: EntriesRequest) -> Any:
        await set_aside(trio, 0)
        return await listing(request)

    store.entries = late  # type: ignore[method-assign]
    answer = await trio.reader.query(plan(), soon())
    assert not answer.complete


async def test_http_streams_every_format_over_real_stores(trio: Trio) -> None:
    """The same rows come as JSON pages, NDJSON, CSV and Arrow, over HTTP."""
    import pyarrow as pa

    await fill(trio, divergent=True)
    middleware = front_middleware(SystemClock(), SystemEntropy(), trio.metrics)
    app = web.Application(middlewares=[middleware])
    app.router.add_routes(routes(trio.reader))
    async with TestClient(TestServer(app)) as client:
        page = await (await client.get("/query?limit=10000")).json()
        lines = (await (await client.get("/query?format=ndjson")).text()).splitlines()
        csv = (await (await client.get("/query?format=csv&fields=_id")).text()).splitlines()
        arrow = await (await client.get("/query?format=arrow")).read()
    ids = [one["_id"] for one in page["rows"]]

    assert len(ids) == 24 * 3 + 9
    assert [json.loads(line) for line in lines] == page["rows"]
    assert csv == ["_id", *ids]
    assert pa.ipc.open_stream(arrow).read_all()["_id"].to_pylist() == ids
    assert page["rows"][0]["deep"]["n"] in range(24)


@pytest.mark.parametrize("divergent", [False, True])
async def test_a_spread_fold_equals_the_whole_one(trio: Trio, divergent: bool) -> None:
    """Real outlines, digests over the whole range, three slices: the same groups, no row scanned twice.

    Blocks of one hour each, so that cuts fall between them; divergent owners are supplemented, as ever.
    """
    for number in range(12):
        rows = [row(number * HOUR + i, f"card {number} {i}", x=i % 7) for i in range(20)]
        on = ((0, 1), (1, 2), (0, 2))[number % 3] if divergent else (0, 1, 2)
        await trio.write(make_entry(number, number % 4, rows, received_at=NOW + number), on)
    fold = Fold(("level",), parse_aggregates("count,uniq(message),p50(x),sum(x)"))
    asked = plan()
    asked = replace(asked, scan=replace(asked.scan, fold=fold, limit=0))
    metrics = Metrics()
    spreading = trio.coordinator(metrics, spread="on", spread_rows=1)

    whole = await trio.reader.fold(asked, soon())
    spread = await spreading.fold(asked, soon())
    await spreading.stop()

    assert whole.complete
    assert spread.complete
    assert metrics.snapshot()["quorumlog_query_spread_total"] == 1
    assert spread.table.to_pylist() == whole.table.to_pylist()
    assert whole.table["count"].to_pylist() == [240]
    if not divergent:
        assert spread.stats["rows_scanned"] == whole.stats["rows_scanned"] == 240
        assert spread.stats["blocks_scanned"] == whole.stats["blocks_scanned"] == 12


@pytest.mark.parametrize("place", [0, 1])
async def test_pages_have_what_an_owner_got_only_when_it_was_sent_again(
    trio: Trio, place: int
) -> None:
    """Acked on two owners, and sent again to the third after the first page: that is behind the snapshot."""
    entry = make_entry(1, 0, [row(i, f"row {i}") for i in range(6)], received_at=NOW)
    owners = trio.view.owners(0)
    await trio.write(entry, on=(0, 1))
    trio.dead = {owners[2]}
    answer = await trio.reader.query(plan(limit="2"), soon())
    found = keys(answer.table)
    later = replace(entry, header=replace(entry.header, received_at=NOW + 1_000 * HOUR))
    await trio.write(later, on=(2,))
    trio.dead = {owners[place]}

    while answer.next_cursor:
        answer = await trio.reader.query(plan(limit="2", cursor=answer.next_cursor), soon())
        assert answer.complete
        found += keys(answer.table)

    assert len(found) == 6
    assert found == sorted(found, reverse=True)
