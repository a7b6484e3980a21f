"""kill -9, SIGSTOP and SIGCONT, each with the proof that it worked. Only children of this run.

A signal that was sent proves nothing: a process in an uninterruptible wait goes on for a while, one
that had ended already was not killed by us. So each call returns when the kernel says that it is so:
`waitpid` with the signal, or the state in the process table.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from node.up_process import NodeProcess

#: Seconds for a signal to take effect; the kernel needs microseconds unless the machine is drowned.
BITE_SECONDS = 10.0
_POLL_SECONDS = 0.005


class FaultDidNotBite(Exception):
    """A fault that was injected had no effect: the run proves nothing by it."""


def kill(nodes: Sequence[NodeProcess]) -> list[int]:
    """SIGKILL to all, then waits for each; their process ids.

    Raises:
        FaultDidNotBite: one had ended before, or ended otherwise.
    """
    children = [_child(node) for node in nodes]
    for child in children:
        child.send_signal(signal.SIGKILL)
    for node, child in zip(nodes, children, strict=True):
        try:
            code = child.wait(BITE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise FaultDidNotBite(f"{node.plan.id} outlives SIGKILL") from error
        if code != -signal.SIGKILL:
            raise FaultDidNotBite(f"{node.plan.id} had ended by itself, exit code {code}")
    return [child.pid for child in children]


def pause(nodes: Sequence[NodeProcess]) -> list[int]:
    """SIGSTOP to all, then waits until each is stopped; their process ids.

    Raises:
        FaultDidNotBite: one does not stop, or has ended.
    """
    children = [_child(node) for node in nodes]
    for child in children:
        child.send_signal(signal.SIGSTOP)
    for node in nodes:
        _wait_state(node, stopped=True)
    return [child.pid for child in children]


def resume(nodes: Sequence[NodeProcess]) -> None:
    """SIGCONT to all, then waits until each runs again.

    Raises:
        FaultDidNotBite: one stays stopped, or was killed meanwhile.
    """
    for node in nodes:
        _child(node).send_signal(signal.SIGCONT)
    for node in nodes:
        _wait_state(node, stopped=False)


def _child(node: NodeProcess) -> "subprocess.Popen[bytes]":
    if node.child is None:
        raise FaultDidNotBite(f"{node.plan.id} was not started by this run: it is left alone")
    if node.child.poll() is not None:
        raise FaultDidNotBite(
            f"{node.plan.id} had ended by itself, exit code {node.child.returncode}"
        )
    return node.child


def _wait_state(node: NodeProcess, *, stopped: bool) -> None:
    until = time.monotonic() + BITE_SECONDS
    while (state(node.pid) == "T") is not stopped:
        if time.monotonic() > until:
            raise FaultDidNotBite(f"{node.plan.id} is in state {state(node.pid) or 'gone'}")
        time.sleep(_POLL_SECONDS)


def state(pid: int) -> str:
    """The process's state as one letter (R running, S asleep, T stopped, Z ended …); "" if it is gone."""
    table = Path("/proc")
    if (table / "self" / "stat").exists():
        try:
            text = (table / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return ""
        return text.rpartition(")")[2].split()[0]  # the name before it may hold anything
    words = ["ps", "-o", "state=", "-p", str(int(pid))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip()[:1]


def ended_by(pid: int) -> bool:
    """Whether there is no such process any more (an ended child that nobody waited for counts)."""
    try:
        os.kill(pid, 0)
    except OSError:
        return True
    return state(pid) in ("", "Z")
