"""`/logs/replay` for operators, over two nodes of which one leads: list, ask, cancel, gone."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cluster.http_front import front_middleware
from ingestor.enrich import EnrichSettings
from ingestor.limits import Limits
from ingestor.listeners.http import RUNNER_OPTIONS, HttpIngest
from ingestor.listeners.replay_http import ReplayApi
from ingestor.write_settings import WriteSettings
from records.errors import ConnectionLost
from runtime.entropy import SystemEntropy
from tests.support.fake_replica import FakeReplicas, FakeView, FakeViews
from tests.support.fake_writer import FakeGate
from tests.support.write_path import Path, numbered_batch, until, write_path

QUIET = WriteSettings(replay_look_seconds=3_600.0)


@dataclass(frozen=True)
class TwoIngestors(FakeView):
    """Node `a` leads everything; `a` and `b` are ingestors."""

    @property
    def state(self) -> "TwoIngestors":
        return self

    def with_role(self, role: str) -> list[Any]:
        return [self.member("a"), self.member("b")]

    def shards_holding(self, tenant: str, service: str) -> tuple[int, ...]:
        return (self.shard_of(tenant, service, "", 1),)


class Link:
    """The transport between the two: calls the other's operations, or is cut."""

    def __init__(self) -> None:
        self.apis: dict[str, ReplayApi] = {}
        self.cut: set[str] = set()

    async def call(
        self,
        node: str,
        operation: str,
        head: dict[str, Any],
        payload: bytes | memoryview,
        deadline: Any,
    ) -> tuple[dict[str, Any], memoryview]:
        if node in self.cut:
            raise ConnectionLost(f"{node} is gone")
        answer, _ = await self.apis[node].operations()[operation](head, memoryview(b""), deadline)
        return answer, memoryview(b"")


class Cluster:
    """Two nodes' HTTP ports."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self.paths = paths
        self.link = Link()
        self.urls: dict[str, str] = {}
        self._runners: list[web.AppRunner] = []
        self.session = aiohttp.ClientSession()

    async def start(self) -> None:
        for node, path in self.paths.items():
            clock, limits = path.clock, Limits()
            made = ReplayApi(node, path.writer.replays, path.views, self.link, clock, limits)
            ingest = HttpIngest(
                path.writer,
                FakeGate(),
                clock,
                path.metrics,
                None,  # type: ignore[arg-type]
                limits,
                EnrichSettings(),
            )
            ingest.asks = made
            self.link.apis[node] = made
            middleware = front_middleware(clock, SystemEntropy(), path.metrics)
            app = web.Application(middlewares=[middleware])
            app.router.add_routes([*ingest.routes(), *made.routes()])
            runner = web.AppRunner(app, access_log=None, **RUNNER_OPTIONS)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._runners.append(runner)
            self.urls[node] = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self.session.close()
        for runner in self._runners:
            await runner.cleanup()

    async def ask(self, node: str, method: str, path: str, **rest: Any) -> tuple[int, Any]:
        async with self.session.request(method, self.urls[node] + path, **rest) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    replicas = FakeReplicas("a", "b", "c")
    views = {node: FakeViews(TwoIngestors(node)) for node in "ab"}
    async with (
        write_path(replicas, views["a"], QUIET) as one,
        write_path(replicas, views["b"], QUIET, seed=2) as other,
    ):
        await until(lambda: len(one.writer.replays._leases.sealed_shards()) == 32)
        made = Cluster({"a": one, "b": other})
        await made.start()
        yield made
        await made.stop()


async def test_any_node_lists_asks_shows_and_cancels(cluster: Cluster) -> None:
    """Node b does not lead; it asks a."""
    writer = cluster.paths["a"]
    await writer.write(numbered_batch([1, 2, 3, 6]), ack="all")
    asked = "/logs/replay?service=shop&producer=p1&seqs=1-2,9&reason=drill%0a"

    status, opened = await cluster.ask("b", "POST", asked)
    listed = (await cluster.ask("b", "GET", "/logs/replay"))[1]
    gaps = (await cluster.ask("b", "GET", "/logs/replay?producer=p1&state=pending"))[1]
    (request,) = opened["requests"]
    shown = (await cluster.ask("b", "GET", f"/logs/replay/{request['id']}"))[1]
    cancelled = await cluster.ask("b", "DELETE", f"/logs/replay/{request['id']}")
    gap = next(one["id"] for one in listed["requests"] if one["kind"] == "gap")
    refused = await cluster.ask("b", "DELETE", f"/logs/replay/{gap}")

    assert (status, opened["noted"]) == (202, 2)
    assert (request["ranges"], request["reason"]) == ([[1, 2]], "drill")
    assert (listed["complete"], len(listed["requests"]), len(gaps["requests"])) == (True, 2, 2)
    assert shown == request
    assert (cancelled[0], cancelled[1]["state"]) == (200, "cancelled")
    assert (refused[0], refused[1]["error"]["code"]) == (400, "INVALID_REQUEST")


async def test_a_producers_word_ends_what_it_cannot_give(cluster: Cluster) -> None:
    """2 is gone, 1 comes: completed, and the sums say so."""
    await cluster.paths["a"].write(numbered_batch([1, 2]), ack="all")
    opened = (await cluster.ask("a", "POST", "/logs/replay?service=shop&seqs=1-2"))[1]
    path = f"/logs/replay/{opened['requests'][0]['id']}"

    status, told = await cluster.ask("b", "POST", f"{path}/gone", json={"ranges": [[2, 2]]})
    await cluster.paths["a"].write(numbered_batch([1]))
    done = (await cluster.ask("b", "GET", path))[1]
    figures = (await cluster.ask("a", "GET", "/metrics/replay"))[1]

    assert (status, told["ranges"], told["rowsGone"]) == (200, [[1, 1]], 1)
    assert (done["state"], done["rowsDuplicate"]) == ("completed", 1)
    assert figures["services"]["shop"]["rowsAsked"] == 2


async def test_a_list_says_who_did_not_answer(cluster: Cluster) -> None:
    """Not complete, and named; a request that was not found may be there: 503, not 404."""
    cluster.link.cut.add("a")

    listed = (await cluster.ask("b", "GET", "/logs/replay"))[1]
    status, unknown = await cluster.ask("b", "GET", "/logs/replay/ask-1")
    asked = await cluster.ask("b", "POST", "/logs/replay?service=shop&producer=p1&seqs=1")

    assert (listed["complete"], listed["missing"]) == (False, ["a"])
    assert (status, "no answer from a" in unknown["error"]["message"]) == (503, True)
    assert asked[0] == 503


async def test_tenants_do_not_see_one_another(cluster: Cluster) -> None:
    """Neither in the list, nor by id."""
    await cluster.paths["a"].write(numbered_batch([1, 3]), ack="all")
    (gap,) = (await cluster.ask("a", "GET", "/logs/replay"))[1]["requests"]
    other = {"headers": {"X-Scope-OrgID": "other"}}

    assert (await cluster.ask("b", "GET", "/logs/replay", **other))[1]["requests"] == []
    assert (await cluster.ask("b", "GET", f"/logs/replay/{gap['id']}", **other))[0] == 404
    figures = (await cluster.ask("a", "GET", "/metrics/replay", **other))[1]
    assert figures["services"] == {}
    assert set(figures["requests"].values()) == {0}
    ours = (await cluster.ask("a", "GET", "/metrics/replay"))[1]
    assert ours["requests"]["pending"] == 1


async def test_requests_of_a_shard_are_noted_although_the_next_shard_fails(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service lies on two shards, one has no leader: 503, and what was opened outlives its leader."""
    await cluster.paths["a"].write(numbered_batch([1, 2]), ack="all")
    view = cluster.paths["b"].views.current()
    home = view.shard_of("default", "shop", "", 1)
    other = (home + 1) % 32
    monkeypatch.setattr(TwoIngestors, "shards_holding", lambda *_: (home, other))
    leader = TwoIngestors.leader
    monkeypatch.setattr(
        TwoIngestors, "leader", lambda self, shard: None if shard == other else leader(self, shard)
    )

    status, _ = await cluster.ask("b", "POST", "/logs/replay?service=shop&seqs=1-2")

    assert status == 503
    (opened,) = cluster.paths["a"].writer.replays.desk.book.listed("default")
    assert list(cluster.paths["b"].writer.replays._notes) == [opened.id]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/logs/replay?producer=p1&seqs=1", 400),
        ("POST", "/logs/replay?service=shop&producer=p1", 400),
        ("POST", "/logs/replay?service=shop&producer=p1&seqs=0", 400),
        ("POST", "/logs/replay?service=shop&producer=p1&seqs=9-1", 400),
        ("POST", "/logs/replay?service=shop&producer=p1&seqs=1&from=2026-01-01", 400),
        ("POST", "/logs/replay?service=shop&producer=p1&from=soon", 400),
        ("POST", "/logs/replay?service=shop&producer=p1&seqs=7", 400),
        ("POST", "/logs/replay?service=nobody&seqs=7", 404),
        ("POST", "/logs/replay?service=shop&epoch=x&seqs=7", 400),
        ("GET", "/logs/replay?state=odd", 400),
        ("GET", "/logs/replay?limit=0", 400),
        ("GET", "/logs/replay?limit=x", 400),
        ("GET", "/logs/replay/none", 404),
        ("DELETE", "/logs/replay/none", 404),
    ],
)
async def test_what_cannot_be_is_refused(
    cluster: Cluster, method: str, path: str, status: int
) -> None:
    """With a reason, never 500."""
    found, body = await cluster.ask("a", method, path)

    assert (found, bool(body["error"]["message"])) == (status, True)


@pytest.mark.parametrize("body", ["", "[]", '{"ranges": [[2, 1]]}', '{"ranges": [[1]]}', "{}"])
async def test_a_word_of_what_is_gone_that_cannot_be_read(cluster: Cluster, body: str) -> None:
    """400; a body that is too long 413."""
    path = "/logs/replay/ask-1/gone"
    assert (await cluster.ask("a", "POST", path, data=body))[0] == 400
    assert (await cluster.ask("a", "POST", path, data=b"x" * 70_000))[0] == 413
