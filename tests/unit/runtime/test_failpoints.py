"""Failpoints: nothing unless armed, the named pass and no other, and every name is in the source."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from records.errors import InvalidSettings
from runtime.failpoints import EXIT_CODE, LOG_VARIABLE, POINTS, VARIABLE, arm, failpoint

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("storage", "cluster", "ingestor", "query", "node")


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """No test leaves one behind."""
    yield
    arm({})


def test_a_place_that_is_not_armed_does_nothing() -> None:
    """Neither without any, nor beside another one."""
    failpoint("wal.roll")
    arm({VARIABLE: "wal.after-sync=eio"})
    failpoint("wal.roll")


def test_the_named_pass_fails_and_no_other(tmp_path: Path) -> None:
    """`@2` is the second pass alone; the place notes its name first."""
    note = tmp_path / "note"
    arm({VARIABLE: "wal.roll=enospc@2; seal.before=eio", LOG_VARIABLE: str(note)})

    failpoint("wal.roll")
    with pytest.raises(OSError, match="failpoint wal") as caught:
        failpoint("wal.roll")
    failpoint("wal.roll")
    for _ in range(2):
        with pytest.raises(OSError, match="failpoint seal"):
            failpoint("seal.before")

    assert caught.value.errno == 28
    assert note.read_text().split() == ["wal.roll", "seal.before", "seal.before"]


def test_a_place_can_hold_its_thread_up() -> None:
    """At least so long; how much longer is the machine's affair."""
    arm({VARIABLE: "wal.roll=sleep:20"})
    started = time.monotonic()

    failpoint("wal.roll")

    assert time.monotonic() - started >= 0.02


@pytest.mark.parametrize("action", ["kill", "exit"])
def test_a_place_ends_the_process(action: str, tmp_path: Path) -> None:
    """By SIGKILL or at once with an exit code; what follows does not happen, what is noted is there."""
    code = "import os; from runtime.failpoints import arm, failpoint; arm(os.environ);"
    code += "failpoint('wal.roll'); print('after')"
    own = {VARIABLE: f"wal.roll={action}", LOG_VARIABLE: str(tmp_path / "note")}

    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **own}, capture_output=True, check=False
    )

    assert done.returncode == (-signal.SIGKILL if action == "kill" else EXIT_CODE)
    assert b"after" not in done.stdout
    assert (tmp_path / "note").read_text() == "wal.roll\n"


@pytest.mark.parametrize(
    "text", ["no.such=kill", "wal.roll", "wal.roll=boom", "wal.roll=kill@x", "wal.roll=sleep:",
             "wal.roll=kill:3"],
)  # fmt: skip
def test_what_cannot_be_armed_is_refused(text: str) -> None:
    """A test that arms nothing by a slip of the pen would prove nothing."""
    with pytest.raises(InvalidSettings, match=VARIABLE):
        arm({VARIABLE: text})


def test_every_point_is_passed_somewhere_and_no_other_name_is_used() -> None:
    """The list that may be armed is that of the calls in the source."""
    called: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            called |= set(re.findall(r'failpoint\("([^"]+)"\)', path.read_text()))
    steps = set()
    for path in (ROOT / "storage").rglob("*.py"):
        steps |= set(re.findall(r'(?<![_\w])(?:self\._)?step\("([a-z ]+)"\)', path.read_text()))
    called |= {f"compact.{step.replace(' ', '-')}" for step in steps}

    assert called == set(POINTS)
