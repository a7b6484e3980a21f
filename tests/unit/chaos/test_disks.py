"""Disks, as far as it needs no laboratory."""

from pathlib import Path

import pytest

from chaos import disks
from chaos.faults.base import wait_for
from chaos.processes import ended_by


def test_a_thaw_leaves_nothing_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dead man's thaw is a shell and its sleep: both end when we thaw ourselves."""
    monkeypatch.setattr(disks, "command", lambda *_: "")
    disk = disks.Disk(tmp_path / "image", tmp_path / "mount", 1 << 20)
    disk.freeze(60.0)
    assert disk._thaw is not None
    shell = disk._thaw.pid
    children = Path(f"/proc/{shell}/task/{shell}/children")
    assert wait_for(lambda: children.read_text().split(), 5)
    (sleep,) = map(int, children.read_text().split())

    disk.thaw()

    assert wait_for(lambda: ended_by(sleep), 5)
    assert ended_by(shell)
