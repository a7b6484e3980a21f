"""Work on many items in processes of their own; results come in the order of the items.

A process is forked, so that it begins with all imports done, and works on one item at a time. If it dies (no
memory, a crash in native code, no end) the item is known: its result is a `Died`, and another process goes on
with the rest. Ctrl-C reaches this process alone, which ends them; if this process is killed, they end too.

Not a ProcessPoolExecutor: there one process that dies takes the results of all items with it.
"""

import contextlib
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from node.up_process import end_with_parent

T = TypeVar("T")
R = TypeVar("R")
#: Items for each process that may be done before an earlier one is.
AHEAD = 16
#: Seconds of the wall clock for each second of CPU that an item may take: the machine may be busy.
WALL_FACTOR = 10
_FORK = get_context("fork")


@dataclass(frozen=True, slots=True)
class Died:
    """The result of an item whose process died. `how`: "was ended by SIGKILL", "ended with exit code 1"."""

    how: str


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform.startswith("linux") else os.cpu_count() or 1


def each(
    work: Callable[[T], R], items: Sequence[T], jobs: int, cpu_seconds: int
) -> Generator[R | Died, None, None]:
    """`work` on each item, in `jobs` processes; with one job in this process, where nothing is caught.

    Close it when it is not read to its end (contextlib.closing): its processes end then.

    Args:
        cpu_seconds: of one item at most; WALL_FACTOR as many seconds of the wall clock. Its process is killed
            then. Not with one job.
    """
    jobs = min(jobs, len(items))
    if jobs <= 1:
        yield from map(work, items)
        return
    pool: _Pool[T, R] = _Pool(work, cpu_seconds)
    try:
        yield from pool.run(items, jobs)
    finally:
        pool.end()


@dataclass(eq=False, slots=True)
class _Worker:
    """A process, our end of its pipe, the index of its item, and when it must be done with it."""

    process: Any
    pipe: Any
    index: int = -1
    until: float = 0.0

    def ended(self) -> Died:
        """It will not answer any more: how it ended, which it does now if it has not."""
        late = time.monotonic() >= self.until
        self.kill()
        code = self.process.exitcode
        if late:
            return Died("came to no end")
        if code < 0:
            return Died(f"was ended by {signal.Signals(-code).name}")
        return Died(f"ended with exit code {code}")

    def kill(self) -> None:
        """Ends it."""
        self.pipe.close()
        self.process.join(0.5)  # one that has just ended says why
        self.process.kill()
        self.process.join()


class _Pool(Generic[T, R]):
    """Processes that wait for items, and those that work on one."""

    def __init__(self, work: Callable[[T], R], cpu_seconds: int) -> None:
        self._work, self._cpu_seconds = work, cpu_seconds
        self._idle: list[_Worker] = []
        self._busy: dict[Any, _Worker] = {}

    def run(self, items: Sequence[T], jobs: int) -> Iterator[R | Died]:
        """The results, in order."""
        found: dict[int, R | Died] = {}
        given = told = 0
        while told < len(items):
            until = min(len(items), told + AHEAD * jobs)
            while given < until and len(self._busy) < jobs:
                self._give(given, items[given])
                given += 1
            for worker in self._ready():
                found[worker.index] = self._result(worker)
            while told in found:
                yield found.pop(told)
                told += 1

    def _give(self, index: int, item: T) -> None:
        worker = self._idle.pop() if self._idle else self._begin()
        worker.index = index
        worker.until = time.monotonic() + WALL_FACTOR * self._cpu_seconds
        self._busy[worker.pipe] = worker
        with contextlib.suppress(OSError):  # it was killed while it was idle: seen when it is read
            worker.pipe.send(item)

    def _begin(self) -> _Worker:
        ours, theirs = _FORK.Pipe()
        inherited = [ours, *(one.pipe for one in [*self._idle, *self._busy.values()])]
        args = self._work, theirs, inherited, self._cpu_seconds
        process = _FORK.Process(target=_serve, args=args, daemon=True)
        process.start()
        theirs.close()  # so that ours ends when the process does
        return _Worker(process, ours)

    def _ready(self) -> list[_Worker]:
        """Those that have answered, have ended, or should have."""
        nearest = min(one.until for one in self._busy.values())
        pipes = connection.wait(self._busy, max(0.0, nearest - time.monotonic()))
        now = time.monotonic()
        ready = [one for one in self._busy.values() if one.pipe in pipes or one.until <= now]
        for one in ready:
            del self._busy[one.pipe]
        return ready

    def _result(self, worker: _Worker) -> R | Died:
        try:
            if worker.pipe.poll():
                result: R = worker.pipe.recv()
                self._idle.append(worker)
                return result
        except (EOFError, OSError):
            pass  # it died, in the middle of its answer maybe
        return worker.ended()

    def end(self) -> None:
        """Ends all processes."""
        for worker in (*self._idle, *self._busy.values()):
            worker.process.kill()
        for worker in (*self._idle, *self._busy.values()):
            worker.kill()


def _serve(
    work: Callable[[Any], Any], pipe: Connection, inherited: list[Connection], cpu_seconds: int
) -> None:
    """What a process does, until its pipe ends."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    if sys.platform.startswith("linux"):
        end_with_parent()
    for one in inherited:
        one.close()
    gc.freeze()  # what was imported is never garbage
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        soft = int(time.process_time()) + cpu_seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
        pipe.send(work(item))
