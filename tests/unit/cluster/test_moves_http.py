"""What asks for changes of the ring refuses nonsense with its reason, in a dry run as well."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster.http_front import front_middleware
from cluster.moves_http import MovesApi
from cluster.rebalance import RebalanceSettings
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.metrics import Metrics
from tests.unit.cluster.test_lease_keeper import Committing
from tests.unit.cluster.test_rebalance_plan import cluster

HUGE = 10**30  # fits into no 64 bits


@pytest.fixture
def consensus() -> Committing:
    """Four storage nodes with shards, a fifth without."""
    made = Committing()
    made.state = cluster("a", "b", "c", "d", spare=("e",))
    return made


@pytest.fixture
async def client(consensus: Committing) -> AsyncIterator[TestClient]:
    """HTTP in front of it."""

    async def figures() -> dict[str, Any]:
        return {}

    api = MovesApi(consensus, RebalanceSettings(), figures)  # type: ignore[arg-type]
    app = web.Application(middlewares=[front_middleware(SystemClock(), SystemEntropy(), Metrics())])
    app.router.add_routes(api.routes())
    async with TestClient(TestServer(app)) as made:
        yield made


@pytest.mark.parametrize("dry", ["", "?dry_run=1"])
@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/cluster/nodes/e/add", {"parallel": HUGE}, "parallel: a whole number from 1 to 256"),
        ("/cluster/nodes/e/add", {"parallel": 0}, "parallel: a whole number from 1 to 256"),
        ("/cluster/nodes/e/add", {"parallel": "4"}, "not '4'"),
        ("/cluster/nodes/e/add", {"parallel": True}, "not True"),
        ("/cluster/rebalance", {"bytes_per_second": 1.5}, "bytes_per_second: a whole number"),
        ("/cluster/rebalance", {"bytes_per_second": -1}, "bytes_per_second: a whole number"),
        ("/cluster/settings", {"w": HUGE}, "w: a whole number from 1 to 16"),
        ("/cluster/settings", {"n": 3.0}, "n: a whole number"),
        ("/cluster/settings", {}, "whole numbers"),
        ("/cluster/settings", {"x" * 5000: 1}, "is not known here"),
        ("/cluster/nodes/a/replace", {"with": "a"}, "cannot take its own place"),
        ("/cluster/nodes/a/replace", {"with": "b"}, "b"),
        ("/cluster/nodes/a/replace", {"with": "nobody"}, "'nobody' is no storage member"),
        ("/cluster/nodes/a/replace", {"with": 5}, "names the node"),
        ("/cluster/nodes/a/explode", {}, "'explode' is not one of"),
        ("/cluster/nodes/a/add", {}, "a is in the ring already"),
        ("/cluster/nodes/nobody/drain", {}, "nobody"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    client: TestClient, consensus: Committing, path: str, body: Any, named: str, dry: str
) -> None:
    """400 with what is wrong, in few words."""
    answer = await client.post(path + dry, data=json.dumps(body))

    error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (400, "INVALID_REQUEST")
    assert named in error["message"]
    assert len(error["message"]) < 300
    assert set(consensus.proposals) <= {"Noop"}


async def test_a_change_is_previewed_begun_and_aborted_and_a_second_one_refused(
    client: TestClient,
) -> None:
    """The dry run tells what the change then begins with."""
    preview = await (await client.post("/cluster/nodes/e/add?dry_run=1")).json()
    begun = await client.post("/cluster/nodes/e/add", json={"parallel": 2})

    body = await begun.json()
    assert begun.status == 202
    assert body["gains"] == preview["gains"]
    assert list(body["gains"]) == ["e"]
    second = await client.post("/cluster/rebalance", json={})
    assert (await second.json())["error"]["reason"] == "CHANGE_RUNNING"
    told = await (await client.get("/cluster/moves")).json()
    assert (told["change"]["id"], told["change"]["parallel"]) == (body["change"], 2)
    aborted = await client.post("/cluster/moves/abort")
    assert await aborted.json() == {"aborting": body["change"]}


async def test_a_greater_r_is_a_change_of_the_ring_and_a_greater_w_is_not(
    client: TestClient, consensus: Committing
) -> None:
    """Readers that missed a greater R must be told before it counts (cluster.rebalance)."""
    wider = await client.post("/cluster/settings", data=json.dumps({"w": 3}))
    asked = await client.post("/cluster/settings", data=json.dumps({"r": 3}))

    assert (wider.status, consensus.state.quorum.w) == (200, 3)
    assert (asked.status, "change" in await asked.json()) == (202, True)
    assert consensus.state.change is not None
