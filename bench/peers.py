"""The plain baselines: what a user without quorumlog would do with the same rows on the same machine.

DuckDB reads each body with `read_json` into a table, one transaction a body; PostgreSQL takes each body
by COPY (as CSV, which is what COPY reads), one transaction a body, fsync on. Both keep one copy, and
neither indexes words. They answer the same ten questions in SQL.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from bench.corpus import COLUMNS, Body
from bench.load import Load
from bench.measure import family_cpu_seconds

SQL_TYPES = {"timestamp": "TIMESTAMP", "duration_ms": "BIGINT"}


def _columns(kind: str, text: str) -> dict[str, str]:
    return {name: SQL_TYPES.get(name, text) for name in COLUMNS[kind]}


class DuckDb:
    """An embedded DuckDB with a database file, on as many threads as there are cores."""

    name = "duckdb"

    def __init__(self, folder: Path, kind: str) -> None:
        folder.mkdir(parents=True)
        self._folder, self._kind = folder, kind
        self._file = folder / "logs.duckdb"
        self.link = duckdb.connect(str(self._file))
        columns = ", ".join(f'"{name}" {text}' for name, text in _columns(kind, "VARCHAR").items())
        self.link.execute(f"CREATE TABLE logs ({columns})")

    def load(self, bodies: Sequence[Body]) -> tuple[Load, float]:
        """(what it took, CPU seconds); each body is a file first, as logs are."""
        files = []
        for number, body in enumerate(bodies):
            file = self._folder / f"{number}.json"
            file.write_bytes(body.json)
            files.append(file)
        kinds = ", ".join(f"'{k}': '{v}'" for k, v in _columns(self._kind, "VARCHAR").items())
        load, cpu = Load(rows=sum(body.rows for body in bodies)), time.process_time()
        started = time.perf_counter()
        for file in files:
            at = time.perf_counter()
            self.link.execute(
                f"INSERT INTO logs SELECT * FROM read_json('{file}', format='newline_delimited',"
                f" columns={{{kinds}}}, timestampformat='%Y-%m-%dT%H:%M:%S.%fZ')"
            )
            load.acks.append(time.perf_counter() - at)
        load.acked_seconds = load.visible_seconds = time.perf_counter() - started
        spent = time.process_time() - cpu
        for file in files:
            file.unlink()
        return load, spent

    def disk_bytes(self) -> int:
        """The database file after a checkpoint."""
        self.link.execute("CHECKPOINT")
        return self._file.stat().st_size

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of an answer."""
        return self.link.execute(sql).fetchall()

    def close(self) -> None:
        """Closes the file."""
        self.link.close()


def postgres_binaries() -> Path | None:
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
    """The account to run PostgreSQL under: None for ours, False if root has no other."""
    if os.geteuid() != 0:
        return None
    import pwd

    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return False


class Postgres:
    """A PostgreSQL server of our own on a Unix socket; default settings, fsync on."""

    name = "postgresql"

    def __init__(self, folder: Path, kind: str, binaries: Path) -> None:
        import psycopg

        folder.mkdir(parents=True)
        user = _account()
        self._options: dict[str, Any] = {"user": user} if user else {}
        if user:
            shutil.chown(folder, str(user))
        for parent in folder.parents:  # the server's account must reach its folder
            if user and parent.stat().st_uid == os.geteuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o111)
        data = folder / "data"
        command = [
            str(binaries / "initdb"),
            "-D",
            str(data),
            "-A",
            "trust",
            "-U",
            "bench",
            "-E",
            "UTF8",
        ]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **self._options)
        self._server = subprocess.Popen(
            [str(binaries / "postgres"), "-D", str(data), "-k", str(folder), "-c", "listen_addresses="],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            cwd=folder, **self._options,
        )  # fmt: skip
        self._data, self._kind = data, kind
        until = time.monotonic() + 30
        while True:
            try:
                self.link = psycopg.connect(host=str(folder), user="bench", dbname="postgres")
                break
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    self._server.kill()
                    raise
                time.sleep(0.1)
        columns = ", ".join(f'"{name}" {text}' for name, text in _columns(kind, "TEXT").items())
        self.link.execute(f"CREATE TABLE logs ({columns})".encode())
        self.link.commit()

    def load(self, bodies: Sequence[Body]) -> tuple[Load, float]:
        """(what it took, CPU seconds of the server's processes)."""
        load, cpu = (
            Load(rows=sum(body.rows for body in bodies)),
            family_cpu_seconds(self._server.pid),
        )
        started = time.perf_counter()
        for body in bodies:
            at = time.perf_counter()
            cursor = self.link.cursor()
            with cursor, cursor.copy("COPY logs FROM STDIN (FORMAT csv)") as copy:
                copy.write(body.csv)
            self.link.commit()
            load.acks.append(time.perf_counter() - at)
        load.acked_seconds = load.visible_seconds = time.perf_counter() - started
        return load, family_cpu_seconds(self._server.pid) - cpu

    def disk_bytes(self) -> int:
        """The table, without the write-ahead log."""
        row = self.link.execute("SELECT pg_total_relation_size('logs')").fetchone()
        assert row is not None
        return int(row[0])

    def close(self) -> None:
        """Stops the server."""
        self.link.close()
        self._server.terminate()
        self._server.wait()
