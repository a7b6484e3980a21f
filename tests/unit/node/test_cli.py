"""The command line itself: words, exit codes, advice."""

import os
import subprocess
import sys

import pytest

from node.cli import main, parse


def test_options_may_stand_before_or_after_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """--server may be repeated, and wins over QUORUMLOG_SERVER."""
    monkeypatch.setenv("QUORUMLOG_SERVER", "http://a, http://b")

    assert parse(["status"]).server == ["http://a", "http://b"]
    assert parse(["status", "--server", "c", "--server", "d"]).server == ["c", "d"]
    assert parse(["--server", "c", "status"]).server == ["c"]
    assert parse(["--json", "status"]).json
    assert not parse(["status"]).json


@pytest.mark.parametrize(
    "words",
    [
        [], ["nonsense"], ["query", "--order", "sideways"], ["send"], ["node"],
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And says what is expected."""
    with pytest.raises(SystemExit) as caught:
        main(words)

    assert caught.value.code == 2
    assert "usage: quorumlog" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["query", "--limit", "0"], "--limit is a number from 1"),
        (["query", "--field", "novalue"], "not NAME=VALUE"),
        (["query", "--field", "level=x"], "option of its own"),
        (["query", "--json", "--limit", "20000"], "at most 10000"),
        (["simulate"], "say how much"),
        (["simulate", "--rows", "0"], "at least 1"),
        (["simulate", "--rows", "1", "--start", "nonsense"], "--start"),
        (["send", "/does/not/exist", "--server", "http://127.0.0.1:1"], "no server answers"),
    ],
)
def test_what_cannot_be_is_said_with_advice(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line of what, and never a traceback."""
    assert main(words) in (1, 2)
    told = capsys.readouterr().err
    assert text in told
    assert "Traceback" not in told


def test_no_server_is_exit_code_1_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing listens on port 1."""
    assert main(["status", "--server", "http://127.0.0.1:1"]) == 1
    assert "quorumlog up" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """For people and for scripts."""
    assert main(["version"]) == 0
    assert capsys.readouterr().out == "quorumlog 0.1.0\n"
    assert main(["version", "--json"]) == 0
    assert capsys.readouterr().out == '{\n  "version": "0.1.0"\n}\n'


def run(*words: str, **options: object) -> "subprocess.CompletedProcess[bytes]":
    """The command in a process of its own."""
    command = [sys.executable, "-m", "node", *words]
    return subprocess.run(command, capture_output=True, timeout=30, check=False, **options)  # type: ignore[call-overload]


def test_simulated_bytes_are_the_same_for_the_same_seed() -> None:
    """From one process to the next."""
    first, second = (run("simulate", "--rows", "500", "--seed", "7").stdout for _ in range(2))

    assert first == second
    assert first.count(b"\n") == 500


def test_a_reader_that_has_seen_enough_ends_the_command_quietly() -> None:
    """`quorumlog simulate … | head -1` prints no traceback."""
    command = f"{sys.executable} -m node simulate --rows 300000 --seed 1 | head -1"

    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, timeout=30, check=True, env=os.environ
    )

    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_the_quick_commands_do_not_load_the_store() -> None:
    """`version` must not pay for numpy and Arrow."""
    code = "import sys; from node.cli import main; main(['version']); print('numpy' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=30)

    assert done.stdout.split() == [b"quorumlog", b"0.1.0", b"False"]
