"""Natural batching: while one block of a set of owners is being written, the next one gathers.

A lone request is written at once. Under contention requests gather until the block under way is done, or
there are rows enough, or the oldest has waited `linger_seconds`. Where the block before had several
requests, their senders are about to come again: the next one waits for them, a share of the time that a
block takes (`_Pace`), so that ten small senders cost one block, not three.

A big request is a block of its own, so that its rows are not copied. Several blocks of one set of owners
are under way at once (encode, send and fsync overlap); they are formed in order of arrival.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ingestor.outcomes import Submission
from ingestor.write_metrics import WriteMetrics
from ingestor.write_settings import WriteSettings
from runtime.clock import Clock
from runtime.tasks import Supervisor

LaneKey = tuple[int, tuple[str, ...]]


#: Part of a block's time for which the next one waits for company; the weight of the newest block;
#: how many times `linger_seconds` requests may gather where blocks take that long.
_SHARE, _NEWEST, _STRETCH = 0.5, 0.25, 4


@dataclass(eq=False, slots=True)
class _Pace:
    """What the last blocks say of the next: how long they take, and whether requests come together.

    A pause that brought no company is the last one, until requests meet behind a block again.
    """

    seconds: float = 0.0
    company: bool = False

    def formed(self, requests: int) -> None:
        """A block was formed."""
        self.company = requests > 1

    def done(self, seconds: float) -> None:
        """A block was written."""
        self.seconds += (seconds - self.seconds) * _NEWEST

    def pause(self, linger_seconds: float) -> float:
        """Seconds to wait for company after a block, or after a first request, if nothing is under way."""
        return min(self.seconds * _SHARE, linger_seconds) if self.company else 0.0

    def linger(self, linger_seconds: float) -> float:
        """Seconds that a request waits at most for the blocks under way."""
        if not self.company:
            return linger_seconds
        return min(max(linger_seconds, self.seconds), _STRETCH * linger_seconds)


@dataclass(eq=False, slots=True)
class Lane:
    """What gathers for one (ring epoch, owners), and how many of its blocks are under way."""

    waiting: deque[Submission] = field(default_factory=deque)
    rows: int = 0
    nbytes: int = 0
    in_flight: int = 0
    idle_since: float = 0.0
    timer: asyncio.TimerHandle | None = None

    def add(self, one: Submission) -> None:
        """At the end."""
        self.waiting.append(one)
        self.rows += one.piece.rows
        self.nbytes += one.piece.nbytes

    def take(self, settings: WriteSettings) -> list[Submission]:
        """The submissions of the next block: as many as fit, at least one, a big one alone."""
        taken: list[Submission] = []
        rows = nbytes = 0
        while self.waiting:
            one = self.waiting[0]
            rows += one.piece.rows
            nbytes += one.piece.nbytes
            over = rows > settings.block_max_rows or nbytes > settings.block_max_bytes
            big = one.piece.rows >= settings.block_target_rows
            if taken and (over or big):
                break
            taken.append(self.waiting.popleft())
            if big:
                break
        self.rows -= sum(one.piece.rows for one in taken)
        self.nbytes -= sum(one.piece.nbytes for one in taken)
        return taken

    def wait(self, settings: WriteSettings, pace: _Pace, now: float) -> float:
        """Seconds until the next block is formed at the latest; 0 if it need not wait any more."""
        if self.rows >= settings.block_target_rows or self.nbytes >= settings.block_max_bytes:
            return 0.0
        queued = self.waiting[0].queued_at
        latest = queued + pace.linger(settings.linger_seconds)
        if self.in_flight == 0:
            pause = pace.pause(settings.linger_seconds)
            latest = min(latest, max(queued, self.idle_since) + pause)
        return max(0.0, latest - now)


class Batcher:
    """Gathers submissions into blocks and has them written.

    Args:
        write: writes one block of submissions that share owners and ring epoch; returns once they
            are settled. What it raises is logged by `tasks`; the submissions are failed before.
    """

    def __init__(
        self,
        write: Callable[[list[Submission]], Awaitable[None]],
        settings: WriteSettings,
        clock: Clock,
        tasks: Supervisor,
        metrics: WriteMetrics,
    ) -> None:
        self._write = write
        self._settings = settings
        self._clock = clock
        self._tasks = tasks
        self._metrics = metrics
        self._lanes: dict[LaneKey, Lane] = {}
        self._closed = False
        self._pace = _Pace()
        metrics.queue_rows.set_function(lambda: sum(one.rows for one in self._lanes.values()))
        metrics.queue_bytes.set_function(lambda: sum(one.nbytes for one in self._lanes.values()))
        metrics.queue_age.set_function(self._oldest_seconds)
        metrics.blocks_in_flight.set_function(
            lambda: sum(one.in_flight for one in self._lanes.values())
        )

    def submit(self, submission: Submission) -> None:
        """Takes a submission; never waits. How much may be in here is the caller's bound."""
        key = (submission.piece.ring_epoch, submission.piece.owners)
        submission.queued_at = self._clock.monotonic()
        lane = self._lanes.setdefault(key, Lane())
        lane.add(submission)
        self._pump(key, lane)

    def close(self) -> list[Submission]:
        """Forms no further block; what still gathers is given back, to be failed."""
        self._closed = True
        left: list[Submission] = []
        for lane in self._lanes.values():
            if lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None
            left += lane.waiting
            lane.waiting.clear()
            lane.rows = lane.nbytes = 0
        return left

    def _pump(self, key: LaneKey, lane: Lane) -> None:
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        while lane.waiting and lane.in_flight < self._settings.blocks_in_flight:
            now = self._clock.monotonic()
            wait = lane.wait(self._settings, self._pace, now)
            if wait > 0:
                loop = asyncio.get_running_loop()
                lane.timer = loop.call_later(max(wait, 0.001), self._pump, key, lane)
                return
            lane.in_flight += 1
            block = lane.take(self._settings)
            self._pace.formed(len(block))
            self._tasks.spawn("block", self._run(key, lane, block))
        if not lane.waiting and not lane.in_flight:
            self._lanes.pop(key, None)

    async def _run(self, key: LaneKey, lane: Lane, block: list[Submission]) -> None:
        begun = self._clock.monotonic()
        try:
            await self._write(block)
        finally:
            lane.in_flight -= 1
            lane.idle_since = self._clock.monotonic()
            self._pace.done(lane.idle_since - begun)
            if not self._closed:
                self._pump(key, lane)

    def _oldest_seconds(self) -> float:
        queued = [lane.waiting[0].queued_at for lane in self._lanes.values() if lane.waiting]
        return self._clock.monotonic() - min(queued) if queued else 0.0
