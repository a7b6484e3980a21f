"""The scrub: every damage is found, set aside and healed by a put; nothing else is touched."""

import asyncio
import ctypes
import errno
import json
import mmap
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from records.block_codec import EncodedBlock, parse_prefix
from records.errors import DiskFull
from records.messages import EntryStatus, PutOptions, SealRequest
from runtime.metrics import Metrics
from storage import scrub, scrub_read
from storage.catalog import Catalog
from storage.log_format import read_file
from storage.scrub_plan import (
    KNOWN_MAX,
    LOG,
    PAUSE_MAX,
    SEGMENT,
    Cursor,
    LastPass,
    Progress,
    after,
    next_file,
    pace_seconds,
    rest_seconds,
    seconds_until_due,
)
from storage.scrub_read import Read, read_log_window, read_segment
from storage.service import StorageService
from tests.unit.storage.logs import block_record, file_bytes
from tests.unit.storage.samples import (
    OPTIONS,
    SETTINGS,
    Entry,
    block_of,
    messages,
    plain,
    row,
    sequenced,
    service_on,
)

QUIET = replace(SETTINGS, compact=False, warm_cpu_share=0.0, scrub_period_seconds=0.0)
REPAIR = PutOptions(1, repair=True)
BLOCKS = [
    block_of(1, sequenced(1, 40)),
    block_of(2, plain(100, 30), plain(200, 5, shard=3)),
    block_of(3, plain(300, 20)),
]


async def running(directory: Path, **more: object) -> StorageService:
    service = service_on(directory, QUIET, **more)  # type: ignore[arg-type]
    await service.start()
    await service._scrub.start()
    return service


async def whole_pass(service: StorageService) -> int:
    """Runs one full pass; how many damages it found."""
    scrub, before = service._scrub, service._scrub.status()["last_pass_ended"]
    scrub._progress.last = None  # due now
    for _ in range(1000):
        await scrub.step()
        if scrub._progress.last is not None:
            return scrub._progress.last.damaged
    raise AssertionError(f"no end after {before}")


def flip(path: Path, at: int) -> None:
    """Changes one byte of a file, in place: the log may grow meanwhile."""
    with path.open("r+b") as file:
        file.seek(at)
        (found,) = file.read(1)
        file.seek(at)
        file.write(bytes([found ^ 0x10]))


def log_file(directory: Path) -> Path:
    return next(path for path in sorted((directory / "log").iterdir()) if path.stat().st_size)


def place_in_log(directory: Path, block: EncodedBlock) -> int:
    """Offset of a block in the first log file."""
    return log_file(directory).read_bytes().index(bytes(block.data))


def part(block: EncodedBlock, name: str) -> int:
    """Offset of the middle of a part of a block."""
    if name == "prefix":
        return 9
    if name == "frame":
        return -30
    start, end = getattr(parse_prefix(block.data), name)
    return (start + end) // 2


async def test_what_healed_a_block_counts_after_a_crash(tmp_path: Path) -> None:
    """The catalog no longer names the damaged block, although it is not written again by itself."""
    seldom = replace(QUIET, catalog_interval_seconds=3600.0)
    service = service_on(tmp_path / "n", seldom)
    await service.start()
    await service._scrub.start()
    for block in BLOCKS:
        await service.put(block, OPTIONS)
    await service._flusher.flush_all()
    rows = sorted(await messages(service))
    at = place_in_log(tmp_path / "n", BLOCKS[1]) + part(BLOCKS[1], "body")
    flip(log_file(tmp_path / "n"), at)
    assert await whole_pass(service) == 1
    await service.put(BLOCKS[1], REPAIR)
    shutil.copytree(tmp_path / "n", tmp_path / "killed")

    again = await running(tmp_path / "killed")

    assert await whole_pass(again) <= 1  # the bytes that are not in use
    assert sorted(await messages(again)) == rows
    assert again._engine.holdings.quarantined == 1
    await again.stop()
    await service.stop()


async def test_what_stands_behind_the_durable_end_of_a_log_file_is_no_damage(
    tmp_path: Path,
) -> None:
    """A power cut may leave torn bytes behind the end that the next file tells; nobody was promised them."""
    service = await running(tmp_path)
    await service.put(BLOCKS[0], OPTIONS)
    await service.stop()
    service = await running(tmp_path)
    await service.put(BLOCKS[1], OPTIONS)
    with log_file(tmp_path).open("ab") as first:
        first.write(b"torn" * 100)

    assert await whole_pass(service) == 0

    flip(log_file(tmp_path), place_in_log(tmp_path, BLOCKS[0]) + part(BLOCKS[0], "body"))
    assert await whole_pass(service) == 1
    await service.stop()


# -- damage in the log ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frame", "prefix", "header", "sidecar", "body"])
async def test_a_flipped_bit_of_a_block_in_the_log_is_found_and_healed(
    tmp_path: Path, name: str
) -> None:
    """In each part of a block: set aside, missing in digests, not served; a repair put brings it back.

    The pass after it finds nothing more, and so it is after a restart, with and without a catalog.
    """
    metrics = Metrics()
    service = await running(tmp_path, metrics=metrics)
    for block in BLOCKS:
        await service.put(block, OPTIONS)
    rows, digests = sorted(await messages(service)), [service.digest(0), service.digest(3)]
    assert await whole_pass(service) == 0
    flip(log_file(tmp_path), place_in_log(tmp_path, BLOCKS[1]) + part(BLOCKS[1], name))

    assert await whole_pass(service) == 1
    assert metrics.snapshot()['quorumlog_scrub_damaged_total{kind="block"}'] == 1
    assert service.digest(3) != digests[1]
    assert len(await messages(service)) == 60
    assert service.status()["quarantined_blocks"] == 1
    assert await whole_pass(service) == 0
    reply = await service.put(BLOCKS[1], REPAIR)
    assert reply.statuses == (EntryStatus.STORED, EntryStatus.STORED)
    for lost in ("nothing", "catalog"):
        await service.stop()
        if lost == "catalog":
            (tmp_path / "catalog.sqlite").unlink()
        service = await running(tmp_path)
        assert sorted(await messages(service)) == rows
        assert [service.digest(0), service.digest(3)] == digests
        assert await whole_pass(service) == 0
    await service.stop()


async def test_damage_between_blocks_is_written_again_from_memory(tmp_path: Path) -> None:
    """A fence's record is hit: the fence stands, and survives a loss of the catalog all the same."""
    service = await running(tmp_path)
    await service.put(BLOCKS[0], OPTIONS)
    await service.seal(SealRequest(9, 4, "a"))
    await service.put(BLOCKS[2], OPTIONS)
    assert await whole_pass(service) == 0
    scan = read_file(log_file(tmp_path).read_bytes(), 1)
    fence = next(one for one in scan.records if one.type == 3 and one.meta[0] == 9)
    flip(log_file(tmp_path), fence.offset + 46)

    assert await whole_pass(service) == 1
    assert await whole_pass(service) == 0
    assert service.status()["quarantined_blocks"] == 0
    await service.stop()
    (tmp_path / "catalog.sqlite").unlink()
    service = await running(tmp_path)
    assert service.status()["fences"][9] == 4
    assert len(await messages(service)) == 60
    await service.stop()


def test_every_byte_of_the_log_is_verified(tmp_path: Path) -> None:
    """Each byte of a log file flipped in turn: damage is told, but in the zeros between records.

    No undamaged record is lost with it, and windows of any size tell the same.
    """
    data, _ = file_bytes([(block_record(n), 0) for n in range(1, 4)])
    records = read_file(data, 1).records
    path = tmp_path / "00000001.qlog"
    padding = {at for one in records for at in range(one.body_offset + one.body_bytes, one.end)}
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        read = read_log_window(path, 1, 0, len(data))
        assert read.end == len(data)
        assert bool(read.damages) == (at not in padding), at
        lost = [one for one in records if one.offset <= at < one.end]
        kept = [one.body_offset for one in records if one not in lost and one.body_bytes]
        assert all(offset in read.blocks for offset in kept), at


# -- damage to segments and the catalog -----------------------------------------------------------


async def merged(directory: Path) -> tuple[StorageService, Path]:
    """A service whose three blocks are one segment, and that segment's file."""
    service = await running(directory)
    for block in BLOCKS:
        await service.put(block, OPTIONS)
    await service._compactor.merge([one.ordinal for one in service._engine.holdings.blocks])
    (path,) = (directory / "segments").rglob("*.parquet")
    return service, path


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.7, 0.9, 0.97, 1.0])
async def test_a_flipped_bit_of_a_segment_is_found_and_healed(tmp_path: Path, share: float) -> None:
    """In row groups, header, sidecar, mark and footer: the whole segment counts as missing."""
    service, path = await merged(tmp_path)
    digest, rows = service.digest(0), sorted(await messages(service))
    assert await whole_pass(service) == 0
    flip(path, round(share * (path.stat().st_size - 1)))

    assert await whole_pass(service) == 1
    assert not path.exists()
    assert len(list((tmp_path / "quarantine").iterdir())) == 1
    assert await messages(service) == []
    for block in BLOCKS:
        await service.put(block, REPAIR)
    assert service.digest(0) == digest
    assert sorted(await messages(service)) == rows
    assert await whole_pass(service) == 0
    await service.stop()


async def test_every_part_of_a_segment_is_verified(tmp_path: Path) -> None:
    """Some hundred bytes spread over the file: each flip is told."""
    service, path = await merged(tmp_path)
    (place,) = service._engine.holdings.blocks
    data = path.read_bytes()
    assert not read_segment(path, place).damages
    for at in range(0, len(data), max(1, len(data) // 150)):
        flip(path, at)
        assert read_segment(path, place).damages, at
        path.write_bytes(data)
    path.write_bytes(data[:-1])
    assert read_segment(path, place).damages
    path.write_bytes(data)
    await service.stop()


@pytest.mark.parametrize("what", ["segment", "log"])
async def test_a_file_that_vanished_is_missing_entries(tmp_path: Path, what: str) -> None:
    """The catalog names it, the disk has it not: what it held is put again by peers."""
    if what == "segment":
        service, path = await merged(tmp_path)
    else:
        service = await running(tmp_path)
        for block in BLOCKS:
            await service.put(block, OPTIONS)
        path = log_file(tmp_path)
    digest = service.digest(0)
    path.unlink()

    assert await whole_pass(service) == (1 if what == "segment" else 3)
    assert service.digest(0) == (0, bytes(16))
    for block in BLOCKS:
        await service.put(block, REPAIR)
    assert service.digest(0) == digest
    await service.stop()


async def test_the_log_that_vanished_is_written_again_from_memory(tmp_path: Path) -> None:
    """What stood between the blocks is known after a loss of the catalog, too."""
    service = await running(tmp_path)
    await service.put(BLOCKS[0], OPTIONS)
    await service.seal(SealRequest(9, 4, "a"))
    await service.stop()
    service = await running(tmp_path)  # writes to another file from now on
    log_file(tmp_path).unlink()

    assert await whole_pass(service) == 1
    await service.stop()
    (tmp_path / "catalog.sqlite").unlink()
    service = await running(tmp_path)
    assert service.status()["fences"][9] == 4
    await service.stop()


async def test_a_log_file_that_lost_its_end_is_missing_what_stood_there(tmp_path: Path) -> None:
    """An older file, cut under a running node: its last block is set aside, the first one stays."""
    service = await running(tmp_path)
    for block in BLOCKS[:2]:
        await service.put(block, OPTIONS)
    await service.stop()
    service = await running(tmp_path)
    await service.put(BLOCKS[2], OPTIONS)
    cut = log_file(tmp_path)
    last = [one for one in read_file(cut.read_bytes(), 1).records if one.body_bytes][-1]
    os.truncate(cut, last.offset)

    assert await whole_pass(service) == 1
    assert len(await messages(service)) == 60
    assert (await service.put(BLOCKS[1], REPAIR)).statuses == (EntryStatus.STORED,) * 2
    assert await whole_pass(service) == 0
    await service.stop()


async def test_a_pass_goes_on_in_a_log_that_became_shorter(tmp_path: Path) -> None:
    """The progress of before points behind its end: the file is read from its start, nothing is amiss."""
    service = await running(tmp_path)
    await service.put(BLOCKS[0], OPTIONS)
    await service.stop()
    progress = Progress(1.0, Cursor(LOG, 1, 1 << 30))
    (tmp_path / "scrub.json").write_text(json.dumps(progress.to_dict()))
    service = await running(tmp_path)
    while service._scrub.status()["running"]:
        await service._scrub.step()

    last = service._scrub.status()
    assert last["last_pass_damaged"] == 0
    assert last["last_pass_bytes"] > len(BLOCKS[0].data)
    await service.stop()


async def test_what_could_not_be_written_again_is_tried_again(tmp_path: Path) -> None:
    """A damaged fence, and a full disk when it is to be mended: the next step mends it, and counts it."""
    service = await running(tmp_path)
    await service.put(BLOCKS[0], OPTIONS)
    await service.seal(SealRequest(9, 4, "a"))
    await service.put(BLOCKS[2], OPTIONS)
    scan = read_file(log_file(tmp_path).read_bytes(), 1)
    fence = next(one for one in scan.records if one.type == 3 and one.meta[0] == 9)
    flip(log_file(tmp_path), fence.offset + 46)
    scrub = service._scrub
    host, appended = scrub._host, []

    async def full(_: object) -> None:
        raise DiskFull("no room")

    async def append(records: list) -> None:
        appended.extend(records)
        await host.append(records)

    scrub._host = replace(host, append=full)
    with pytest.raises(DiskFull):
        await whole_pass(service)
    assert scrub.pause_seconds >= 1.0  # and not at once
    scrub._host = replace(host, append=append)

    assert await whole_pass(service) == 1
    assert [9, 4, "a"] in [one.meta for one in appended if one.type == 3]
    await service.stop()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
async def test_a_file_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Want of descriptors ends the step, and is no damage; an error of the disk is, and the pass goes on."""
    service, path = await merged(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(scrub_read.os, "open", raising(path, number))
        if number == errno.EMFILE:
            with pytest.raises(OSError, match="Too many open files"):
                await whole_pass(service)
        else:
            assert await whole_pass(service) == 1

    assert service.status()["quarantined_blocks"] == (1 if number == errno.EIO else 0)
    await service.stop()


async def test_a_bad_sector_of_the_log_takes_no_neighbours_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk cannot give one page: the block on it is set aside, those on other pages stay."""
    service = await running(tmp_path)
    large = [row(400 + n, random.Random(n).randbytes(20_000).hex()) for n in range(2)]
    damaged = block_of(4, Entry(large))
    for block in (*BLOCKS, damaged, block_of(5, plain(500, 20))):
        await service.put(block, OPTIONS)
    rows = sorted(await messages(service))
    bad = place_in_log(tmp_path, damaged) + len(damaged.data) // 2
    real = os.pread

    def pread(handle: int, length: int, offset: int) -> bytes:
        if offset <= bad < offset + length:
            raise OSError(errno.EIO, "a bad sector")
        return real(handle, length, offset)

    with monkeypatch.context() as patch:
        patch.setattr(scrub_read.os, "pread", pread)
        assert await whole_pass(service) == 1

    assert sorted(await messages(service)) == [one for one in rows if len(one) < 1000]
    assert (await service.put(damaged, REPAIR)).statuses == (EntryStatus.STORED,)
    assert sorted(await messages(service)) == rows
    await service.stop()


def raising(path: Path, number: int) -> Callable:
    """`os.open`, but not of this file."""
    real = os.open

    def fail(name: object, *args: int) -> int:
        if str(name) == str(path):
            raise OSError(number, os.strerror(number))
        return real(str(name), *args)

    return fail


@pytest.mark.parametrize("column", ["id", "block_id"])
async def test_a_catalog_that_disagrees_with_the_files_is_found(
    tmp_path: Path, column: str
) -> None:
    """An id altered in the catalog while the node was down: what it names is not there, so it is missing."""
    service = await running(tmp_path)
    for block in BLOCKS:
        await service.put(block, OPTIONS)
    digest = service.digest(0)
    await service.stop()
    with sqlite3.connect(tmp_path / "catalog.sqlite") as db:
        if column == "id":
            (entries,) = db.execute("SELECT entries FROM blocks WHERE ordinal = 2").fetchone()
            changed = bytes([entries[0] ^ 1]) + entries[1:]
            db.execute("UPDATE blocks SET entries = ? WHERE ordinal = 2", (changed,))
        else:
            db.execute("UPDATE blocks SET block_id = ? WHERE ordinal = 2", (bytes(16),))
    db.close()
    service = await running(tmp_path)
    if column == "id":
        assert service.digest(0) != digest

    assert await whole_pass(service) == 1
    assert (await service.put(BLOCKS[2], REPAIR)).statuses == (EntryStatus.STORED,)
    assert service.digest(0) == digest
    assert await whole_pass(service) == 0
    await service.stop()


async def test_a_damaged_catalog_is_made_anew(tmp_path: Path) -> None:
    """Pages overwritten under a running node: nothing is lost, the next start finds a whole one."""
    metrics = Metrics()
    service = await running(tmp_path, metrics=metrics)
    for block in BLOCKS:
        await service.put(block, OPTIONS)
    rows = sorted(await messages(service))
    await service.stop()
    slow = replace(QUIET, catalog_interval_seconds=3600.0)  # a flush would find it, and heal it too
    service = service_on(tmp_path, slow, metrics=metrics)
    await service.start()
    await service._scrub.start()
    await service._flusher.flush_all()
    catalog = tmp_path / "catalog.sqlite"
    data = catalog.read_bytes()
    catalog.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))

    assert await whole_pass(service) == 1
    assert metrics.snapshot()['quorumlog_scrub_damaged_total{kind="catalog"}'] == 1
    assert await whole_pass(service) == 0
    await service.stop()
    service = await running(tmp_path)
    assert sorted(await messages(service)) == rows
    await service.stop()


async def test_the_catalog_is_written_while_all_of_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a large one takes long; puts that compare rows and flushes must not wait for it."""
    service = await running(tmp_path)
    reading, go_on = threading.Event(), threading.Event()

    def slow(_: object) -> str:
        reading.set()
        return "" if go_on.wait(20) else "nobody went on"

    monkeypatch.setattr(Catalog, "damage", slow)
    scrub = service._scrub
    scrub._host = service._make_scrub(tmp_path / "x.json", service._files)._host
    under_way = asyncio.create_task(whole_pass(service))
    assert await asyncio.to_thread(reading.wait, 20)
    await service.put(BLOCKS[0], OPTIONS)
    async with asyncio.timeout(10):
        assert await service._flusher.flush_all()

    go_on.set()
    assert await under_way == 0
    await service.stop()


# -- the page cache -------------------------------------------------------------------------------


def cached_pages(path: Path) -> int:
    """How many pages of a file the kernel has in its cache."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as pages:
        found = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
        view = np.frombuffer(pages, np.uint8)
        where = [ctypes.c_void_p(one) for one in (view.ctypes.data, found.ctypes.data)]
        assert ctypes.CDLL(None).mincore(where[0], ctypes.c_size_t(size), where[1]) == 0
        del view
    return int((found & 1).sum())


@pytest.mark.parametrize("kind", [LOG, SEGMENT])
async def test_nothing_is_verified_in_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What rots below a cached page would not show: when reading begins, no page of the range is cached.

    Neither of a segment, whose pieces begin and end within pages, nor of a window of the log.
    """
    service, path = await merged(tmp_path)
    (place,) = service._engine.holdings.blocks
    await service.stop()
    if kind == LOG:
        path = log_file(tmp_path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_pages(path):
        pytest.skip("this file system keeps all pages")
    path.read_bytes()
    assert cached_pages(path)
    cached: list[int] = []

    def watched(name: str) -> None:
        real = getattr(scrub_read, name)

        def look(*args: int) -> object:
            cached.append(cached_pages(path))
            return real(*args)

        monkeypatch.setattr(scrub_read, name, look)

    watched("_read" if kind == LOG else "read_extents")
    if kind == LOG:
        first, second = read_file(path.read_bytes(), 1).records[:2]
        read = read_log_window(path, 1, first.end, second.end)
    else:
        read = read_segment(path, place)

    assert not read.damages
    assert cached == [0]


# -- progress and pace ----------------------------------------------------------------------------


async def test_a_pass_is_taken_up_after_a_restart(tmp_path: Path) -> None:
    """Half of a pass, a restart, the other half: together it read everything once."""
    service, _ = await merged(tmp_path)
    await service.put(block_of(9, plain(900, 9)), OPTIONS)
    await service._scrub.step()
    half = service._scrub.status()
    assert half["running"]
    assert half["bytes"] > 0
    await service.stop()
    service = await running(tmp_path)
    assert service._scrub.status()["bytes"] == half["bytes"]
    while service._scrub.status()["running"]:
        await service._scrub.step()

    last = service.status()["scrub"]
    assert last["last_pass_bytes"] > half["bytes"]
    assert last["last_pass_damaged"] == 0
    await service.stop()


async def test_a_pass_that_cannot_be_planned_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log file goes while they are listed: the next step plans anew, and reads what came since."""
    service = await running(tmp_path)
    await whole_pass(service)
    await service.put(BLOCKS[0], OPTIONS)
    service._scrub._progress.last = None
    with monkeypatch.context() as patch:

        def vanished(_: Path) -> dict[int, int]:
            raise FileNotFoundError("00000001.qlog")

        patch.setattr(scrub, "_log_ends", vanished)
        with pytest.raises(FileNotFoundError):
            await service._scrub.step()
    flip(log_file(tmp_path), place_in_log(tmp_path, BLOCKS[0]) + part(BLOCKS[0], "body"))

    assert await whole_pass(service) == 1
    await service.stop()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 2}', '{"version":1,"cursor":["x",1,2]}']
)
async def test_progress_that_cannot_be_read_means_a_new_pass(tmp_path: Path, text: str) -> None:
    """It is worth nothing but time."""
    (tmp_path / "scrub.json").write_text(text)
    service = await running(tmp_path)
    assert not service._scrub.status()["running"]
    assert await whole_pass(service) == 0
    await service.stop()


def test_progress_there_and_back() -> None:
    """Through JSON; the damaged ranges that are known stay known, and are bounded."""
    progress = Progress(5.0, Cursor(SEGMENT, 7, 3), 100, 2, LastPass(1.0, 2.0, 50, 1))
    assert not progress.knows(1, 2)
    progress.learn(1, 2)

    again = Progress.from_dict(json.loads(json.dumps(progress.to_dict())))

    assert again == progress
    assert again.knows(1, 2)
    for start in range(KNOWN_MAX + 5):
        again.learn(7, start)
    assert len(again.known) == KNOWN_MAX
    assert not again.knows(1, 2)


def test_a_pass_goes_through_logs_then_segments() -> None:
    """Files that are gone are skipped; a file is left when its end was read."""
    logs, segments, limit = [3, 5], [2, 9], 100
    read: Callable[[int], Read] = lambda end: Read(end, 10, 0.0, {})  # noqa: E731
    at, seen = next_file(Cursor(), logs, segments), []
    while at is not None:
        seen.append((at.kind, at.number, at.offset))
        at = next_file(after(at, read(at.offset + 50), limit), logs, segments)

    assert seen == [
        (LOG, 3, 0),
        (LOG, 3, 50),
        (LOG, 5, 0),
        (LOG, 5, 50),
        (SEGMENT, 2, 0),
        (SEGMENT, 9, 0),
    ]
    assert next_file(Cursor(LOG, 4, 70), logs, segments) == Cursor(LOG, 5)
    assert after(Cursor(LOG, 3), Read(0, 0, 0.0, {}, gone=True), limit) == Cursor(LOG, 4)


def test_rests_for_the_cpu_the_disk_and_the_period() -> None:
    """The longest of the three counts (CPU, bytes, what fills the period), never above a cap."""
    read = Read(0, 16_000_000, 0.1, {})
    assert rest_seconds(read, 0.05, 16_000_000, 0.0) == pytest.approx(1.9)
    assert rest_seconds(read, 0.5, 16_000_000, 0.0) == pytest.approx(1.0)
    assert rest_seconds(read, 0.5, 16_000_000, 30.0) == 30.0
    assert rest_seconds(read, 0.5, 16_000_000, 1e9) == PAUSE_MAX
    progress = Progress(began=1000.0, bytes=400)
    assert pace_seconds(progress, 100, 1000, 1000.0 + 300, 1000.0) == pytest.approx(100.0)
    assert pace_seconds(progress, 100, 1000, 1000.0 + 950, 1000.0) == 0.0
    assert pace_seconds(progress, 100, 0, 1000.0, 1000.0) == pytest.approx(900.0)
    # a clock that went back by years: a pass still fills one period, not years
    assert pace_seconds(progress, 100, 1000, -1e9, 1000.0) == pytest.approx(150.0)


def test_a_pass_begins_once_a_period_and_after_a_clock_that_went_back() -> None:
    """The first at once."""
    progress = Progress()
    assert seconds_until_due(progress, 50.0, 100.0) == 0.0
    progress.last = LastPass(50.0, 60.0, 1, 0)
    assert seconds_until_due(progress, 70.0, 100.0) == pytest.approx(80.0)
    assert seconds_until_due(progress, 150.0, 100.0) == 0.0
    assert seconds_until_due(progress, 40.0, 100.0) == 0.0


async def test_rows_that_come_while_it_reads_are_not_taken_for_damage(tmp_path: Path) -> None:
    """Puts between any two steps, over several log files: no damage is ever found."""
    small = replace(QUIET, log_file_bytes=16_384)
    service = service_on(tmp_path, small)
    await service.start()
    await service._scrub.start()
    for number in range(40):
        rows = [row(number * 60 + k, f"m {number} {k}") for k in range(20)]
        await service.put(block_of(number + 1, Entry(rows)), OPTIONS)
        await service._scrub.step()
    while service._scrub.status()["running"]:
        await service._scrub.step()

    assert service.status()["scrub"]["last_pass_damaged"] == 0
    assert service.status()["quarantined_blocks"] == 0
    assert len(list((tmp_path / "log").iterdir())) > 1
    await service.stop()
