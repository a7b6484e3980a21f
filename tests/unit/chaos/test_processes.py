"""Signals with proof, on small processes of our own: killed, stopped, gone before, not ours."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import deadman, processes
from chaos.processes import FaultDidNotBite, state
from node.up_plan import NodePlan
from node.up_process import NodeProcess

SLEEPER = "import time, sys; print('up', flush=True); time.sleep(60)"


def plan(folder: Path) -> NodePlan:
    """The plan of a node that is only a name here."""
    return NodePlan("node1", folder, 1, 2, 3)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A process of ours that looks like a node: its command line names the settings file."""
    child = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(plan(tmp_path).config)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    yield NodeProcess(plan(tmp_path), child.pid, child)
    child.kill()
    child.wait()
    child.stdout.close()


def test_a_kill_is_over_when_the_process_is_gone(node: NodeProcess) -> None:
    """waitpid says that SIGKILL ended it."""
    assert processes.kill([node]) == [node.pid]

    assert node.exit_code == -9
    assert processes.ended_by(node.pid)


def test_a_pause_is_over_when_the_process_is_stopped_and_ends_on_resume(node: NodeProcess) -> None:
    """The process table says T; afterwards anything else."""
    assert processes.pause([node]) == [node.pid]
    assert state(node.pid) == "T"
    assert not processes.ended_by(node.pid)

    processes.resume([node])
    assert state(node.pid) in "SRD"


def test_a_paused_process_can_be_killed(node: NodeProcess) -> None:
    """SIGKILL needs no cooperation."""
    processes.pause([node])
    processes.kill([node])

    assert state(node.pid) == ""


def test_what_ended_by_itself_was_not_killed_by_us(node: NodeProcess) -> None:
    """A fault that found nobody must not be counted."""
    assert node.child is not None
    node.child.terminate()
    node.child.wait()

    for act in (processes.kill, processes.pause, processes.resume):
        with pytest.raises(FaultDidNotBite, match="ended by itself, exit code -15"):
            act([node])


def test_a_process_of_others_is_left_alone(node: NodeProcess) -> None:
    """Only children of this run are ever signalled."""
    stranger = NodeProcess(node.plan, node.pid, None)

    for act in (processes.kill, processes.pause, processes.resume):
        with pytest.raises(FaultDidNotBite, match="not started by this run"):
            act([stranger])
    assert node.running


def test_there_is_no_state_of_what_is_not_there(node: NodeProcess) -> None:
    """Neither before nor after."""
    processes.kill([node])

    assert state(node.pid) == ""
    assert processes.ended_by(node.pid)


def test_the_dead_man_ends_paused_nodes_when_the_run_is_gone(
    node: NodeProcess, tmp_path: Path
) -> None:
    """The watcher sees the end of its input; a pid that is no node of the run is left alone."""
    folder = tmp_path / "cluster"
    (folder / "node1").mkdir(parents=True)
    (folder / "node2").mkdir()
    (folder / "node2" / "node.pid").write_text(str(node.pid))  # another's settings: not its node
    child = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(folder / "node1" / "node.toml")],
        stdout=subprocess.DEVNULL,
    )
    (folder / "node1" / "node.pid").write_text(str(child.pid))
    processes.pause([NodeProcess(plan(folder), child.pid, child)])

    watcher = deadman.watch(folder)
    assert watcher.stdin is not None
    watcher.stdin.close()  # as the kernel does when the run ends in whatever way
    assert watcher.wait(30) == 0

    assert child.wait(10) == -9
    assert node.running
