"""`quorumlog replay`: parameters, tables, following, exit codes, against a fake server."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from node.cli import parse
from node.cli_errors import CliError
from node.commands import replaying
from node.commands.replaying import ask_params, run_cancel, run_list, run_request, run_show
from quorumlog.errors import QuorumlogError

NOW_NS = 1_800_000_000_000_000_000


def request(state: str, **rest: Any) -> dict[str, Any]:
    """A request as the server tells it."""
    found = {
        "id": "ask-1", "kind": "asked", "state": state, "service": "pay", "producer": "p\x1b[2J",
        "epoch": 1, "reason": "", "ranges": [], "rowsWaiting": 0, "rowsAsked": 10,
        "rowsReplayed": 4, "rowsDuplicate": 6, "rowsSkipped": 0, "rowsGone": 0,
    }  # fmt: skip
    return found | rest


class Server:
    """Answers `/logs/replay*` from `answers` in turn (the last for ever); keeps what was asked."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._server = TestServer(app)
        self.url = ""

    async def _answer(self, got: web.Request) -> web.Response:
        self.asked.append((got.method, got.path, dict(got.query)))
        body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.json_response(body, status=404 if "error" in body else 200)

    async def start(self) -> None:
        await self._server.start_server()
        self.url = str(self._server.make_url(""))

    async def stop(self) -> None:
        await self._server.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    await made.start()
    yield made
    await made.stop()


def words(server: Server, text: str) -> Any:
    return parse(["replay", *text.split(), "--server", server.url])


def test_what_is_asked_becomes_parameters() -> None:
    """By sequence, or by time relative to now."""
    text = "replay request --service pay --producer p --epoch 2 --seqs 1-9 --reason drill"
    by_seq = parse(text.split())
    by_time = parse(
        ["replay", "request", "--service", "pay", "--since", "1h", "--to", "2027-01-15T07:30:00Z"]
    )

    assert ask_params(by_seq, NOW_NS) == {
        "service": "pay", "producer": "p", "epoch": "2", "seqs": "1-9", "reason": "drill",
    }  # fmt: skip
    assert ask_params(by_time, NOW_NS) == {
        "service": "pay",
        "from": "2027-01-15T07:00:00.000000Z",
        "to": "2027-01-15T07:30:00Z",
    }


@pytest.mark.parametrize("text", ["", "--seqs 1 --since 1h", "--seqs 1 --to x", "--since soon"])
def test_an_unclear_wish_is_a_usage_error(text: str) -> None:
    """Exit code 2."""
    options = parse(["replay", "request", "--service", "pay", *text.split()])
    with pytest.raises(CliError) as caught:
        ask_params(options, NOW_NS)
    assert caught.value.code == 2


async def test_the_list_is_a_table_without_control_characters(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """All states unless some are named; 3 if a node did not answer."""
    server.answers = [
        {"requests": [request("streaming")], "complete": True, "missing": []},
        {"requests": [], "complete": False, "missing": ["n2"], "truncated": True},
    ]
    whole = await run_list(words(server, "list --service pay"))
    out, _ = capsys.readouterr()
    partial = await run_list(words(server, "list --state pending --state expired"))
    _, err = capsys.readouterr()

    assert (whole, partial) == (0, 3)
    assert "\x1b" not in out
    assert out.splitlines()[1].split()[:3] == ["ask-1", "streaming", "pay"]
    assert "no answer from: n2" in err
    assert server.asked[0][2] == {"state": "all", "service": "pay", "limit": "100"}
    assert server.asked[1][2] == {"state": "pending,expired", "limit": "100"}


async def test_a_request_is_followed_to_its_end(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 when all came, 3 when some rows are gone."""
    monkeypatch.setattr(replaying, "LOOK_SECONDS", 0.01)
    opened = {"requests": [request("pending")], "noted": 3}
    server.answers = [opened, request("pending"), request("streaming"), request("completed")]
    code = await run_request(words(server, "request --service pay --seqs 1-10 --follow --json"))

    assert code == 0
    assert json.loads(capsys.readouterr().out)["requests"][0]["state"] == "completed"
    assert server.asked[0] == ("POST", "/logs/replay", {"service": "pay", "seqs": "1-10"})
    assert server.asked[1][:2] == ("GET", "/logs/replay/ask-1")

    server.answers = [request("completed", rowsGone=2)]
    assert await run_show(words(server, "show ask-1 --follow")) == 3
    server.answers = [request("streaming")]
    assert await run_show(words(server, "show ask-1 --follow --timeout 0")) == 1
    assert await run_show(words(server, "show ask-1")) == 0


async def test_cancelling_and_what_is_not_known(server: Server) -> None:
    """The server's word is the error."""
    server.answers = [request("cancelled")]
    assert await run_cancel(words(server, "cancel ask-1")) == 0
    assert server.asked == [("DELETE", "/logs/replay/ask-1", {})]

    server.answers = [{"error": {"code": "NOT_FOUND", "message": "no replay request"}}]
    with pytest.raises(QuorumlogError, match="no replay request"):
        await run_show(words(server, "show ask-9"))
