"""Identity on real disks: the write path over one and three StorageServices in one process.

What is read back comes from the stored bytes (entries, fetch, decode, records.visibility), not from any
answer of the write path.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.replica_client import LocalReplica
from records.consistency import QuorumPolicy
from records.errors import ConnectionLost, Fenced, NotFound, NotLeader, NotReady, QuorumUnavailable
from records.ids import EntryId
from records.intervals import SeqIntervals
from records.messages import EntriesRequest
from records.timestamps import MAX_MICROS, MIN_MICROS
from records.visibility import EntryRef, entry_ref, hidden_parts
from runtime.clock import SystemClock
from runtime.metrics import Metrics
from storage.service import StorageService, StorageSettings
from tests.support.fake_replica import FakeView, FakeViews, comparable, rows_of
from tests.support.write_path import (
    BASE,
    SteppedClock,
    body_batch,
    numbered_batch,
    rows,
    write_path,
)

pytestmark = [pytest.mark.integration, pytest.mark.beside]
HOUR = 3_600_000_000
KEY = ("default", "shop", "p1")
SHARDS = range(32)


class Stores:
    """Storage nodes by name; `away` are those that refuse connections."""

    def __init__(self, services: dict[str, StorageService]) -> None:
        self.services = services
        self.away: set[str] = set()

    def get(self, node: str) -> Any:
        if node not in self.services:
            raise NotFound(f"no member {node!r}")
        if node in self.away:
            raise ConnectionLost(f"{node} refused the connection", definite=True)
        return LocalReplica(self.services[node])

    async def entries(self, *nodes: str) -> dict[str, list[EntryRef]]:
        """All entries, by node."""
        found: dict[str, list[EntryRef]] = {}
        for node in nodes or tuple(self.services):
            found[node] = []
            for shard in SHARDS:
                request = EntriesRequest(shard, MIN_MICROS, MAX_MICROS)
                found[node] += (await self.services[node].entries(request)).entries
        return found

    async def visible(self, *nodes: str) -> list[dict[str, Any]]:
        """The rows that a reader of the union of `nodes` sees."""
        union: dict[EntryId, tuple[EntryRef, list[dict[str, Any]]]] = {}
        for node, refs in (await self.entries(*nodes)).items():
            for block in await self.services[node].fetch(tuple(ref.entry_id for ref in refs)):
                table = rows_of(block)
                for entry in block.header.entries:
                    part = table.slice(entry.row_start, entry.row_count).to_pylist()
                    listed = [comparable(row, entry) for row in part]
                    ref = entry_ref(entry)
                    known = union.get(entry.entry_id)
                    if known is None or ref.received_at < known[0].received_at:
                        union[entry.entry_id] = (ref, listed)
        hidden = hidden_parts(ref for ref, _ in union.values())
        seen: list[dict[str, Any]] = []
        for entry_id, (_, listed) in union.items():
            part = hidden.get(entry_id)
            gone = SeqIntervals(part.seqs) if part else SeqIntervals()
            if part is None or not part.whole:
                seen += [row for row in listed if int(row.get("seq", 0)) not in gone]
        return seen

    def digests(self) -> set[tuple]:
        """The digests of all shards, one tuple a node; one element when all agree."""
        return {
            tuple(service.digest(shard) for shard in SHARDS) for service in self.services.values()
        }


@asynccontextmanager
async def stores(folder: Path, *nodes: str) -> AsyncIterator[Stores]:
    """Started storage nodes; stopped at the end."""
    settings = StorageSettings(log_file_bytes=1 << 20, disk_floor_bytes=1 << 20)
    made = {
        node: StorageService(folder / node, node, settings, SystemClock(), Metrics())
        for node in nodes
    }
    for one in made.values():
        await one.start()
    try:
        yield Stores(made)
    finally:
        for one in made.values():
            await one.stop()


def views_of(nodes: str, me: str = "a", leader: str = "a", epoch: int = 1) -> FakeViews:
    """A view in which all `nodes` own everything."""
    n = len(nodes)
    w = n // 2 + 1
    policy = QuorumPolicy(n, w, n - w + 1)
    return FakeViews(
        FakeView(me, nodes=tuple(nodes), quorum=policy, everything_led_by=(leader, epoch))
    )


@pytest.mark.parametrize("nodes", ["a", "abc"])
async def test_unsequenced_identity(tmp_path: Path, nodes: str) -> None:
    """Twelve services; the same request twice, and through another node, is stored once."""
    batch = body_batch([{"service": f"s{i % 12}", "message": f"m{i}"} for i in range(500)])
    twins = body_batch([{"message": "tick", "timestamp": 1}] * 2)
    async with stores(tmp_path, *nodes) as disks:
        async with write_path(disks, views_of(nodes)) as path:
            first = await path.write(batch, ack="all")
            again = await path.write(batch, ack="all")
            two = await path.write(twins, ack="all")
        async with write_path(disks, views_of(nodes, me="z"), seed=2) as other:
            elsewhere = await other.write(batch, ack="all")

        assert (first.accepted, first.durable, first.owners) == (500, len(nodes), len(nodes))
        assert (again.accepted, again.duplicates) == (0, 500)
        assert (elsewhere.accepted, elsewhere.duplicates) == (0, 500)
        assert two.accepted == 2
        messages = [row["message"] for row in await disks.visible()]
        assert sorted(messages) == sorted([*(f"m{i}" for i in range(500)), "tick", "tick"])
        assert len(disks.digests()) == 1


@pytest.mark.parametrize("nodes", ["a", "abc"])
async def test_the_window_and_its_boundary(tmp_path: Path, nodes: str) -> None:
    """Across the boundary: visible once. Two windows later: a new entry."""
    clock = SteppedClock(BASE - BASE % HOUR + HOUR - 60_000_000)
    batch = body_batch(rows(4))
    async with (
        stores(tmp_path, *nodes) as disks,
        write_path(disks, views_of(nodes), clock=clock) as path,
    ):
        await path.write(batch, ack="all")
        clock.wall += 120_000_000
        await path.write(batch, ack="all")
        assert len(await disks.visible()) == 4

        clock.wall += 2 * HOUR
        assert (await path.write(batch, ack="all")).accepted == 4
        assert len(await disks.visible()) == 8


@pytest.mark.parametrize("nodes", ["a", "abc"])
async def test_sequenced_identity(tmp_path: Path, nodes: str) -> None:
    """Repeat, overlap, gap, skip and conflict, with the ack arithmetic of each answer."""
    async with stores(tmp_path, *nodes) as disks, write_path(disks, views_of(nodes)) as path:
        first = await path.write(numbered_batch([1, 2, 3]), ack="all")
        repeat = await path.write(numbered_batch([1, 2, 3]), ack="all")
        overlap = await path.write(numbered_batch([2, 3, 4, 5]), ack="all")
        gap = await path.write(numbered_batch([8, 9]), ack="all")
        skip = await path.write(numbered_batch([], skips=((6, 7),)), ack="all")
        conflict = await path.write(numbered_batch([9, 10], text="other"), ack="all")

        assert (first.accepted, first.ack_till) == (3, 3)
        assert (repeat.accepted, repeat.duplicates, repeat.ack_till) == (0, 3, 3)
        assert repeat.batch_id == first.batch_id
        assert (overlap.accepted, overlap.duplicates, overlap.ack_till) == (2, 2, 5)
        assert (gap.ack_till, gap.max_seen, gap.missing) == (5, 9, ((6, 7),))
        assert (skip.accepted, skip.ack_till, skip.missing) == (0, 9, ())
        assert [row.seq for row in conflict.conflicts] == [9]
        assert (conflict.accepted, conflict.ack_till) == (1, 10)
        shop = [row for row in await disks.visible() if row["service"] == "shop"]
        assert sorted(row["seq"] for row in shop) == [1, 2, 3, 4, 5, 8, 9, 10]
        assert {row["seq"]: row["message"] for row in shop}[9] == "row 9"
        assert len(disks.digests()) == 1


async def test_one_owner_away_and_back(tmp_path: Path) -> None:
    """c misses rows; the answers count what a and b hold; each acked row is on two owners."""
    async with stores(tmp_path, *"abc") as disks, write_path(disks, views_of("abc")) as path:
        await path.write(numbered_batch([1, 2]), ack="all")
        disks.away = {"c"}
        missed = await path.write(numbered_batch([3, 4]))
        disks.away = {"a"}
        with pytest.raises(QuorumUnavailable):
            await path.write(numbered_batch([5]), ack="all", seconds=1)
        disks.away = set()
        after = await path.write(numbered_batch([6]), ack="all")

        assert (missed.ack_till, missed.durable) == (4, 2)
        assert (after.ack_till, after.missing) == (6, ())
        assert len(await disks.visible("a", "b")) == 6


async def test_a_takeover_keeps_every_ack_and_fences_the_old_leader(tmp_path: Path) -> None:
    """a acked 1..4 on a and b, and left 5..6 on a alone. z takes over, with c back."""
    async with stores(tmp_path, *"abc") as disks:
        async with write_path(disks, views_of("abc")) as old:
            await old.write(numbered_batch([1, 2]), ack="all")
            disks.away = {"c"}
            assert (await old.write(numbered_batch([3, 4]))).ack_till == 4
            disks.away = {"b", "c"}
            with pytest.raises(QuorumUnavailable):
                await old.write(numbered_batch([5, 6]), seconds=1)
            disks.away = set()
            view = views_of("abc", "z", "z", 2)
            async with write_path(disks, view, seed=2) as new:
                taken = await new.write(numbered_batch([7]))
                with pytest.raises((NotLeader, NotReady)):
                    await old.write(numbered_batch([8]), seconds=1)

        assert (taken.ack_till, taken.missing) == (7, ())
        for pair in ("ab", "bc", "ac"):
            seen = [row["seq"] for row in await disks.visible(*pair)]
            assert sorted(seen) == [1, 2, 3, 4, 5, 6, 7]


async def test_epochs_fence_on_disk(tmp_path: Path) -> None:
    """A new producer epoch is durable: after a restart of all nodes the old one is still refused."""
    async with stores(tmp_path, *"abc") as disks, write_path(disks, views_of("abc")) as path:
        await path.write(numbered_batch([1]), ack="all")
        assert await path.writer.new_producer_epoch(*KEY, path.deadline()) == 2
    async with stores(tmp_path, *"abc") as disks, write_path(disks, views_of("abc")) as path:
        with pytest.raises(Fenced) as caught:
            await path.write(numbered_batch([2]))
        found = await path.writer.producer_progress(*KEY, 1, path.deadline())

        assert caught.value.details["epoch"] == 2
        assert found.ack_till == 1


async def test_many_writers_at_once_are_each_stored_once(tmp_path: Path) -> None:
    """Thirty sequenced producers and thirty bodies, each sent twice at the same time."""
    numbered = [numbered_batch(range(1, 51), producer=f"p{i}") for i in range(30)]
    bodies = [body_batch(rows(50, text=f"body {i}")) for i in range(30)]
    async with stores(tmp_path, *"abc") as disks, write_path(disks, views_of("abc")) as path:
        results = await asyncio.gather(*(path.write(one) for one in [*numbered, *bodies] * 2))

        assert all(one.accepted + one.duplicates == 50 for one in results)
        assert {one.ack_till for one in results[:30]} == {50}
        seen = await disks.visible()
        assert len(seen) == 60 * 50
        sequenced = [row["seq"] for row in seen if "seq" in row]
        assert len(sequenced) == 30 * 50
