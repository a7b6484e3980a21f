"""Copying between two real stores: the union, no more bytes than lack, and no mistake by timing."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cluster import sync_shards as module
from cluster import sync_shards as sync_shards_module
from cluster.pace import Pace
from cluster.replica_client import LocalReplica
from cluster.sync_shards import SyncLimits, SyncReport, sync_shards
from records.block_codec import EncodedBlock
from records.errors import ConnectionLost, StaleRingEpoch
from records.ids import EntryId
from records.messages import PutOptions, SealRequest
from records.sync import TreeRequest
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from storage.retention import Retention
from storage.service import StorageService
from tests.unit.storage.samples import (
    OPTIONS,
    SECOND,
    T0,
    Entry,
    block_of,
    entry_id,
    messages,
    plain,
    sequenced,
    service_on,
)

SHARDS = (0, 1, 2, 3)
LIMITS = SyncLimits(settled_after_seconds=3.0, second_look_seconds=0.01)
#: Long after everything in the samples was received.
NOW = T0 + 3600 * SECOND


class Clock(SystemClock):
    """The real one, but for the time of day, and for time that the test lets pass."""

    now = NOW
    ahead = 0.0

    def wall_micros(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@dataclass
class Wire:
    """A peer that is called through here: counts, and may break or wait."""

    peer: LocalReplica
    calls: list[str] = field(default_factory=list)
    fetched: list[tuple[EntryId, ...]] = field(default_factory=list)
    bytes: int = 0
    before: Callable[[str], Any] | None = None

    async def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.before is not None and (waited := self.before(name)) is not None:
            await waited

    async def tree(self, request: TreeRequest, deadline: Deadline) -> list[bytes]:
        await self._called("tree")
        return await self.peer.tree(request, deadline)

    async def fetch(self, entry_ids: tuple[EntryId, ...], deadline: Deadline) -> list[EncodedBlock]:
        await self._called("fetch")
        self.fetched.append(entry_ids)
        blocks = await self.peer.fetch(entry_ids, deadline)
        self.bytes += sum(len(one.data) for one in blocks)
        return blocks


@dataclass
class Pair:
    """Two stores: `here` lacks, `there` has."""

    here: StorageService
    there: StorageService
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.wire = Wire(LocalReplica(self.there))

    async def sync(self, limits: SyncLimits = LIMITS, **more: Any) -> SyncReport:
        """One call."""
        pace = Pace(self.clock, 1e9)
        epoch = more.pop("ring_epoch", 1)
        ring_epoch = epoch if callable(epoch) else lambda: epoch
        return await sync_shards(
            self.wire,
            self.here,
            more.pop("shards", SHARDS),
            ring_epoch=ring_epoch,
            clock=self.clock,
            pace=pace,
            limits=limits,
            **more,
        )

    def digests(self) -> list:
        """The roots of both."""
        return [[one.digest(shard) for shard in SHARDS] for one in (self.here, self.there)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer ring is looked for at once, and not for long."""
    monkeypatch.setattr(sync_shards_module, "RING_LOOK_SECONDS", 0.0)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Two running stores."""
    stores = [service_on(tmp_path / name, node=name) for name in ("here", "there")]
    for one in stores:
        await one.start()
    yield Pair(*stores)
    for one in stores:
        await one.stop()


def block(number: int, entries: int = 20, rows: int = 5) -> EncodedBlock:
    """A block with entries of all shards."""
    made = [plain(1000 * number + 10 * k, rows, f"b{number} ", shard=k % 4) for k in range(entries)]
    return block_of(number, *made)


async def put_all(store: StorageService, blocks: Sequence[EncodedBlock]) -> None:
    """Puts blocks."""
    for one in blocks:
        await store.put(one, OPTIONS)


async def test_blocks_that_lack_as_a_whole_travel_verbatim_and_once(pair: Pair) -> None:
    """Of all shards at once, in the peer's order: the bytes of the blocks and not one more; then equal."""
    blocks = [block(number) for number in range(12)]
    await put_all(pair.there, blocks)
    await put_all(pair.here, blocks[::3])

    report = await pair.sync()

    assert (report.stored, report.lacking, report.needless) == (160, 160, 0)
    assert report.compared
    assert report.complete
    assert pair.wire.bytes == sum(len(b.data) for at, b in enumerate(blocks) if at % 3)
    assert report.block_bytes == pair.wire.bytes
    assert report.rounds <= 5
    here, there = pair.digests()
    assert here == there
    assert sorted(await messages(pair.here)) == sorted(await messages(pair.there))
    assert (await pair.sync()).equal
    assert sum(report.bytes_by_shard.values()) <= pair.wire.bytes


async def test_bytes_stay_within_their_bound_when_parts_of_blocks_lack(pair: Pair) -> None:
    """G12: 1.10 x payload + 4 KiB a leaf + 16 KiB; the payload is what the lacking entries make as blocks."""
    there, here, lacking = [], [], []
    for number in range(6):
        entries = [
            plain(1000 * number + 40 * k, 40, f"b{number} some words", shard=k % 4)
            for k in range(40)
        ]
        there.append(block_of(number, *entries))
        here.append(block_of(number, *entries[: 20 + number]))
        lacking.append(block_of(number, *entries[20 + number :]))
    await put_all(pair.there, there)
    await put_all(pair.here, here)
    payload = sum(len(one.data) for one in lacking)
    leaves = {(e.shard, e.entry_id[0]) for one in lacking for e in one.header.entries}

    report = await pair.sync()

    assert report.complete
    assert report.stored == sum(len(one.header.entries) for one in lacking)
    moved = report.block_bytes + report.tree_bytes
    assert moved <= 1.10 * payload + 4096 * len(leaves) + 16_384


async def test_both_ways_make_the_union(pair: Pair) -> None:
    """Each side lacks something; a session of each mends both. Put again by whoever, nothing is doubled."""
    blocks = [block(number) for number in range(6)]
    await put_all(pair.there, blocks[:4])
    await put_all(pair.here, blocks[2:])

    first = await pair.sync()
    back = Pair(pair.there, pair.here)
    second = await back.sync()

    assert (first.stored, second.stored) == (40, 40)
    assert first.needless == second.needless == 0
    here, there = pair.digests()
    assert here == there
    assert len(await messages(pair.here)) == 6 * 100


async def test_other_shards_stay_as_they_are(pair: Pair) -> None:
    """A block of four shards is cut down to the two that were asked for."""
    await put_all(pair.there, [block(1)])

    report = await pair.sync(shards=(1, 3))

    assert report.stored == 10
    assert pair.here.digest(0) == pair.here.digest(2) == (0, bytes(16))
    assert pair.here.digest(1) == pair.there.digest(1)


async def test_entries_on_their_way_are_not_fetched(pair: Pair) -> None:
    """Received a second ago: not compared. Three seconds later: copied."""
    entry = plain(1, 3, received_at=NOW - SECOND)
    await put_all(pair.there, [block_of(1, entry)])

    early = await pair.sync()
    pair.clock.now = NOW + 3 * SECOND
    late = await pair.sync()

    assert early.equal
    assert late.stored == 1


async def test_what_comes_between_the_two_looks_is_left_alone(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow write: the second look finds it here, it is not fetched."""
    blocks = [block(1), block(2)]
    await put_all(pair.there, blocks)

    async def slow_write(seconds: float) -> None:
        if seconds == 0.3:
            assert looks == [40]
            await put_all(pair.here, blocks[:1])

    looks: list[int] = []
    absent = pair.here.absent

    def look(ids: Sequence[EntryId]) -> list[EntryId]:
        looks.append(len(ids))
        return absent(ids)

    monkeypatch.setattr(pair.here, "absent", look)
    monkeypatch.setattr(pair.clock, "sleep", slow_write, raising=False)

    report = await pair.sync(replace(LIMITS, second_look_seconds=0.3))

    assert (report.settled, report.stored, report.needless) == (20, 20, 0)
    assert pair.wire.bytes == len(blocks[1].data)


async def test_a_call_that_fails_leaves_what_it_put_and_the_next_goes_on(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third fetch breaks; the next call fetches only what is left."""
    monkeypatch.setattr(module, "FETCH_BYTES", 1)
    blocks = [block(number) for number in range(5)]
    await put_all(pair.there, blocks)

    def fail(name: str) -> None:
        if name == "fetch" and pair.wire.calls.count("fetch") == 3:
            raise ConnectionLost("cut")

    pair.wire.before = fail
    report = SyncReport()
    with pytest.raises(ConnectionLost):
        await pair.sync(report=report)
    assert (report.stored, report.compared) == (40, False)

    rest = await pair.sync()

    assert rest.stored == 60
    assert pair.wire.bytes == sum(len(one.data) for one in blocks)


async def test_a_newer_ring_stops_it_before_anything_is_stored(pair: Pair) -> None:
    """Known to the peer, or to this store: refused either way."""
    await put_all(pair.there, [block(1)])
    pair.there.observe_epochs(5, {})
    with pytest.raises(StaleRingEpoch):
        await pair.sync(ring_epoch=4)
    pair.there.observe_epochs(5, {})
    pair.here.observe_epochs(6, {})
    with pytest.raises(StaleRingEpoch):
        await pair.sync(ring_epoch=5)

    assert pair.here.digest(0) == (0, bytes(16))
    assert (await pair.sync(ring_epoch=6)).stored == 20


async def test_a_ring_that_changes_on_the_way_stops_it(pair: Pair) -> None:
    """Between naming and putting: the put is refused."""
    await put_all(pair.there, [block(1)])
    pair.wire.before = lambda name: pair.here.observe_epochs(9, {}) if name == "fetch" else None

    with pytest.raises(StaleRingEpoch):
        await pair.sync()

    assert pair.here.digest(0) == (0, bytes(16))


async def test_a_ring_that_steps_on_all_the_time_does_not_stop_it(pair: Pair) -> None:
    """As while many shards move: every other call meets a newer ring, which this node hears of later."""
    await put_all(pair.there, [block(n) for n in range(1, 4)])
    told, known = 1, 1

    def step(_: str) -> None:
        nonlocal told
        told += len(pair.wire.calls) % 2
        pair.there.observe_epochs(told, {})
        pair.here.observe_epochs(told, {})

    def late() -> int:
        nonlocal known
        known, heard = told, known
        return heard

    pair.wire.before = step

    report = await pair.sync(ring_epoch=late)

    assert report.complete
    assert report.stored == 60
    assert told >= 5
    assert pair.digests()[0] == pair.digests()[1]


async def test_shards_that_the_ring_has_taken_away_are_copied_no_more(pair: Pair) -> None:
    """They leave while the first block is on its way; the call says that it is not whole."""
    await put_all(pair.there, [block(n) for n in range(1, 4)])
    epoch = 1

    def step(name: str) -> None:
        nonlocal epoch
        epoch = 2 if name == "fetch" else epoch

    pair.wire.before = step

    report = await pair.sync(
        ring_epoch=lambda: epoch, shares=lambda shard: epoch == 1 or shard == 1
    )

    assert not report.compared
    counts = [pair.here.digest(shard)[0] for shard in SHARDS]
    assert counts == [5, 15, 5, 5]  # of the first block all, then of shard 1 alone


async def test_refused_entries_stay_away_and_their_neighbours_come(pair: Pair) -> None:
    """The hook for watermarks and deletes: by header, in the middle of a block."""
    keep, drop = plain(1, 3, "keep"), plain(50, 3, "drop")
    await put_all(pair.there, [block_of(1, keep, drop), block(2)])

    report = await pair.sync(admit=lambda header: header.entry_id != entry_id(drop))

    assert (report.stored, report.refused) == (21, 1)
    assert report.complete
    assert not [one for one in await messages(pair.here) if one.startswith("drop")]


async def test_what_a_watermark_took_here_is_not_fetched_where_it_is_still_held(pair: Pair) -> None:
    """Owners drop it at different moments: no difference worth a byte. What was never here is refused."""
    blocks = [
        block_of(n, plain(10 * n, 3, shard=n % 4), sequenced(n, n, shard=1)) for n in range(1, 6)
    ]
    late = plain(20_000, 1, shard=2)
    await put_all(pair.there, [*blocks, block_of(9, late), block_of(10, plain(77, 2, "other"))])
    await put_all(pair.here, blocks)
    marks = {("default", ""): T0 + 5 * 3600 * SECOND}
    pair.here.observe_retention(Retention(1, marks))
    for _ in range(500):
        if not any(pair.here.digest(shard)[0] for shard in SHARDS):
            break
        await asyncio.sleep(0.02)

    report = await pair.sync(admit=pair.here.admits)

    ids = {one for fetched in pair.wire.fetched for one in fetched}
    assert ids == {entry_id(late), entry_id(plain(77, 2, "other"))}
    assert (report.stored, report.refused) == (1, 1)
    assert report.complete


async def test_a_damaged_block_is_not_sent_and_the_rest_is(pair: Pair, tmp_path: Path) -> None:
    """The peer finds it when it reads it, sets it aside, and lacks it itself from then on."""
    blocks = [block(number) for number in range(3)]
    await put_all(pair.there, blocks)
    place = pair.there._engine.holdings.blocks[1]
    assert place is not None
    path = pair.there._files.path(place)
    with path.open("r+b") as file:
        file.seek(place.offset + place.length // 2)
        file.write(b"\xff\x00\xff\x00")

    report = await pair.sync()

    assert report.stored == 40
    assert (report.lacking, report.vanished) == (60, 20)
    assert pair.there.status()["quarantined_blocks"] == 1
    await put_all(pair.here, [blocks[1]])
    assert (await Pair(pair.there, pair.here).sync()).stored == 20
    here, there = pair.digests()
    assert here == there


async def test_a_peer_that_gives_what_nobody_asked_for_ends_the_call(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Always the same block, for whatever is fetched: the call ends, and says what was not given."""
    await put_all(pair.there, [block(1), block(2)])
    other = block(7)

    async def wrong(ids: tuple[EntryId, ...], deadline: Deadline) -> list[EncodedBlock]:
        return [other]

    monkeypatch.setattr(pair.wire, "fetch", wrong)
    async with asyncio.timeout(10):
        report = await pair.sync()

    assert report.vanished == 40


async def test_a_session_is_bounded_and_the_next_ones_finish(pair: Pair) -> None:
    """Twenty entries a call at least; no call says that it compared everything until one has."""
    await put_all(pair.there, [block(number, entries=40) for number in range(5)])
    limits, calls = replace(LIMITS, entries_max=20), 0
    while not (report := await pair.sync(limits)).equal:
        calls += 1
        assert report.stored
        assert calls < 12

    assert len(await messages(pair.here)) == 5 * 40 * 5


async def test_a_slow_peer_is_left_after_a_while_and_the_next_call_goes_on(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fetch takes 25 s: after three of them the call ends with what it has, and does not claim all."""
    monkeypatch.setattr(module, "FETCH_BYTES", 1)
    await put_all(pair.there, [block(number) for number in range(5)])

    def slow(name: str) -> None:
        pair.clock.ahead += 25.0 if name == "fetch" else 0.0

    pair.wire.before = slow
    patient = replace(LIMITS, fetch_seconds=30.0)
    first = await pair.sync(patient)
    rest = await pair.sync(patient)

    assert (first.stored, first.compared) == (60, False)
    assert (rest.stored, rest.compared) == (40, True)
    assert (await pair.sync()).equal


async def test_merged_blocks_compare_equal_and_give_what_lacks(pair: Pair) -> None:
    """One side merged its blocks into a segment: no difference. The other can still be filled from it."""
    blocks = [
        block_of(number, *[plain(20 * number + k, 1, "x", shard=k % 4) for k in range(8)])
        for number in range(40)
    ]
    await put_all(pair.there, blocks)
    for _ in range(300):
        if pair.there.status()["segments"]:
            break
        await asyncio.sleep(0.05)
    assert pair.there.status()["segments"]
    await put_all(pair.here, blocks[:30])

    report = await pair.sync()

    assert report.stored == 80
    here, there = pair.digests()
    assert here == there
    assert sorted(await messages(pair.here)) == sorted(await messages(pair.there))


async def test_sequenced_rows_that_overlap_show_the_same_afterwards(pair: Pair) -> None:
    """Visibility is decided by the oldest block's id, which travels with the entries."""
    rows = [{**one, "message": f"m{k}"} for k, one in enumerate(plain(0, 30).rows)]
    first = Entry(rows[:20], producer="p", seqs=((1, 20),))
    second = Entry(rows[10:30], producer="p", seqs=((11, 30),))
    await pair.there.put(block_of(1, first), OPTIONS)
    await pair.there.put(block_of(2, second), OPTIONS)
    await pair.here.put(block_of(2, second), PutOptions(1, repair=True))

    await pair.sync()

    assert sorted(await messages(pair.here)) == sorted(await messages(pair.there))
    assert len(await messages(pair.here)) == 30


async def test_rows_acknowledged_under_an_older_leader_are_copied_all_the_same(pair: Pair) -> None:
    """Fences stop writers, not repairs: the shard has a newer leader here, the rows are from before."""
    await put_all(pair.there, [block_of(1, sequenced(1, 5))])
    await pair.here.seal(SealRequest(0, 7, "n9"))

    report = await pair.sync()

    assert report.stored == 1
    assert len(await messages(pair.here)) == 5


async def test_what_is_long_is_worked_through_beside_the_event_loop(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of 52,000 entries takes 0.1 s to compare and as long to sort: no heartbeat would be sent."""
    monkeypatch.setattr(module, "LOOP_BYTES", 200)
    seen: list[tuple[int, bool]] = []

    def noting(work: Callable[..., Any], size_of: Callable[..., int]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            seen.append((size_of(*args), threading.current_thread() is threading.main_thread()))
            return work(*args)

        return noted

    sizes = noting(module._next, lambda _, __, ours, theirs: sum(map(len, [*ours, *theirs])))
    monkeypatch.setattr(module, "_next", sizes)
    monkeypatch.setattr(module, "_in_order", noting(module._in_order, lambda ids, _: 16 * len(ids)))
    await put_all(pair.there, [block(number) for number in range(4)])

    assert (await pair.sync()).stored == 80

    assert {size > 200 for size, _ in seen} == {True, False}
    assert all(on_loop == (size <= 200) for size, on_loop in seen)
