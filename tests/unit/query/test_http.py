"""The HTTP face: shapes of answers, formats, errors, streams that break, clients that leave."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pyarrow as pa
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster.http_front import front_middleware
from query import http, limits
from query import stream as stream_module
from query.http import routes
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.metrics import Metrics
from tests.support.fake_store import FakeCluster, make_entry
from tests.unit.query.helpers import NOW, coordinator, row


class UncancellingServer(TestServer):
    """A server that leaves handlers running when their client has gone: aiohttp's default."""

    async def _make_runner(self, **_: Any) -> web.AppRunner:
        return web.AppRunner(self.app, handler_cancellation=False)


@asynccontextmanager
async def api(
    cluster: FakeCluster, metrics: Metrics | None = None, cancels: bool = True, **settings: Any
) -> AsyncIterator[TestClient]:
    """A client of the routes over a fake cluster."""
    metrics = metrics or Metrics()
    async with coordinator(cluster, metrics, **settings) as reader:
        middleware = front_middleware(SystemClock(), SystemEntropy(), metrics)
        app = web.Application(middlewares=[middleware])
        app.router.add_routes(routes(reader))
        server = TestServer(app) if cancels else UncancellingServer(app)
        async with TestClient(server) as client:
            yield client


def filled(entries: int = 20) -> FakeCluster:
    """Entries a minute apart; three rows each."""
    cluster = FakeCluster()
    for number in range(entries):
        at = number * 60_000_000
        rows = [
            row(
                at + i, f"m {number} {i}", level="error" if i else "info", x=i, attributes='{"a":1}'
            )
            for i in range(3)
        ]
        cluster.write(make_entry(number, number % 4, rows, received_at=NOW + number))
    return cluster


async def test_query_answers_as_the_interface_says() -> None:
    """rows, next_cursor, complete, missing, stats; a row with _id, RFC 3339 time, attributes apart."""
    async with api(filled()) as client:
        answer = await client.get("/query", params={"limit": "2"})
        body = await answer.json()

    assert answer.status == 200
    assert answer.headers["X-Quorumlog-Complete"] == "true"
    assert len(answer.headers["X-Quorumlog-Request-Id"]) == 26
    assert list(body) == ["rows", "next_cursor", "complete", "missing", "stats"]
    assert body["complete"] is True
    assert body["missing"] == []
    assert set(body["stats"]) >= {"rows_scanned", "blocks_pruned", "elapsed_ms", "repaired"}
    first = body["rows"][0]
    assert first.pop("_id").endswith("-2")
    assert first == {
        "timestamp": "2026-11-18T11:25:40.000002Z", "service": "pay", "level": "error",
        "message": "m 19 2", "x": 2, "a": 1,
    }  # fmt: skip


async def test_logs_is_an_alias() -> None:
    """TraceHub's filters on /logs."""
    cluster = filled()
    home = cluster.view.shards_holding("default", "pay")[0]
    late = [row(i, f"late {i}", level="error" if i else "info") for i in range(3)]
    cluster.write(make_entry(99, home, late))
    async with api(cluster) as client:
        params = {"service": "pay", "level": "ERROR", "search": "late", "limit": "10"}
        one = await (await client.get("/logs", params=params)).json()
        two = await (await client.get("/query", params=params)).json()

    assert one["rows"] == two["rows"]
    assert len(one["rows"]) == 2


async def test_pages_by_cursor_end() -> None:
    """60 rows in pages of 25: 25, 25, 10; the last has no cursor."""
    sizes, params = [], {"limit": "25"}
    async with api(filled()) as client:
        while True:
            body = await (await client.get("/query", params=params)).json()
            sizes.append(len(body["rows"]))
            if body["next_cursor"] is None:
                break
            params["cursor"] = body["next_cursor"]

    assert sizes == [25, 25, 10]


async def test_a_wide_page_comes_in_pieces_and_holds_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same JSON as of a small page; its bytes are held while it is sent."""
    async with api(filled(), memory_bytes=1 << 30) as client:
        small = await (await client.get("/query?limit=25")).json()
        monkeypatch.setattr(limits, "SMALL_PAGE_BYTES", 0)
        monkeypatch.setattr(http, "PIECE_BYTES", 300)
        answer = await client.get("/query?limit=25")
        wide = await answer.json()
        assert answer.headers["X-Quorumlog-Complete"] == "true"
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert "application/json" in answer.headers["Content-Type"]
        for body in (small, wide):
            del body["stats"]
        assert wide == small
        empty = await (await client.get("/query?service=nobody")).json()
        assert empty["rows"] == []


async def test_wide_pages_for_clients_that_do_not_read_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While one is not read there is no room for a second: 429; small ones pass. Who leaves gives it back."""
    monkeypatch.setattr(limits, "SMALL_PAGE_BYTES", 20_000)
    cluster = FakeCluster()
    rows = [row(i, "x" * 200_000) for i in range(60)]
    cluster.write(make_entry(1, 0, rows, received_at=NOW))
    async with api(cluster, memory_bytes=24_002_000) as client:  # room for a bit less than 60 rows
        slow = await client.get("/query?limit=60")
        second = await client.get("/query?limit=60&timeout=0.2")
        third = await client.get("/query?limit=1&fields=level&timeout=2")
        assert (slow.status, second.status, third.status) == (200, 429, 200)
        slow.close()
        for _ in range(100):
            again = await client.get("/query?limit=60&timeout=2")
            if again.status == 200:
                break
        assert len((await again.json())["rows"]) == 60


@pytest.mark.parametrize("how", ["format", "accept"])
@pytest.mark.parametrize("kind", ["ndjson", "csv", "arrow"])
async def test_streams_have_no_cap(kind: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 60 rows although the default limit is lower, over many pages, in each format."""
    monkeypatch.setattr(stream_module, "GROUP_ROWS_MIN", 7)
    media = {
        "ndjson": "application/x-ndjson",
        "csv": "text/csv",
        "arrow": "application/vnd.apache.arrow.stream",
    }[kind]
    params = {"format": kind} if how == "format" else {}
    headers = {"Accept": f"{media}, */*"} if how == "accept" else {}
    async with api(filled(), page_rows=7) as client:
        answer = await client.get("/query", params=params, headers=headers)
        body = await answer.read()

    assert answer.content_type == media
    assert answer.headers["X-Quorumlog-Complete"] == "true"
    if kind == "ndjson":
        ids = [json.loads(line)["_id"] for line in body.splitlines()]
    elif kind == "csv":
        ids = [one["_id"] for one in csv.DictReader(io.StringIO(body.decode()))]
    else:
        ids = pa.ipc.open_stream(body).read_all()["_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 60


async def test_a_stream_honours_an_explicit_limit() -> None:
    """Five rows if five are asked for."""
    async with api(filled()) as client:
        body = await (await client.get("/query?format=ndjson&limit=5")).read()

    assert len(body.splitlines()) == 5


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/query?limit=0", "limit"),
        ("/query?q=(", "q"),
        ("/query?regex=(a", "regex"),
        ("/query?from=x", "from"),
        ("/query?cursor=x", "cursor"),
        ("/query?format=xml", "format"),
        ("/query?format=ndjson&order=up", "order"),
        ("/query/stats?agg=foo", "agg"),
        ("/query/histogram?step=x", "step"),
        ("/query/values", "field"),
        ("/query/fields?sample=0", "sample"),
    ],
)
async def test_bad_requests_name_the_parameter(path: str, parameter: str) -> None:
    """400, JSON, definite, with the parameter; no replica is asked."""
    cluster = filled(1)
    async with api(cluster) as client:
        answer = await client.get(path)
        error = (await answer.json())["error"]

    assert answer.status == 400
    assert error["code"] == "INVALID_REQUEST"
    assert error["definite"] is True
    assert error["parameter"] == parameter
    assert cluster.calls("scan") == 0


async def test_partial_answers_say_so_in_body_and_header() -> None:
    """Two of three owners dead: 200, complete false, each shard named; the same for streams."""
    cluster = filled()
    cluster.stores["n1"].dead = cluster.stores["n2"].dead = True
    async with api(cluster) as client:
        answer = await client.get("/query")
        body = await answer.json()
        stream = await client.get("/query?format=ndjson")
        lines = (await stream.read()).splitlines()

    assert answer.headers["X-Quorumlog-Complete"] == "false"
    assert [one["shard"] for one in body["missing"]] == [0, 1, 2, 3]
    assert stream.headers["X-Quorumlog-Complete"] == "false"
    assert {one["shard"] for one in json.loads(stream.headers["X-Quorumlog-Missing"])} == {
        0,
        1,
        2,
        3,
    }
    assert len(lines) == 60


async def test_nothing_reachable_is_503() -> None:
    """For pages and streams alike: an error, not an empty answer."""
    cluster = filled(1)
    for store in cluster.stores.values():
        store.dead = True
    async with api(cluster) as client:
        for path in ("/query", "/query?format=csv", "/query/stats"):
            answer = await client.get(path)
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "1"
            assert (await answer.json())["error"]["code"] == "QUORUM_UNAVAILABLE"


async def test_a_timeout_without_any_answer_is_504() -> None:
    """The deadline of the request passes before any owner spoke."""
    cluster = filled(1)
    for store in cluster.stores.values():
        store.delay_seconds = 30.0
    async with api(cluster) as client:
        answer = await client.get("/query?timeout=100ms")

    assert answer.status == 504


@pytest.mark.parametrize("kind", ["ndjson", "csv", "arrow"])
async def test_a_stream_that_breaks_is_cut_loudly(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began complete, then two owners die: the client sees a broken body, NDJSON an error line."""
    monkeypatch.setattr(stream_module, "GROUP_ROWS_MIN", 7)
    cluster = filled()
    scans = 0

    def on_call(_: str, method: str) -> None:
        nonlocal scans
        scans += method == "scan"
        if scans > 8:
            cluster.stores["n1"].dead = cluster.stores["n2"].dead = True

    for store in cluster.stores.values():
        store.on_call = on_call
    received = bytearray()
    async with api(cluster, page_rows=7) as client:
        answer = await client.get("/query", params={"format": kind})
        assert answer.headers["X-Quorumlog-Complete"] == "true"
        with pytest.raises(aiohttp.ClientPayloadError):
            await drain(answer, received)

    if kind == "ndjson":
        last = json.loads(received.splitlines()[-1])
        assert last["error"]["code"] == "INCOMPLETE"
        assert last["error"]["missing"]
        assert 0 < len(received.splitlines()) < 61


async def drain(answer: aiohttp.ClientResponse, into: bytearray) -> None:
    """Reads a body to its end, or to where it breaks."""
    async for piece in answer.content.iter_any():
        into += piece


@pytest.mark.parametrize("cancels", [True, False])
async def test_a_client_that_leaves_ends_its_query(cancels: bool) -> None:
    """The scans are cancelled, though no byte was written; also where the server does not cancel."""
    cluster, metrics = filled(1), Metrics()
    for store in cluster.stores.values():
        store.delay_seconds = 60.0
    async with api(cluster, metrics, cancels) as client:
        task = asyncio.create_task(client.get("/query"))
        await asyncio.sleep(0.1)
        assert metrics.snapshot()["quorumlog_query_running"] == 1
        task.cancel()
        for _ in range(100):
            await asyncio.sleep(0.02)
            if not metrics.snapshot()["quorumlog_query_running"]:
                break

        assert metrics.snapshot()["quorumlog_query_running"] == 0
        assert sum(store.cancelled for store in cluster.stores.values()) >= 2


async def test_stats() -> None:
    """Groups with their aggregates, the largest first."""
    async with api(filled()) as client:
        body = await (await client.get("/query/stats?by=level&agg=count,sum(x),p50(x)")).json()

    assert body["rows"] == [
        {"level": "error", "count": 40, "sum(x)": 60, "p50(x)": 1.5},
        {"level": "info", "count": 20, "sum(x)": 0, "p50(x)": 0.0},
    ]
    assert body["complete"] is True
    assert body["cut"] is False


async def test_histogram() -> None:
    """Buckets of a range, empty ones filled; without step and range the step follows the data."""
    async with api(filled()) as client:
        params = {"step": "30m", "from": "2026-11-18T10:30:00Z", "to": "2026-11-18T12:00:00Z"}
        body = await (await client.get("/query/histogram", params=params)).json()
        auto = await (await client.get("/query/histogram?by=level")).json()

    assert [(one["timestamp"][11:16], one["count"]) for one in body["rows"]] == [
        ("10:30", 0),
        ("11:00", 60),
        ("11:30", 0),
    ]
    assert body["step"] == "30m"
    assert auto["step"] == "1m"
    assert sum(one["count"] for one in auto["rows"]) == 60
    assert len(auto["rows"]) == 20 * 2


async def test_a_long_histogram_is_hours_put_together() -> None:
    """Rows over forty days: steps of half a day, each count once."""
    cluster = FakeCluster()
    for number in range(40):
        rows = [row(number * 86_400_000_000)]
        cluster.write(make_entry(number, number % 4, rows, received_at=NOW + number))
    async with api(cluster) as client:
        body = await (await client.get("/query/histogram")).json()

    assert body["step"] == "1d"
    assert [one["count"] for one in body["rows"]] == [1] * 40


async def test_values_and_fields() -> None:
    """Values with counts; fields with types and counts."""
    async with api(filled()) as client:
        values = await (await client.get("/query/values?field=x&limit=2")).json()
        fields = await (await client.get("/query/fields")).json()
        exact = await (await client.get("/query/fields?sample=1&exact=true")).json()

    assert values["values"] == [{"value": 0, "count": 20}, {"value": 1, "count": 20}]
    assert values["distinct"] == 3
    assert values["cut"] is True
    named = {one["name"]: one for one in fields["fields"]}
    assert named["x"] == {"name": "x", "type": "integer", "rows": 60}
    assert named["a"]["rows"] == 60
    assert fields["exact"] is True
    assert exact["sampled_rows"] == 1
    assert {one["name"]: one["rows"] for one in exact["fields"]}["x"] == 60


async def test_tenants_do_not_mix() -> None:
    """The header's tenant travels in the plan; two at once are refused."""
    async with api(filled(1)) as client:
        other = await client.get("/query", headers={"X-Scope-OrgID": "a|b"})

    assert other.status == 400
