"""Ends a run's nodes if the run itself is killed: a paused node would hold its ports for ever.

A process of its own that waits for the end of its standard input, which is a pipe from the run. When
the run ends in order, nothing is left to end. A process is only taken for a node of this run if its
command line names that node's settings file.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from node.up_process import is_node


def watch(folder: Path) -> "subprocess.Popen[bytes]":
    """Starts the watcher for the nodes under `folder`; close its `stdin` when they are ended."""
    words = [sys.executable, "-P", "-m", "chaos.deadman", str(folder)]
    home = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": home}
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        words, stdin=subprocess.PIPE, env=environment, start_new_session=True
    )


def end_all(folder: Path) -> list[int]:
    """Kills every node under `folder` that runs, paused or not; their process ids."""
    ended = []
    for file in sorted(folder.glob("node*/node.pid")):
        with contextlib.suppress(OSError, ValueError):  # gone meanwhile, or never whole
            pid = int(file.read_text(encoding="ascii"))
            if is_node(pid, file.parent / "node.toml"):
                os.kill(pid, signal.SIGKILL)
                ended.append(pid)
    return ended


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_all(Path(sys.argv[1]))
