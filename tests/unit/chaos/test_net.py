"""Links to a fault server that hangs, or fails: the run ends all the same."""

import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chaos import net
from chaos.net import LinkFailed, Links, fault_server
from chaos.processes import ended_by


def links(**proxies: Any) -> Links:
    """Links to these proxies, of a server that nobody asks."""
    made = Links("127.0.0.1:1")
    made._proxies.update(proxies)
    return made


def refuse() -> None:
    raise OSError("gone")


def test_a_server_that_never_answers_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library has no time-outs: the call is left to a thread that the program does not wait for."""
    monkeypatch.setattr(net, "CALL_SECONDS", 0.05)
    released = threading.Event()
    stuck = links(node1=SimpleNamespace(disable=released.wait))

    with pytest.raises(LinkFailed, match="no answer"):
        stuck.cut("node1")

    waiting = [one for one in threading.enumerate() if one.name == "links"]
    assert waiting
    assert all(one.daemon for one in waiting)
    released.set()


def test_a_link_that_cannot_be_removed_keeps_none_of_the_rest() -> None:
    """All are tried, and what is left is named."""
    removed: list[str] = []
    made = links(
        node1=SimpleNamespace(destroy=refuse),
        node2=SimpleNamespace(destroy=lambda: removed.append("node2")),
    )

    with pytest.raises(LinkFailed, match="node1: OSError: gone"):
        made.close()

    assert removed == ["node2"]


def test_a_fault_server_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its input has ended, and it stays: the run must not wait for it for ever."""
    pid_file, program = tmp_path / "pid", tmp_path / "stubborn"
    program.write_text(f"#!/bin/sh\necho $$ > {pid_file}\necho 127.0.0.1:1\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.delenv(net.ENVIRONMENT, raising=False)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(net, "CALL_SECONDS", 0.1)

    with fault_server() as address:
        assert address == "127.0.0.1:1"

    assert ended_by(int(pid_file.read_text()))
