"""Connections without a request end; those with one are left alone."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from ingestor.listeners.slow_clients import ConnectionSweeper
from runtime.metrics import Metrics


class SetClock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def boottime(self) -> float:
        return self.now

    def wall_micros(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
async def runner() -> AsyncIterator[web.AppRunner]:
    release = asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        await release.wait()
        return web.Response(text="done")

    async def quick(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/slow", slow)
    app.router.add_get("/quick", quick)
    one = web.AppRunner(app)
    await one.setup()
    await web.TCPSite(one, "127.0.0.1", 0).start()
    yield one
    release.set()
    await one.cleanup()


async def closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(100), 0.2) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


async def test_a_header_that_drips_ends_after_ten_seconds(runner: web.AppRunner) -> None:
    """Each byte of the header does not buy more time; a request under way is not touched."""
    port = runner.addresses[0][1]
    clock, metrics = SetClock(), Metrics()
    sweeper = ConnectionSweeper(runner.server, clock, metrics)
    dripping, drip = await asyncio.open_connection("127.0.0.1", port)
    busy, ask = await asyncio.open_connection("127.0.0.1", port)
    ask.write(b"GET /slow HTTP/1.1\r\nHost: q\r\n\r\n")
    drip.write(b"GET /quick HTTP/1.1\r\nX-Slow: ")
    await asyncio.sleep(0.05)

    for _ in range(4):
        sweeper.sweep()
        drip.write(b"T")
        await asyncio.sleep(0.01)
        clock.now += 3.0
    sweeper.sweep()

    assert await closed(dripping)
    assert not await closed(busy)
    assert metrics.snapshot()['quorumlog_http_swept_total{reason="slow_header"}'] == 1
    drip.close()
    ask.close()


async def test_an_idle_connection_is_kept_for_a_while(runner: web.AppRunner) -> None:
    """75 s between two requests, from the last."""
    port = runner.addresses[0][1]
    clock = SetClock()
    sweeper = ConnectionSweeper(runner.server, clock, Metrics())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    for _ in range(2):
        writer.write(b"GET /quick HTTP/1.1\r\nHost: q\r\n\r\n")
        await reader.readuntil(b"ok")
        sweeper.sweep()
        clock.now += 70.0
        sweeper.sweep()
    assert not await closed(reader)
    clock.now += 6.0
    sweeper.sweep()

    assert await closed(reader)
    writer.close()
