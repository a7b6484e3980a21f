"""The sweep: exact cuts, no length left out, and a client that takes half an answer is found."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chaos import sweeping
from chaos.corpus import Corpus
from chaos.history import Head, Recorder
from chaos.sweeping import LINES, Cutter, Sweeper
from chaos.workload import Traffic
from quorumlog.wire import Wire
from runtime.clock import SystemClock

BODY = b'{"accepted": 1}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
ANSWER = HEAD + BODY


class Node:
    """Answers every request with ANSWER; what it was sent."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                self.requests.append(await reader.readexactly(length))
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[tuple[str, int]]:
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()


@asynccontextmanager
async def sweeper(folder: Path, node: Node) -> AsyncIterator[Sweeper]:
    """A sweep of one node, that is asked directly for what was cut."""
    clock, head = SystemClock(), Head("t", 1, 0, ("node1",), 1, 1, 1, {LINES: "chaos-sweep"})
    recorder = Recorder(folder, head, clock)
    async with serving(node) as (host, port):
        urls = {"node1": f"http://{host}:{port}"}
        traffic = Traffic(urls, Corpus(1, 0), recorder, clock, {LINES: "chaos-sweep"})
        loop = asyncio.get_running_loop()
        try:
            yield Sweeper(traffic, {"node1": (host, port)}, 1, loop)
        finally:
            recorder.close()


@pytest.mark.parametrize("limit", [1, len(HEAD), len(ANSWER) - 1, len(ANSWER), 0])
async def test_a_connection_ends_after_just_so_many_bytes(limit: int) -> None:
    """And whether anything was kept back is known: not at the length of the answer, not without a limit."""
    async with serving(Node()) as (host, port):
        cutter = Cutter(host, port)
        where, _, at = (await cutter.start()).rpartition(":")
        cutter.limit = limit
        reader, writer = await asyncio.open_connection(where, int(at))
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        whole = limit in (0, len(ANSWER))
        got = await reader.readexactly(len(ANSWER)) if whole else await reader.read(-1)
        writer.close()
        await cutter.stop()

    assert got == ANSWER[: limit or None]
    assert (cutter.passed, cutter.kept) == (len(got), not whole)


async def test_every_length_is_tried_and_every_row_is_sent_again_until_it_is_acknowledged(
    tmp_path: Path,
) -> None:
    """With the client library's own shell no part of an answer is one; each cut request came twice."""
    node = Node()
    async with sweeper(tmp_path, node) as sweep:
        found = await asyncio.to_thread(sweep, "node1", "/logs")

    assert found == {"bytes": len(ANSWER), "cut": len(ANSWER) - 1, "ended": True, "taken": []}
    asked = 1 + len(ANSWER) + sweeping.DIGITS
    assert len(node.requests) == asked + found["cut"]
    assert len(set(node.requests)) == asked


async def test_a_client_that_is_content_with_a_head_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: it takes the status line for the answer."""

    async def hasty(self: Wire, method: str, url: str, **given: object) -> object:
        host, _, port = url.removeprefix("http://").partition("/")[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
        got = await reader.read(40)
        writer.close()
        return sweeping.workload.Reply(200 if got.startswith(b"HTTP/1.1 200") else 500, {}, b"{}")

    monkeypatch.setattr(Wire, "request", hasty)
    async with sweeper(tmp_path, Node()) as sweep:
        found = await asyncio.to_thread(sweep, "node1", "/logs")

    assert 20 in found["taken"]
    assert 5 not in found["taken"]
