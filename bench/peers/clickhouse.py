"""ClickHouse over HTTP: a server that the user names, or chDB behind the same interface.

The table is what its users would make for logs: ordered by service and time, dictionary columns for few
values, zstd, a token Bloom filter on the message and one on each id. An INSERT is one part, acknowledged
when written, not synced (its default).
"""

import http.client
import json
import os

from bench.corpus import Body
from bench.peers.base import Answered, HttpPeer, request
from bench.peers.sql import CLICKHOUSE, queries
from bench.questions import Facts, Plain, Question

_TEXT = "String CODEC(ZSTD(1))"
_FEW = "LowCardinality(String)"
TYPES = {
    "timestamp": "DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1))",
    "service": _FEW, "level": _FEW, "message": _TEXT, "trace_id": _TEXT, "span_id": _TEXT,
    "user_id": _TEXT, "session_id": _TEXT, "operation": _FEW, "host": _FEW,
    "duration_ms": "Int64 CODEC(ZSTD(1))",
}  # fmt: skip
INDEXES = {
    "message": "INDEX words message TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 1",
    "trace_id": "INDEX traces trace_id TYPE bloom_filter(0.01) GRANULARITY 1",
    "user_id": "INDEX users user_id TYPE bloom_filter(0.01) GRANULARITY 1",
}
ASKED = {
    "default_format": "JSONCompact",
    "output_format_json_quote_64bit_integers": 0,
    "date_time_input_format": "best_effort",
}


class ClickHouse(HttpPeer):
    """A server at an address; a database of its own for each run, dropped at the end."""

    name = "ClickHouse"
    note = "1 copy, ack not synced"
    estimates = True

    def __init__(self, url: str, pid: int | None = None, data: str | None = None) -> None:
        super().__init__(url, pid, data)
        self._database = f"quorumlog_bench_{os.getpid()}"
        self._queries: dict[str, str] = {}
        self._made = False

    def _table(self, kind: str) -> str:
        return f"{self._database}.{kind}"

    def _run(self, sql: str) -> str:
        return request(self.link, "POST", "/", sql.encode(), params=ASKED).decode()

    def _rows(self, sql: str) -> Plain:
        return [tuple(row) for row in json.loads(self._run(sql))["data"]]

    def open(self, kind: str) -> None:
        """The table of the corpus."""
        from bench.corpus import COLUMNS

        names = COLUMNS[kind]
        parts = [f"{name} {TYPES[name]}" for name in names]
        parts += [INDEXES[name] for name in names if name in INDEXES]
        self._run(f"CREATE DATABASE IF NOT EXISTS {self._database}")
        self._made = True
        self._run(
            f"CREATE TABLE {self._table(kind)} ({', '.join(parts)})"
            " ENGINE = MergeTree ORDER BY (service, timestamp)"
        )

    def encode(self, kind: str, body: Body) -> bytes:
        """JSON lines, as they are."""
        return body.json

    def post(self, link: http.client.HTTPConnection, kind: str, payload: bytes) -> None:
        """One INSERT."""
        insert = {"query": f"INSERT INTO {self._table(kind)} FORMAT JSONEachRow", **ASKED}
        request(link, "POST", "/", payload, params=insert)

    def count(self, kind: str) -> int:
        """Rows in the table."""
        return int(self._rows(f"SELECT count() FROM {self._table(kind)}")[0][0])

    def disk_bytes(self, kind: str) -> int | None:
        """The active parts."""
        found = self._rows(
            f"SELECT sum(bytes_on_disk) FROM system.parts WHERE active"
            f" AND database = '{self._database}' AND table = '{kind}'"
        )
        return int(found[0][0])

    def bind(self, kind: str, facts: Facts) -> None:
        """What the questions are about."""
        self._queries = queries(CLICKHOUSE, self._table(kind), facts)

    def ask(self, question: Question) -> Plain | None:
        """The rows of the answer."""
        return self._rows(self._queries[question.name])

    def close(self) -> None:
        """Drops what was made."""
        try:
            if self._made:
                self._run(f"DROP DATABASE IF EXISTS {self._database} SYNC")
        except (OSError, http.client.HTTPException, Answered):
            pass  # it is gone already, and its data is the user's to clear
        super().close()
