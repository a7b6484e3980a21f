"""Asking several servers in turn: who does not answer is passed over, who refuses for good is heard."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from node.cli_api import DEFAULT_SERVERS, Api
from quorumlog.errors import ConnectionLost, InvalidRequest, QuorumUnavailable

NOWHERE = "http://127.0.0.1:1"


class FakeServer:
    """Answers everything with one status."""

    def __init__(self) -> None:
        self.status, self.asked, self.url = 200, 0, ""

    async def handle(self, _: web.Request) -> web.Response:
        """One answer."""
        self.asked += 1
        if self.status == 200:
            return web.json_response({"answer": self.url})
        body = {"error": {"code": "X", "message": "said no", "definite": False}}
        return web.json_response(body, status=self.status)


@pytest.fixture
async def servers() -> AsyncIterator[tuple[FakeServer, FakeServer]]:
    """Two servers."""
    runners, fakes = [], (FakeServer(), FakeServer())
    for fake in fakes:
        app = web.Application()
        app.router.add_get("/{tail:.*}", fake.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        runners.append(runner)
    yield fakes
    for runner in runners:
        await runner.cleanup()


Pair = tuple[FakeServer, FakeServer]


async def test_a_server_that_is_gone_is_passed_over_and_remembered(servers: Pair) -> None:
    """The second question goes to the living one at once."""
    async with Api([NOWHERE, servers[0].url]) as api:
        assert (await api.get("/x"))["answer"] == servers[0].url
        assert api._in_turn()[0] == servers[0].url


async def test_a_transient_error_is_followed_by_the_next_server(servers: Pair) -> None:
    """503 here may be 200 there."""
    servers[0].status = 503

    async with Api([servers[0].url, servers[1].url]) as api:
        assert (await api.get("/x"))["answer"] == servers[1].url


async def test_the_last_error_rises_when_all_fail(servers: Pair) -> None:
    """A server's own words say more than that another could not be reached."""
    servers[0].status = 503

    async with Api([servers[0].url, NOWHERE]) as api:
        with pytest.raises(QuorumUnavailable, match="said no"):
            await api.get("/x")


async def test_what_is_wrong_is_wrong_everywhere(servers: Pair) -> None:
    """400 is not asked again."""
    servers[0].status = 400

    async with Api([servers[0].url, servers[1].url]) as api:
        with pytest.raises(InvalidRequest):
            await api.get("/x")
    assert servers[1].asked == 0


async def test_no_server_at_all_names_those_that_were_tried() -> None:
    """With the system's own reason."""
    async with Api([NOWHERE, "127.0.0.1:2"]) as api:
        with pytest.raises(ConnectionLost) as caught:
            await api.get("/x")

    assert str(caught.value) == (
        "no server answers: http://127.0.0.1:1 (Connection refused),"
        " http://127.0.0.1:2 (Connection refused)"
    )


async def test_streams_too_begin_at_the_first_that_can(servers: Pair) -> None:
    """A stream is not begun twice once it was opened."""
    servers[0].status = 503

    async with (
        Api([NOWHERE, servers[0].url, servers[1].url]) as api,
        api.stream("/x", {}, "application/x-ndjson") as answer,
    ):
        assert servers[1].url in (await answer.read()).decode()


async def test_members_are_added_behind_those_that_were_named(servers: Pair) -> None:
    """Each once; without any name the ports of `up` are tried."""
    async with Api(["a"]) as api:
        api.add_servers(["127.0.0.1:9", "http://a", ""])
        assert api.servers == ["http://a", "http://127.0.0.1:9"]
    async with Api([]) as api:
        assert api.servers == list(DEFAULT_SERVERS)
