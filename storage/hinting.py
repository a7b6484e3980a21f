"""The hints of a node: what waits to be written, and a HintLog for each absent owner. A shell.

A hint waits in memory for at most a fifth of a second (FLUSH_SECONDS), then it is written and synced with all
others: it never delays a put, and a kill in between loses hints, which loses nothing. Bounds: bytes that
wait, bytes and age on disk for each target, targets; near the free-space floor none is taken, so hints stop
before data does. What is not kept is counted, by reason.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from records.hint import Hint
from runtime.clock import Clock
from runtime.failpoints import failpoint
from runtime.logs import get_logger
from runtime.metrics import Metrics
from runtime.tasks import Workers
from storage.hints import Batch, HintLog, entries_in, targets_of
from storage.settings import StorageSettings

log = get_logger(__name__)
#: Seconds between two writes of what waits.
FLUSH_SECONDS = 0.2
#: Bytes of hints that wait in memory.
WAITING_BYTES_MAX = 8 << 20
#: Owners that can be away at once and be remembered.
TARGETS_MAX = 256
#: Free bytes above the floor below which no hint is taken.
SPARE_BYTES = 64 << 20
_HINT_BYTES = 200


def dropped_counter(metrics: Metrics) -> Any:
    """The counter of what was dropped: here, and where hints are left and delivered (cluster.handoff)."""
    return metrics.counter(
        "quorumlog_hints_dropped_total",
        "Entries of hints that were not kept or not delivered, by reason",
        ("reason",),
    )


class Hints:
    """All hints of a node. Methods run on the event loop, files on a thread of their own."""

    def __init__(
        self,
        directory: Path,
        settings: StorageSettings,
        clock: Clock,
        metrics: Metrics,
        spare_bytes: Callable[[], int],
    ) -> None:
        """`spare_bytes`: free bytes of the disk above its floor."""
        self._directory, self._settings, self._clock = directory, settings, clock
        self._spare = spare_bytes
        self._pool = Workers(1, "storage-hints")
        self._logs: dict[str, HintLog] = {}
        self._waiting: dict[str, list[Hint]] = defaultdict(list)
        self._waiting_bytes = 0
        self._written = metrics.counter(
            "quorumlog_hint_entries_total", "Entries noted for an absent owner", ("target",)
        )
        self.dropped = dropped_counter(metrics)
        self._failures = metrics.counter(
            "quorumlog_hint_failures_total", "Writes of hints that failed, and hints unreadable"
        )
        self._bytes = metrics.gauge(
            "quorumlog_hint_bytes", "Bytes of hints kept for an absent owner", ("target",)
        )

    @property
    def _on(self) -> bool:
        return self._settings.hint_bytes_max > 0

    async def start(self) -> None:
        """Finds the hints of earlier runs, unless none are kept."""
        if not self._on:
            return
        await self._pool.run(self._load)
        self._show()

    def _load(self) -> None:
        try:
            for target in list(targets_of(self._directory))[:TARGETS_MAX]:
                self._logs[target] = HintLog(self._directory, target)
        except OSError as error:
            self._failures.inc()
            log.error("hints cannot be read", error=error)

    async def stop(self) -> None:
        """Writes what waits."""
        await self.flush()
        for one in self._logs.values():
            await self._pool.run(one.close)
        self._pool.close()

    def add(self, hint: Hint) -> None:
        """Keeps a hint, or counts why not. Never waits."""
        size = _HINT_BYTES + 16 * hint.entries
        known = hint.target in self._logs or hint.target in self._waiting
        if not self._on:
            reason = "off"
        elif self._spare() < SPARE_BYTES:
            reason = "disk"
        elif self._waiting_bytes + size > WAITING_BYTES_MAX:
            reason = "queue"
        elif not known and len(self._logs.keys() | self._waiting.keys()) >= TARGETS_MAX:
            reason = "targets"
        else:
            self._waiting[hint.target].append(hint)
            self._waiting_bytes += size
            return
        self.dropped.labels(reason).inc(hint.entries)

    async def flush(self) -> None:
        """Writes and syncs what waits, and drops what is over its bounds."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, defaultdict(list), 0
        if not waiting and not self._logs:
            return
        now = self._clock.wall_micros() / 1e6
        for target, hints in waiting.items():
            if await self._pool.run(self._append, target, hints, now):
                self._written.labels(target).inc(sum(hint.entries for hint in hints))
            else:
                self.dropped.labels("failed").inc(sum(hint.entries for hint in hints))
        for dropped in await self._pool.run(self._trim, now):
            self.dropped.labels("bounds").inc(entries_in(dropped))
        self._show()

    def _append(self, target: str, hints: list[Hint], now: float) -> bool:
        try:
            known = self._logs.get(target)
            if known is None:
                known = self._logs[target] = HintLog(self._directory, target)
            known.append(hints, now)
            failpoint("hint.before-sync")
            known.sync()
            failpoint("hint.after-sync")
        except OSError as error:
            self._failures.inc()
            log.error("hints could not be written", target=target, error=error)
            return False
        return True

    def _trim(self, now: float) -> list[list[Batch]]:
        oldest = now - self._settings.hint_age_seconds_max
        logs = list(self._logs.values())
        return [one.trim(self._settings.hint_bytes_max, oldest) for one in logs]

    def _show(self) -> None:
        for target, size in self.sizes().items():
            self._bytes.labels(target).set(size)

    # -- delivering -------------------------------------------------------------------------------

    def sizes(self) -> dict[str, int]:
        """Bytes on disk by target."""
        return {target: one.size for target, one in self._logs.copy().items()}

    def targets(self) -> list[str]:
        """Owners for which there are hints."""
        return [target for target, size in self.sizes().items() if size]

    async def oldest(self, target: str) -> Batch | None:
        """The oldest hints for a target, a file of them; None if there are none."""
        batch = await self._pool.run(self._logs[target].oldest) if target in self._logs else None
        if batch is not None and batch.damaged:
            self._failures.inc(batch.damaged)
        return batch

    async def done(self, target: str, sequence: int) -> None:
        """The hints of this file are delivered, or of no use."""
        if target in self._logs:
            failpoint("hint.delivered")
            await self._pool.run(self._logs[target].remove, sequence)
            self._show()

    async def forget(self, target: str) -> None:
        """The target is no member any more."""
        found = self._logs.pop(target, None)
        if found is not None:
            self._bytes.labels(target).set(0)
            dropped = await self._pool.run(found.destroy)
            self.dropped.labels("no member").inc(entries_in(dropped))
