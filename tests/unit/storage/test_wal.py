"""Group commit, rolling, and what a failing disk does: counts of syncs, never durations."""

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from records.errors import Overloaded, StorageFailed
from storage.log_format import Record, RecordType, read_file
from storage.recovery import log_files
from storage.wal import LogHooks, Position
from tests.unit.storage.logs import RunningLog, block_record

FENCE = Record(RecordType.FENCE, [1, 2, "x"])


class Disk:
    """fdatasync that can be held, and that fails at chosen calls."""

    def __init__(self, fail_at: tuple[int, ...] = (), number: int = errno.EIO) -> None:
        self.calls = 0
        self.fail_at, self.number = fail_at, number
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()

    def sync(self, fd: int) -> None:
        """One call."""
        self.asked.set()
        assert self.open.wait(10)
        self.calls += 1
        if self.calls in self.fail_at:
            raise OSError(self.number, os.strerror(self.number))
        os.fdatasync(fd)

    @property
    def hooks(self) -> LogHooks:
        """The hooks of a log on this disk."""
        return LogHooks(sync=self.sync)


def records_in(directory: Path) -> list[tuple[int, int]]:
    """(file, type) of every record in the log."""
    found = []
    for sequence, path in log_files(directory).items():
        scan = read_file(path.read_bytes(), sequence)
        assert not scan.damages
        found += [(sequence, record.type) for record in scan.records]
    return found


async def test_all_that_wait_share_one_sync(tmp_path: Path) -> None:
    """While the first sync is held, nine appends gather; the second sync is for all nine."""
    disk = Disk()
    disk.open.clear()
    async with RunningLog(tmp_path, disk.hooks) as log:
        first = log.begin(FENCE)
        assert await asyncio.to_thread(disk.asked.wait, 10)
        others = [log.begin(block_record(n)) for n in range(9)]
        disk.open.set()
        await asyncio.gather(first, *others)

        assert disk.calls == 2
        assert log.syncs == 2


async def test_appends_become_durable_in_order(tmp_path: Path) -> None:
    """The callbacks come in log order, and the places they carry hold the records."""
    order: list[int] = []
    async with RunningLog(tmp_path) as log:
        futures = [log.begin(block_record(n)) for n in range(20)]
        for number, future in enumerate(futures):
            future.add_done_callback(lambda _, number=number: order.append(number))
        places = await asyncio.gather(*futures)
        await asyncio.sleep(0)

    assert order == list(range(20))
    offsets = [(one[0].file, one[0].body_offset) for one in places]
    assert offsets == sorted(offsets)
    for number, ((file, offset), record) in enumerate(
        zip(offsets, map(block_record, range(20)), strict=True)
    ):
        data = (tmp_path / f"{file:08d}.qlog").read_bytes()
        assert data[offset : offset + len(record.body)] == record.body, number


async def test_a_full_file_rolls_and_tells_where_the_last_one_ended(tmp_path: Path) -> None:
    """Small files: the log spreads over several, each opened by a FILE record with the durable end."""
    async with RunningLog(tmp_path, file_bytes=8192) as log:
        for number in range(20):
            await log.begin(block_record(number))

    files = log_files(tmp_path)
    assert len(files) > 2
    scans = {n: read_file(path.read_bytes(), n) for n, path in files.items()}
    for sequence, scan in scans.items():
        if sequence > 1:
            assert scan.records[0].meta["previous"] == [sequence - 1, scans[sequence - 1].end]


async def test_a_block_larger_than_a_file_gets_a_file_of_its_size(tmp_path: Path) -> None:
    """No block is too large for the log."""
    async with RunningLog(tmp_path, file_bytes=4096) as log:
        big = Record(RecordType.TOLD, "x" * 50_000)

        await log.begin(big)

    assert (2, RecordType.TOLD) in records_in(tmp_path)


async def test_an_idle_log_marks_its_durable_end(tmp_path: Path) -> None:
    """After a pause a COMMIT record stands behind the last append, with its end as durable_upto."""
    async with RunningLog(tmp_path, idle_seconds=0.01) as log:
        (place,) = await log.begin(block_record(1))
        path = tmp_path / "00000001.qlog"
        for _ in range(500):
            await asyncio.sleep(0.005)
            if read_file(path.read_bytes(), 1).records[-1].type == RecordType.COMMIT:
                break

        last = read_file(path.read_bytes(), 1).records[-1]
        assert last.type == RecordType.COMMIT
        assert last.durable_upto == place.end


async def test_a_failed_sync_fails_its_appends_and_ends_the_file(tmp_path: Path) -> None:
    """EIO at the second sync: these appends are unknown, the third goes to a new file; no sync is retried."""
    disk = Disk(fail_at=(2,))
    async with RunningLog(tmp_path, disk.hooks) as log:
        await log.begin(FENCE)
        with pytest.raises(StorageFailed):
            await log.begin(block_record(1))
        (place,) = await log.begin(block_record(2))

        assert place.file == 2
        assert disk.calls == 3
        assert log.wal.failure is None

    assert records_in(tmp_path)[:2] == [(1, RecordType.FILE), (1, RecordType.FENCE)]
    assert (1, RecordType.BLOCK) not in records_in(tmp_path)


async def test_two_failures_in_a_row_end_writing(tmp_path: Path) -> None:
    """The log takes no more, says why, and a failed append is not definite."""
    disk = Disk(fail_at=(1, 2))
    async with RunningLog(tmp_path, disk.hooks) as log:
        for _ in range(2):
            with pytest.raises(StorageFailed) as error:
                await log.begin(FENCE)
            assert not error.value.definite
        with pytest.raises(StorageFailed):
            log.begin(FENCE)

        assert log.wal.failure is not None
        assert not log.wal.failed_for_space
        assert disk.calls == 2


async def test_a_full_disk_ends_writing_until_there_is_room(tmp_path: Path) -> None:
    """ENOSPC twice ends writing; `resume` opens a new file and it goes on."""
    disk = Disk(fail_at=(1, 2), number=errno.ENOSPC)
    async with RunningLog(tmp_path, disk.hooks) as log:
        for _ in range(2):
            with pytest.raises(StorageFailed):
                await log.begin(FENCE)
        assert log.wal.failed_for_space

        log.wal.resume()
        (place,) = await log.begin(FENCE)

        assert place.file == 3


async def test_short_writes_are_continued(tmp_path: Path) -> None:
    """A disk that takes at most 100 bytes a call gets every byte once, in place."""

    def write(fd: int, parts: object, offset: int) -> int:
        return os.pwrite(fd, b"".join(parts)[:100], offset)  # type: ignore[call-overload]

    async with RunningLog(tmp_path, LogHooks(write=write)) as log:
        (place,) = await log.begin(block_record(1))

    data = (tmp_path / "00000001.qlog").read_bytes()
    body = block_record(1).body
    assert data[place.body_offset : place.body_offset + len(body)] == body


async def test_waiting_bytes_are_bounded(tmp_path: Path) -> None:
    """With the disk held, a second append over the bound is refused; it had no effect."""
    disk = Disk()
    disk.open.clear()
    async with RunningLog(tmp_path, disk.hooks, waiting_bytes_max=3000) as log:
        first = log.begin(block_record(1))
        second = Record(RecordType.TOLD, "x" * 3000)
        with pytest.raises(Overloaded) as error:
            log.begin(second)
        disk.open.set()
        await first
        await log.begin(second)

    assert error.value.retry_after_seconds is not None


async def test_no_file_can_be_opened(tmp_path: Path) -> None:
    """A directory that cannot be written to is said at start."""

    def allocate(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EROFS, "read-only file system")

    log = RunningLog(tmp_path, LogHooks(allocate=allocate))

    with pytest.raises(StorageFailed):
        log.wal.start(Position(0, 0))


async def test_a_full_disk_at_start_is_a_log_without_appends(tmp_path: Path) -> None:
    """The node can still be read; once there is room, `resume` opens the log."""
    full = True

    def allocate(fd: int, offset: int, length: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "full")
        os.posix_fallocate(fd, offset, length)

    async with RunningLog(tmp_path, LogHooks(allocate=allocate)) as log:
        with pytest.raises(StorageFailed):
            log.begin(FENCE)
        full = False
        log.wal.resume()

        await log.begin(FENCE)


async def test_stop_writes_what_waits(tmp_path: Path) -> None:
    """Appends queued before `stop` are durable after it; the file gives its preallocated rest back."""
    log = RunningLog(tmp_path)
    log.wal.start(Position(0, 0))
    answers = [log.begin(block_record(n)) for n in range(5)]

    await log.wal.stop()

    assert all(answer.done() for answer in answers)
    assert records_in(tmp_path).count((1, RecordType.BLOCK)) == 5
    assert (tmp_path / "00000001.qlog").stat().st_size < 1 << 16


def test_a_log_that_took_nothing_leaves_no_file(tmp_path: Path) -> None:
    """Starting and stopping again and again does not litter."""

    async def once() -> None:
        async with RunningLog(tmp_path):
            pass

    for _ in range(3):
        asyncio.run(once())

    assert list(tmp_path.iterdir()) == []
