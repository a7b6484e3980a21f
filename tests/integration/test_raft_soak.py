"""A few seconds of `tests.soak`: the long runs are by hand."""

from pathlib import Path

import pytest

from tests.soak import raft_kills

pytestmark = pytest.mark.integration


async def test_managers_killed_again_and_again_keep_every_acknowledged_command(
    tmp_path: Path,
) -> None:
    report = await raft_kills.run(tmp_path, seconds=8.0, seed=5, compaction_entries=60)

    assert report.wrong == []
    assert report.acked > 50
    assert report.kills >= 4
