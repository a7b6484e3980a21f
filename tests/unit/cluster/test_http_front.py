"""What is no HTTP: answered, counted, and kept out of the log."""

import asyncio
import logging

import pytest
from aiohttp import web

from cluster.http_front import http_logger
from runtime.metrics import Metrics

BAD = (
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nAuthorization\x01: Bearer very-secret\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
)


async def broken(_: web.Request) -> web.Response:
    """A handler with a mistake."""
    raise KeyError("ours")


async def test_noise_is_counted_and_mistakes_of_ours_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither the bytes of a stranger nor a traceback a request; an exception of a handler is an error."""
    metrics = Metrics()
    app = web.Application()
    app.router.add_get("/broken", broken)
    answers = []
    runner = web.AppRunner(app, logger=http_logger(metrics))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    for data in (*BAD, b"GET /broken HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        answers.append((await reader.read(12))[9:])
        writer.close()
    await runner.cleanup()

    assert answers == [*[b"400"] * 4, b"500"]
    assert metrics.registry.get_sample_value("quorumlog_http_malformed_total") == len(BAD)
    errors = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(errors) == 1
    assert "very-secret" not in caplog.text
    assert "KeyError" in caplog.text
