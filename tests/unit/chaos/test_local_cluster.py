"""A cluster that is gone: no fault that is still held may start its nodes again."""

import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chaos import local_cluster
from chaos.breaking import Breaker
from chaos.faults import KINDS, Site
from chaos.local_cluster import LocalCluster, _is_free
from chaos.nemesis import Fault
from chaos.processes import FaultDidNotBite
from node import up_process
from node.cli_errors import CliError


def test_nothing_is_started_after_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a fault is held: the run removes the cluster, then the fault's thread heals it."""
    started: list[str] = []
    monkeypatch.setattr(up_process, "start", lambda plan, **_: started.append(plan.id))
    cluster = LocalCluster(tmp_path / "c", 3)
    cluster.destroy()

    with pytest.raises(CliError, match="the cluster is gone"):
        cluster.start()

    assert started == []
    assert cluster.running == {}


def test_a_node_that_does_not_end_keeps_no_other_alive(tmp_path: Path) -> None:
    """The first hangs on a stalled disk: SIGKILL waits for the disk, and so would all that comes after."""

    class Child:
        def __init__(self, hangs: bool) -> None:
            self.hangs, self.killed = hangs, False

        def poll(self) -> None:
            return None

        def kill(self) -> None:
            self.killed = True

        def wait(self, seconds: float) -> None:
            if self.hangs:
                raise subprocess.TimeoutExpired("node", seconds)

    cluster = LocalCluster(tmp_path / "c", 2)
    children = [Child(True), Child(False)]
    running: Any = zip(cluster.ids, [SimpleNamespace(child=one) for one in children], strict=True)
    cluster.running.update(running)

    with pytest.raises(subprocess.TimeoutExpired):
        cluster.destroy()

    assert all(child.killed for child in children)


def test_ports_that_are_taken_are_not_chosen() -> None:
    """Neither those with a listener nor those that are only bound."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))

        assert not _is_free(taken.getsockname()[1])


def test_a_spare_joins_when_it_is_told_to_and_is_started_again_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others' settings do not name it; once it has left for good nobody starts it again."""
    started: list[tuple[str, bool, bool]] = []

    def start(plan: Any, bootstrap: bool, join: bool, **_: Any) -> Any:
        started.append((plan.id, bootstrap, join))
        child = SimpleNamespace(kill=lambda: None, wait=lambda _: None, poll=lambda: 0, pid=1)
        return SimpleNamespace(plan=plan, child=child, pid=1)

    monkeypatch.setattr(up_process, "start", start)
    monkeypatch.setattr(local_cluster, "wait_ready", lambda *_: None)
    cluster = LocalCluster(tmp_path / "c", 3, data="data", spare=1)
    assert "node4" not in cluster.node("node1").config.read_text()
    cluster.start()
    assert [one for one, _, _ in started] == ["node1", "node2", "node3"]
    started.clear()

    (cluster.data("node4") / "store").mkdir(parents=True)
    cluster.start_fresh("node4")
    assert started == [("node4", False, True)]
    assert not (cluster.data("node4") / "store").exists()
    cluster.end_somehow("node4")
    cluster.start()
    assert started[1:] == [("node4", False, False)]
    cluster.retire("node4")
    cluster.start()
    assert len(started) == 2


def test_a_node_that_does_not_run_cannot_be_broken(tmp_path: Path) -> None:
    """It was not started again after an earlier fault: the next one did not bite, and says so."""
    cluster = LocalCluster(tmp_path / "c", 2)
    site = Site(cluster)

    for kind in ("kill", "pause", "restart", "failpoint"):
        with pytest.raises(FaultDidNotBite, match="node1 does not run"):
            KINDS[kind].bite(site, ("node1",))

    cluster.start = lambda: None  # type: ignore[method-assign] - what undoes it is not looked at
    record = Breaker(cluster, lambda: 1).inject(Fault("kill", ("node1",), 0.0, 0.0))
    assert record.t_bitten is None
    assert record.error == "node1 does not run"


def test_a_cold_start_is_told_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever no node runs, but the first time, and not while one is left."""
    seen: list[str] = []
    node: Any = SimpleNamespace(running=True)
    monkeypatch.setattr(local_cluster, "wait_ready", lambda *_: None)
    monkeypatch.setattr(up_process, "start", lambda plan, **_: seen.append(plan.id) or node)
    cluster = LocalCluster(tmp_path / "c", 2)
    cluster.before_cold_start = lambda: seen.append("cold")

    cluster.start()
    cluster.running.pop("node1")
    cluster.start()
    cluster.running.clear()
    cluster.start()

    assert seen == ["node1", "node2", "node1", "cold", "node1", "node2"]
