"""The processes of a local cluster: started, found again, asked if they are ready, stopped in order.

A node is its own session, so Ctrl-C at the terminal reaches `up` alone, which then stops the nodes one
by one's own signal. A process is only ever taken for a node of ours if its command line says so.
"""

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.cli_errors import CliError
from node.up_plan import NodePlan

#: Seconds for a node to end by itself after SIGTERM, before it is killed.
STOP_SECONDS = 10.0
POLL_SECONDS = 0.1
#: From linux/prctl.h.
PR_SET_PDEATHSIG = 1
#: Looks at a process that shows no words yet, 5 ms apart.
EXEC_TRIES = 20


@dataclass(slots=True)
class NodeProcess:
    """A running node: a child of ours, or one that was found running (`child` is None)."""

    plan: NodePlan
    pid: int
    child: "subprocess.Popen[bytes] | None" = None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        if self.child is not None:
            return self.child.poll() is None
        return is_node(self.pid, self.plan.config)

    @property
    def exit_code(self) -> int | None:
        """How a child ended; None if it runs or was not ours."""
        return self.child.poll() if self.child is not None else None


def is_node(pid: int, config: Path) -> bool:
    """Whether process `pid` is the node of that settings file."""
    if not sys.platform.startswith("linux"):
        return _answers_signal(pid)  # no /proc: the pid file is all there is to go by
    return os.fsencode(str(config)) in _command_line(pid)


def _command_line(pid: int) -> list[bytes]:
    """The words a process was started with; none if it is gone, or has ended unheard (a zombie)."""
    for _ in range(EXEC_TRIES):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            return []
        if words or state in (b"Z", b"X"):
            return words.split(b"\0")
        time.sleep(0.005)  # between two programs: exec has begun, the new words are not yet there
    return []


def _answers_signal(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def find(plan: NodePlan) -> NodeProcess | None:
    """The node if it runs already."""
    try:
        pid = int(plan.pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return NodeProcess(plan, pid) if is_node(pid, plan.config) else None


def check_ports(plans: list[NodePlan]) -> None:
    """Raises if a port that a node needs is taken.

    Raises:
        CliError: names the node, the port and a way out.
    """
    for plan in plans:
        for name, port in plan.ports().items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise CliError(
                        f"port {port} ({name} port of {plan.id}) is in use: {error.strerror}",
                        f"stop what listens there (`ss -ltnp 'sport = :{port}'` shows it), or choose"
                        f" others: --port-base for a new cluster, {plan.config} for this one",
                    ) from error


def _environment() -> dict[str, str]:
    own = ("QUORUMLOG_NODE__", "QUORUMLOG_CLUSTER__")  # one value for all nodes would be wrong
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    home = str(Path(__file__).resolve().parent.parent)
    paths = [home, *kept.get("PYTHONPATH", "").split(os.pathsep)]
    return {**kept, "PYTHONPATH": os.pathsep.join(one for one in paths if one)}


def module_command(*words: str) -> list[str]:
    """The command line of ours with `words`; -P keeps packages of the working folder out."""
    return [sys.executable, "-P", "-m", "node", *words]


def end_with_parent() -> None:
    """In a child: SIGTERM when the parent's thread ends, however it ends (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start_process(
    words: Sequence[str],
    log: Path,
    tied: bool = False,
    environment: Mapping[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """Starts a command of ours in a session of its own; what it says goes to `log`.

    `environment`: beside our own.

    `tied`: it is told to stop when we are killed, so that no node is left behind holding its ports.
    Only for callers without threads, whose main thread lives as long as they do.
    """
    before_exec = end_with_parent if tied and sys.platform.startswith("linux") else None
    with log.open("ab") as out:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**_environment(), **(environment or {})},
            start_new_session=True,
            preexec_fn=before_exec,
        )


def start(
    plan: NodePlan,
    bootstrap: bool = False,
    tied: bool = False,
    join: bool = False,
    environment: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> NodeProcess:
    """Starts a node; `bootstrap` if the cluster is new, so that empty folders are no lost disks.

    `join`: the cluster is there and the node is new to it, or lost its disk. `within`: words of a command
    that becomes the node, as `nsenter` does.
    """
    words = ["node", "--config", str(plan.config)]
    words += ["--bootstrap"] * bootstrap + ["--join"] * join
    child = start_process([*within, *module_command(*words)], plan.log, tied, environment)
    plan.pid_file.write_text(f"{child.pid}\n", encoding="ascii")
    return NodeProcess(plan, child.pid, child)


def ask(plan: NodePlan, path: str, seconds: float = 1.0) -> tuple[int, dict[str, Any]] | None:
    """(status, JSON) of a GET to the node; None if it does not answer."""
    connection = http.client.HTTPConnection(plan.host, plan.http_port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        return answer.status, body if isinstance(body, dict) else {}
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def log_tail(plan: NodePlan, lines: int = 5) -> list[str]:
    """The last lines of a node's log."""
    try:
        with plan.log.open("rb") as file:
            file.seek(max(0, plan.log.stat().st_size - 16_384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]


def stop(processes: list[NodeProcess]) -> list[NodeProcess]:
    """Ends nodes: SIGTERM to all, SIGKILL to those that take longer than STOP_SECONDS; the killed."""
    waiting = [one for one in processes if one.running]
    for one in waiting:
        _signal(one, signal.SIGTERM)
    until = time.monotonic() + STOP_SECONDS
    while waiting and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        waiting = [one for one in waiting if one.running]
    for one in waiting:
        _signal(one, signal.SIGKILL)
    for one in waiting:
        if one.child is not None:
            one.child.wait()
    for one in processes:
        if not one.running:
            one.plan.pid_file.unlink(missing_ok=True)
    return waiting


def _signal(process: NodeProcess, number: int) -> None:
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return
