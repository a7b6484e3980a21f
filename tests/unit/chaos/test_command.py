"""`quorumlog chaos` without a cluster: the list, wrong words, what becomes of a run's folder."""

import json
from pathlib import Path

import pytest

from chaos import command, lab
from chaos.net import LinkFailed
from chaos.runner import Run
from chaos.scenarios import Scenario, scenarios
from node.cli import main, parse
from node.cli_errors import CliError
from tests.unit.chaos.histories import clean, everything
from tests.unit.chaos.test_report import made


def run_with(monkeypatch: pytest.MonkeyPatch, outcome: Run | Exception) -> None:
    """Runs of scenarios end with this."""

    async def run(scenario: Scenario, seed: int, seconds: float, folder: Path, *_: object) -> Run:
        (folder / "cluster").mkdir()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(command, "run", run)


def chaos(tmp_path: Path, *words: str) -> int:
    """`quorumlog chaos run …` with its data in a folder."""
    return main(["chaos", "run", *words, "--seed", "5", "--data", str(tmp_path / "runs")])


def test_the_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    """For a person and for a program."""
    assert main(["chaos", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == list(scenarios())

    assert main(["chaos", "list"]) == 0
    assert "kill-one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["kill-two"], "there is no scenario kill-two"),
        (["kill-one", "--seconds", "1"], "--seconds is from 5 to 3600"),
        (["kill-one", "--seconds", "nan"], "--seconds is from 5 to 3600"),
    ],
)
def test_wrong_words_are_refused_before_anything_starts(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and no folder is made."""
    assert chaos(tmp_path, *words) == 2

    assert says in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_passed_run_leaves_its_history_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The nodes' data are removed; the second run gets a folder of its own."""
    run_with(monkeypatch, made(clean()))

    assert chaos(tmp_path, "kill-one") == 0
    assert chaos(tmp_path, "kill-one", "--keep") == 0

    first, second = (tmp_path / "runs" / f"kill-one-5-{number}" for number in (1, 2))
    assert not (first / "cluster").exists()
    assert (second / "cluster").exists()
    assert json.loads((first / "report.json").read_text())["passed"] is True
    assert len((tmp_path / "runs" / "ledger.jsonl").read_text().splitlines()) == 2
    assert "holds     I1" in capsys.readouterr().out


def test_a_failed_run_keeps_everything_and_says_how_to_repeat_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1; the seed is in the advice."""
    run_with(monkeypatch, made(clean(rows=everything()[1:])))

    assert chaos(tmp_path, "kill-one", "--seconds", "20", "--json") == 1

    out, err = capsys.readouterr()
    assert json.loads(out)[0]["rows_acked"] == 45
    assert "quorumlog chaos run kill-one --seed 5 --seconds 20" in err
    assert (tmp_path / "runs" / "kill-one-5-1" / "cluster").exists()


def test_a_run_that_broke_off_has_no_line_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that does not even start is no verdict."""
    run_with(monkeypatch, CliError("node1 ended with exit code 1"))

    assert chaos(tmp_path, "kill-one") == 1
    assert not (tmp_path / "runs" / "ledger.jsonl").exists()


def test_a_fault_server_that_fails_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a disk that cannot be made."""
    run_with(monkeypatch, LinkFailed("no answer in 10 s"))

    assert chaos(tmp_path, "kill-one") == 1
    assert "kill-one: no answer in 10 s" in capsys.readouterr().err


def test_runs_that_were_all_skipped_are_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was tried; beside a run that passed, a skipped one is only told."""
    monkeypatch.setattr(lab, "reason_against_entering", lambda: "needs root")
    run_with(monkeypatch, made(clean()))

    assert chaos(tmp_path, "power-cut", "partition") == 1
    assert "power-cut skipped: needs root" in capsys.readouterr().err
    assert chaos(tmp_path, "power-cut", "kill-one") == 0


def test_a_laboratory_that_does_not_end_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its child is killed."""
    monkeypatch.setattr(lab, "reason_against_entering", lambda: "")
    monkeypatch.setattr(lab, "words_to_enter", lambda _: ["sleep", "60"])
    monkeypatch.setattr(command, "LAB_SECONDS", -19.8)

    assert chaos(tmp_path, "power-cut", "--seconds", "5") == 1
    assert "power-cut did not end within" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file is in the way."""
    (tmp_path / "runs").write_text("")

    assert chaos(tmp_path, "kill-one") == 1
    assert "cannot write into" in capsys.readouterr().err


def test_only_servers_of_the_command_line_are_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the environment are where commands go by default; naming one of them means it."""
    monkeypatch.setenv("QUORUMLOG_SERVER", "http://a:1,http://b:1")

    assert parse(["chaos", "run"]).named_servers == []
    assert parse(["chaos", "run", "--server", "http://a:1"]).named_servers == ["http://a:1"]
