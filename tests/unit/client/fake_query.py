"""A stand-in for the query side: rows by pages and streams, sums, and faults on request."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import pyarrow as pa
from aiohttp import web
from aiohttp.test_utils import TestServer

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class FakeQueryNode:
    """One node that holds `rows`, in the order of the answer."""

    def __init__(self, rows: list[dict[str, Any]] | None = None) -> None:
        self.rows = rows or []
        self.faults: deque[Fault] = deque()
        #: (path, query parameters) of each request, in order.
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.url = ""
        self.app = web.Application()
        self.app.router.add_route("*", "/{path:.*}", self.serve)
        self._server = TestServer(self.app)

    async def __aenter__(self) -> FakeQueryNode:
        await self._server.start_server()
        self.url = str(self._server.make_url("")).rstrip("/")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answers one request."""
        self.asked.append((request.path, dict(request.query)))
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.read())
        if self.faults and (answer := await self.faults.popleft()(request)) is not None:
            return answer
        if request.path != "/query":
            return web.json_response({"path": request.path, "query": dict(request.query)})
        accept = request.headers.get("Accept", "")
        if accept == "application/x-ndjson":
            return await self._ndjson(request)
        if accept == "application/vnd.apache.arrow.stream":
            return web.Response(body=arrow_stream(self.rows), content_type=accept)
        return self._page(request)

    def _page(self, request: web.Request) -> web.Response:
        start = int(request.query.get("cursor", "0"))
        end = start + int(request.query["limit"])
        cursor = str(end) if end < len(self.rows) else None
        answer = {"rows": self.rows[start:end], "next_cursor": cursor, "complete": True}
        return web.json_response(answer | {"missing": [], "stats": {"rows_scanned": end - start}})

    async def _ndjson(self, request: web.Request) -> web.StreamResponse:
        """In pieces whose borders fall inside lines."""
        answer = web.StreamResponse()
        await answer.prepare(request)
        data = b"".join(json.dumps(row).encode() + b"\n" for row in self.rows)
        for at in range(0, len(data), 7):
            await answer.write(data[at : at + 7])
            await asyncio.sleep(0)
        return answer


def arrow_stream(rows: list[dict[str, Any]]) -> bytes:
    """The rows as an Arrow IPC stream, a batch each."""
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=1):
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def fail_with(status: int, body: Any, headers: dict[str, str] | None = None) -> Fault:
    """A fault: this answer."""

    async def fault(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return fault


def break_off(content: bytes) -> Fault:
    """A fault: a stream that ends in the middle of its body."""

    async def fault(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": str(len(content) + 1000)})
        await answer.prepare(request)
        await answer.write(content)
        assert request.transport is not None
        request.transport.close()
        return answer

    return fault


async def hang_up(request: web.Request) -> None:
    """A fault: the connection closes without an answer."""
    assert request.transport is not None
    request.transport.close()
