"""The log: append-only files, one writer thread, one fdatasync for all appends that wait.

Invariant: an append's `done(error=None)` is called only after fdatasync returned for its bytes; the calls
come in log order, on the event loop. After the first failed write or sync a file takes no more (a sync is
never repeated): its waiting appends fail, a new file begins. A second failure in a row ends writing.

What is durable is marked in the log itself: each record carries the offset known to be on disk when it
was written, an idle log gets a COMMIT record, and a file's first record tells where the one before ended.
Source: log_format.py; reliability.md 2.2 and F11 (fsyncgate).
"""

import asyncio
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from records import envelope
from records.errors import Overloaded, StorageFailed
from records.ids import NodeId
from runtime.failpoints import failpoint
from runtime.logs import get_logger
from runtime.metrics import Metrics
from storage.log_format import FORMAT_VERSION, Record, RecordType, encode, frame_bytes, padding

log = get_logger(__name__)
_IOV_MAX = 1024
SUFFIX = ".qlog"
GROUP_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log: file sequence and offset in it. Positions compare in log order."""

    file: int
    offset: int


@dataclass(frozen=True, slots=True)
class Written:
    """Where one record went: its body's place, and the end of the whole record."""

    file: int
    body_offset: int
    end: int


Done = Callable[[list[Written] | None, StorageFailed | None], None]


@dataclass(slots=True)
class _Append:
    records: Sequence[Record]
    metas: list[bytes]
    size: int
    done: Done
    places: list[Written] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LogHooks:
    """The system calls that tests replace."""

    sync: Callable[[int], None] = os.fdatasync
    write: Callable[[int, Sequence[bytes | memoryview], int], int] = os.pwritev
    allocate: Callable[[int, int, int], None] = os.posix_fallocate
    salt: Callable[[], int] = lambda: int.from_bytes(os.urandom(4), "big")


def file_name(sequence: int) -> str:
    """The name of a log file in the log directory."""
    return f"{sequence:08d}{SUFFIX}"


def sync_directory(path: Path) -> None:
    """Makes names created in `path` durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _LogFile:
    """One open file and how far it is written and durable. Used by the writer thread alone."""

    def __init__(self, directory: Path, sequence: int, size: int, hooks: LogHooks) -> None:
        self.sequence, self.hooks, self.size = sequence, hooks, size
        self.salt = hooks.salt()
        self.end = self.durable = 0
        self.path = directory / file_name(sequence)
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            hooks.allocate(self.fd, 0, size)
            sync_directory(directory)
        except OSError:
            os.close(self.fd)
            self.path.unlink(missing_ok=True)
            raise

    def frame(self, record: Record, meta: bytes, out: list[bytes | memoryview]) -> Written:
        """Adds the bytes of `record` to `out`, as if written at `end`; moves `end`."""
        body = len(record.body)
        out.append(encode(record.type, meta, body, self.sequence, self.salt, self.durable))
        body_offset = self.end + len(out[-1])
        zeros = padding(body_offset + body)
        if body:
            out.append(record.body)
        if zeros:
            out.append(bytes(zeros))
        self.end = body_offset + body + zeros
        return Written(self.sequence, body_offset, self.end)

    def write(self, parts: list[bytes | memoryview], at: int) -> None:
        """Writes all of `parts` from offset `at`."""
        pending = deque(memoryview(part).cast("B") for part in parts)
        while pending:
            chunk = [pending[i] for i in range(min(len(pending), _IOV_MAX))]
            count = self.hooks.write(self.fd, chunk, at)
            at += count
            while pending and count >= len(pending[0]):
                count -= len(pending.popleft())
            if count:
                pending[0] = pending[0][count:]

    def sync(self) -> None:
        """fdatasync; all written is durable after it."""
        self.hooks.sync(self.fd)
        self.durable = self.end

    def close(self) -> None:
        """Gives back the preallocated rest, and what never became durable. It is not written again."""
        try:
            os.ftruncate(self.fd, self.durable)
        except OSError as error:
            log.warning("truncating a log file failed", file=self.sequence, error=error)
        os.close(self.fd)
        if not self.durable:
            self.path.unlink(missing_ok=True)


class Wal:
    """The writing side of the log. `append` is called on the event loop, the rest is a thread's work."""

    def __init__(
        self,
        directory: Path,
        node_id: NodeId | str,
        metrics: Metrics,
        *,
        file_bytes: int = 64 << 20,
        waiting_bytes_max: int = 256 << 20,
        idle_seconds: float = 0.1,
        hooks: LogHooks | None = None,
    ) -> None:
        self._directory, self._node_id = directory, str(node_id)
        self._file_bytes, self._waiting_max = file_bytes, waiting_bytes_max
        self._idle, self._hooks = idle_seconds, hooks or LogHooks()
        self._waiting: deque[_Append] = deque()
        self._waiting_bytes = 0
        self._wake = threading.Condition()
        self._stop = False
        self._file: _LogFile | None = None
        self._previous = Position(0, 0)
        self._next_sequence = 1
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._marked = True
        self._failures_in_row = 0
        self.failure: OSError | None = None
        self._declare(metrics)

    def _declare(self, metrics: Metrics) -> None:
        self._bytes = metrics.counter(
            "quorumlog_log_append_bytes_total", "Bytes written to the log"
        )
        self._syncs = metrics.counter("quorumlog_log_syncs_total", "fdatasync calls that returned")
        self._failures = metrics.counter(
            "quorumlog_log_failures_total", "Log files ended by a failed write or sync"
        )
        self._sync_seconds = metrics.histogram(
            "quorumlog_log_sync_seconds", "Time of one fdatasync"
        )
        self._group = metrics.histogram(
            "quorumlog_log_group_appends",
            "Appends made durable by one fdatasync",
            (),
            GROUP_BUCKETS,
        )
        self._queue = metrics.gauge("quorumlog_log_waiting_bytes", "Bytes waiting for the log")

    @property
    def waiting_bytes(self) -> int:
        """Bytes not yet durable."""
        return self._waiting_bytes

    @property
    def failed_for_space(self) -> bool:
        """Whether writing ended because the disk was full."""
        return self.failure is not None and self.failure.errno in (errno.ENOSPC, errno.EDQUOT)

    def start(self, previous: Position) -> None:
        """Opens the first new file and starts the writer. `previous`: the durable end of the last file.

        On a full disk it starts read-only: what is stored can be read, `resume` opens the log later.

        Raises:
            StorageFailed: no file can be opened.
        """
        self._loop = asyncio.get_running_loop()
        self._previous, self._next_sequence = previous, previous.file + 1
        try:
            self._open()
        except OSError as error:
            self.failure = error
            if not self.failed_for_space:
                raise StorageFailed(f"the log cannot be opened: {error}") from error
            log.error("the disk is full: the log is closed", error=error)
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def append(self, records: Sequence[Record], done: Done) -> None:
        """Queues `records`, which stay together; `done` is called on the loop once they are durable.

        Raises:
            Overloaded: too many bytes wait.
            StorageFailed: writing has ended.
        """
        if self.failure is not None or self._stop:
            raise StorageFailed(f"the log takes no more: {self.failure or 'stopped'}")
        metas = [envelope.packb(record.meta) for record in records]
        size = sum(frame_bytes(len(m), len(r.body)) for m, r in zip(metas, records, strict=True))
        with self._wake:
            if self._waiting_bytes and self._waiting_bytes + size > self._waiting_max:
                raise Overloaded("too many bytes wait for the log", retry_after_seconds=0.1)
            self._waiting.append(_Append(records, metas, size, done))
            self._waiting_bytes += size
            self._wake.notify()
        self._queue.set(self._waiting_bytes)

    def resume(self) -> None:
        """Tries a new file after a failure (an operator made room).

        Raises:
            OSError: it fails again.
        """
        with self._wake:
            if self.failure is not None:
                self._open()
                self.failure = None

    async def stop(self) -> None:
        """Writes what waits, then ends."""
        with self._wake:
            self._stop = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            await asyncio.sleep(0)
        self._close_file()

    # -- the writer thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._waiting and not self._stop:
                    self._wake.wait(self._idle if self._marks_wait() else None)
                batch = list(self._waiting)
                self._waiting.clear()
                stop = self._stop
            if batch:
                self._write_batch(batch)
            elif self._marks_wait():
                self._mark()
            if stop and not batch:
                return

    def _marks_wait(self) -> bool:
        """Whether the log's last durable bytes are not yet marked as such by a later record."""
        return self._file is not None and self._file.end > 0 and not self._marked

    def _write_batch(self, batch: list[_Append]) -> None:
        while batch:
            group = self._fitting(batch)
            error = self._write_group(group)
            self._finish(group, error)
            batch = batch[len(group) :]

    def _fitting(self, batch: list[_Append]) -> list[_Append]:
        """The appends at the head of `batch` that go into one file; rolls the file if not even one does."""
        room = self._file.size - self._file.end if self._file else 0
        if batch[0].size > room and self.failure is None:
            self._roll(batch[0].size)
            room = self._file.size - self._file.end if self._file else 0
        group: list[_Append] = []
        for one in batch:
            room -= one.size
            if group and room < 0:
                break
            group.append(one)
        return group

    def _write_group(self, group: list[_Append]) -> StorageFailed | None:
        file = self._file
        if file is None or self.failure is not None:
            return StorageFailed(f"the log takes no more: {self.failure}")
        start, parts = file.end, []
        for one in group:
            for record, meta in zip(one.records, one.metas, strict=True):
                one.places.append(file.frame(record, meta, parts))
        try:
            failpoint("wal.before-write")
            file.write(parts, start)
            failpoint("wal.after-write")
            before = time.monotonic()
            file.sync()
        except OSError as error:
            self._fail(error)
            return StorageFailed(f"the log failed: {error}")
        failpoint("wal.after-sync")
        self._sync_seconds.observe(time.monotonic() - before)
        self._syncs.inc()
        self._bytes.inc(file.end - start)
        self._group.observe(len(group))
        self._marked, self._failures_in_row = False, 0
        return None

    def _finish(self, group: list[_Append], error: StorageFailed | None) -> None:
        with self._wake:
            self._waiting_bytes -= sum(one.size for one in group)
        self._queue.set(self._waiting_bytes)
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_call_all, group, error)
        except RuntimeError as closed:
            log.warning("appends finished after the loop closed", count=len(group), error=closed)

    def _mark(self) -> None:
        """Makes the durable end known to a later reader."""
        file = self._file
        assert file is not None
        parts: list[bytes | memoryview] = []
        start = file.end
        file.frame(Record(RecordType.COMMIT), envelope.packb(None), parts)
        self._marked = True
        if file.end > file.size:
            file.end = start
            return
        try:
            file.write(parts, start)
            file.sync()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Ends the file and begins another; ends the log if that was the second failure in a row."""
        self._failures.inc()
        self._failures_in_row += 1
        log.error("a log file failed", file=self._file and self._file.sequence, error=error)
        if self._failures_in_row > 1:
            self._end(error)
        else:
            self._roll(0)

    def _end(self, error: OSError) -> None:
        self._close_file()
        self.failure = error
        log.error("the log takes no more", error=error)

    def _roll(self, needed: int) -> None:
        self._close_file()
        try:
            failpoint("wal.roll")
            self._open(needed)
        except OSError as error:
            self._end(error)

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        if file.durable:
            self._previous = Position(file.sequence, file.durable)
        file.close()

    def _open(self, needed: int = 0) -> None:
        """A new file with its FILE record (made durable together with the first append)."""
        sequence = self._next_sequence
        self._next_sequence += 1
        size = max(self._file_bytes, needed + 4096)
        file = _LogFile(self._directory, sequence, size, self._hooks)
        parts: list[bytes | memoryview] = []
        meta = {
            "format": FORMAT_VERSION,
            "node": self._node_id,
            "previous": [self._previous.file, self._previous.offset],
        }
        file.frame(Record(RecordType.FILE), envelope.packb(meta), parts)
        try:
            file.write(parts, 0)
        except OSError:
            os.close(file.fd)
            raise
        self._file, self._marked = file, True


def _call_all(group: list[_Append], error: StorageFailed | None) -> None:
    for one in group:
        try:
            one.done(None if error else one.places, error)
        except Exception as failure:  # noqa: BLE001 - one append must not silence its neighbours
            log.error("an append's callback failed", error=failure)
