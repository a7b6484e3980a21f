"""Short runs of the scenarios that strike nodes while shards move, or while W and R change: real processes.

Its fellows `drain`, `replace` and `retention` run with `make chaos`.
"""

from pathlib import Path

import pytest

from chaos import checkers
from chaos.report import as_text
from chaos.runner import run
from chaos.scenarios import scenarios

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]


async def test_a_node_that_joins_amid_trouble_costs_nothing(tmp_path: Path) -> None:
    """One change: a second one is refused, somebody is struck in a stage, it ends, all owners agree."""
    done = await run(scenarios()["join"], 2, 5.0, tmp_path, print)

    assert done.passed, as_text(done)
    seen = {one.id for one in done.verdicts if one.status == checkers.HOLDS}
    assert {"I1", "I2", "I3", "I4", "I5", "I8", "R1", "L2"} <= seen, as_text(done)
    (fault,) = done.history.faults
    assert fault.proof["stage"] in fault.targets[0]
    assert fault.proof["struck"] in ("node1", "node2", "node3", "node4")


async def test_w_and_r_change_amid_trouble_and_disks_and_managers_agree(tmp_path: Path) -> None:
    """Judged by the quorum of the time, by dumps of the stores and by the managers' logs."""
    done = await run(scenarios()["quorum"], 7, 5.0, tmp_path, print)

    assert done.passed, as_text(done)
    seen = {one.id for one in done.verdicts if one.status == checkers.HOLDS}
    assert {"I1", "I1d", "I2", "I4", "I8", "I8d", "I10", "R1", "L2"} <= seen, as_text(done)
    (fault,) = done.history.faults
    assert fault.proof["in_force"] == [3, 3, 1]
    assert "409 CHANGE_RUNNING" in fault.proof["second"].values()
