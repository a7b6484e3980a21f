"""Sums over ledgers: what counts, what does not, and what cannot be read."""

import json
from pathlib import Path

import pytest

from chaos import ledger
from node.cli import main
from node.cli_errors import CliError

LINE = {
    "scenario": "kill-one", "faults_bitten": 3, "rows_acked": 1000, "rows_lost": 0,
    "rows_doubled": 0, "resends": 7, "violated": [], "counts": True, "verdict": "passed",
}  # fmt: skip


def written(path: Path, *changes: dict[str, object], tail: str = "") -> Path:
    """A ledger with a line for each change."""
    path.write_text("".join(json.dumps(LINE | one) + "\n" for one in changes) + tail)
    return path


def test_runs_of_all_files_are_added_up(tmp_path: Path) -> None:
    """By scenario and in all; a torn last line promised nothing."""
    first = written(tmp_path / "a", {}, {"scenario": "pause"}, tail='{"scenario": "pa')
    second = written(tmp_path / "b", {"rows_acked": 1, "faults_bitten": 1})

    found = ledger.sums([first, second])

    assert found["scenarios"]["kill-one"]["rows_acked"] == 1001
    assert found["all"] == {
        "runs": 3, "failed": 0, "not_counted": 0, "faults_bitten": 7, "rows_acked": 2001,
        "resends": 21, "rows_lost": 0, "rows_doubled": 0,
    }  # fmt: skip
    assert "none failed: at 95 % fewer than 100.0 in 100" in ledger.verdict(found)
    assert ledger.rows(found)[-1][:3] == ["all", "3", "0"]


def test_a_run_that_proves_nothing_is_not_counted_but_a_violation_always_is(tmp_path: Path) -> None:
    """A run whose faults did not bite adds no rows; a lost row is one, however short the run."""
    idle = {"counts": False, "verdict": "failed"}
    lossy = {"counts": False, "verdict": "failed", "violated": ["I1"], "rows_lost": 2}

    found = ledger.sums([written(tmp_path / "a", idle, lossy)])

    assert found["all"]["not_counted"] == 1
    assert (found["all"]["runs"], found["all"]["failed"], found["all"]["rows_lost"]) == (1, 1, 2)
    assert "1 failed" in ledger.verdict(found)


@pytest.mark.parametrize("text", ["{}\n", "no\n", "[1]\n"])
def test_what_is_no_ledger_is_refused_by_line(text: str, tmp_path: Path) -> None:
    """A sum over half a file would be a wrong one."""
    path = written(tmp_path / "a", {}, tail=text)

    with pytest.raises(CliError, match="line 2"):
        ledger.sums([path])


def test_the_command_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For a person, for a program, and without any ledger."""
    written(tmp_path / "ledger.jsonl", {})

    assert main(["chaos", "ledger", "--data", str(tmp_path)]) == 0
    assert "kill-one" in capsys.readouterr().out
    assert main(["chaos", "ledger", "--data", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all"]["runs"] == 1
    assert main(["chaos", "ledger", "--data", str(tmp_path / "none")]) == 1
