"""`Client` against fake servers on loopback: parameters, pages, streams, failures."""

from __future__ import annotations

import gc
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from aiohttp import web

from quorumlog import (
    Client,
    ConnectionLost,
    Incomplete,
    InvalidRequest,
    QuorumUnavailable,
    ServerFailed,
    Unauthorized,
)
from tests.unit.client.fake_query import (
    FakeQueryNode,
    arrow_stream,
    break_off,
    fail_with,
    hang_up,
)

NOW_NS = 1_763_683_200 * 10**9
ROWS: list[dict[str, Any]] = [{"n": number, "message": f"m\n{number}"} for number in range(25)]


def _client(*nodes: FakeQueryNode, **settings: Any) -> Client:
    return Client([node.url for node in nodes], clock_ns=lambda: NOW_NS, **settings)


async def test_a_query_gives_rows_and_says_what_is_missing() -> None:
    """The honesty of the server reaches the caller."""
    async with FakeQueryNode(ROWS) as node, _client(node) as client:
        page = await client.query(service="pay", limit=10)
        node.faults.append(
            fail_with(200, {"rows": [], "complete": False, "missing": [{"shard": 3}], "stats": {}})
        )
        partial = await client.query(service="pay")

    assert [row["n"] for row in page] == list(range(10))
    assert (len(page), page.complete, page.next_cursor) == (10, True, "10")
    assert page.stats == {"rows_scanned": 10}
    assert (partial.complete, partial.missing, partial.next_cursor) == (False, [{"shard": 3}], None)


async def test_sql_is_posted_as_it_is() -> None:
    """The statement is the body, the filters are parameters; columns keep their order and types."""
    found = {
        "columns": [{"name": "n", "type": "BIGINT"}],
        "rows": [{"n": 3}],
        "complete": False,
        "missing": [{"shard": 1}],
        "stats": {"rows_read": 9},
        "notes": ["a note"],
    }
    async with FakeQueryNode() as node, _client(node) as client:
        node.faults.append(fail_with(200, found))
        result = await client.sql("SELECT 'ä'", since="1h", service=["a", "b"])
        with pytest.raises(ServerFailed):
            await client.sql("SELECT 1")

    assert list(result) == [{"n": 3}]
    assert (len(result), result.columns, result.complete) == (1, [("n", "BIGINT")], False)
    assert (result.missing, result.notes) == ([{"shard": 1}], ["a note"])
    assert node.bodies[0] == "SELECT 'ä'".encode()
    assert node.asked[0] == ("/sql", {"service": "a,b", "from": "2025-11-20T23:00:00.000000Z"})


async def test_filters_become_the_servers_parameters() -> None:
    """Relative times are turned into `from`; lists are joined; None is left out."""
    async with FakeQueryNode() as node, _client(node, token="t", tenant="acme") as client:
        await client.query(
            since="1h",
            to=datetime(2026, 1, 1, tzinfo=UTC),
            level=None,
            fields=["a", "b"],
            live=True,
        )
        await client.query(from_="2026-01-01", order="asc", cursor="5", limit=5)
        with pytest.raises(ValueError, match="not both"):
            await client.query(since="1h", from_="2026-01-01")

    assert node.asked[0][1] == {
        "limit": "100",
        "from": "2025-11-20T23:00:00.000000Z",
        "to": "2026-01-01T00:00:00Z",
        "fields": "a,b",
        "live": "true",
    }
    assert node.asked[1][1] == {"from": "2026-01-01", "order": "asc", "cursor": "5", "limit": "5"}
    assert node.headers[0]["Authorization"] == "Bearer t"
    assert node.headers[0]["X-Scope-OrgID"] == "acme"


async def test_rows_and_pages_follow_the_cursor_to_the_end() -> None:
    """Every row once, in order, and `since` means the same moment on each page."""
    async with FakeQueryNode(ROWS) as node, _client(node) as client:
        rows = [row async for row in client.rows(limit=10, since="1h")]
        pages = [len(page) async for page in client.pages(limit=10)]

    assert rows == ROWS
    assert pages == [10, 10, 5]
    assert len({query["from"] for _, query in node.asked[:3]}) == 1


async def test_a_stream_gives_every_row() -> None:
    """NDJSON cut anywhere into pieces, and Arrow batches."""
    async with FakeQueryNode(ROWS) as node, _client(node) as client:
        lines = [row async for row in client.stream(service="pay")]
        batches = [batch async for batch in client.stream("arrow", service="pay")]
        with pytest.raises(ValueError, match="format"):
            await anext(client.stream("xml"))

    assert lines == ROWS
    assert [row for batch in batches for row in batch.to_pylist()] == ROWS
    assert len(batches) == 25
    assert node.asked[0] == ("/query", {"service": "pay"})


@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("ndjson", b'{"n":1}\n{"n":2}\n{"n"'),
        (
            "arrow",
            arrow_stream(ROWS)[:-8],
        ),  # between two batches: only HTTP knows that more was due
        ("arrow", arrow_stream(ROWS)[:-9]),
        ("arrow", arrow_stream(ROWS)[: len(arrow_stream(ROWS)) // 2]),
    ],
)
async def test_a_stream_that_ends_in_the_middle_is_an_error(format: str, content: bytes) -> None:
    """Never a shorter answer that looks whole."""
    async with FakeQueryNode() as node, _client(node) as client:
        node.faults.append(break_off(content))
        stream = client.stream(format)
        await anext(stream)
        with pytest.raises(ConnectionLost):
            [item async for item in stream]


async def test_a_stream_that_is_not_what_it_says_is_an_error() -> None:
    """Bytes that are no Arrow, and lines that are no JSON."""
    async with FakeQueryNode() as node, _client(node) as client:
        node.faults.append(fail_with(200, "x" * 100))
        with pytest.raises(ConnectionLost):
            [batch async for batch in client.stream("arrow")]
        node.rows = []
        node.faults.append(break_off(b"<html>\n"))
        with pytest.raises(ServerFailed):
            [row async for row in client.stream()]


def _incomplete(body: str) -> Any:
    """A fault: a stream whose first line says that a shard is missing."""

    async def fault(_: web.Request) -> web.Response:
        headers = {"X-Quorumlog-Complete": "false", "X-Quorumlog-Missing": '[{"shard":3}]'}
        return web.Response(text=body, headers=headers)

    return fault


async def test_what_is_incomplete_is_an_error_unless_it_is_asked_for() -> None:
    """Rows and streams have no place to say so in passing: they raise, with what is missing."""
    async with FakeQueryNode() as node, _client(node) as client:
        node.faults.extend([_incomplete('{"_id":"a"}\n')] * 2)
        with pytest.raises(Incomplete) as caught:
            await anext(client.stream())
        assert caught.value.missing == [{"shard": 3}]
        assert [row async for row in client.stream(partial=True)] == [{"_id": "a"}]
        page = {"rows": [{"_id": "a"}], "complete": False, "missing": [{"shard": 4}]}
        node.faults.extend([fail_with(200, page)] * 2)
        with pytest.raises(Incomplete) as caught:
            await anext(client.rows())
        assert caught.value.missing == [{"shard": 4}]
        assert [row async for row in client.rows(partial=True)] == [{"_id": "a"}]


@pytest.mark.parametrize(
    ("detail", "kind"),
    [
        ({"code": "INCOMPLETE", "message": "x", "missing": [1]}, Incomplete),
        ({"code": "DEADLINE_EXCEEDED", "message": "x", "definite": False}, QuorumUnavailable),
    ],
)
async def test_the_last_line_of_a_cut_stream_says_why(detail: Any, kind: type[Exception]) -> None:
    """It is raised, not given out as a row; a row with a field of that name is a row."""
    async with FakeQueryNode() as node, _client(node) as client:
        row = {"_id": "a", "error": {"code": "x"}}
        lines = [json.dumps(row), json.dumps({"error": detail}), ""]
        node.faults.append(break_off("\n".join(lines).encode()))
        stream = client.stream()
        assert await anext(stream) == row
        with pytest.raises(kind):
            await anext(stream)


@pytest.mark.parametrize("format", ["ndjson", "arrow"])
async def test_a_stream_may_be_left_early(format: str) -> None:
    """Connection, task and thread end with it; the client goes on."""
    async with FakeQueryNode(ROWS * 100) as node, _client(node) as client:
        stream = client.stream(format)
        await anext(stream)
        await stream.aclose()
        assert len(await client.query(limit=3)) == 3
    gc.collect()


async def test_to_arrow_keeps_all_columns_and_mixed_types() -> None:
    """Columns are the union; a column of several types becomes text, none is lost."""
    rows = [{"a": 1, "b": "x"}, {"b": 2, "c": {"d": [1]}}, {"a": 3}, {"c": {"d": None}}]
    async with FakeQueryNode(rows) as node, _client(node) as client:
        table = (await client.query()).to_arrow()

    assert table.column_names == ["a", "b", "c"]
    assert table["a"].to_pylist() == [1, None, 3, None]
    assert table["b"].to_pylist() == ["x", "2", None, None]
    assert table.num_rows == 4


async def test_every_call_asks_its_path() -> None:
    """The rest of the interface."""
    async with FakeQueryNode() as node, _client(node) as client:
        await client.stats(by=["level", "service"], agg=["count", "p95(duration_ms)"], since="1d")
        await client.histogram(step="1m", by="service")
        await client.fields()
        await client.values("level", service="pay")
        for call in (client.cluster, client.nodes, client.ring, client.health):
            await call()

    asked = [path for path, _ in node.asked]
    assert asked == [
        "/query/stats",
        "/query/histogram",
        "/query/fields",
        "/query/values",
        "/cluster",
        "/cluster/nodes",
        "/cluster/ring",
        "/health",
    ]
    assert node.asked[0][1] == {
        "by": "level,service",
        "agg": "count,p95(duration_ms)",
        "from": "2025-11-20T00:00:00.000000Z",
    }
    assert node.asked[1][1] == {"step": "1m", "by": "service"}
    assert node.asked[3][1] == {"field": "level", "service": "pay"}


@pytest.mark.parametrize("fault", [hang_up, fail_with(500, {}), fail_with(503, {"error": "x"})])
async def test_the_next_server_is_asked_when_one_fails(fault: Any) -> None:
    """At once, and the good one is kept."""
    async with FakeQueryNode(ROWS) as bad, FakeQueryNode(ROWS) as good:
        bad.faults.extend([fault] * 9)
        async with _client(bad, good) as client:
            assert len(await client.query()) == 25
            assert len(await client.query()) == 25
    assert len(bad.asked) <= 2  # aiohttp repeats an idempotent request once on a closed connection
    assert len(good.asked) == 2


async def test_when_all_servers_fail_the_last_error_is_raised_in_time() -> None:
    """With pauses, not in a tight loop."""
    async with FakeQueryNode() as node:
        node.faults.extend([fail_with(503, {"error": "no_quorum"})] * 1000)
        async with _client(node, timeout_seconds=0.5) as client:
            with pytest.raises(QuorumUnavailable, match="NO_QUORUM"):
                await client.query()
    assert 2 <= len(node.asked) < 60


async def test_what_is_refused_for_good_is_raised_at_once() -> None:
    """A wrong query stays wrong on every server."""
    async with FakeQueryNode() as node, FakeQueryNode() as other, _client(node, other) as client:
        node.faults.append(fail_with(400, {"error": {"code": "BAD_QUERY", "message": "no )"}}))
        with pytest.raises(InvalidRequest, match="no \\)") as caught:
            await client.query(q="(")
        assert caught.value.code == "BAD_QUERY"
        node.faults.append(fail_with(403, {}))
        with pytest.raises(Unauthorized):
            await client.query()
        assert other.asked == []


@pytest.mark.parametrize("answer", [{}, {"rows": 3}, {"rows": [], "complete": "yes"}])
async def test_an_answer_without_rows_is_an_error(answer: Any) -> None:
    """Not an empty result."""
    async with FakeQueryNode() as node, _client(node) as client:
        node.faults.append(fail_with(200, answer))
        with pytest.raises(ServerFailed):
            await client.query()


async def test_lines_are_sent_once_however_often_they_are_tried() -> None:
    """All tries carry one key; two calls with equal lines carry two."""
    async with FakeQueryNode() as node, _client(node) as client:
        answer = {"batchId": "b", "accepted": 2, "durable": "2/3"}
        node.faults.extend([fail_with(503, {}), fail_with(200, answer)])
        result = await client.ingest_lines([{"message": "a"}, {"message": "b"}], service="pay")
        node.faults.append(fail_with(200, answer))
        await client.ingest_lines('{"message":"a"}\n')

    assert (result.accepted, result.rejected_count, result.durable) == (2, 0, "2/3")
    assert [json.loads(line)["message"] for line in node.bodies[0].splitlines()] == ["a", "b"]
    assert node.bodies[0] == node.bodies[1]
    keys = [headers["Idempotency-Key"] for headers in node.headers]
    assert keys[0] == keys[1] != keys[2]
    assert node.asked[0] == ("/ingest", {"service": "pay"})
    assert node.headers[0]["Content-Type"] == "application/x-ndjson"


async def test_a_table_is_sent_as_an_arrow_stream_under_one_key() -> None:
    """A repeat has the same bytes and key, so that the server may know it again."""
    table = pa.table({"message": ["a", "b"], "user_id": [1, 2]})
    async with FakeQueryNode() as node, _client(node) as client:
        answer = {"batchId": "b", "accepted": 2, "durable": "2/3"}
        node.faults.extend([fail_with(503, {}), fail_with(200, answer)])
        result = await client.ingest_table(table, service="pay")

    assert result.accepted == 2
    assert pa.ipc.open_stream(node.bodies[1]).read_all() == table
    assert node.bodies[0] == node.bodies[1]
    assert node.headers[0]["Idempotency-Key"] == node.headers[1]["Idempotency-Key"]
    assert node.headers[0]["Content-Type"] == "application/vnd.apache.arrow.stream"
    assert node.asked[0] == ("/ingest", {"service": "pay"})


def test_a_client_needs_a_server() -> None:
    """Said at once."""
    with pytest.raises(ValueError, match="server"):
        Client([])
