"""A short run of the scenario that strikes nodes while shards move: real processes.

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
