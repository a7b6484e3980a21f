"""A few seconds of `tests.soak`: the long runs are by hand."""

from pathlib import Path

import pytest

from tests.soak import quiet_leader, raft_kills
from tests.soak.quiet_leader import Figures, Sample

pytestmark = pytest.mark.integration


async def test_managers_killed_again_and_again_keep_every_acknowledged_command(
    tmp_path: Path,
) -> None:
    report = await raft_kills.run(tmp_path, seconds=8.0, seed=5, compaction_entries=60)

    assert report.wrong == []
    assert report.acked > 50
    assert report.kills >= 4


@pytest.mark.timeout(180)
def test_interpreters_that_are_held_lose_no_row(tmp_path: Path) -> None:
    """That the leader stays is looked for by long runs: a busy machine may change it."""
    report = quiet_leader.run(tmp_path, seconds=2.0, rows_per_second=600)

    assert report["wrong"] == []
    assert report["rows"] > 0
    assert report["commands"] > 0
    assert all(one["longest_seconds"] >= 0.05 for one in report["holds"].values())


def test_a_change_of_leader_is_told_with_what_came_before_it() -> None:
    """A term that rose: who led, who leads, who waited for a processor, whose maxima rose."""

    def figures(role: str, term: int, elections: int, lag: float, waited: float) -> Figures:
        return Figures(role, term, elections, lag, 0.01, {1: waited, 2: 0.0})

    before = {"a": figures("leader", 3, 0, 0.1, 1.0), "b": figures("follower", 3, 1, 0.1, 2.0)}
    after = {"a": figures("follower", 4, 0, 0.6, 1.75), "b": figures("leader", 4, 2, 0.1, 2.0)}
    silent = [Sample(1.0, {}), Sample(1.5, before)]
    samples = [Sample(0.5, before), *silent, Sample(2.0, after), *silent, Sample(3.0, after)]

    (change,) = quiet_leader.changes(samples)

    assert (change.at, change.term, change.was, change.leader) == (2.0, 4, "a", "b")
    assert change.elections == {"a": 0, "b": 1}
    assert change.waited_seconds == {"a": 0.75, "b": 0.0}
    assert (change.tick_lag_seconds, change.fsync_seconds) == ({"a": 0.6}, {})
    assert quiet_leader.changes(samples[:3]) == []
