"""The producer's buffer: every row from `append` until its ack, in order, on disk if a path is given.

`append` may be called from any thread and never waits for the disk: it numbers the row and leaves it
to a writer thread, which writes what has gathered as one frame. Only rows up to `written_till` may
be sent: a row that the network has seen is in the file, so after a crash of the process its seq can
not be given to another row. With `durable` the file is synced before that, which extends the promise
to a power cut; without it, a power cut may take the tail, and the producer then asks for a new epoch.

Rows stay in memory up to `memory_bytes_max`; beyond that they are read back from the file. Acked rows
are kept for a while (`keep_bytes`, `keep_seconds`) for `again`, and survive a restart as the others do.
Space of what is not kept is given back by writing the file anew once enough of it (16 MiB at least) is dead.

Locks: `_io` guards the file and is held during I/O; `_lock` guards the lists and is held for moments;
`_io` is taken first. Why not write in `append`? A slow disk would stall the application's loop.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from pathlib import Path

from . import frames
from .bufferfile import BufferFile
from .errors import BufferFailed, BufferFull, ProducerClosed
from .frames import Meta
from .groups import GROUP_ROWS_MAX, Group, find, group_of, head, parts_within, renumbered
from .kept import KeptGroups
from .opening import open_buffer
from .ranges import Range
from .rows import with_seq

log = logging.getLogger(__name__)

#: Dead bytes from which the file is written anew; higher writes less, lower keeps the file smaller.
_COMPACT_BYTES_MIN = 16 << 20
_RETRY_SECONDS_MAX = 5.0
_DAMAGED = "BUFFER_DAMAGED"


@dataclass(frozen=True, slots=True)
class BufferLimits:
    """`bytes_max`: rows without an ack, beyond it `BufferFull`. `memory_bytes_max`: held in memory.

    `keep_bytes`, `keep_seconds`: acked rows kept for a replay (in memory if there is no file).
    """

    bytes_max: int = 1 << 30
    memory_bytes_max: int = 64 << 20
    durable: bool = False
    keep_bytes: int = 0
    keep_seconds: float = 3600.0


class Buffer:
    """Rows of one producer. `needs_epoch`: ask the cluster for an epoch before the first send."""

    def __init__(
        self,
        path: Path | None,
        service: str,
        producer: str | None,
        limits: BufferLimits,
        on_ready: Callable[[], None],
    ) -> None:
        """Opens or creates the buffer and starts its writer. Blocks on the disk.

        `on_ready` is called, from any thread, when there is something to send or a failure to
        tell; it is called once until `collect_ready` was called.

        Raises:
            BufferLocked, BufferCorrupt, BufferMismatch, BufferFailed.
        """
        self._limits = limits
        self._on_ready = on_ready
        self._io = threading.RLock()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._pending: list[bytes] = []
        self._ready_told = False
        self._ack_dirty = self._closed = self._file_closed = False
        self._regrouping = False  # `_groups` is about to be replaced: pending rows stay pending
        self.write_errors = 0
        self.failure: BufferFailed | None = None
        self._file = BufferFile(path) if path is not None else None
        try:
            found = open_buffer(self._file, service, producer, limits.memory_bytes_max)
        except BaseException:
            if self._file is not None:
                self._file.close()
            raise
        self.meta = found.meta
        self.needs_epoch = found.meta.moving
        self.lost = found.lost
        self._groups = found.groups
        self._live_bytes = sum(group.size_bytes for group in found.groups)
        self._memory_bytes = sum(g.size_bytes for g in found.groups if g.rows is not None)
        self._kept = KeptGroups(limits.keep_bytes, limits.keep_seconds)
        self._dead_bytes = 0
        for group in found.kept:
            self._keep(group)
        self._dead_bytes = max(0, found.good_end - self._live_bytes - self._kept.size_bytes)
        self._next_seq = self.meta.next_seq
        self.written_till = self._next_seq - 1
        self._writer: threading.Thread | None = None
        if self._file is not None:
            name = "quorumlog-buffer"
            self._writer = threading.Thread(target=self._write_loop, name=name, daemon=True)
            self._writer.start()

    # Any thread.

    @property
    def last_seq(self) -> int:
        """The number of the newest row, written or not."""
        return self._next_seq - 1

    @property
    def live_bytes(self) -> int:
        """Bytes of rows without an ack."""
        return self._live_bytes

    @property
    def unwritten(self) -> int:
        """Rows that only memory holds (all of them without a file)."""
        if self._file is None:
            return sum(group.count for group in self._groups) + len(self._pending)
        return len(self._pending)

    def append(self, body: bytes) -> int:
        """Takes a row from `encode_row`; returns its seq. Does no I/O.

        Raises:
            BufferFull: the row was not taken.
            ProducerClosed: after `close`.
        """
        with self._lock:
            if self._closed:
                raise ProducerClosed("the producer is closed")
            if self._live_bytes + len(body) > self._limits.bytes_max:
                text = f"buffer holds {self._live_bytes} bytes without an ack"
                raise BufferFull(text, code="BUFFER_FULL")
            seq = self._next_seq
            self._next_seq = seq + 1
            row = with_seq(body, seq)
            self._pending.append(row)
            self._live_bytes += len(row)
            self._memory_bytes += len(row)
            if self._file is not None:
                if len(self._pending) == 1:
                    self._work.notify()
                return seq
            if len(self._pending) >= GROUP_ROWS_MAX and not self._regrouping:
                self._seal_pending()
            self.written_till = seq
        self._tell_ready()
        return seq

    def _seal_pending(self) -> None:
        rows, self._pending = self._pending, []
        if not rows:
            return
        first = self._next_seq - len(rows)
        self._groups.append(group_of(first, rows))

    def _tell_ready(self) -> None:
        if not self._ready_told:
            self._ready_told = True
            self._on_ready()

    # The sender.

    def collect_ready(self) -> int:
        """The seq up to which rows may be sent; `on_ready` is called for the next ones."""
        self._ready_told = False
        return self.written_till

    def in_memory(self, first: int) -> bool:
        """True if `rows(first, ...)` needs no disk."""
        with self._lock:
            at = find(self._groups, first)
            return at < 0 or self._groups[at].rows is not None

    def rows(self, first: int, last: int, bytes_max: int) -> list[bytes]:
        """Consecutive rows from `first`: one at least, up to `last` and `bytes_max`, perhaps fewer.

        Raises:
            BufferFailed: the file cannot be read.
        """
        found: list[bytes] = []
        size = 0
        while first <= last:
            chunk = self._rows_from(first)
            for row in chunk[: last - first + 1]:
                if found and size + len(row) > bytes_max:
                    return found
                found.append(row)
                size += len(row)
                first += 1
            if not chunk:
                break
        return found

    def _rows_from(self, first: int) -> list[bytes]:
        """The rows from `first` to the end of what holds it."""
        with self._lock:
            at = find(self._groups, first)
            if at < 0:
                pending_first = self._next_seq - len(self._pending)
                return self._pending[first - pending_first :] if first >= pending_first else []
            group = self._groups[at]
            if group.rows is not None:
                return group.rows[first - group.first :]
        with self._io:
            return self._load(group)[first - group.first :]

    def _load(self, group: Group) -> list[bytes]:
        rows = group.rows  # may have been loaded or moved since
        if rows is not None:
            return rows
        assert self._file is not None, "rows leave memory only with a file"
        return frames.decode_rows(self._read_frame(self._file, group)[1].payload)[1]

    def _read_frame(self, file: BufferFile, group: Group) -> tuple[bytes, frames.Frame]:
        """The bytes of the frame of a group that is only in the file, and the frame. Holds `_io`."""
        try:
            data = file.read(group.offset, group.length)
        except OSError as error:
            raise BufferFailed(f"buffer cannot be read: {error}") from error
        frame = frames.frame_at(data, 0)
        if frame is None:
            text = f"buffer {file.path} is damaged at {group.offset}"
            raise BufferFailed(text, code=_DAMAGED)
        return data, frame

    def ack(self, till: int) -> None:
        """Rows up to `till` are durable on a quorum: forget them."""
        with self._lock:
            if till <= self.meta.ack_till:
                return
            self.meta = replace(self.meta, ack_till=till)
            if self._file is None and self._pending and till >= self._next_seq - len(self._pending):
                self._seal_pending()
            done = 0
            while done < len(self._groups) and self._groups[done].last <= till:
                group = self._groups[done]
                self._live_bytes -= group.size_bytes
                if group.rows is not None:
                    self._memory_bytes -= group.size_bytes
                self._keep(group)
                done += 1
            del self._groups[:done]
            self._ack_dirty = True
            self._work.notify()

    def _keep(self, group: Group) -> None:
        """Keeps an acked group as far as the limits allow; the space of others is dead."""
        if self._file is not None:
            group.rows = None
        now = time.monotonic()
        self._kept.add(group, now)
        self._dead_bytes += sum(gone.length for gone in self._kept.evict(now))

    def again(self, first: int, last: int, bytes_max: int) -> tuple[int, list[bytes]]:
        """The first run of rows within first..last that is still here, and where it begins.

        At most `bytes_max` (but one row). No rows: none is here. Blocks on the disk. Kept rows that
        are damaged are gone: they are dropped.

        Raises:
            BufferFailed: the file cannot be read, rows without an ack are damaged, or it is closed.
        """
        start, run, size = last + 1, list[bytes](), 0
        with self._io:
            if self._file_closed:
                raise BufferFailed("the buffer is closed")
            for group in self._held(first, last):
                if run and group.first != start + len(run):
                    break
                rows = self._load_kept(group)
                if rows is None:
                    continue
                begin = max(first, group.first)
                start = start if run else begin
                for row in rows[begin - group.first : last - group.first + 1]:
                    size += len(row)
                    if run and size > bytes_max:
                        return start, run
                    run.append(row)
        return start, run

    def _held(self, first: int, last: int) -> list[Group]:
        """The groups that have something of first..last, with an ack or without; ascending."""
        with self._lock:
            if self._file is None:
                self._seal_pending()
            at = bisect_left(self._groups, first, key=lambda group: group.last)
            waiting = takewhile(lambda group: group.first <= last, islice(self._groups, at, None))
            return [*self._kept.within(first, last), *waiting]

    def _load_kept(self, group: Group) -> list[bytes] | None:
        """The rows of a group; None, and no longer kept, if they are acked and damaged."""
        try:
            return self._load(group)
        except BufferFailed as error:
            with self._lock:
                if error.code != _DAMAGED or not self._kept.drop(group):
                    raise
                self._dead_bytes += group.length
            log.warning("acked rows %d-%d are no longer kept: %s", group.first, group.last, error)
            return None

    # The loss of an identity: see producer.

    def begin_move(self, keep: list[Range]) -> None:
        """Notes durably that only the rows in `keep`, and later ones, wait for a new epoch. Blocks."""
        with self._io:
            self._regroup(seal=self._file is None)
            groups = [
                part
                for group in self._groups
                for part in parts_within(group.first, self._load(group), keep)
            ]
            last = self._groups[-1].last if self._groups else self.meta.ack_till
            next_seq = max(last + 1, self.meta.next_seq)
            self._swap(replace(self.meta, moving=True, next_seq=next_seq), groups)

    def _regroup(self, *, seal: bool) -> None:
        with self._lock:
            if seal:
                self._seal_pending()
            self._regrouping = True

    def finish_move(self, epoch: int) -> None:
        """Renumbers all rows from 1 under `epoch`, durably. Blocks."""
        with self._io:
            self._regroup(seal=False)
            seq = 1
            groups: list[Group] = []
            for group in self._groups:
                groups.append(group_of(seq, renumbered(self._load(group), seq)))
                seq += group.count
            meta = replace(self.meta, epoch=epoch, next_seq=seq, ack_till=0, moving=False)
            self._swap(meta, groups, renumber_pending_from=seq)
            self.needs_epoch = False
            self.lost = []

    def _swap(
        self, meta: Meta, groups: list[Group], renumber_pending_from: int | None = None
    ) -> None:
        """Makes the file hold exactly `groups` under `meta`, then the memory. Holds `_io`."""
        if self._file_closed:  # the caller was cancelled, its thread comes too late
            raise BufferFailed("the buffer is closed")
        if self._file is not None:
            self._replace_file(self._file, meta, groups)
        with self._lock:
            self.meta = meta
            self._groups = groups
            self._regrouping = False
            self._kept.clear()
            if renumber_pending_from is not None:
                first = renumber_pending_from
                self._pending = renumbered(self._pending, first)
                self._next_seq = first + len(self._pending)
                self.written_till = (self._next_seq if self._file is None else first) - 1
            held = sum(group.size_bytes for group in groups)
            pending = sum(map(len, self._pending))
            self._live_bytes = held + pending
            self._memory_bytes = pending + sum(g.size_bytes for g in groups if g.rows is not None)
            self._dead_bytes = 0

    def _replace_file(self, file: BufferFile, meta: Meta, groups: list[Group]) -> None:
        def content() -> Iterator[bytes]:
            yield frames.encode_meta(meta)
            for group in groups:
                rows = group.rows
                if rows is None:
                    yield self._read_frame(file, group)[0]  # as it is: already checked, no decoding
                else:
                    yield frames.encode_rows(group.first, rows)

        try:
            offsets = file.replace(content())[1:]
        except OSError as error:
            raise BufferFailed(f"buffer {file.path} cannot be written: {error}") from error
        ends = [*offsets[1:], file.size]
        for group, offset, end in zip(groups, offsets, ends, strict=False):
            group.offset, group.length = offset, end - offset

    # The writer thread.

    def _write_loop(self) -> None:
        pause = 0.0
        while True:
            with self._lock:
                if pause and not self._closed:
                    self._work.wait(pause)
                while not (self._pending or self._ack_dirty or self._closed):
                    self._work.wait()
                if self._closed and not self._pending and not self._ack_dirty:
                    return
                give_up = self._closed and bool(pause)
            if give_up:
                return
            try:
                self._write_once()
                pause = 0.0
                self.failure = None
            except (OSError, BufferFailed) as error:
                self.write_errors += 1
                pause = min(_RETRY_SECONDS_MAX, 2 * pause or 0.1)
                self.failure = BufferFailed(f"buffer cannot be written: {error}")
                log.error("buffer write failed, next try in %.1f s: %s", pause, error)
                self._tell_ready()

    def _write_once(self) -> None:
        """Writes one group of rows and the ack position; compacts if worth it."""
        file = self._file
        assert file is not None, "the writer runs only with a file"
        with self._io:
            if file.must_replace:
                self._compact(file)
            with self._lock:
                rows = head(self._pending)
                first = self._next_seq - len(self._pending)
                ack_till = self.meta.ack_till if self._ack_dirty else None
                self._ack_dirty = False
            try:
                self._append(file, first, rows, ack_till)
            except OSError:
                self._ack_dirty = self._ack_dirty or ack_till is not None
                raise
            needed = self._live_bytes + 2 * self._kept.size_bytes
            if self._dead_bytes > max(_COMPACT_BYTES_MIN, needed):
                self._compact(file)
        if rows:
            self._tell_ready()

    def _append(self, file: BufferFile, first: int, rows: list[bytes], ack: int | None) -> None:
        mark = b"" if ack is None else frames.encode_ack(ack)
        data = frames.encode_rows(first, rows) if rows else b""
        offset = file.append(mark + data, durable=self._limits.durable and bool(rows)) + len(mark)
        with self._lock:
            self._dead_bytes += len(mark)
            if not rows:
                return
            group = group_of(first, rows, offset, len(data))
            if self._memory_bytes > self._limits.memory_bytes_max:
                group.rows = None
                self._memory_bytes -= group.size_bytes
            self._groups.append(group)
            del self._pending[: len(rows)]
            self.written_till = group.last

    def _compact(self, file: BufferFile) -> None:
        """Writes the file anew with the rows that are still needed. Holds `_io`."""
        try:
            self._rewrite(file)
        except BufferFailed as error:
            if not self._kept.size_bytes:
                raise
            log.warning("acked rows are no longer kept for replay: %s", error)
            with self._lock:
                self._kept.clear()
            self._rewrite(file)

    def _rewrite(self, file: BufferFile) -> None:
        with self._lock:
            groups = [*self._kept.groups(), *self._groups]
            first_pending = self._next_seq - len(self._pending)
            meta = replace(self.meta, next_seq=first_pending)
        self._replace_file(file, meta, groups)
        with self._lock:
            self._dead_bytes = 0

    def close(self) -> None:
        """Writes what is pending, gives back the space of acked rows, closes. Blocks."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._work.notify_all()
        if self._writer is not None:
            self._writer.join()
        if self._file is None:
            return
        with self._io:
            try:
                if not self._groups and not self._pending:
                    self._compact(self._file)
            except BufferFailed as error:  # only space is lost: all rows are acked
                log.warning("buffer not compacted at close: %s", error)
            finally:
                self._file_closed = True
                self._file.close()
