"""A terminal: `quorumlog` as a user types it, each command a process, against a cluster of the test's own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.cluster import free_port_base

#: Seconds one command may take.
COMMAND_SECONDS = 100


class Shell:
    """Runs commands; state and data lie under `home`, the cluster has ports of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.data, self.base = home, home / "data", free_port_base(3)
        self.environment = {
            **os.environ,
            "XDG_STATE_HOME": str(home / "state"),
            "QUORUMLOG_SERVER": ",".join(
                f"http://127.0.0.1:{self.base + 10 * i}" for i in range(3)
            ),
        }

    def start(self, *words: str, **how: Any) -> "subprocess.Popen[str]":
        """A command, running."""
        command = [sys.executable, "-m", "node", *words]
        piped = subprocess.PIPE
        return subprocess.Popen(
            command, stdout=piped, stderr=piped, text=True, env=self.environment, **how
        )

    def run(self, *words: str, code: int = 0) -> str:
        """What a command prints on stdout; its exit code must be `code`."""
        process = self.start(*words)
        out, err = process.communicate(timeout=COMMAND_SECONDS)
        assert process.returncode == code, f"{words}: {process.returncode}\n{out}\n{err}"
        return out

    def together(self, commands: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """What each prints, by its name; several run at a time, as nothing depends on their order."""
        with ThreadPoolExecutor(4) as pool:
            printed = pool.map(lambda words: self.run(*words), commands.values())
            return dict(zip(commands, printed, strict=True))

    def code(self, *words: str) -> int:
        """The exit code alone."""
        process = self.start(*words)
        process.communicate(timeout=COMMAND_SECONDS)
        return process.returncode

    def json(self, *words: str, code: int = 0) -> Any:
        """The result with --json."""
        return json.loads(self.run(*words, "--json", code=code))

    def up(self, *words: str) -> str:
        """Starts what is not running, in the background."""
        place = ("--data", str(self.data), "--port-base", str(self.base))
        return self.run("up", "--detach", "--no-demo", *place, *words)

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes in cluster.json."""
        return json.loads((self.data / "cluster.json").read_text(encoding="utf-8"))["nodes"]

    def pids(self) -> list[int]:
        """The nodes' processes."""
        return [node["pid"] for node in self.nodes()]


def ended(pid: int) -> bool:
    """Whether a process is gone (a zombie counts as gone)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
