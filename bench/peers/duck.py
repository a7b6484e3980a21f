"""DuckDB in this process: what a user with files and no log store would do. One copy, one writer.

Each batch is a file first, as logs are, and is read by `read_json` into a table, one transaction each.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from bench.corpus import COLUMNS, Body
from bench.load import Load
from bench.peers.sql import DUCKDB, queries
from bench.questions import Facts, Plain, Question

TYPES = {"timestamp": "TIMESTAMP", "duration_ms": "BIGINT"}


def columns(kind: str, text: str) -> dict[str, str]:
    """The SQL type of each column."""
    return {name: TYPES.get(name, text) for name in COLUMNS[kind]}


class DuckDb:
    """An embedded database with a file, on as many threads as there are cores."""

    name = "DuckDB"
    note = "1 copy, one writer, in the asking process"
    estimates = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._links: dict[str, Any] = {}
        self._queries: dict[str, str] = {}
        self._kind = ""

    def _file(self, kind: str) -> Path:
        return self._folder / f"{kind}.duckdb"

    def open(self, kind: str) -> None:
        """A database file for the corpus."""
        link = self._links[kind] = duckdb.connect(str(self._file(kind)))
        typed = ", ".join(f'"{name}" {text}' for name, text in columns(kind, "VARCHAR").items())
        link.execute(f"CREATE OR REPLACE TABLE logs ({typed})")

    def load(self, kind: str, bodies: Sequence[Body], connections: int) -> Load:
        """One batch after the other, whatever `connections`: there is one writer."""
        files = []
        for number, body in enumerate(bodies):
            file = self._folder / f"{number}.json"
            file.write_bytes(body.json)
            files.append(file)
        kinds = ", ".join(f"'{k}': '{v}'" for k, v in columns(kind, "VARCHAR").items())
        load, cpu = Load(rows=sum(body.rows for body in bodies)), time.process_time()
        started = time.perf_counter()
        for file in files:
            at = time.perf_counter()
            self._links[kind].execute(
                f"INSERT INTO logs SELECT * FROM read_json('{file}', format='newline_delimited',"
                f" columns={{{kinds}}}, timestampformat='%Y-%m-%dT%H:%M:%S.%fZ')"
            )
            load.acks.append(time.perf_counter() - at)
        load.acked_seconds = load.visible_seconds = time.perf_counter() - started
        load.cpu_seconds = time.process_time() - cpu
        for file in files:
            file.unlink()
        return load

    def disk_bytes(self, kind: str) -> int | None:
        """The database file after a checkpoint."""
        self._links[kind].execute("CHECKPOINT")
        return self._file(kind).stat().st_size

    def cpu_seconds(self) -> float | None:
        """This process's, in which it runs."""
        return time.process_time()

    def memory_bytes(self) -> list[int] | None:
        """Not told apart from the driver's, whose process it shares."""
        return None

    def bind(self, kind: str, facts: Facts) -> None:
        """What the questions are about."""
        self._kind, self._queries = kind, queries(DUCKDB, "logs", facts)

    def ask(self, question: Question) -> Plain | None:
        """The rows of the answer."""
        return self._links[self._kind].execute(self._queries[question.name]).fetchall()

    def close(self) -> None:
        """Closes the files."""
        for link in self._links.values():
            link.close()
