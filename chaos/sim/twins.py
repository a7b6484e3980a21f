"""Stand-ins for what a node has of its machine, and `installed()`, which puts them in place for a run.

Replaced, by name, in the modules that use them: files (`os` of storage), the log's writer thread, worker
threads, the directory with its lock, where the catalog's database lies, reading ahead, CPU time that is
measured, and the numbers that make merging wait for minutes. Everything else is the product's own code.
"""

import asyncio
import errno
import logging
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cluster.sync_loop
import storage.block_files
import storage.compaction
import storage.compaction_plan
import storage.hinting
import storage.hints
import storage.opening
import storage.reclaim
import storage.recovery
import storage.repack
import storage.scrub
import storage.scrub_read
import storage.segment_file
import storage.segment_open
import storage.segment_write
import storage.service
import storage.wal
from chaos.sim.disk import PowerCut, SimDisk, SimPath
from chaos.sim.system import SimOs
from cluster.sync_shards import SyncLimits
from records.errors import BlockCorrupt, StorageFailed
from runtime.logs import Logger
from storage.catalog import Catalog
from storage.holes import HoleRow
from storage.home import Home
from storage.wal import LogHooks, Wal

#: Where something is replaced: in what, under which name, by what.
Place = tuple[Any, str, Any]
#: Virtual seconds from an append to its fdatasync, at least.
SYNC_SECONDS_MIN = 0.0005
#: Virtual seconds that work on a merge takes, before it and after it.
MERGE_SECONDS = 0.01
#: Events logged as errors that no fault explains: a bug in the product.
BUGS = (
    "background task failed", "step failed", "call failed", "operation failed",
    "an append's callback failed", "read repair failed", "block cannot be encoded",
    "copy of a shard failed", "sweep failed", "the state's deletes cannot be read",
)  # fmt: skip


#: Modules that open files, that use threads, that measure the CPU they took.
WITH_FILES = (
    storage.wal, storage.recovery, storage.block_files, storage.hints, storage.segment_file,
    storage.segment_open, storage.segment_write, storage.scrub_read,
)  # fmt: skip
WITH_WORKERS = (storage.service, storage.compaction, storage.hinting, storage.scrub)
WITH_CPU_TIME = (storage.compaction, storage.scrub_read)
#: Numbers that would let nothing of it happen within the seconds and the few entries of a run.
SOON = (
    (storage.compaction_plan, "MANY_BLOCKS", 12),
    (storage.compaction_plan, "SOME_BLOCKS", 4),
    (storage.compaction_plan, "SOME_SECONDS", 0.4),
    (storage.compaction_plan, "FEW_SECONDS", 1.0),
    (storage.compaction_plan, "MANY_SEGMENTS", 3),
    (storage.compaction_plan, "REST_SECONDS", 1.5),
    (storage.compaction, "_GRACE_SECONDS", 0.3),
    (storage.reclaim, "_LOG_SECONDS", 0.7),
    (storage.repack, "GONE_MIN", 24),
    (cluster.sync_loop, "PATIENCE_MAX", 4),
    (cluster.sync_loop, "SyncLimits", partial(SyncLimits, answer_seconds=2.0, fetch_seconds=3.0)),
)


class SimMetrics:
    """Counts by name; everything else is forgotten at once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def counter(self, name: str, *_: object, **__: object) -> "_Metric":
        """A count."""
        return _Metric(self.counts, name)

    gauge = histogram = counter


class _Metric:
    __slots__ = ("_counts", "_name")

    def __init__(self, counts: Counter[str], name: str) -> None:
        self._counts, self._name = counts, name

    def labels(self, *values: object) -> "_Metric":
        """A count of its own."""
        return _Metric(self._counts, " ".join(map(str, (self._name, *values))))

    def inc(self, amount: float = 1, **_: object) -> None:
        """Counts."""
        self._counts[self._name] += int(amount)

    def set(self, *_: object, **__: object) -> None:
        """Gauges are not kept."""

    dec = observe = set

    def set_function(self, _: Callable[[], float]) -> None:
        """Gauges are not kept."""


class SimWorkers:
    """Work of threads, done on the loop a turn later; that of a merge takes time, before and after."""

    def __init__(self, threads: int = 1, name: str = "") -> None:
        del threads
        self._seconds = MERGE_SECONDS if name == "storage-compact" else 0.0

    async def run(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of `work`."""
        await asyncio.sleep(self._seconds)
        try:
            result = work(*args, **kwargs)
        except PowerCut as cut:
            LOST_POWER[str(cut)]()  # cancels this task, too
            raise asyncio.CancelledError from cut
        if self._seconds:
            await asyncio.sleep(self._seconds)
        return result

    def share(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """`work` on each item."""
        return [work(item) for item in items]

    def close(self) -> None:
        """There are no threads."""


class SimWal(Wal):
    """The log, whose writer is a callback of the loop instead of a thread."""

    _disk: SimDisk
    _next: asyncio.TimerHandle | None = None
    dead = False

    def start(self, previous: storage.wal.Position) -> None:
        """As the real one; the thread it starts does nothing."""
        directory: Any = self._directory
        self._disk = directory.disk
        try:
            super().start(previous)
        except PowerCut:
            self._lose_power()

    def resume(self) -> None:
        """As the real one; the power may go meanwhile."""
        try:
            super().resume()
        except PowerCut:
            self._lose_power()

    def append(self, records: Sequence[Any], done: storage.wal.Done) -> None:
        """As the real one; then the writer is called."""
        super().append(records, done)
        self._schedule(self._latency())

    def _latency(self) -> float:
        return self._disk.dice.uniform(SYNC_SECONDS_MIN, self._disk.sync_seconds)

    def _schedule(self, seconds: float) -> None:
        assert self._loop is not None
        if self._next is not None:
            if self._next.when() <= self._loop.time() + seconds:
                return
            self._next.cancel()
        self._next = self._loop.call_later(seconds, self._turn)

    def _turn(self) -> None:
        """One turn of the real writer's loop."""
        self._next = None
        if self.dead:
            return
        batch = list(self._waiting)
        self._waiting.clear()
        try:
            if batch:
                self._write_batch(batch)
            elif self._marks_wait():
                self._mark()
        except PowerCut:
            self._lose_power()
            return
        if self._waiting:
            self._schedule(self._latency())
        elif self._marks_wait():
            self._schedule(self._idle)

    def _lose_power(self) -> None:
        self.dead = True
        LOST_POWER[self._disk.node]()


#: What happens when a node's machine goes off inside a system call; set by the cluster.
LOST_POWER: dict[str, Callable[[], None]] = {}


class SimHome(Home):
    """A node's directory on its SimDisk; the disk belongs to the node."""

    def __init__(self, directory: Any, node_id: str) -> None:
        self.directory = directory
        self.log, self.quarantine = directory / "log", directory / "quarantine"
        self.segments = directory / "segments"
        self.catalog = directory / "catalog.sqlite"
        self.incarnation = f"{node_id}.{directory.disk.wipes}"

    def close(self) -> None:
        """There is no lock."""

    def keep_damaged(self, path: Any, offset: int, length: int) -> None:
        """As the real one; counted."""
        path.disk.counts["blocks set aside"] += 1
        super().keep_damaged(path, offset, length)


class SimCatalog(Catalog):
    """The real catalog in a database in memory; each write leaves an image on the disk."""

    def __init__(self, path: SimPath) -> None:
        self._disk = path.disk
        place: Any = SimpleNamespace(exists=lambda: bool(self._disk.images))
        super().__init__(place)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        if self._disk.images:
            db.deserialize(self._disk.images[-1])
        return db

    def create(self, holes: Iterable[HoleRow] = ()) -> None:
        """Begins empty, but for holes, which are synced."""
        self._disk.images.clear()
        super().create(holes := list(holes))
        if holes and self._db is not None:
            self._disk.images = [self._db.serialize()]

    def write(self, batch: Any) -> None:
        """Writes, and keeps the images of the last three times; removals and holes are synced."""
        super().write(batch)
        assert self._db is not None
        kept = [] if batch.gone or batch.holes else self._disk.images[-2:]
        self._disk.images = [*kept, self._db.serialize()]

    def damage(self) -> str:
        """Nobody damages it."""
        return ""


class Idle:
    """A chore that never comes to work."""

    pause_seconds = 3600.0

    def __init__(self, *_: object, **__: object) -> None:
        """Whatever it is made of."""

    def start(self, *_: object) -> None:
        """Nothing to do."""

    close = thinned = start

    async def step(self) -> None:
        """Nothing to do."""

    async def run(self, *_: object) -> None:
        """Nothing to do."""

    async def apart(self, work: Callable[..., Any], *args: Any) -> Any:
        """Work for others, at once: there are no threads."""
        return work(*args)


class _NoThread:
    def __init__(self, **_: object) -> None:
        """Does nothing."""

    def start(self) -> None:
        """Does nothing."""

    join = start


def hooks(disk: SimDisk) -> LogHooks:
    """The log's system calls on a SimDisk."""
    return LogHooks(disk.sync, disk.write, disk.allocate, lambda: disk.dice.number(1, 1 << 31))


def _explained(error: object) -> bool:
    """Whether a fault of the plan explains an error: a bad or full disk, or damage that was found."""
    bad_disk = isinstance(error, OSError) and error.errno in (errno.EIO, errno.ENOSPC)
    return bad_disk or isinstance(error, BlockCorrupt | StorageFailed)


@contextmanager
def installed(bugs: list[str], merging: bool = True) -> Iterator[None]:
    """Puts the stand-ins in place. Errors logged that no fault explains go into `bugs`."""
    os_twin = SimOs()
    threads = SimpleNamespace(Condition=threading.Condition, Thread=_NoThread)

    def emit(self: Logger, level: int, event: str, fields: dict[str, Any]) -> None:
        if level >= logging.ERROR and event in BUGS and not _explained(fields.get("error")):
            bugs.append(f"{event}: {fields}")

    service = storage.service
    places: list[Place] = [
        *((module, "os", os_twin) for module in WITH_FILES),
        *((module, "Workers", SimWorkers) for module in WITH_WORKERS),
        *((module, "time", SimpleNamespace(thread_time=lambda: 0.0)) for module in WITH_CPU_TIME),
        *((module, name, value) for module, name, value in SOON),
        (storage.wal, "threading", threads),
        (storage.opening, "Catalog", SimCatalog),
        (service, "Home", SimHome),
        (service, "Wal", SimWal),
        (service, "Warmer", Idle),
        (service, "use_steady_memory", lambda: None),
        (Logger, "_emit", emit),
    ]
    if not merging:
        places.append((service, "Compactor", Idle))
    absent = {name: None for name in ("pandas", "dateutil") if name not in sys.modules}
    without = mock.patch.dict(sys.modules, absent)  # Arrow looks for them again and again
    try:
        with replaced(places), without:
            yield
    finally:
        LOST_POWER.clear()


@contextmanager
def replaced(places: Sequence[Place]) -> Iterator[None]:
    """Other things stand in these places while this is open."""
    with ExitStack() as undo:
        for place in places:
            undo.enter_context(mock.patch.object(*place))
        yield
