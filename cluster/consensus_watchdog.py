"""The watchdog: ends the process when the Raft thread stands still, so that a supervisor restarts it.

A manager whose Raft thread is dead or stuck would go on serving an ever older state. The rule is
pure; the thread observes every few milliseconds and does what the rule says.
"""

import threading
import time
from dataclasses import dataclass
from typing import Any

from cluster.consensus_failstop import EXIT_WATCHDOG, FailStop
from cluster.consensus_raft import RaftNode


@dataclass(slots=True)
class WatchdogRule:
    """Decides from observations whether the Raft thread stands still.

    Counts only time that the watchdog itself saw pass in small steps: a process that was paused, or
    held up as a whole, has not seen its Raft thread stand still.
    """

    limit: float
    fsync_limit: float
    period: float
    _last: float | None = None
    _pulse: tuple[Any, ...] = ()
    _still: float = 0.0
    _progress: tuple[int, ...] = ()
    _behind: float = 0.0

    def observe(
        self, now: float, beat: float, applied: int, commit: int, *, syncing: bool, alive: bool
    ) -> str | None:
        """The reason to stop, or None."""
        step = 0.0 if self._last is None else min(now - self._last, 2 * self.period)
        self._last = now
        self._still = 0.0 if self._pulse != (beat,) else self._still + step
        self._pulse = (beat,)
        stuck = applied < commit and self._progress == (applied,)
        self._behind = self._behind + step if stuck else 0.0
        self._progress = (applied,)
        if not alive:
            return "the tick thread is dead"
        limit = self.fsync_limit if syncing else self.limit
        if self._still > limit:
            return f"no tick for {self._still:.1f} s"
        if self._behind > limit:
            return f"applied {applied} of {commit}, no progress for {self._behind:.1f} s"
        return None


class Watchdog:
    """A thread that ends the process when the rule says so."""

    def __init__(self, node: RaftNode, rule: WatchdogRule, stop: FailStop) -> None:
        self._node = node
        self._rule = rule
        self._stop_process = stop
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raft watchdog", daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Ends watching; returns when the thread is gone."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        node = self._node
        while not self._ended.wait(self._rule.period):
            reason = self._rule.observe(
                time.monotonic(),
                node.beat,
                node.raftLastApplied,
                node.raftCommitIndex,
                syncing=node.journal.syncing,
                alive=node.tick_thread_alive(),
            )
            if reason is not None:
                self._stop_process(EXIT_WATCHDOG, reason)
