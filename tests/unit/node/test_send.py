"""Sending pieces: acknowledged in any order, repeated until answered, rows counted as in the file."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import web

from node.cli_api import Api
from node.cli_errors import CliError
from node.send import Progress, Shipper, read_answer
from node.send_source import Piece
from quorumlog.errors import ConnectionLost, QuorumlogError
from quorumlog.wire import Reply


def piece(number: int) -> Piece:
    """The piece of rows 10 * number + 1 .. 10 * number + 10; 100 bytes."""
    return Piece(number * 100, number * 100 + 100, number * 10 + 1, 10, b"%d" % number)


ACCEPTED = {"accepted": 10, "duplicates": 0, "rejectedCount": 0, "rejected": [], "durable": "2/3"}


class FakeServer:
    """Answers POST /logs from a script of statuses; then 200."""

    def __init__(self) -> None:
        self.script: list[int] = []
        self.seen: list[tuple[str, bytes]] = []
        self.running = 0
        self.most = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        """One answer."""
        self.running += 1
        self.most = max(self.most, self.running)
        body = await request.read()
        await asyncio.sleep(0.005)
        self.running -= 1
        self.seen.append((request.headers["Idempotency-Key"], body))
        status = self.script.pop(0) if self.script else 200
        if status == 200:
            return web.json_response(ACCEPTED)
        error = {"code": "QUORUM_UNAVAILABLE", "message": "1 of 2", "definite": False}
        return web.json_response({"error": error}, status=status, headers={"Retry-After": "0"})


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    """A server on a port of the system's choice."""
    fake = FakeServer()
    app = web.Application()
    app.router.add_post("/logs", fake.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


async def ship(urls: list[str], pieces: Iterator[Piece], patience: float = 5.0) -> Progress:
    """What has become of the pieces."""
    async with Api(urls) as api:
        shipper = Shipper(api, "id", "application/x-ndjson", {}, patience_seconds=patience)
        await shipper.run(pieces, 0, 0)
        return shipper.progress


async def test_all_pieces_are_sent_some_at_once(server: FakeServer) -> None:
    """Four are under way at a time, and all are acknowledged at the end."""
    progress = await ship([server.url], iter([piece(n) for n in range(12)]))

    assert (progress.accepted, progress.done, progress.done_rows) == (120, 1200, 120)
    assert sorted(body for _, body in server.seen) == sorted(b"%d" % n for n in range(12))
    assert server.most == 4


async def test_an_unanswered_piece_is_sent_again_under_the_same_key(server: FakeServer) -> None:
    """503 may mean that the rows exist: the key makes the repetition harmless."""
    server.script = [503, 503]

    progress = await ship([server.url], iter([piece(0)]))

    assert progress.accepted == 10
    assert len(server.seen) == 3
    assert len(set(server.seen)) == 1


async def test_a_dead_server_is_followed_by_a_living_one(server: FakeServer) -> None:
    """Nothing listens on port 1."""
    progress = await ship(["http://127.0.0.1:1", server.url], iter([piece(n) for n in range(5)]))

    assert progress.accepted == 50


async def test_a_refusal_for_good_ends_the_run_and_keeps_what_is_done(server: FakeServer) -> None:
    """400 without counts: the request as a whole is wrong."""
    server.script = [200, 400]

    async with Api([server.url]) as api:
        shipper = Shipper(api, "id", "application/x-ndjson", {})
        with pytest.raises(QuorumlogError):
            await shipper.run(iter([piece(0), piece(1)]), 0, 0)

    assert shipper.progress.accepted <= 10
    assert shipper.progress.done in (0, 100)


async def test_patience_ends() -> None:
    """No server at all: the last error rises after the patience is over."""
    with pytest.raises(ConnectionLost):
        await ship(["http://127.0.0.1:1"], iter([piece(0)]), patience=0.1)


async def test_a_broken_source_ends_the_run(server: FakeServer) -> None:
    """Its own error rises, not a group of errors."""

    def pieces() -> Iterator[Piece]:
        yield piece(0)
        raise CliError("cannot be decompressed to its end")

    with pytest.raises(CliError, match="decompressed"):
        await ship([server.url], pieces())


def test_done_moves_only_over_what_is_acknowledged_without_gaps() -> None:
    """Answers come out of order; a resumed run must not miss the slow one."""
    progress = Progress()

    progress.acknowledge(piece(1), ACCEPTED)
    progress.acknowledge(piece(2), ACCEPTED)
    assert (progress.done, progress.done_rows) == (0, 0)

    progress.acknowledge(piece(0), ACCEPTED)
    assert (progress.done, progress.done_rows) == (300, 30)


def test_rejected_rows_have_the_numbers_of_the_file() -> None:
    """Row 2 of the piece that starts at row 31; those beyond the server's list are counted."""
    progress = Progress()
    bad = [{"row": 2, "code": "bad_json", "reason": "x"}]

    progress.acknowledge(piece(3), {"accepted": 5, "rejectedCount": 5, "rejected": bad})

    assert progress.listed == [{"row": 32, "code": "bad_json", "reason": "x"}]
    assert progress.codes == {"bad_json": 1, "not listed": 4}


def test_all_bad_is_an_answer_other_400s_are_errors() -> None:
    """protocols.md 2: all rows bad: 400, same shape."""
    all_bad = json.dumps({"accepted": 0, "rejectedCount": 3, "rejected": []}).encode()

    assert read_answer(Reply(400, {}, all_bad))["rejectedCount"] == 3
    with pytest.raises(QuorumlogError):
        read_answer(Reply(400, {}, b'{"error":{"code":"INVALID_REQUEST","message":"x"}}'))
