"""GET /query/tail: each row once, what is left out is told, tails end with their clients."""

import asyncio
import json
from typing import Any

import pytest

from query import tail as tail_module
from query.tail import TailApi
from runtime.clock import SystemClock
from runtime.metrics import Metrics
from tests.support.fake_store import FakeCluster, make_entry
from tests.unit.query.helpers import row
from tests.unit.query.serving import serving


class Live:
    """A cluster in which rows arrive now."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.home = self.cluster.view.shards_holding("default", "pay")[0]
        self.number = 0

    def write(self, *texts: str, level: str = "info", late_micros: int = 0) -> None:
        """One entry; `late_micros`: how long ago its ingestor says that it came."""
        now = SystemClock().wall_micros() - late_micros
        rows = [
            {**row(0, text, level=level), "timestamp": now + i, "received_at": now}
            for i, text in enumerate(texts)
        ]
        self.cluster.write(make_entry(self.number, self.home, rows, received_at=now))
        self.number += 1


async def events(answer: Any, count: int) -> list[tuple[str, Any]]:
    """The next events of an event stream."""
    found: list[tuple[str, Any]] = []
    kind = "row"
    async with asyncio.timeout(10):
        while len(found) < count:
            line = (await answer.content.readline()).decode().rstrip("\n")
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                found.append((kind, json.loads(line[6:])))
                kind = "row"
    return found


def routes(reader: Any, metrics: Metrics) -> Any:
    """The route."""
    return TailApi(reader, metrics).routes()


async def test_rows_come_once_in_order_as_they_arrive() -> None:
    """Also one from an ingestor whose clock is a second behind; what does not match stays out."""
    live = Live()
    async with serving(live.cluster, routes, tail_seconds=0.02) as client:
        answer = await client.get("/query/tail?level=info")
        assert answer.content_type == "text/event-stream"
        live.write("a", "b")
        first = await events(answer, 2)
        live.write("no", level="debug")
        live.write("c", late_micros=1_000_000)
        second = await events(answer, 1)
        live.write("d")
        third = await events(answer, 1)
        answer.close()

    messages = [body["message"] for _, body in (*first, *second, *third)]
    assert messages == ["a", "b", "c", "d"]
    assert first[0][1]["_id"].endswith("-0")


async def test_a_flood_is_told_not_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nine rows in one look the newest three are shown, six are counted as dropped."""
    monkeypatch.setattr(tail_module, "ROWS_MAX", 3)
    live, metrics = Live(), Metrics()
    async with serving(live.cluster, routes, metrics, tail_seconds=0.05) as client:
        answer = await client.get("/query/tail")
        live.write(*[f"m{i}" for i in range(9)])
        found = await events(answer, 4)
        answer.close()

    assert found[0] == ("dropped", {"rows": 6})
    assert [body["message"] for _, body in found[1:]] == ["m6", "m7", "m8"]
    assert metrics.snapshot()["quorumlog_tail_dropped_rows_total"] == 6


async def test_missing_shards_and_errors_are_events() -> None:
    """Two owners away: `missing`; all away: `error`, and the stream ends."""
    live = Live()
    async with serving(live.cluster, routes, tail_seconds=0.02) as client:
        answer = await client.get("/query/tail")
        live.cluster.stores["n1"].dead = live.cluster.stores["n2"].dead = True
        ((kind, body),) = await events(answer, 1)
        live.cluster.stores["n0"].dead = True
        while (found := await events(answer, 1))[0][0] == "missing":
            pass
        rest = await answer.content.read()

    assert kind == "missing"
    assert {one["shard"] for one in body["missing"]} == {0, 1, 2, 3}
    assert found[0][0] == "error"
    assert found[0][1]["error"]["code"] == "QUORUM_UNAVAILABLE"
    assert rest.strip() == b""


async def test_a_websocket_gets_the_same() -> None:
    """Rows as JSON messages; when it closes the tail is over."""
    live, metrics = Live(), Metrics()
    async with serving(live.cluster, routes, metrics, tail_seconds=0.02) as client:
        async with client.ws_connect("/query/tail?service=pay&fields=message") as socket:
            live.write("hello")
            message = await socket.receive_json(timeout=10)
            assert metrics.snapshot()["quorumlog_tail_running"] == 1
        for _ in range(100):
            await asyncio.sleep(0.02)
            if not metrics.snapshot()["quorumlog_tail_running"]:
                break
        assert metrics.snapshot()["quorumlog_tail_running"] == 0

    assert message["message"] == "hello"
    assert set(message) == {"_id", "message"}


async def test_tails_are_bounded_and_end_with_their_clients() -> None:
    """The second of one is refused with a time to come back; after the first has left it may."""
    live = Live()
    async with serving(live.cluster, routes, tail_seconds=0.02, tail_max=1) as client:
        first = await client.get("/query/tail")
        refused = await client.get("/query/tail")
        assert refused.status == 429
        assert refused.headers["Retry-After"] == "10"
        first.close()
        for _ in range(100):
            await asyncio.sleep(0.02)
            again = await client.get("/query/tail")
            again.close()
            if again.status == 200:
                break
        assert again.status == 200


@pytest.mark.parametrize(
    "query", ["since=1h", "from=now", "limit=5", "order=asc", "q=(", "window=25h", "window=x"]
)
async def test_bad_parameters_are_named(query: str) -> None:
    """A tail begins now."""
    async with serving(Live().cluster, routes) as client:
        answer = await client.get(f"/query/tail?{query}")

        assert answer.status == 400
        assert (await answer.json())["error"]["parameter"] == query.split("=")[0]
