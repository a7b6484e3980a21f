"""Runs scans: admission, deadline, cancellation; a new snapshot where a block turned out damaged. A shell."""

import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pyarrow as pa

from records.errors import BlockCorrupt, DeadlineExceeded, Overloaded
from records.messages import ScanReply, ScanRequest
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.tasks import Workers
from storage.engine import Engine
from storage.gauges import Gauges
from storage.hot import HotSet
from storage.scan import run_scan
from storage.scan_select import as_of, narrowed, take_snapshot
from storage.scanner import Budget, Scanner
from storage.settings import StorageSettings

#: The rows or groups of no shard at all.
_NOTHING = pa.table({})
Reading = Callable[..., Awaitable[tuple[ScanReply, pa.Table]]]


class Scans:
    """Scans of one node. `reading` runs work on a worker and sets damaged blocks aside."""

    def __init__(
        self,
        engine: Engine,
        hot: HotSet,
        workers: Workers,
        reading: Reading,
        settings: StorageSettings,
        clock: Clock,
        gauges: Gauges,
    ) -> None:
        self._engine, self._hot, self._workers, self._reading = engine, hot, workers, reading
        self._settings, self._clock, self._gauges = settings, clock, gauges
        self._running = 0

    async def run(self, request: ScanRequest) -> tuple[ScanReply, pa.Table]:
        """The plan's rows or partial aggregates.

        Raises:
            Overloaded: too many scans run or wait.
            InvalidRequest: a bad regular expression or aggregate.
            DeadlineExceeded: `deadline_ms` passed.
        """
        if self._running >= self._settings.scans_max:
            self._gauges.refused.labels("scans").inc()
            raise Overloaded("too many scans wait", retry_after_seconds=0.5)
        started = self._clock.monotonic()
        deadline = Deadline.after(self._clock, request.deadline_ms / 1000)
        cancelled = threading.Event()
        self._running += 1
        try:
            reply, table = await self._until_whole(request, deadline, cancelled)
        except DeadlineExceeded:
            self._gauges.scan_timeouts.inc()
            raise
        finally:
            self._running -= 1
            cancelled.set()
        self._gauges.count_scan(reply, self._clock.monotonic() - started)
        return reply, table

    async def _until_whole(
        self, request: ScanRequest, deadline: Deadline, cancelled: threading.Event
    ) -> tuple[ScanReply, pa.Table]:
        def expired() -> bool:
            return cancelled.is_set() or deadline.expired

        while True:
            # Of the moment of the snapshot: an earlier one may still have had a shard that has left since.
            ring_epoch = self._engine.ring_epoch
            snapshot = take_snapshot(self._engine.holdings, request)
            narrow = narrowed(self._engine.holdings, request)
            if request.digest_shards and request.plan.received_until is not None:
                snapshot = await self._workers.run(as_of, snapshot, request)
            budget = Budget.of(self._settings, expired, self._workers.share)
            if (
                not request.data_shards
            ):  # digests alone: the snapshot has them, nothing is to be read
                reply = Scanner(snapshot, request, self._hot, budget).reply()
                return replace(reply, ring_epoch=ring_epoch), _NOTHING
            try:
                reply, table = await self._reading(
                    self._workers, run_scan, snapshot, narrow, self._hot, budget
                )
                return replace(reply, ring_epoch=ring_epoch), table
            except BlockCorrupt as error:  # set aside, or merged, by now: a new snapshot knows
                if "ordinal" not in error.details or deadline.expired:
                    raise
