"""Natural batching: while one block of a set of owners is being written, the next one gathers.

A lone request is written at once. Under contention requests gather until the block under way is done, or
there are rows enough, or the oldest has waited `linger_seconds`. A big request is a block of its own, so
that its rows are not copied. Several blocks of one set of owners are under way at once (encode, send and
fsync overlap); they are formed in order of arrival.
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


@dataclass(eq=False, slots=True)
class Lane:
    """What gathers for one (ring epoch, owners), and how many of its blocks are under way."""

    waiting: deque[Submission] = field(default_factory=deque)
    rows: int = 0
    nbytes: int = 0
    in_flight: int = 0
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

    def ripe(self, settings: WriteSettings, now: float) -> bool:
        """Whether the next block need not wait for the one under way."""
        return (
            self.in_flight == 0
            or self.rows >= settings.block_target_rows
            or self.nbytes >= settings.block_max_bytes
            or now - self.waiting[0].queued_at >= settings.linger_seconds
        )


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
            if not lane.ripe(self._settings, now):
                wait = self._settings.linger_seconds - (now - lane.waiting[0].queued_at)
                loop = asyncio.get_running_loop()
                lane.timer = loop.call_later(max(wait, 0.001), self._pump, key, lane)
                return
            lane.in_flight += 1
            self._tasks.spawn("block", self._run(key, lane, lane.take(self._settings)))
        if not lane.waiting and not lane.in_flight:
            self._lanes.pop(key, None)

    async def _run(self, key: LaneKey, lane: Lane, block: list[Submission]) -> None:
        try:
            await self._write(block)
        finally:
            lane.in_flight -= 1
            if not self._closed:
                self._pump(key, lane)

    def _oldest_seconds(self) -> float:
        queued = [lane.waiting[0].queued_at for lane in self._lanes.values() if lane.waiting]
        return self._clock.monotonic() - min(queued) if queued else 0.0
