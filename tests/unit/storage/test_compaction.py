"""Merging is invisible: a store that merges, restarts and crashes answers like one that never merges."""

import asyncio
import errno
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from records.errors import BlockCorrupt
from records.ids import ProducerEpoch
from records.messages import EntriesRequest, PutOptions
from records.predicates import Aggregate, Fold, ScanPlan
from records.timestamps import MAX_MICROS, MIN_MICROS, TimeRange
from records.visibility import REPEAT_MICROS
from storage.segment_file import NO_HOUR, segment_files
from storage.service import StorageService
from tests.unit.storage.samples import (
    OPTIONS,
    SECOND,
    SETTINGS,
    T0,
    Entry,
    block_of,
    entry_id,
    messages,
    plain,
    row,
    scan_of,
    sequenced,
    service_on,
)

HOUR = 3600
QUIET = replace(SETTINGS, compact=False, log_file_bytes=16_384)
KEY = ("default", "pay", "p")
COUNT = Aggregate("n", "count")
REPAIR = PutOptions(ring_epoch=1, repair=True)

PLANS = (
    ScanPlan(limit=10_000),
    ScanPlan(limit=7, descending=False),
    ScanPlan(limit=10_000, filter=("eq", "code", 7)),
    ScanPlan(limit=10_000, filter=("range", "code", 3, 8)),
    ScanPlan(limit=10_000, filter=("not", ("exists", "code"))),
    ScanPlan(limit=10_000, filter=("word", "row"), time=TimeRange(T0 + 30 * SECOND, MAX_MICROS)),
    ScanPlan(fold=Fold(("service", "level"), (COUNT,), 60 * SECOND)),
    ScanPlan(fold=Fold(("code",), (COUNT,))),
    ScanPlan(
        fold=Fold((), (Aggregate("s", "sum", "code"), Aggregate("d", "count_distinct", "code")))
    ),
)


async def running(directory: Path) -> StorageService:
    service = service_on(directory, QUIET)
    await service.start()
    return service


def live(service: StorageService) -> list[int]:
    return [place.ordinal for place in service._engine.holdings.blocks]


async def merge(service: StorageService, ordinals: Sequence[int] | None = None) -> None:
    """Merges these blocks (all that are there), and removes at once what that made superfluous."""
    await service._compactor.merge(live(service) if ordinals is None else ordinals)
    superseded = service._compactor._superseded
    superseded._next_log = 0.0
    superseded.segments = [(0.0, place) for _, place in superseded.segments]
    await service._compactor._tidy(service._clock.monotonic())


def canonical(rows: list[dict]) -> list:
    """Rows without nulls, lists without order, 2 and 2.0 alike (a sum is whole or not by piece)."""

    def plain_value(value: object) -> str:
        if isinstance(value, list):
            return repr(sorted(map(plain_value, value)))
        whole = isinstance(value, float) and value.is_integer()
        return repr(int(value) if whole else value)  # type: ignore[arg-type]

    found = []
    for one in rows:
        found.append(sorted((k, plain_value(v)) for k, v in one.items() if v is not None))
    return found


async def answers(service: StorageService) -> list:
    """All that a coordinator can learn: rows in order, folds, digests, entries, producers."""
    found: list = []
    for plan in PLANS:
        reply, table = await service.scan(scan_of(plan))
        rows = canonical(table.to_pylist())
        found += [rows if plan.fold is None else sorted(rows), reply.digests]
    for shard in (0, 1):
        request = EntriesRequest(shard, MIN_MICROS, MAX_MICROS)
        refs = (await service.entries(request)).entries
        found.append(sorted(refs, key=lambda ref: ref.entry_id))
        found.append((await service.producer_states(shard, KEY)).states)
    status = service.status()
    found += [status["rows"], status["entries"], status["fences"], status["ring_epoch"]]
    return found


def tagged(at: int, code: object, extra: str | None, shard: int, count: int = 2) -> Entry:
    """Rows whose `code` is a column of some type, and perhaps attributes."""
    both = {"code": code, "attributes": extra}
    more = {name: value for name, value in both.items() if value is not None}
    rows = [
        row(
            at + k,
            f"row {at}",
            level="info" if k else "error",
            **{n: v for n, v in more.items() if v is not None},
        )
        for k in range(count)
    ]
    return Entry(rows, shard=shard, name=repr((at, code, extra)).encode())


EXTRA = st.sampled_from([None, None, '{"code": 7}', '{"other": "y"}'])
AT = st.one_of(st.integers(0, 90), st.sampled_from([HOUR - 1, HOUR, 5 * HOUR]))
#: A column has one type in a block, whatever it is in the next.
CODES = (st.none(), st.integers(1, 9), st.sampled_from(["7", "x"]), st.sampled_from([2.5, 7.0]))


def entries_with(code: st.SearchStrategy) -> st.SearchStrategy:
    """The entries of one block."""
    one = st.one_of(
        st.builds(tagged, AT, code, EXTRA, st.integers(0, 1)),
        st.builds(
            lambda first, n: sequenced(first, first + n), st.integers(1, 12), st.integers(0, 5)
        ),
        st.builds(lambda k: Entry((), producer="p", skips=((k, k),)), st.integers(20, 22)),
    )
    return st.lists(one, min_size=1, max_size=3)


PUT = st.tuples(st.just("put"), st.sampled_from(CODES).flatmap(entries_with))
STEP = st.one_of(
    PUT,
    PUT,
    st.tuples(st.just("merge"), st.integers(0, 2**8 - 1)),
    st.tuples(st.just("repack"), st.none()),
    st.tuples(st.just("restart"), st.sampled_from(["kept", "lost"])),
    st.tuples(st.just("crash"), st.sampled_from(["kept", "lost"])),
)


async def reopened(
    service: StorageService, how: str, catalog: str, directory: Path
) -> StorageService:
    """The node after a restart, or as a kill -9 now would leave it; with or without its catalog."""
    if how == "crash":
        # The scrub may rename the file of its progress just then; a start begins without it.
        shutil.copytree(service.directory, directory, ignore=shutil.ignore_patterns("scrub.new"))
        await service.stop()
    else:
        await service.stop()
        shutil.copytree(service.directory, directory)
    if catalog == "lost":
        lose_catalog(directory)
    return await running(directory)


def lose_catalog(directory: Path) -> None:
    for path in directory.glob("catalog.sqlite*"):
        path.unlink()


async def play(steps: list, directory: Path) -> None:
    """The same puts to both stores; merges, restarts and crashes to one; equal answers after each step."""
    plain_store, merging = await running(directory / "plain"), await running(directory / "merging")
    for number, (kind, what) in enumerate(steps):
        if kind == "put":
            block = block_of(100 - number, *what)  # later blocks have smaller ids: they win
            replies = [await store.put(block, REPAIR) for store in (plain_store, merging)]
            assert replies[0] == replies[1]
            continue
        if kind == "merge":
            chosen = [n for k, n in enumerate(live(merging)) if what >> (k % 8) & 1]
            await merge(merging, chosen)
        elif kind == "repack":
            await merging._compactor.repack()
        else:
            merging = await reopened(merging, kind, what, directory / f"after-{number}")
        assert await answers(merging) == await answers(plain_store), (number, kind)
    assert await answers(merging) == await answers(plain_store)
    await asyncio.gather(plain_store.stop(), merging.stop())


@given(st.lists(STEP, min_size=3, max_size=14))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_puts_merges_and_crashes_answer_like_a_store_that_never_merges(
    tmp_path_factory: pytest.TempPathFactory, steps: list
) -> None:
    """Rows, folds, digests, entries, what is hidden, producers; with types that disagree and late hours."""
    directory = tmp_path_factory.mktemp("stores")
    try:
        asyncio.run(play(steps, directory))
    finally:
        shutil.rmtree(directory)


async def filled(directory: Path) -> StorageService:
    """Twelve blocks: overlaps, repeats, two hours, a fence, an epoch, what was told."""
    service = await running(directory)
    for number in range(8):
        await service.put(
            block_of(
                50 - number,
                plain(number * 10, 5),
                sequenced(number * 2 + 1, number * 2 + 4, f"b{number} "),
            ),
            REPAIR,
        )
    await service.put(block_of(60, plain(HOUR + 5, 3), plain(HOUR - 1, 2)), OPTIONS)
    first = plain(200, received_at=T0)
    await service.put(block_of(61, first), OPTIONS)
    later = plain(201, received_at=T0 + REPEAT_MICROS, previous=entry_id(first))
    await service.put(block_of(62, later), OPTIONS)
    await service.put(
        block_of(63, sequenced(40, 41, shard_epoch=3)),
        PutOptions(2, told=(((*KEY, ProducerEpoch(1)), 16),)),
    )
    await service.seal_producer_epoch(1, KEY, 9, 9)
    return service


@pytest.mark.parametrize("catalog", ["kept", "lost"])
async def test_a_crash_between_any_two_steps_loses_nothing(tmp_path: Path, catalog: str) -> None:
    """The directory is copied before each step of two merges, a clean-up and what follows: each copy opens
    to the same answers, and once more after it was merged itself."""
    images: list[Path] = []
    service = await filled(tmp_path / "node")

    def step(name: str) -> None:
        images.append(tmp_path / f"{len(images)}-{name}".replace(" ", "-"))
        shutil.copytree(tmp_path / "node", images[-1])

    before = await answers(service)
    service._compactor._step = step
    await merge(service, live(service)[:6])
    await merge(service, live(service)[4:])
    await merge(service)
    step("end")
    assert await answers(service) == before
    await service.stop()

    assert {path.name.split("-", 1)[1] for path in images} >= {
        "write", "sync", "rename", "sync-folders", "apply", "flush", "flushed", "unlink", "remove-log", "end",
    }  # fmt: skip
    for image in images:
        if catalog == "lost":
            lose_catalog(image)
        again = await running(image)
        assert await answers(again) == before, image.name
        await merge(again)
        assert await answers(again) == before, image.name
        await again.stop()


async def test_log_files_are_removed_once_all_they_hold_is_in_segments(tmp_path: Path) -> None:
    """And what they said beside rows is still known without a catalog: fences, epochs, what was told."""
    service = await filled(tmp_path)
    for number in range(40):
        await service.put(block_of(100 + number, plain(1000 + number, 30)), PutOptions(2))
    before, files = await answers(service), len(list((tmp_path / "log").iterdir()))
    await service._flusher.flush()

    await merge(service)

    left = len(list((tmp_path / "log").iterdir()))
    assert files > 4
    assert left <= 2
    await service.stop()
    (tmp_path / "catalog.sqlite").unlink()
    service = await running(tmp_path)
    assert await answers(service) == before
    await service.stop()


async def test_late_rows_land_in_the_folder_of_their_hour(tmp_path: Path) -> None:
    """Hive-style; an entry that spans two hours lies under "no value"; every file is plain Parquet."""
    service = await running(tmp_path)
    for number in range(8):
        await service.put(block_of(number + 1, plain(2 * HOUR + number, 1)), OPTIONS)
    await service.put(block_of(20, plain(5, 1, "late")), OPTIONS)
    await service.put(block_of(21, plain(HOUR - 1, 2, "long")), OPTIONS)

    await merge(service)
    paths = segment_files(service._home.segments).values()  # type: ignore[union-attr]
    folders = {path.parent.name: pl.read_parquet(path)["message"].to_list() for path in paths}

    figures = service.status()
    assert (figures["segments"], figures["quarantined_blocks"]) == (3, 0)
    assert folders["hour=02"] == [f"row {2 * HOUR + n}" for n in range(8)]
    assert folders["hour=00"] == ["late 5"]
    assert folders[f"hour={NO_HOUR}"] == ["long 3599", "long 3600"]
    await service.stop()


async def test_a_damaged_segment_makes_its_entries_missing(tmp_path: Path) -> None:
    """They leave the digest, can be put again; the damaged file is kept aside, not used after a restart."""
    service = await running(tmp_path)
    blocks = [block_of(n + 1, plain(n * 10, 2)) for n in range(4)]
    for block in blocks:
        await service.put(block, OPTIONS)
    digest = service.digest(0)
    await merge(service)
    (path,) = segment_files(tmp_path / "segments").values()
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(bytes(data))
    service._hot.forget(live(service)[0])
    service._hot._verified.clear()

    assert await messages(service) == []
    assert service.digest(0) != digest
    assert [one.name for one in (tmp_path / "quarantine").iterdir()] == [f"segment-{path.name}"]
    await service.stop()
    service = await running(tmp_path)
    assert await messages(service) == []
    for block in blocks:
        await service.put(block, OPTIONS)
    assert service.digest(0) == digest
    assert len(await messages(service)) == 8
    assert service.status()["quarantined_blocks"] == 1
    await service.stop()


async def test_one_merge_holds_only_some_of_much_text(tmp_path: Path) -> None:
    """Seven blocks of 12 MiB that lie in a few kB: three at a time, what is left over stays as it was."""
    service = await running(tmp_path)
    for n in range(7):
        text = sequenced(n * 4 + 1, n * 4 + 4, text="x" * (3 << 20))
        await service.put(block_of(n, text), OPTIONS)
    wanted = await answers(service)
    await merge(service)
    places = list(service._engine.holdings.blocks)
    assert [(place.rows, place.file < 0) for place in places] == [
        (4, False),
        (12, True),
        (12, True),
    ]
    assert await answers(service) == wanted
    await service.stop()


async def test_a_damaged_source_is_set_aside_and_the_others_are_merged_later(
    tmp_path: Path,
) -> None:
    """A merge never copies bytes that fail their checksum."""
    service = await running(tmp_path)
    for number in range(3):
        await service.put(block_of(number + 1, plain(number, 1)), OPTIONS)
    place = service._engine.holdings.blocks[1]
    assert place is not None
    with service._files.path(place).open("r+b") as file:
        file.seek(place.offset + place.length - 20)
        file.write(b"\xff\xff")

    with pytest.raises(BlockCorrupt):
        await merge(service)
    await merge(service)

    assert await messages(service) == ["row 0", "row 2"]
    assert len(live(service)) == 1
    await service.stop()


async def test_a_merge_that_fails_leaves_no_files(tmp_path: Path) -> None:
    """The disk takes the first of two segments, not the second: however often, nothing is left of either."""
    service = await running(tmp_path)
    for n in range(8):
        await service.put(block_of(n + 1, plain(n % 2 * HOUR + n, 1)), OPTIONS)
    rows, written = sorted(await messages(service)), list[str]()

    def step(name: str) -> None:
        written.extend([name] if name == "write" else [])
        if name == "write" and len(written) % 2 == 0:
            raise OSError(errno.EIO, "a bad sector")

    service._compactor._step = step
    for _ in range(3):
        with pytest.raises(OSError, match="a bad sector"):
            await merge(service)
        assert segment_files(tmp_path / "segments") == {}
    service._compactor._step = lambda _: None
    await merge(service)

    assert len(written) == 6
    assert len(segment_files(tmp_path / "segments")) == 2
    assert sorted(await messages(service)) == rows
    await service.stop()


async def test_repair_is_served_from_segments(tmp_path: Path) -> None:
    """Another replica that lacks entries gets them, with the block ids that decide what is visible."""
    service = await filled(tmp_path / "a")
    refs = (await service.entries(EntriesRequest(0, MIN_MICROS, MAX_MICROS))).entries
    await merge(service, live(service)[:9])
    before = await answers(service)
    other = await running(tmp_path / "b")

    half = tuple(ref.entry_id for ref in refs[::2])
    for ids in (half, tuple(ref.entry_id for ref in refs)):
        for block in await service.fetch(ids):
            await other.put(block, PutOptions(2, repair=True))

    found = (await other.entries(EntriesRequest(0, MIN_MICROS, MAX_MICROS))).entries
    key = lambda ref: ref.entry_id  # noqa: E731
    assert sorted(found, key=key) == sorted(refs, key=key)
    assert await messages(other) == await messages(service)
    assert service.digest(0) == other.digest(0)
    assert await answers(service) == before
    await asyncio.gather(service.stop(), other.stop())


async def test_a_scan_that_began_before_a_merge_ends_well(tmp_path: Path) -> None:
    """Its blocks are gone when it comes to read them: it begins again, and nothing counts as damage."""
    service = await filled(tmp_path)
    before = await messages(service)
    real = service._reading
    merged = False

    async def slow(*args: object) -> object:
        nonlocal merged
        if not merged:
            merged = True
            await merge(service)
            for path in (tmp_path / "log").glob("*1.qlog"):
                path.unlink()
        return await real(*args)  # type: ignore[arg-type]

    service._scans._reading = slow  # type: ignore[assignment]
    assert await messages(service) == before
    assert merged
    assert service._gauges.quarantined.labels("block")._value.get() == 0
    await service.stop()


async def test_the_loop_merges_by_itself(tmp_path: Path) -> None:
    """Two hundred tiny blocks become a handful of pieces without anybody asking."""
    service = service_on(tmp_path, replace(SETTINGS, compact_interval_seconds=0.01))
    await service.start()
    for number in range(200):
        await service.put(block_of(number + 1, plain(number, 1)), OPTIONS)
    for _ in range(500):
        if len(live(service)) < 200 - 2 * 64:
            break
        await asyncio.sleep(0.02)

    assert len(live(service)) < 200 - 2 * 64
    assert len(await messages(service)) == 200
    await service.stop()
