"""POST /sql as a user meets it: shapes, formats, errors with their place, limits, partial answers."""

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pyarrow as pa
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster.http_front import front_middleware
from query.sql import SqlRunner
from query.sql_http import SqlApi, statement_of
from records.errors import InvalidRequest
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.metrics import Metrics
from tests.support.fake_store import FakeCluster, make_entry
from tests.unit.query.helpers import NOW, coordinator, row


@asynccontextmanager
async def api(cluster: FakeCluster, **settings: Any) -> AsyncIterator[TestClient]:
    """A client of POST /sql over a fake cluster."""
    metrics = Metrics()
    async with coordinator(cluster, metrics, **settings) as reader:
        runner = SqlRunner(reader, metrics)
        middleware = front_middleware(SystemClock(), SystemEntropy(), metrics)
        app = web.Application(middlewares=[middleware])
        app.router.add_routes(SqlApi(reader, runner).routes())
        async with TestClient(TestServer(app)) as client:
            client.runner = runner  # type: ignore[attr-defined]
            yield client
        await runner.close()


def filled(entries: int = 10) -> FakeCluster:
    """Entries a minute apart in the shard of `pay`; three rows each."""
    cluster = FakeCluster()
    home = cluster.view.shards_holding("default", "pay")[0]
    for number in range(entries):
        rows = [
            row(number * 60_000_000 + i, f"m {number} {i}", level="error" if i else "info", x=i)
            for i in range(3)
        ]
        cluster.write(make_entry(number, home, rows, received_at=NOW + number))
    return cluster


async def test_the_answer_has_columns_rows_and_honesty() -> None:
    """As docs/sql.md says."""
    sql = "SELECT level, count(*) AS n, sum(x), max(timestamp) FROM logs GROUP BY 1 ORDER BY 1"
    async with api(filled()) as client:
        answer = await client.post("/sql", data=sql)
        body = await answer.json()

    assert answer.status == 200
    assert answer.headers["X-Quorumlog-Complete"] == "true"
    assert list(body) == ["columns", "rows", "complete", "missing", "stats", "notes"]
    assert body["columns"] == [
        {"name": "level", "type": "VARCHAR"}, {"name": "n", "type": "BIGINT"},
        {"name": "sum(x)", "type": "HUGEINT"},
        {"name": 'max("timestamp")', "type": "TIMESTAMP WITH TIME ZONE"},
    ]  # fmt: skip
    assert body["rows"][0] == {
        "level": "error", "n": 20, "sum(x)": 30, 'max("timestamp")': "2026-11-18T11:15:40.000002Z",
    }  # fmt: skip
    assert body["stats"]["how"] == "partial aggregates"


@pytest.mark.parametrize("kind", ["json", "ndjson", "csv", "arrow"])
async def test_all_formats_hold_the_same(kind: str) -> None:
    """Nulls, decimals, structs, names that occur twice."""
    sql = "SELECT 1.5 AS d, NULL AS n, {'a': 1} AS s, 'x,\"y' AS t, 't2' AS t"
    async with api(filled(1)) as client:
        answer = await client.post("/sql", params={"format": kind}, data=sql)
        body = await answer.read()

    assert answer.status == 200
    if kind == "json":
        rows = json.loads(body)["rows"]
    elif kind == "ndjson":
        rows = [json.loads(line) for line in body.splitlines()]
    elif kind == "csv":
        rows = list(csv.DictReader(io.StringIO(body.decode())))
        assert rows == [{"d": "1.5", "n": "", "s": '{"a":1}', "t": 'x,"y', "t_1": "t2"}]
        return
    else:
        rows = pa.ipc.open_stream(body).read_all().to_pylist()
        rows[0]["d"] = float(rows[0]["d"])
    assert rows == [{"d": 1.5, "n": None, "s": {"a": 1}, "t": 'x,"y', "t_1": "t2"}]


@pytest.mark.parametrize(
    ("body", "status", "reason", "position"),
    [
        ("SELEC 1", 400, 'syntax error at or near "SELEC"', 0),
        ("SELECT nope(1)", 400, "nope", 7),
        ("SELECT x +\n  upper(x, x, x) FROM logs", 400, "line 2", 13),
        ("SELECT 'a'::INT FROM logs", 400, "a", None),
        ("SELECT * FROM read_csv('/etc/passwd')", 400, "read_csv() is not allowed", None),
        ("COPY logs TO '/tmp/x'", 400, "only SELECT", None),
        ("", 400, "the body is a SELECT", None),
        ("SELECT INTERVAL 1 DAY AS i", 400, "cast it", None),
        ("SELECT * FROM range(10001)", 413, "10000 rows", None),
        ("SELECT list(range) FROM range(1000000000)", 413, "64 MiB", None),
        ("SELECT 1 --" + "x" * 70_000, 413, "64 KiB", None),
        ("SELECT 1 --" + "x" * 700_000, 413, "64 KiB", None),
        ("SELECT error('boom')", 400, "boom", None),
    ],
)
async def test_errors_tell_reason_and_place(
    body: str, status: int, reason: str, position: int | None
) -> None:
    """JSON, definite, never a stack trace nor an address in memory."""
    async with api(filled(1), sql_memory_bytes=64 << 20) as client:
        answer = await client.post("/sql", data=body)
        error = (await answer.json())["error"]

    assert answer.status == status, error
    assert reason in error["message"]
    assert error["definite"] is True
    assert error["parameter"] == "query"
    assert position is None or error["position"] == position
    assert not re.search(r"Traceback|stack_trace|0x[0-9a-f]{6}|\.py|/work|/root", json.dumps(error))


@pytest.mark.parametrize(
    "path", ["/sql?limit=1", "/sql?cursor=x", "/sql?format=xml", "/sql?from=x", "/sql?q=("]
)
async def test_bad_parameters_are_named(path: str) -> None:
    """As on /query."""
    async with api(filled(1)) as client:
        answer = await client.post(path, data="SELECT 1")

        assert answer.status == 400
        assert (await answer.json())["error"]["parameter"] in path


async def test_parameters_narrow_the_table() -> None:
    """`since`, `level` and any field, as on /query; the statement as JSON."""
    async with api(filled()) as client:
        params = {"level": "error", "from": "2026-11-18T11:10:00Z", "x": "2"}
        query = {
            "query": "SELECT count(*) AS n, min(x) AS x FROM logs WHERE timestamp < '2026-11-18T11:12Z'"
        }
        answer = await client.post("/sql", params=params, json=query)

        assert (await answer.json())["rows"] == [{"n": 2, "x": 2}]


async def test_partial_answers_say_so() -> None:
    """Two of three owners dead: rows of the third, complete false, for folds and for rows."""
    cluster = filled()
    cluster.stores["n1"].dead = cluster.stores["n2"].dead = True
    async with api(cluster) as client:
        for sql in (
            "SELECT count(*) AS n FROM logs",
            "SELECT count(DISTINCT message) AS n FROM logs",
        ):
            answer = await client.post("/sql", data=sql)
            body = await answer.json()

            assert body["rows"] == [{"n": 30}]
            assert body["complete"] is False
            assert {one["shard"] for one in body["missing"]} == {0, 1, 2, 3}
            assert answer.headers["X-Quorumlog-Complete"] == "false"


async def test_nobody_there_is_503_and_a_deadline_504() -> None:
    """Also when it is the engine that takes too long; then its process is gone."""
    cluster = filled(1)
    async with api(cluster) as client:
        endless = "SELECT count(*) FROM range(100000000000)"
        answer = await client.post("/sql?timeout=1500ms", data=endless)
        assert answer.status == 504
        assert not client.runner.pool.running  # type: ignore[attr-defined]
        for store in cluster.stores.values():
            store.dead = True
        answer = await client.post("/sql", data="SELECT count(*) FROM logs")
        assert answer.status == 503


async def test_a_client_that_leaves_ends_its_query() -> None:
    """The engine's process is killed, though nothing was written."""
    async with api(filled(1)) as client:
        pool = client.runner.pool  # type: ignore[attr-defined]
        recursive = (
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t"
        )
        task = asyncio.create_task(client.post("/sql", data=recursive))
        for _ in range(200):
            await asyncio.sleep(0.02)
            if pool.running:
                break
        (engine,) = pool.running
        task.cancel()
        for _ in range(200):
            await asyncio.sleep(0.02)
            if not pool.running and not engine.alive:
                break

        assert not pool.running
        assert not engine.alive


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\xff", "text/plain"),
        (b"SELECT \0", "text/plain"),
        (b"  ", "text/plain"),
        (b"[1]", "application/json"),
        (b"{", "application/json"),
        (b'{"query": 1}', "application/json"),
        (b'{"query": "x", "y": 1}', "application/json"),
        (b'{"query": "\\ud800"}', "application/json"),
    ],
)
def test_bodies_that_hold_no_statement(body: bytes, kind: str) -> None:
    """Each is refused as what it is."""
    with pytest.raises(InvalidRequest, match="sql: "):
        statement_of(body, kind)
