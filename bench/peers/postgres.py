"""A PostgreSQL server of our own, if its programs are here: COPY, a transaction a batch, fsync on."""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.corpus import Body
from bench.load import Load
from bench.measure import family_cpu_seconds
from bench.peers.duck import columns
from bench.peers.sql import POSTGRES, queries
from bench.questions import Facts, Plain, Question


def binaries() -> Path | None:
    """The folder with `initdb` and `postgres`; None if there is none, or nobody to run it as."""
    found = shutil.which("postgres")
    if found is None:
        candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        found = str(candidates[-1]) if candidates else None
    if found is None:
        return None
    folder = Path(found).resolve().parent
    return folder if (folder / "initdb").exists() and _account() is not False else None


def _account() -> str | bool | None:
    """The account to run it under: None for ours, False if root has no other."""
    if os.geteuid() != 0:
        return None
    import pwd

    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return False


class Postgres:
    """A server on a Unix socket with its default settings."""

    name = "PostgreSQL"
    note = "1 copy, fsync on, one writer"
    estimates = False

    def __init__(self, folder: Path, programs: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        user = _account()
        self._options: dict[str, Any] = {"user": user} if user else {}
        if user:
            shutil.chown(folder, str(user))
        for parent in folder.parents:  # the server's account must reach its folder
            if user and parent.stat().st_uid == os.geteuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o111)
        data = folder / "data"
        make = [
            str(programs / "initdb"),
            "-D",
            str(data),
            "-A",
            "trust",
            "-U",
            "bench",
            "-E",
            "UTF8",
        ]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **self._options)
        self._server = subprocess.Popen(
            [str(programs / "postgres"), "-D", str(data), "-k", str(folder), "-c", "listen_addresses="],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            cwd=folder, **self._options,
        )  # fmt: skip
        self.link = self._connect(folder)
        self._queries: dict[str, str] = {}

    def _connect(self, folder: Path) -> Any:
        import psycopg

        until = time.monotonic() + 30
        while True:
            try:
                return psycopg.connect(host=str(folder), user="bench", dbname="postgres")
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    self._server.kill()
                    raise
                time.sleep(0.1)

    def open(self, kind: str) -> None:
        """A table for the corpus."""
        typed = ", ".join(f'"{name}" {text}' for name, text in columns(kind, "TEXT").items())
        self.link.execute(f"DROP TABLE IF EXISTS {kind}".encode())
        self.link.execute(f"CREATE TABLE {kind} ({typed})".encode())
        self.link.commit()

    def load(self, kind: str, bodies: Sequence[Body], connections: int) -> Load:
        """One batch after the other, whatever `connections`."""
        batches = [body.csv() for body in bodies]
        load = Load(rows=sum(body.rows for body in bodies))
        cpu, started = family_cpu_seconds(self._server.pid), time.perf_counter()
        for batch in batches:
            at = time.perf_counter()
            cursor = self.link.cursor()
            with cursor, cursor.copy(f"COPY {kind} FROM STDIN (FORMAT csv)".encode()) as copy:
                copy.write(batch)
            self.link.commit()
            load.acks.append(time.perf_counter() - at)
        load.acked_seconds = load.visible_seconds = time.perf_counter() - started
        load.cpu_seconds = family_cpu_seconds(self._server.pid) - cpu
        return load

    def disk_bytes(self, kind: str) -> int | None:
        """The table, without the write-ahead log."""
        row = self.link.execute("SELECT pg_total_relation_size(%s)", (kind,)).fetchone()
        assert row is not None
        return int(row[0])

    def cpu_seconds(self) -> float | None:
        """CPU of the server's processes."""
        return family_cpu_seconds(self._server.pid)

    def memory_bytes(self) -> list[int] | None:
        """Not told: its processes share most of theirs."""
        return None

    def bind(self, kind: str, facts: Facts) -> None:
        """What the questions are about."""
        self._queries = queries(POSTGRES, kind, facts)

    def ask(self, question: Question) -> Plain | None:
        """The rows of the answer."""
        return self.link.execute(self._queries[question.name].encode()).fetchall()

    def close(self) -> None:
        """Stops the server."""
        self.link.close()
        self._server.terminate()
        self._server.wait()
