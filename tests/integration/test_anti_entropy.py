"""A node that was away catches up by itself: real processes, no read, few bytes; then `quorumlog repair`."""

from pathlib import Path

import pytest

from bench.heal import TINY, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def test_a_node_that_was_away_catches_up_without_a_read(tmp_path: Path) -> None:
    """One of three killed while rows come, started again under load: all stores equal, bytes within bound.

    The bound is that of G12: 1.10 x what the peer's store grew by + 4 KiB a leaf + 16 KiB.
    """
    found = run(TINY, tmp_path / "cluster")

    assert found["refused"] == []
    assert found["lacking"]["rows"] > 0
    assert found["copied"]["stored"] > 0
    assert found["caught_up_seconds_after_ready"] is not None
    assert found["equal_seconds_after_last_row"] is not None
    assert found["copied"]["blocks_bytes"] + found["copied"]["trees_bytes"] <= found["bound_bytes"]
    assert found["copied"]["needless"] * 1000 <= found["copied"]["stored"]
