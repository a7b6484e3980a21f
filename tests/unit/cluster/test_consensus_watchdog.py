"""The watchdog's rule: what counts as standing still, and what does not."""

from cluster.consensus_watchdog import WatchdogRule


class Watched:
    """A rule and the numbers that it is shown, every 0.1 s unless said otherwise."""

    def __init__(self) -> None:
        self.rule = WatchdogRule(limit=2.0, fsync_limit=10.0, period=0.1)
        self.now = 100.0
        self.beat = 0.0
        self.applied = self.commit = 5
        self.syncing = False

    def see(self, seconds: float, *, ticking: bool = True, step: float = 0.1) -> str | None:
        """The first reason within `seconds`."""
        for _ in range(round(seconds / step)):
            self.now += step
            self.beat += ticking
            reason = self.rule.observe(
                self.now,
                self.beat,
                self.applied,
                self.commit,
                syncing=self.syncing,
                alive=True,
            )
            if reason:
                return reason
        return None


def test_two_seconds_without_a_tick_end_the_process() -> None:
    """And not 1.9."""
    watched = Watched()
    watched.see(1)

    assert watched.see(1.9, ticking=False) is None
    assert "no tick" in (watched.see(0.5, ticking=False) or "")


def test_a_pause_of_the_whole_process_is_not_held_against_the_tick_thread() -> None:
    """SIGSTOP for an hour: the watchdog did not see it, so it does not count."""
    watched = Watched()
    watched.see(1)

    assert watched.see(3600, ticking=False, step=3600) is None
    assert watched.see(1, ticking=True) is None


def test_a_slow_fsync_has_a_longer_limit() -> None:
    """A slow disk is not a dead thread; a disk that hangs for ten seconds is."""
    watched = Watched()
    watched.see(1)
    watched.syncing = True

    assert watched.see(9, ticking=False) is None
    assert "no tick" in (watched.see(2, ticking=False) or "")


def test_committed_entries_that_are_never_applied_end_the_process() -> None:
    """Progress, however slow, is enough."""
    watched = Watched()
    watched.commit = 50
    for _ in range(30):
        watched.applied += 1
        assert watched.see(1.5) is None

    assert "no progress" in (watched.see(3) or "")


def test_a_dead_tick_thread_ends_the_process_at_once() -> None:
    """PySyncObj ends its thread with the thread that made it."""
    rule = WatchdogRule(limit=2.0, fsync_limit=10.0, period=0.1)

    assert rule.observe(0.0, 0.0, 1, 1, syncing=False, alive=False) == "the tick thread is dead"
