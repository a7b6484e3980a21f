"""`quorumlog chaos sim`: sums are kept, a failing seed says how to see it again, mutants are counted."""

import json
import os
import signal
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from chaos.mutants import MUTANTS, Caught
from chaos.sim import command
from chaos.sim.plan import Plan
from chaos.sim.run import Outcome
from node.cli_errors import FAILED, OK, CliError


def options(folder: Path, **more: Any) -> Namespace:
    """What the command line gives."""
    given = {"seeds": 3, "seed": 5, "mutants": False, "jobs": 1, "json": False}
    given["data"] = str(folder)
    return Namespace(**(given | more))


def outcome(seed: int, *broken: tuple[str, str]) -> Outcome:
    """A run that acknowledged ten rows."""
    return Outcome(seed, Plan(loss=0.1), list(broken), f"{seed:x}", acked=10, reads=2)


@pytest.mark.parametrize("jobs", [1, 2])
def test_sums_are_noted_and_a_failing_seed_is_named(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seed 6 of 5, 6, 7 loses a row; so it is said, whichever process runs it."""
    runs = {6: outcome(6, ("I1", "p0:1 is lost"))}
    monkeypatch.setattr(command, "simulate", lambda seed: runs.get(seed, outcome(seed)))
    monkeypatch.setattr(command, "shrink", lambda one: one)

    code = command.run_simulation(options(tmp_path, jobs=jobs))

    told = capsys.readouterr()
    text = told.out + told.err
    line = json.loads((tmp_path / "sim.jsonl").read_text())
    assert code == FAILED
    assert "quorumlog chaos sim --seed 6 --seeds 1" in text
    assert "I1 p0:1 is lost" in text
    assert (line["first"], line["seeds"], line["failed"], line["acked"]) == (5, 3, [6], 30)


def test_a_seed_whose_process_is_killed_has_failed_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the kernel does when memory is short: the seeds beside it count."""

    def run(seed: int) -> Outcome:
        if seed == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome(seed)

    monkeypatch.setattr(command, "simulate", run)

    code = command.run_simulation(options(tmp_path, jobs=2, seeds=5))

    line = json.loads((tmp_path / "sim.jsonl").read_text())
    assert code == FAILED
    assert (line["seeds"], line["failed"], line["acked"]) == (5, [7], 40)
    assert "seed 7: DIED the process of this seed was ended by SIGKILL" in capsys.readouterr().err


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bug_that_gets_away_fails_the_hunt(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but one are caught."""

    def hunt(mutant: Any, first: int, seeds: int) -> Caught:
        found = None if mutant is MUTANTS[-1] else outcome(first, (mutant.aims[0], "seen"))
        return Caught(mutant, seeds, found)

    monkeypatch.setattr(command, "hunt", hunt)

    assert command.run_simulation(options(tmp_path, mutants=True, jobs=jobs)) == FAILED
    told = capsys.readouterr().err
    assert f"{MUTANTS[-1].name}: NOT CAUGHT" in told
    assert f"{MUTANTS[0].name}: {MUTANTS[0].aims[0]} after 3 seeds" in told


def test_no_seed_is_asked_for_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 seeds would pass whatever is broken."""
    monkeypatch.setattr(command, "simulate", outcome)

    with pytest.raises(CliError, match="--seeds"):
        command.run_simulation(options(tmp_path, seeds=0))
    with pytest.raises(CliError, match="--jobs"):
        command.run_simulation(options(tmp_path, jobs=0))
    assert command.run_simulation(options(tmp_path, seeds=51)) == OK
    assert len((tmp_path / "sim.jsonl").read_text().splitlines()) == 2
