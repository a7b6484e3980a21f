"""File descriptors that run out: what a probe shows, on a process of our own."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from chaos.faults import Site, limits
from chaos.processes import FaultDidNotBite


@pytest.fixture
def silent() -> Iterator[Site]:
    """A node that takes connections and never answers, limit or not."""
    words = [sys.executable, "-c", "print(flush=True); input()"]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = SimpleNamespace(host="127.0.0.1", http_port=listener.getsockname()[1])
        cluster: Any = SimpleNamespace(process=lambda _: child, node=lambda _: node)
        yield Site(cluster)
    child.communicate(b"\n")


def test_a_node_that_does_not_answer_anyhow_shows_no_limit(
    silent: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was slow before: nothing is limited, and the fault did not bite."""
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.2)
    child = silent.cluster.process("node1")
    before = limits.resource.prlimit(child.pid, limits.resource.RLIMIT_NOFILE)

    with pytest.raises(FaultDidNotBite, match="before there was a limit"):
        limits.FewFds().bite(silent, ("node1",))

    assert limits.resource.prlimit(child.pid, limits.resource.RLIMIT_NOFILE) == before
