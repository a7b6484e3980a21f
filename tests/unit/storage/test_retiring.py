"""Hidden at once, removed later, never back: watermarks and deletes on running stores, against a model."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from records.errors import NotReady
from records.ids import EntryId
from records.messages import EntriesRequest, EntryStatus, PutOptions
from records.predicates import TRUE, Aggregate, Fold, ScanPlan
from records.timestamps import MAX_MICROS, MICROS_PER_HOUR, MIN_MICROS, TimeRange
from storage.service import Delete, Retention, StorageService
from tests.unit.storage.samples import (
    OPTIONS,
    SECOND,
    SETTINGS,
    T0,
    Entry,
    block_of,
    entry_id,
    header_of,
    row,
    scan_of,
    service_on,
)

HOUR = MICROS_PER_HOUR
QUIET = replace(SETTINGS, compact=False, compact_interval_seconds=3600.0, log_file_bytes=16_384)
REPAIR = PutOptions(ring_epoch=1, repair=True)
COUNT = Aggregate("n", "count")
ALL = EntriesRequest(0, MIN_MICROS, MAX_MICROS)


def entry(hours: Sequence[int], services: Sequence[str], received: int = 0, seq: int = 0) -> Entry:
    """A row an hour after T0 for each of `hours`, of services in turn, received `received` s after T0."""
    at = T0 + received * SECOND
    rows = [
        row(3600 * hour, f"{service} {hour} {received} {seq}", service, received_at=at, code=hour)
        for hour, service in zip(hours, services, strict=True)
    ]
    if seq:
        rows = [{**one, "service": services[0]} for one in rows]
        seqs = ((seq, seq + len(rows) - 1),)
        return Entry(rows, producer="p", seqs=seqs, received_at=at)
    return Entry(rows, received_at=at)


async def running(directory: Path) -> StorageService:
    """A started store that merges and removes only when it is told to."""
    service = service_on(directory, QUIET)
    await service.start()
    return service


async def retire(service: StorageService) -> None:
    """Removes all that is hidden, and the files at once."""
    service._retiring._look_again = 0.0
    for _ in range(200):
        await service._retiring.step()
        if not service._retiring.busy:
            break
    superseded = service._compactor._superseded
    superseded._next_log = 0.0
    superseded.segments = [(0.0, place) for _, place in superseded.segments]
    await service._compactor._tidy(service._clock.monotonic())


async def shown(service: StorageService) -> list[str]:
    """Messages of all rows, from a scan; counts by a fold, by rollups and by groups agree with it."""
    plan = ScanPlan(limit=10_000, descending=False)
    _, table = await service.scan(scan_of(plan))
    found = table["message"].to_pylist() if table.num_rows else []
    assert "_erased" not in table.schema.names
    for by in ((), ("service",), ("code",)):
        _, counts = await service.scan(scan_of(ScanPlan(fold=Fold(by, (COUNT,)))))
        assert sum(counts["n"].to_pylist()) == len(found), by
    return sorted(found)


def files(directory: Path) -> int:
    """How many segments lie on the disk."""
    return len(list(directory.rglob("*.parquet")))


async def with_store(directory: Path, entries: Sequence[Entry]) -> StorageService:
    """A store with one block of these entries."""
    service = await running(directory)
    await service.put(block_of(1, *entries), OPTIONS)
    return service


async def test_rows_below_the_watermark_are_hidden_at_once(tmp_path: Path) -> None:
    """Each service by its own; from rows, counts and exports alike."""
    service = await with_store(
        tmp_path, [entry((0, 1, 2), ("a", "b", "a")), entry((5, 5), ("a", "b"), 1)]
    )

    service.observe_retention(Retention(1, {("default", "a"): T0 + 2 * HOUR + 1}))

    assert await shown(service) == ["a 5 1 0", "b 1 0 0", "b 5 1 0"]
    made = await service.export("default", range(8))
    assert made.rows == 3
    await service.stop()


async def test_entries_below_the_watermark_leave_disk_and_digest(tmp_path: Path) -> None:
    """With them goes the file; they are not taken again, nor does a restart bring them back."""
    old, new = entry((0, 1), ("a", "b")), entry((9,), ("a",), 3)
    service = await with_store(tmp_path, [old])
    await service.put(block_of(2, new), OPTIONS)
    await service._compactor.merge([0, 1])
    service.observe_retention(Retention(1, {("default", ""): T0 + 4 * HOUR}))
    await retire(service)

    status = service.status()
    reply = await service.put(block_of(3, old), REPAIR)
    fresh = await running(tmp_path / "other")
    await fresh.put(block_of(2, new), OPTIONS)

    assert (status["rows"], status["entries"]) == (1, 1)
    assert reply.statuses == (EntryStatus.DUPLICATE,)
    assert await shown(service) == ["a 9 3 0"]
    assert service.digest(0) == fresh.digest(0)
    await service.stop()
    again = await running(tmp_path)
    again.observe_retention(Retention(1, {("default", ""): T0 + 4 * HOUR}))
    await retire(again)
    assert again.digest(0) == fresh.digest(0)
    await again.stop()
    await fresh.stop()


async def test_a_block_that_is_wholly_below_is_a_file_less(tmp_path: Path) -> None:
    """The segment's file is removed."""
    service = await with_store(tmp_path, [entry((0, 1), ("a", "b"))])
    await service.put(block_of(2, entry((0,), ("b",), 2)), OPTIONS)
    await service._compactor.merge([0, 1])
    assert files(tmp_path) == 1

    service.observe_retention(Retention(1, {("default", ""): T0 + 4 * HOUR}))
    await retire(service)

    assert files(tmp_path) == 0
    assert service.status()["blocks"] == 0
    await service.stop()


DELETE = Delete("d", "default", TimeRange(), T0 + 5 * SECOND, ("a",), ("word", "0"))


async def test_a_delete_hides_what_was_there_and_no_later_row(tmp_path: Path) -> None:
    """The order is by what the rows say of their receipt: the same on all replicas."""
    service = await with_store(tmp_path, [entry((0, 1), ("a", "b"), 5), entry((0,), ("a",), 6)])

    service.observe_retention(Retention(1, {}, (DELETE,)))

    assert await shown(service) == ["a 0 6 0", "b 1 5 0"]
    await service.stop()


@pytest.mark.parametrize("forget", [False, True])
async def test_blanked_rows_leave_the_disk_and_keep_their_names(
    tmp_path: Path, forget: bool
) -> None:
    """No byte of the message is left; the entry is a duplicate still, its digest and sequences stay."""
    one = entry((0, 1, 0), ("a", "a", "a"), 5, seq=1)
    service = await with_store(tmp_path, [one, entry((0,), ("b",), 1)])
    before = service.digest(0)
    states = (await service.producer_states(0, ("default", "a", "p"))).states
    service.observe_retention(Retention(1, {}, (DELETE,)))
    assert service.retention_progress("d")["left"] == {"d": 1}

    await retire(service)
    if forget:
        service.observe_retention(Retention(2))

    assert service.retention_progress("d")["left"] == ({} if forget else {"d": 0})
    assert service.digest(0) == before
    assert (await service.producer_states(0, ("default", "a", "p"))).states == states
    assert await shown(service) == ["a 1 5 1", "b 0 1 0"]
    reply = await service.put(block_of(7, one), REPAIR)
    assert reply.statuses == (EntryStatus.DUPLICATE,)
    (block,) = await service.fetch((entry_id(one),))
    assert b"a 0 5 1" not in bytes(block.data)
    other = await running(tmp_path / "other")
    await other.put(block, REPAIR)
    assert await shown(other) == ["a 1 5 1"]
    await other.stop()
    await service.stop()
    again = await running(tmp_path)
    assert await shown(again) == ["a 1 5 1", "b 0 1 0"]
    await again.stop()


async def test_blanked_rows_sent_again_in_another_batch_are_no_conflict(tmp_path: Path) -> None:
    """A producer repeats its sequences cut in another way: what was deleted stays so."""
    service = await with_store(tmp_path, [entry((0, 1), ("a", "a"), 5, seq=1)])
    service.observe_retention(Retention(1, {}, (DELETE,)))
    await retire(service)

    longer = entry((0, 1, 2), ("a", "a", "a"), 5, seq=1)
    reply = await service.put(block_of(9, longer), OPTIONS)

    assert reply.statuses == (EntryStatus.STORED,)
    assert await shown(service) == ["a 1 5 1", "a 2 5 1"]
    await service.stop()


async def test_reads_wait_for_the_state_and_puts_do_not(tmp_path: Path) -> None:
    """A node that was away does not know yet what was deleted."""
    service = await running(tmp_path)
    service.hold_reads()
    one = entry((0,), ("a",))

    await service.put(block_of(1, one), OPTIONS)
    for call in (
        service.scan(scan_of(ScanPlan())),
        service.entries(ALL),
        service.fetch((EntryId(bytes(16)),)),
        service.export("default", (0,)),
    ):
        with pytest.raises(NotReady):
            await call

    service.observe_retention(Retention(1, {("default", ""): T0 + 9 * HOUR}))
    assert await shown(service) == []
    await service.stop()


async def test_a_scan_waits_for_the_state_that_it_names(tmp_path: Path) -> None:
    """Whoever asks knows of a delete: a node that was asleep does not answer from before it."""
    service = await with_store(tmp_path, [entry((0,), ("a",), 5)])
    service.observe_retention(Retention(3))
    asked = scan_of(ScanPlan(), hidden_index=4)
    waiting = asyncio.create_task(service.scan(asked))
    await asyncio.sleep(0)
    assert not waiting.done()

    service.observe_retention(Retention(5, {}, (DELETE,)))
    _, table = await waiting
    assert table.num_rows == 0

    service._retiring._seen = 3
    with pytest.raises(NotReady):
        await service._retiring.wait_for(4, 0.0)
    service.observe_index(4)
    await service._retiring.wait_for(4, 0.0)
    await service.stop()


async def test_an_older_state_changes_nothing(tmp_path: Path) -> None:
    """A snapshot that comes late does not show again what a newer one hides."""
    service = await with_store(tmp_path, [entry((0,), ("a",))])
    service.observe_retention(Retention(5, {("default", ""): T0 + 9 * HOUR}))
    service.observe_retention(Retention(4))

    assert await shown(service) == []
    assert not service.may_take("default", "", T0)
    assert service.may_take("default", "", T0 + 9 * HOUR)
    below, above = (header_of(entry((hour,), ("a",)), 0) for hour in (0, 9))
    assert (service.admits(below), service.admits(above)) == (False, True)
    await service.stop()


# -- any order, three replicas ----------------------------------------------------------------


@dataclass
class Model:
    """What should be seen, by a loop over rows."""

    marks: dict[tuple[str, str], int] = field(default_factory=dict)
    deletes: list[Delete] = field(default_factory=list)

    def hides(self, one: dict) -> bool:
        """Whether a row is hidden."""
        mark = self.marks.get(
            ("default", one["service"]), self.marks.get(("default", ""), MIN_MICROS)
        )
        if one["timestamp"] < mark:
            return True
        return any(
            one["received_at"] <= d.received_until
            and d.time.start <= one["timestamp"] < d.time.end
            and (not d.services or one["service"] in d.services)
            and (d.tree == ("true",) or one["code"] == d.tree[2])
            for d in self.deletes
        )

    def retention(self, index: int) -> Retention:
        """As the stores are told it."""
        return Retention(index, dict(self.marks), tuple(self.deletes))


NAMES = st.sampled_from(["a", "b"])
HOURS = st.lists(st.integers(0, 6), min_size=1, max_size=4)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """An entry of one or two services, or of a producer."""
    hours = draw(HOURS)
    services = draw(st.lists(NAMES, min_size=len(hours), max_size=len(hours)))
    return entry(hours, services, draw(st.integers(0, 9)), draw(st.integers(0, 1)))


STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 7), st.sets(st.integers(0, 2), min_size=1)),
    st.tuples(st.just("repair"), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.just("mark"), st.sampled_from(["", "a", "b"]), st.integers(0, 8)),
    st.tuples(
        st.just("delete"),
        st.sets(NAMES),
        st.tuples(st.integers(0, 3), st.integers(3, 7)),
        st.integers(0, 9),
        st.one_of(st.just(("true",)), st.builds(lambda n: ("eq", "code", n), st.integers(0, 6))),
    ),
    st.tuples(st.just("learn"), st.integers(0, 2)),
    st.tuples(st.just("retire"), st.integers(0, 2)),
    st.tuples(st.just("merge"), st.integers(0, 2)),
    st.tuples(st.just("restart"), st.integers(0, 2)),
)


async def repaired(source: StorageService, target: StorageService) -> None:
    """What the source lists and the target lacks is put there."""
    theirs = (await source.entries(ALL)).entries
    held = {ref.entry_id for ref in (await target.entries(ALL)).entries}
    lacking = tuple(ref.entry_id for ref in theirs if ref.entry_id not in held)
    for block in await source.fetch(lacking):
        await target.put(block, REPAIR)


@dataclass
class Run:
    """Three stores and what was done to them."""

    root: Path
    blocks: list[Entry]
    model: Model = field(default_factory=Model)
    index: int = 0
    stores: list[StorageService] = field(default_factory=list)
    known: list[tuple[Model, int]] = field(default_factory=list)
    held: list[set[int]] = field(default_factory=lambda: [set(), set(), set()])

    async def step(self, step: tuple) -> None:
        """One thing happens."""
        kind, *more = step
        if kind == "put":
            number = more[0] % len(self.blocks)
            for node in more[1]:
                await self.stores[node].put(block_of(number, self.blocks[number]), OPTIONS)
                self.held[node].add(number)
        elif kind == "repair":
            await repaired(self.stores[more[0]], self.stores[more[1]])
            self.held[more[1]] |= self.held[more[0]]
        elif kind == "mark":
            key, at = ("default", more[0]), T0 + more[1] * HOUR
            floor = self.model.marks.get(("default", ""), MIN_MICROS)
            self.model.marks[key] = max(at, self.model.marks.get(key, floor))
            self.index += 1
        elif kind == "delete":
            low, high = (T0 + hour * HOUR for hour in more[1])
            name = f"d{self.index}"
            until = T0 + more[2] * SECOND
            services = tuple(sorted(more[0]))
            self.model.deletes.append(
                Delete(name, "default", TimeRange(low, high), until, services, more[3])
            )
            self.index += 1
        elif kind == "learn":
            self.stores[more[0]].observe_retention(self.model.retention(self.index))
        elif kind == "retire":
            await retire(self.stores[more[0]])
        elif kind == "merge":
            compactor = self.stores[more[0]]._compactor
            holdings = self.stores[more[0]]._engine.holdings
            await compactor.merge([place.ordinal for place in holdings.blocks])
        else:
            await self.stores[more[0]].stop()
            self.stores[more[0]] = await running(self.root / str(more[0]))
            # as a node does: no read before the state is known
            self.stores[more[0]].observe_retention(self.model.retention(self.index))

    def expected(self, node: int) -> list[str]:
        """What a node that has learned everything shows of what it was given."""
        rows = [one for n in self.held[node] for one in self.blocks[n].rows]
        return sorted(one["message"] for one in rows if not self.model.hides(one))


def unique(found: list[Entry]) -> list[Entry]:
    """Entries with distinct rows and sequences: a message names its entry."""
    named = []
    for number, one in enumerate(found):
        rows = [{**r, "message": f"{number} {r['message']}"} for r in one.rows]
        seqs = ((100 * number + 1, 100 * number + len(rows)),) if one.seqs else ()
        named.append(replace(one, rows=rows, seqs=seqs))
    return named


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(entries(), min_size=3, max_size=6), st.lists(STEPS, max_size=25))
def test_three_replicas_show_the_model_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[Entry], steps: list[tuple]
) -> None:
    """I7 and I13: each shows exactly what it was given and nothing hides; in the end all are equal.

    Whatever was put, repaired, hidden, removed, merged or restarted in between, and whoever learned of it
    late: after all have learned everything and repaired each other, rows and digests are the same.
    """

    async def run() -> None:
        state = Run(tmp_path_factory.mktemp("r"), unique(blocks))
        state.stores = [await running(state.root / str(node)) for node in range(3)]
        for one in steps:
            await state.step(one)
        for node, store in enumerate(state.stores):
            store.observe_retention(state.model.retention(state.index))
            assert await shown(store) == state.expected(node)
        for _ in range(2):
            for source in state.stores:
                for target in state.stores:
                    await repaired(source, target)
        everything = set().union(*state.held)
        state.held = [everything, everything, everything]
        for store in state.stores:
            await retire(store)
        for node, store in enumerate(state.stores):
            assert await shown(store) == state.expected(node)
            assert store.digest(0) == state.stores[0].digest(0)
            await store.stop()

    asyncio.run(run())


async def test_progress_is_not_told_before_reads_are_served(tmp_path: Path) -> None:
    """A delete counts who answered: a store that is not admitted must not be among them."""
    service = await with_store(tmp_path, [entry((0,), ("a",))])
    service.hold_reads()

    with pytest.raises(NotReady):
        service.retention_progress()

    service.observe_retention(Retention(1, {}))
    progress = service.retention_progress()
    assert progress["received_max"] == T0, "of what is stored: a delete must not go by this clock"
    await service.stop()


async def test_rows_expire_though_blocks_cannot_be_merged(tmp_path: Path) -> None:
    """A merge that fails every time, for want of space it may be, must not keep what would free it."""
    service = await with_store(tmp_path, [entry((0,), ("a",))])

    async def failing() -> None:
        raise OSError("no space")

    service._compactor.step = failing  # type: ignore[method-assign]
    service.observe_retention(Retention(1, {("default", ""): T0 + 4 * HOUR}))

    with pytest.raises(OSError, match="no space"):
        await service._tend_blocks()

    assert service.status()["rows"] == 0
    await service.stop()


async def test_a_full_disk_is_freed_of_log_files_that_hold_nothing(tmp_path: Path) -> None:
    """Rows below the watermark go by whole log files; little disk is no reason to keep these."""
    service = await running(tmp_path)
    noise = random.Random(7).randbytes(60_000).hex()
    for number in range(4):
        one = Entry([row(0, noise[number * 20_000 :][:20_000])], received_at=T0)
        await service.put(block_of(number, one), OPTIONS)
    service.observe_retention(Retention(1, {("default", ""): T0 + 4 * HOUR}))
    logs = len(list((tmp_path / "log").iterdir()))
    service._disk.low = True

    await retire(service)
    await service._compactor.step()

    assert service.status()["rows"] == 0
    assert len(list((tmp_path / "log").iterdir())) < logs
    await service.stop()


async def test_a_block_that_keeps_others_is_written_anew_without_what_expired(
    tmp_path: Path,
) -> None:
    """Of two tenants in one block one keeps rows for long: the other's do not stay on disk with them.

    Not while more of the block will expire within a day: it would be written anew again and again.
    """
    short = entry((0, 1), ("a", "a"), 1, seq=1)
    soon = entry((20,), ("a",), 2)
    long = replace(entry((0,), ("a",), 1), tenant="other")
    service = await with_store(tmp_path, [short, long])
    await service.put(block_of(2, replace(short, seqs=((8, 9),)), soon), OPTIONS)
    marks = {("default", "a"): T0 + 4 * HOUR, ("default", ""): T0 + 4 * HOUR}

    service.observe_retention(Retention(1, marks))
    await retire(service)
    assert service._compactor._thinned == {0}
    await service._compactor._let_go()

    assert [place.rows for place in service._engine.holdings.blocks] == [3, 1]
    await retire(service)
    assert service._compactor.waiting_to_thin == 0
    assert (await service.put(block_of(4, short), REPAIR)).statuses == (EntryStatus.DUPLICATE,)
    states = (await service.producer_states(0, ("default", "a", "p"))).states
    assert len(states[0].spans) == 2
    await service.stop()
    again = await running(tmp_path)
    assert again.status()["rows"] == 2
    assert (await again.producer_states(0, ("default", "a", "p"))).states == tuple(
        replace(one, gone=()) for one in states
    )  # no watermark is known yet
    await again.stop()


async def test_what_was_let_go_while_expired_rows_were_sought_is_not_dropped_twice(
    tmp_path: Path,
) -> None:
    """The search is on another thread; an entry removed twice would spoil the shard's digest."""
    one, other = entry((0,), ("a",), 1), entry((1,), ("a",), 2)
    service = await with_store(tmp_path, [one, other])
    apart = service._compactor.apart

    async def slow(work: Any, *args: Any) -> Any:
        found = await apart(work, *args)
        service.moves.let_go((0,), 1)
        return found

    service._compactor.apart = slow  # type: ignore[method-assign]
    service.observe_retention(Retention(1, {("default", ""): T0 + 4 * HOUR}))
    await retire(service)

    assert service.digest(0) == (0, bytes(16))
    assert service.status()["rows"] == 0
    await service.stop()


@pytest.mark.parametrize("by_mark", [False, True])
async def test_the_rows_of_other_tenants_in_the_same_block_are_left_alone(
    tmp_path: Path, by_mark: bool
) -> None:
    """A block holds what came at one time, of whoever: rules of one tenant blank nothing of another."""
    mine, theirs = (entry((0, 9), "ab", received) for received in (1, 2))
    service = await with_store(tmp_path, [mine, replace(theirs, tenant="other")])
    rules = Retention(1, {}, (replace(DELETE, tree=TRUE),))
    if by_mark:
        rules = Retention(1, {("default", "a"): T0 + 10 * HOUR, ("default", ""): T0 - HOUR})

    async def of_other() -> list[str]:
        plan = ScanPlan(tenant="other", limit=10, descending=False)
        return (await service.scan(scan_of(plan)))[1]["message"].to_pylist()

    service.observe_retention(rules)
    assert await of_other() == ["a 0 2 0", "b 9 2 0"]
    await retire(service)

    assert await shown(service) == ["b 9 1 0"]
    place = service._engine.holdings.blocks[1]
    assert place is not None
    assert place.file < 0, "it was written anew"
    assert await of_other() == ["a 0 2 0", "b 9 2 0"]
    await service.stop()


async def test_sequences_that_a_watermark_took_are_told_as_gone(tmp_path: Path) -> None:
    """1 and 2 are long below it, dropped or not yet; 3 is not, 1 was told. A damaged block takes it back."""
    entries = [entry((0,), ("a",), 1, seq=1), entry((1,), ("a",), 2, seq=2)]
    service = await with_store(tmp_path, [*entries, entry((9,), ("a",), 3, seq=3)])
    producer = ("default", "a", "p")

    async def gone() -> tuple:
        (state,) = (await service.producer_states(0, producer)).states
        assert state.spans == ((1, 3),)
        return state.gone

    assert await gone() == ()
    service.observe_retention(Retention(1, {("default", "a"): T0 + 4 * HOUR}))
    assert await gone() == ((1, 2),)
    await retire(service)
    assert await gone() == ((1, 2),)
    service._engine.holdings.producers.raise_told([((*producer, 1), 1)])
    assert await gone() == ((2, 2),)

    service.holes.add(0, None, 1)
    assert await gone() == ()
    await service.stop()
