"""What the doctor says of a machine and of a cluster."""

from pathlib import Path

import pytest

from node import doctor
from node.doctor import (
    Verdict,
    check_disk,
    check_fsync,
    check_python,
    examine,
    judge_clock,
    judge_cluster,
)


def node(name: str, **changes: object) -> dict[str, object]:
    """A storage node as /cluster shows it."""
    return {"id": name, "roles": ["storage"], "alive": True, "status": {}, **changes}


def cluster(*nodes: dict[str, object], unled: tuple[int, ...] = ()) -> dict[str, object]:
    """An answer of GET /cluster with W = 2."""
    return {"nodes": list(nodes), "quorum": {"w": 2}, "shards_without_leader": list(unled)}


FULL = {"storage": {"read_only": True}}


@pytest.mark.parametrize(
    ("state", "verdict", "text"),
    [
        (cluster(node("a"), node("b"), node("c")), Verdict.GOOD, "3 of 3"),
        (cluster(node("a"), node("b"), node("c", alive=False)), Verdict.WARN, "2 of 3"),
        (cluster(node("a"), node("b", alive=False)), Verdict.BAD, "1 of 2"),
        (cluster(node("a"), node("b"), unled=(3,)), Verdict.WARN, "1 shards without leader"),
        (cluster(node("a"), node("b", status=FULL)), Verdict.WARN, "read-only: b"),
    ],
)
def test_a_cluster_is_bad_when_writes_are_refused(
    state: dict[str, object], verdict: Verdict, text: str
) -> None:
    """W = 2 storage nodes are needed; everything else is a warning with advice."""
    found = judge_cluster(state)

    assert (found.verdict, text in found.text) == (verdict, True)
    assert bool(found.advice) == (verdict is not Verdict.GOOD)


def test_clocks_are_judged_by_what_one_exchange_can_tell() -> None:
    """A node's time between our two is no skew at all, however long the exchange took."""
    second = 1_000_000

    assert judge_clock("n", 5 * second, 0, 10 * second).verdict is Verdict.GOOD
    assert judge_clock("n", 13 * second, 0, 10 * second).verdict is Verdict.WARN
    assert judge_clock("n", -3 * second, 0, 10 * second).verdict is Verdict.WARN


def test_an_old_python_is_bad() -> None:
    """3.11 is the oldest."""
    assert check_python((3, 10, 9)).verdict is Verdict.BAD
    assert check_python((3, 11, 0)).verdict is Verdict.GOOD


def test_a_full_disk_and_a_slow_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder need not exist yet: its nearest parent is looked at."""
    monkeypatch.setattr(doctor, "FREE_BYTES_BAD", 1 << 62)
    monkeypatch.setattr(doctor, "FSYNC_SECONDS_SLOW", 0.0)

    disk, fsync = check_disk(tmp_path / "not" / "yet")

    assert disk.verdict is Verdict.BAD
    assert fsync.verdict is Verdict.WARN
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_bad() -> None:
    """/proc takes no files, not even from root."""
    assert check_fsync(Path("/proc")).verdict is Verdict.BAD


async def test_without_a_cluster_the_doctor_says_how_to_start_one(tmp_path: Path) -> None:
    """The machine is looked at all the same."""
    findings = await examine(["http://127.0.0.1:1"], tmp_path)

    assert findings[-1].verdict is Verdict.BAD
    assert "quorumlog up" in findings[-1].advice
    assert len(findings) > 4


def test_the_native_kernels_are_named_if_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their absence costs speed alone: a warning with what to do."""
    monkeypatch.setattr(doctor.native, "_kernel", object())
    assert doctor.check_native().verdict is Verdict.GOOD
    monkeypatch.setattr(doctor.native, "_kernel", None)
    monkeypatch.setattr(doctor.native, "_why", "not installed")
    found = doctor.check_native()
    assert (found.verdict, found.text) == (Verdict.WARN, "not installed")
    assert "make native" in found.advice
