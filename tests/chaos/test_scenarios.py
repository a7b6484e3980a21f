"""Real faults on real processes, short: the suite itself works, and the cluster keeps its promises.

A longer run is `quorumlog chaos run`; here one fault or two of a kind. Each run must count: faults
have bitten, requests met them, and enough was acknowledged. Not this machine's speed, but the
verdicts are asserted.
"""

import json
from pathlib import Path

import pytest

from chaos import checkers
from chaos.report import as_text
from chaos.runner import run
from chaos.scenarios import scenarios
from node.cli import main

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

SECONDS = 10.0


async def test_a_node_that_is_killed_takes_nothing_with_it(tmp_path: Path) -> None:
    """kill -9 under load: every acknowledged row is read through each node, once, as it was sent."""
    done = await run(scenarios()["kill-one"], 21, SECONDS, tmp_path, print)

    assert done.passed, as_text(done)
    seen = {one.id for one in done.verdicts if one.status == checkers.HOLDS}
    assert {"I1", "I2", "I3", "I4", "I5", "L2"} <= seen, as_text(done)
    assert done.figures["errors_logged"] == 0, done.figures["errors_examples"]


def test_a_node_that_sleeps_is_judged_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`chaos run pause --json`: exit code 0, a verdict for programs, a line in the ledger."""
    words = ["--seconds", str(SECONDS), "--seed", "4", "--data", str(tmp_path), "--json"]

    code = main(["chaos", "run", "pause", *words])

    (verdict,) = json.loads(capsys.readouterr().out)
    assert code == 0, verdict
    assert verdict["passed"]
    assert verdict["rows_lost"] == verdict["rows_doubled"] == 0
    assert all(fault["proof"]["seen"] == "state T" for fault in verdict["faults"])
    (line,) = (tmp_path / "ledger.jsonl").read_text().splitlines()
    assert json.loads(line)["verdict"] == "passed"
    assert not (tmp_path / "pause-4-1" / "cluster").exists()
    assert (tmp_path / "pause-4-1" / "ops.jsonl").exists()
