"""Ack and replay against real processes: gaps, an operator's wish, and leaders that are killed meanwhile."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quorumlog import Producer
from quorumlog.errors import ConnectionLost
from quorumlog.wire import Wire
from ring.shards import shard_of
from tests.support.cluster import LocalCluster, eventually, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SETTINGS = "\n[write]\nreplay_look_seconds = 0.3\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with running_cluster(tmp_path_factory.mktemp("replay") / "c", settings=SETTINGS) as cluster:
        yield cluster


def post(cluster: LocalCluster, node: int, seqs: list[int], skip: Any = ()) -> dict[str, Any]:
    """A batch of the producer `p-1` of the service `gap`, through one node."""
    rows = [{"seq": seq, "level": "info", "message": f"row {seq}"} for seq in seqs]
    body = {"service": "gap", "producer": "p-1", "logs": rows, "skip": list(skip)}
    headers = {"Content-Type": "application/json"}
    url = f"{cluster.urls[node]}/ingest"
    status, answer, _ = http("POST", url, json.dumps(body).encode(), headers)
    assert status == 200, answer
    return answer


def requests(cluster: LocalCluster, node: int, service: str) -> list[dict[str, Any]]:
    return cluster.get(f"/logs/replay?service={service}", node)["requests"]


def leader_of(cluster: LocalCluster, node: int, service: str, producer: str) -> str:
    """Who leads the producer's shard, as a node believes."""
    shards = cluster.get("/cluster/shards", node)["shards"]
    return shards[int(shard_of("default", service, 1, producer, len(shards)))]["leader"]


def count(cluster: LocalCluster, node: int, service: str) -> int:
    answer = cluster.get(f"/query/stats?service={service}&agg=count", node)
    assert answer["complete"] is True
    return sum(row["count"] for row in answer["rows"])


def test_a_gap_is_asked_for_by_each_leader_until_rows_and_a_skip_fill_it(
    cluster: LocalCluster,
) -> None:
    """11-20 are missing; the leader is killed; the next one asks under the same id, without being told.

    I5: ackTill never falls, no seq at or below it is missing, and 24 rows are stored, each once.
    """
    first = post(cluster, 0, list(range(1, 11)))
    gap = post(cluster, 1, list(range(21, 31)))
    (before,) = requests(cluster, 2, "gap")
    assert (gap["ackTill"], gap["missingRanges"]) == (10, [[11, 20]])
    assert (before["state"], before["ranges"]) == ("pending", [[11, 20]])

    killed = leader_of(cluster, 0, "gap", "p-1")
    cluster.kill(killed)
    alive = next(n for n, node in enumerate(cluster.plan.nodes) if node.id != killed)
    (again,) = eventually(lambda: requests(cluster, alive, "gap"), 20)
    assert (again["id"], again["state"], again["ranges"]) == (before["id"], "pending", [[11, 20]])

    part = post(cluster, alive, list(range(9, 15)))
    assert cluster.get(f"/logs/replay/{before['id']}", alive)["state"] == "streaming"
    lost = [{"from": 15, "to": 20, "reason": "buffer lost"}]
    last = post(cluster, alive, [], lost)
    done = cluster.get(f"/logs/replay/{before['id']}", alive)
    cluster.start_one(killed)

    acks = [first, gap, part, last]
    assert [one["ackTill"] for one in acks] == [10, 10, 14, 30]
    assert all(seq > one["ackTill"] for one in acks for seq in one["missing"])
    assert (done["state"], done["rowsReplayed"], done["rowsSkipped"]) == ("completed", 4, 6)
    assert count(cluster, alive, "gap") == 24


async def test_a_producer_answers_an_operator_while_leaders_die(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fourth batch is lost on its way; then all rows are asked for again, and the leader is killed.

    In the end each of 3,000 rows is stored once, and the request, noted by the others, is completed.
    """
    numbers = itertools.count(1)
    cut = 0
    send = Wire.request

    async def lossy(self: Wire, method: str, url: str, **rest: Any) -> Any:
        nonlocal cut
        if url.endswith("/ingest") and next(numbers) % 4 == 0:
            cut += 1
            raise ConnectionLost("cut by the test")
        return await send(self, method, url, **rest)

    monkeypatch.setattr(Wire, "request", lossy)
    asked = "/logs/replay?service=drill&seqs=1-2500&reason=drill"
    async with Producer(
        cluster.urls,
        "drill",
        tmp_path / "b",
        batch_rows=40,
        max_in_flight=3,
        replay_poll_seconds=0.3,
    ) as producer:
        for number in range(3000):
            producer.send(message=f"m{number}")
        await producer.flush(60)
        assert (producer.ack_till, cut > 3) == (3000, True)

        status, opened, _ = await asyncio.to_thread(http, "POST", cluster.urls[0] + asked)
        assert status == 202, opened
        assert opened["noted"] == 3
        (request,) = opened["requests"]
        await asyncio.to_thread(
            eventually, lambda: requests(cluster, 0, "drill")[0]["state"] == "streaming", 20, 0.005
        )
        killed = leader_of(cluster, 0, "drill", producer.name)
        await asyncio.to_thread(cluster.kill, killed)
        alive = next(n for n, node in enumerate(cluster.plan.nodes) if node.id != killed)

        def ended() -> Any:
            found = cluster.get(f"/logs/replay/{request['id']}", alive)
            return found if found.get("state") == "completed" else None

        done = await asyncio.to_thread(eventually, ended, 40)
        assert done["rowsDuplicate"] + done["rowsGone"] == 2500
        assert done["rowsReplayed"] == 0
        assert producer.stats.conflicts == producer.stats.unfillable == 0

    assert count(cluster, alive, "drill") == 3000
