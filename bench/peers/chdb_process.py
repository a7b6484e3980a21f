"""chDB: the embedded ClickHouse, in a process of its own, driven as ClickHouse is."""

import socket
import subprocess
import time
from pathlib import Path

from bench.peers.clickhouse import ClickHouse

_SERVER = Path(__file__).with_name("chdb_server.py")
#: Seconds for it to load its library and listen.
START_SECONDS = 60.0


class ChDb(ClickHouse):
    """Started with `python`, an interpreter that has `chdb`; ended with the run."""

    name = "chDB"
    note = "1 copy, ack not synced, one statement at a time"

    def __init__(self, folder: Path, python: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            python,
            "-I",
            str(_SERVER),
            "--port",
            str(port),
            "--folder",
            str(folder / "data"),
        ]
        with (folder / "log").open("wb") as log:
            self._server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        until = time.monotonic() + START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if self._server.poll() is not None or time.monotonic() > until:
                self._server.kill()
                raise RuntimeError(f"chDB did not start: {(folder / 'log').read_text()[-500:]}")
            time.sleep(0.1)
        super().__init__(f"http://127.0.0.1:{port}", self._server.pid)

    def close(self) -> None:
        """Ends the process."""
        self.link.close()
        self._server.terminate()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
