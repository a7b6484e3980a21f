"""The laboratory: namespaces of its own for mounts and network, in which disks and wires are broken.

A scenario that needs it is run by a child of the same command under `unshare --mount --net`. So nothing that
it mounts or wires is ever seen by the machine, and all of it ends with the laboratory's last process, even if
that is killed. What a scenario needs is tried at its start: what cannot be had is `skipped`, with the reason.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from chaos import disks, lab_loss, lab_net

INSIDE = "QUORUMLOG_CHAOS_LAB"
#: What a scenario may need.
DISK, NETWORK, STRACE, LOSS, MEMORY = "disk", "network", "strace", "loss", "memory"


def inside() -> bool:
    """Whether this process is in the laboratory."""
    return os.environ.get(INSIDE) == "1"


def words_to_enter(words: Sequence[str]) -> list[str]:
    """The command line of a child of ours in the laboratory."""
    return ["unshare", "--mount", "--net", "--", sys.executable, "-P", "-m", "node", *words]


def environment(outside: bool = False) -> Mapping[str, str]:
    """The environment of such a child; `outside`: of one that is to enter by itself."""
    home = str(Path(__file__).resolve().parent.parent)
    paths = [home, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        **os.environ,
        INSIDE: "" if outside else "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


def reason_against_entering() -> str:
    """Why there can be no laboratory here; empty if there can."""
    if os.geteuid() != 0:
        return "needs root"
    if not shutil.which("unshare"):
        return "unshare is not installed"
    done = subprocess.run(
        ["unshare", "--mount", "--net", "true"],  # noqa: S607
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    return done.stderr.strip()[:200] if done.returncode else ""


def open_loopback() -> None:
    """In the laboratory 127.0.0.1 is down at first.

    Raises:
        DiskFailed: it cannot be set up.
    """
    disks.command("ip", "link", "set", "lo", "up")


def reason_against(needs: Sequence[str]) -> str:
    """Why one of these cannot be had, tried in the laboratory; empty if all can."""
    tries = {DISK: disks.reason_against, NETWORK: lab_net.reason_against, STRACE: _strace}
    tries |= {LOSS: lab_loss.reason_against, MEMORY: _memory}
    for need in needs:
        with tempfile.TemporaryDirectory() as folder:
            reason = tries[need](Path(folder))
        if reason:
            return reason
    return ""


def _memory(folder: Path) -> str:
    from chaos.faults import memory  # it stands upon what stands upon this

    return memory.reason_against(folder)


def _strace(folder: Path) -> str:
    if not shutil.which("strace"):
        return "strace is not installed"
    out = folder / "out"
    words = ["strace", "-qq", "-o", str(out), "-e", "trace=fsync", "-e", "inject=fsync:error=EIO"]
    code = "import os; os.fsync(os.open('.', 0))"
    subprocess.run(  # noqa: S603 - our own words
        [*words, sys.executable, "-S", "-c", code],
        capture_output=True, check=False, timeout=30, cwd=folder,
    )  # fmt: skip
    return "" if out.exists() and "(INJECTED)" in out.read_text() else "ptrace is not allowed"
