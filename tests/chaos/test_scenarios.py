"""Real faults on real processes, short: the suite itself works, and the cluster keeps its promises.

A longer run is `quorumlog chaos run`; here one fault or two of a kind. Each run must count: faults
have bitten, requests met them, and enough was acknowledged. Not this machine's speed, but the
verdicts are asserted.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chaos import checkers, lab
from chaos.local_cluster import running_cluster
from chaos.report import as_text
from chaos.runner import run
from chaos.scenarios import scenarios
from node.cli import main
from node.up_process import module_command

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

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


def in_lab(scenario: str, folder: Path, seed: int) -> dict[str, Any]:
    """The verdict of a scenario that needs mounts or a network of its own."""
    words = ["chaos", "run", scenario, "--seconds", "8", "--seed", str(seed)]
    done = subprocess.run(
        module_command(*words, "--data", str(folder), "--json"),
        env=lab.environment(outside=True), capture_output=True, text=True, timeout=220, check=False,
    )  # fmt: skip
    (verdict,) = json.loads(done.stdout)
    if "skipped" in verdict:
        pytest.skip(verdict["skipped"])
    assert done.returncode == 0, verdict["text"]
    return verdict


def test_a_power_cut_of_all_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """What no fsync made durable is proven to be gone; every acknowledged row is there all the same."""
    verdict = in_lab("power-cut-all", tmp_path, 11)

    assert verdict["rows_lost"] == verdict["rows_doubled"] == 0
    assert all("never synced is lost" in one["proof"]["seen"] for one in verdict["faults"])
    assert all(one["healed"] for one in verdict["faults"])


def test_a_node_behind_a_cut_promises_nothing(tmp_path: Path) -> None:
    """A partition by namespaces: the side without a quorum neither acknowledges nor says complete."""
    verdict = in_lab("partition", tmp_path, 5)

    statuses = {one["id"]: one["status"] for one in verdict["invariants"]}
    assert statuses["I9"] != checkers.VIOLATED
    assert "does not reach" in verdict["faults"][0]["proof"]["seen"][0]


async def test_a_node_with_an_empty_disk_is_refused_under_its_old_name(tmp_path: Path) -> None:
    """S6: it ends by itself, is never an owner, and comes back with the old disk."""
    done = await run(scenarios()["wiped-disk"], 3, 5.0, tmp_path, print)

    assert done.passed, as_text(done)
    seen = {one.id: one.status for one in done.verdicts}
    assert seen["S6"] == checkers.HOLDS, as_text(done)


def test_a_cluster_that_is_not_ours_is_attacked_by_its_links_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--server`: the verdict is of this run's rows, whatever else is stored; the nodes run on, untouched."""
    with running_cluster(tmp_path / "theirs") as theirs:
        pids = {node: one.pid for node, one in theirs.running.items()}
        servers = [word for url in theirs.urls for word in ("--server", url)]
        words = ["chaos", "run", "cut-answers", *servers, "--seconds", "5", "--seed", "2", "--json"]

        code = main([*words, "--data", str(tmp_path / "runs")])
        (verdict,) = json.loads(capsys.readouterr().out)

        assert code == 0, verdict["text"]
        assert verdict["rows_acked"]
        assert verdict["rows_lost"] == verdict["rows_doubled"] == 0
        assert {node: one.pid for node, one in theirs.running.items() if one.running} == pids


def test_what_would_break_nodes_of_others_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, nothing is started, and the safe ones are named."""
    words = ["chaos", "run", "kill-one", "--server", "http://127.0.0.1:1", "--data", str(tmp_path)]

    assert main(words) == 2
    told = capsys.readouterr().err
    assert "kill-one would break nodes" in told
    assert "cut-answers" in told


async def test_hundreds_of_thousands_of_rows_are_judged(tmp_path: Path) -> None:
    """`--bulk`: batches of thousands of rows through kills, each row looked for through each node."""
    done = await run(scenarios()["kill-one"], 8, SECONDS, tmp_path, print, bulk=True)

    assert done.passed, as_text(done)
    assert done.figures["rows_in_bulk"] > 50_000, as_text(done)
    bulk = {one.id for one in done.verdicts if "in bulk" in one.text}
    assert {"I1", "I2", "I3", "I4", "I5", "I17"} <= bulk, as_text(done)
