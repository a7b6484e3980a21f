"""Bodies from real sockets: whatever way they are cut and framed, the pieces are the same."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from ingestor.limits import Limits
from ingestor.listeners.body import BodyReader
from ingestor.listeners.http import RUNNER_OPTIONS
from runtime.clock import SystemClock

LIMITS = replace(Limits(), piece_bytes=10_000, idle_seconds=5.0)
BODY = b"".join(b'{"n":%d,"pad":"%s"}\n' % (n, b"x" * (n % 97)) for n in range(3000))
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"


async def now(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


async def told(request: web.Request) -> web.Response:
    """How long the body and its pieces are, and a digest of it."""
    encoding = request.headers.get("Content-Encoding", "")
    reader = BodyReader(request.content, request.content_length, encoding, LIMITS, SystemClock())
    pieces = [piece async for piece in reader.pieces(now)]
    name = hashlib.sha256(b"".join(pieces)).hexdigest()
    return web.json_response({"sizes": [len(one) for one in pieces], "name": name})


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server of `told`, read with a buffer much smaller than the body."""
    app = web.Application(client_max_size=0)
    app.router.add_post("/", told)
    runner = web.AppRunner(app, access_log=None, read_bufsize=1 << 12, **RUNNER_OPTIONS)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        reader, writer = await asyncio.open_connection(host, port)
        try:
            yield reader, writer
        finally:
            writer.close()
    finally:
        await runner.cleanup()


async def answer(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The JSON of the next answer; interim answers are skipped."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 100 " in head.split(b"\r\n")[0]:
        return await answer(reader)
    assert b" 200 " in head.split(b"\r\n")[0], head
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return json.loads(await reader.readexactly(length))


async def ask(parts: Sequence[bytes], answers: int = 1) -> list[dict[str, Any]]:
    """The answers to what `parts` make together, sent one by one."""
    async with asyncio.timeout(30), connected() as (reader, writer):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        return [await answer(reader) for _ in range(answers)]


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """`data` in parts whose sizes take turns."""
    parts, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        parts.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return parts


def sized(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(parts: Sequence[bytes]) -> bytes:
    framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


def right(told: dict[str, Any], body: bytes = BODY) -> bool:
    return told["name"] == hashlib.sha256(body).hexdigest() and sum(told["sizes"]) == len(body)


@pytest.mark.parametrize("sizes", [[1 << 20], [977, 1, 4096, 13], [65_536, 3]])
async def test_a_body_of_known_length_is_whole_however_it_was_cut(sizes: list[int]) -> None:
    """In one write, at odd bytes (also within the head), above and below the server's buffer."""
    [one] = await ask(cut(sized(BODY), sizes))

    assert right(one)
    assert len(one["sizes"]) > len(BODY) // LIMITS.piece_bytes


@pytest.mark.parametrize("sizes", [[1], [700, 1, 5000]])
async def test_chunked_encoding_gives_the_same_pieces(sizes: list[int]) -> None:
    """HTTP chunks of one byte, and of sizes on both sides of the buffer, in packets of other sizes."""
    [plain] = await ask([sized(BODY)])
    [one] = await ask(cut(chunked(cut(BODY, sizes)), [7777, 501]))

    assert one == plain


async def test_requests_behind_one_another_are_kept_apart() -> None:
    """Three in one write: the last bytes of a body and the next head come together; one has no body."""
    first, last = BODY[:5001], BODY[5001:]

    told = await ask([sized(first) + sized(b"") + sized(last)], answers=3)

    assert right(told[0], first)
    assert told[1]["sizes"] == []
    assert right(told[2], last)


async def test_a_client_that_waits_for_leave_to_send_gets_it() -> None:
    """`Expect: 100-continue`: the interim answer comes before a byte of the body was sent."""
    head, _, body = sized(BODY).partition(b"\r\n\r\n")
    async with asyncio.timeout(30), connected() as (reader, writer):
        writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
        interim = await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        one = await answer(reader)

    assert b" 100 " in interim
    assert right(one)


async def test_a_body_that_ends_early_is_not_taken_for_whole() -> None:
    """The connection closes 1 byte before the announced length: no answer says that it was read."""
    async with asyncio.timeout(30), connected() as (reader, writer):
        writer.write(sized(BODY)[:-1])
        await writer.drain()
        writer.write_eof()
        rest = await reader.read()

    assert b" 200 " not in rest
