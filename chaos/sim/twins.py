"""Stand-ins for what a node has of its machine, and `installed()`, which puts them in place for a run.

Replaced, by name, in the modules that use them: files (`os` of storage), the log's writer thread, worker
threads, the directory with its lock, where the catalog's database lies, background chores that only cost or
save time (merging, reading ahead). Everything else is the product's own code.
"""

import asyncio
import logging
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import storage.block_files
import storage.opening
import storage.recovery
import storage.service
import storage.wal
from chaos.sim.disk import PowerCut, SimDisk, SimOs, SimPath
from runtime.logs import Logger
from storage.catalog import Catalog
from storage.compaction import Compactor
from storage.retiring import Retiring
from storage.wal import LogHooks, Wal

#: Where something is replaced: in what, under which name, by what.
Place = tuple[Any, str, Any]
#: Virtual seconds from an append to its fdatasync, at least.
SYNC_SECONDS_MIN = 0.0005
#: Events logged as errors that no fault explains: a bug in the product.
BUGS = (
    "background task failed", "step failed", "call failed", "operation failed",
    "an append's callback failed", "read repair failed", "block cannot be encoded",
    "copy of a shard failed", "sweep failed", "the state's deletes cannot be read",
)  # fmt: skip


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

    def labels(self, *_: object, **__: object) -> "_Metric":
        """The same for all labels."""
        return self

    def inc(self, amount: float = 1, **_: object) -> None:
        """Counts."""
        self._counts[self._name] += int(amount)

    def set(self, *_: object, **__: object) -> None:
        """Gauges are not kept."""

    dec = observe = set

    def set_function(self, _: Callable[[], float]) -> None:
        """Gauges are not kept."""


class SimWorkers:
    """Work of threads, done on the loop a turn later."""

    def __init__(self, threads: int = 1, name: str = "") -> None:
        del threads, name

    async def run(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of `work`."""
        await asyncio.sleep(0)
        return work(*args, **kwargs)

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


class SimHome:
    """A node's directory on its SimDisk; the disk belongs to the node."""

    def __init__(self, directory: SimPath, node_id: str) -> None:
        self.directory = directory
        self.log, self.quarantine = directory / "log", directory / "quarantine"
        self.segments = directory / "segments"
        self.catalog = directory / "catalog.sqlite"
        self.incarnation = node_id

    def close(self) -> None:
        """There is no lock."""

    def last_segment(self) -> int:
        """Nothing is merged."""
        return 0

    def keep_damaged(self, path: SimPath, offset: int, length: int) -> None:
        """Counted."""
        del path, offset, length
        self.directory.disk.counts["blocks set aside"] += 1


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

    def create(self) -> None:
        """Begins empty."""
        self._disk.images.clear()
        super().create()

    def write(self, batch: Any) -> None:
        """Writes, and keeps the images of the last three times."""
        super().write(batch)
        assert self._db is not None
        self._disk.images = [*self._disk.images[-2:], self._db.serialize()]


class _Idle:
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


class SimCompactor(Compactor):
    """Merges nothing and removes no files; gives up the blocks that retention has emptied."""

    def start(self, next_number: int) -> None:
        """Nothing is merged."""

    async def step(self) -> None:
        """Nothing to do."""


async def _nothing_to_erase(_: Retiring) -> bool:
    """Blanking writes segments, which are not simulated."""
    return False


class _NoThread:
    def __init__(self, **_: object) -> None:
        """Does nothing."""

    def start(self) -> None:
        """Does nothing."""

    join = start


def hooks(disk: SimDisk) -> LogHooks:
    """The log's system calls on a SimDisk."""
    return LogHooks(disk.sync, disk.write, disk.allocate, lambda: disk.dice.number(1, 1 << 31))


@contextmanager
def installed(bugs: list[str]) -> Iterator[None]:
    """Puts the stand-ins in place. Errors logged that no fault explains go into `bugs`."""
    os_twin = SimOs()
    threads = SimpleNamespace(Condition=threading.Condition, Thread=_NoThread)

    def emit(self: Logger, level: int, event: str, fields: dict[str, Any]) -> None:
        if level >= logging.ERROR and event in BUGS:
            bugs.append(f"{event}: {fields}")

    service = storage.service
    places: list[Place] = [
        (storage.wal, "os", os_twin),
        (storage.wal, "threading", threads),
        (storage.recovery, "os", os_twin),
        (storage.block_files, "os", os_twin),
        (storage.opening, "Catalog", SimCatalog),
        (service, "Home", SimHome),
        (service, "Wal", SimWal),
        (service, "Workers", SimWorkers),
        (service, "Compactor", SimCompactor),
        (service, "Warmer", _Idle),
        (Retiring, "_erase", _nothing_to_erase),
        (service, "use_steady_memory", lambda: None),
        (Logger, "_emit", emit),
    ]
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
