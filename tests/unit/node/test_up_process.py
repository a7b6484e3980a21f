"""Processes of a local cluster: found by their command line alone, stopped in order, ports looked at."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import up_process
from node.cli_errors import CliError
from node.up_plan import NodePlan
from node.up_process import NodeProcess, check_ports, find, is_node, stop


def ended(pid: int) -> bool:
    """Whether a process is gone, or has ended and nobody has taken notice yet (a zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def plan(tmp_path: Path) -> NodePlan:
    """A node whose folder exists; its ports are whatever is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return NodePlan("node1", tmp_path, port, port, port)


def sleeper(plan: NodePlan, code: str = "import time; time.sleep(60)") -> NodeProcess:
    """A stand-in for a node: its command line ends with the settings file, as a node's does."""
    child = subprocess.Popen([sys.executable, "-c", code, str(plan.config)])
    plan.pid_file.write_text(f"{child.pid}\n", encoding="ascii")
    return NodeProcess(plan, child.pid, child)


@pytest.fixture
def running(plan: NodePlan) -> Iterator[NodeProcess]:
    """A stand-in that runs, and is gone after the test."""
    process = sleeper(plan)
    yield process
    assert process.child is not None
    process.child.kill()
    process.child.wait()


def test_a_running_node_is_found_again(plan: NodePlan, running: NodeProcess) -> None:
    """By its pid file and its command line."""
    found = find(plan)

    assert found is not None
    assert (found.pid, found.running) == (running.pid, True)


def test_a_recycled_pid_is_no_node_of_ours(plan: NodePlan) -> None:
    """After a reboot another program may have the number: its command line says so."""
    plan.pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")

    assert not is_node(os.getpid(), plan.config)
    assert find(plan) is None


@pytest.mark.parametrize("content", ["", "not a number", "999999999"])
def test_a_useless_pid_file_finds_nothing(plan: NodePlan, content: str) -> None:
    """Empty, damaged, or of a process that is gone."""
    plan.pid_file.write_text(content, encoding="ascii")

    assert find(plan) is None


def test_stopping_is_asked_for_and_clears_the_pid_file(
    plan: NodePlan, running: NodeProcess
) -> None:
    """SIGTERM is enough for a process that listens to it."""
    assert stop([running]) == []
    assert running.exit_code == -signal.SIGTERM
    assert not plan.pid_file.exists()


def test_what_does_not_end_is_killed_and_named(
    plan: NodePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ignores SIGTERM is killed when the time is over."""
    monkeypatch.setattr(up_process, "STOP_SECONDS", 0.3)
    ready = plan.folder / "ready"
    code = (
        "import signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )
    process = sleeper(plan, code)
    while not ready.exists():
        assert process.running

    assert stop([process]) == [process]
    assert process.exit_code == -signal.SIGKILL


def test_a_port_in_use_is_named_with_a_way_out(plan: NodePlan) -> None:
    """The message says port and node; the advice names --port-base."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = NodePlan("node2", plan.folder, port, port, port)

        with pytest.raises(CliError, match=rf"port {port} \(http port of node2\)") as caught:
            check_ports([plan, taken])

    assert "--port-base" in caught.value.hint


def test_children_do_not_inherit_one_nodes_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """QUORUMLOG_NODE__HTTP_PORT in the environment would give all nodes the same port."""
    monkeypatch.setenv("QUORUMLOG_NODE__HTTP_PORT", "1")
    monkeypatch.setenv("QUORUMLOG_STORAGE__CACHE_BYTES", "1024")

    environment = up_process._environment()

    assert "QUORUMLOG_NODE__HTTP_PORT" not in environment
    assert environment["QUORUMLOG_STORAGE__CACHE_BYTES"] == "1024"


def test_a_tied_process_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    """kill -9 of `up` leaves no node behind that holds its ports."""
    code = (
        "import sys, time; from pathlib import Path; from node.up_process import start_process;"
        " words = [sys.executable, '-c', 'import time; time.sleep(60)'];"
        f" child = start_process(words, Path({str(tmp_path / 'log')!r}), tied=True);"
        " print(child.pid, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())

    starter.kill()
    starter.wait()
    starter.stdout.close()

    until = time.monotonic() + 10
    while not ended(pid):
        assert time.monotonic() < until
        time.sleep(0.05)
