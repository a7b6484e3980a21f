"""A hot service is split while producers and agents send, and a leader is killed right after it.

In the end each row that was sent is read through every node, once (but for a request without numbers that was
under way at the split); each producer's rows are in order; the producers write to
several shards; and who still holds an epoch from before the split is refused.
"""

import asyncio
import itertools
import json
import subprocess
import sys
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cluster.state_types import ClusterState
from cluster.view import ClusterView
from quorumlog import Producer
from ring.generations import EPOCHS_OF_A_GENERATION, UNSPLIT, Generation
from ring.shards import shard_of, shards_of_service
from tests.support.cluster import LocalCluster, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SERVICE, OVER = "hot", 4
PRODUCERS, AGENTS = 6, 3


@dataclass(slots=True)
class Traffic:
    """What was sent: by producer, in order; and the rows of requests that were answered 200."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    numbered: dict[str, list[str]] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    unnumbered: list[str] = field(default_factory=list)
    repeats: int = 0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with running_cluster(tmp_path / "c") as cluster:
        yield cluster


async def produce(urls: list[str], buffer: Path | None, traffic: Traffic, turn: int) -> None:
    """Some rows every few milliseconds until it is over; all are acknowledged in the end."""
    async with Producer(
        urls, SERVICE, buffer, linger_seconds=0.01, close_timeout_seconds=60
    ) as one:
        sent = traffic.numbered.setdefault(one.name, [])
        while not traffic.over.is_set():
            for _ in range(7):
                sent.append(f"producer {turn} row {len(sent) + 1}")
                one.send(message=sent[-1])
            await asyncio.sleep(0.02)
        await one.flush(timeout=60)
        traffic.epochs[one.name] = one.epoch


async def post(urls: list[str], turn: int, traffic: Traffic) -> None:
    """Requests without numbers; each is sent again, blindly, until a node says 200, and once more."""
    nodes = itertools.cycle(urls)
    patience = aiohttp.ClientTimeout(total=15)
    async with aiohttp.ClientSession(timeout=patience) as session:
        for number in itertools.count():
            if traffic.over.is_set():
                return
            names = [f"agent {turn} request {number} row {row}" for row in range(5)]
            body = "\n".join(json.dumps({"service": SERVICE, "message": one}) for one in names)
            answers = 0
            while answers < 2:
                try:
                    url = next(nodes) + "/insert/jsonline"
                    async with session.post(url, data=body.encode()) as answer:
                        answers += answer.status == 200
                except (aiohttp.ClientError, TimeoutError):
                    await asyncio.sleep(0.05)
                traffic.repeats += 1
            traffic.unnumbered += names
            await asyncio.sleep(0.01)


def split(cluster: LocalCluster, *words: str) -> Any:
    """What `quorumlog split` prints as JSON."""
    command = [sys.executable, "-m", "node", "split", *words, "--json"]
    server = ["--server", cluster.urls[1]]
    done = subprocess.run(
        [*command, *server], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def read(url: str) -> list[dict[str, Any]]:
    """All rows of the service, through one node."""
    status, text, headers = http("GET", f"{url}/query?format=ndjson&service={SERVICE}", timeout=60)
    assert (status, headers["X-Quorumlog-Complete"]) == (200, "true")
    rows = text if isinstance(text, str) else json.dumps(text)
    return [json.loads(line) for line in rows.splitlines()]


async def run(cluster: LocalCluster, folder: Path, traffic: Traffic) -> None:
    """Traffic before, during and after the split; the home shard's leader is killed after it."""
    urls = cluster.urls
    async with asyncio.TaskGroup() as tasks:
        for turn in range(PRODUCERS):
            buffer = folder / f"{turn}.wal" if turn % 2 else None
            tasks.create_task(produce(urls, buffer, traffic, turn))
        for turn in range(AGENTS):
            tasks.create_task(post(urls, turn, traffic))
        await asyncio.sleep(2.0)
        made = await asyncio.to_thread(split, cluster, SERVICE, "--over", str(OVER))
        assert (made["was"], made["over"], made["generation"]) == (1, OVER, 1)
        await asyncio.sleep(0.7)
        shards = await asyncio.to_thread(cluster.get, "/cluster/shards", 1)
        leader = shards["shards"][shard_of("default", SERVICE)]["leader"]
        await asyncio.to_thread(cluster.kill, leader)
        await asyncio.sleep(2.0)
        await asyncio.to_thread(cluster.start_one, leader)
        await asyncio.sleep(2.0)
        traffic.over.set()


def test_each_row_is_there_once_and_the_load_is_spread(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    traffic = Traffic()
    asyncio.run(run(cluster, tmp_path, traffic))
    sent = [*itertools.chain(*traffic.numbered.values()), *traffic.unnumbered]
    assert len(sent) == len(set(sent)) > 1_000
    assert traffic.repeats > len(traffic.unnumbered) / 5

    rows: list[dict[str, Any]] = []
    for url in cluster.urls:
        rows = read(url)
        found = Counter(row["message"] for row in rows)
        lost, alien = set(sent) - found.keys(), found.keys() - set(sent)
        doubled = sorted(text for text, count in found.items() if count > 1)
        assert (sorted(lost)[:20], sorted(alien)[:20]) == ([], [])
        # A request under way at the split, and repeated after it, may be there twice (docs/consistency.md).
        requests = {text.rpartition(" row ")[0] for text in doubled}
        agents = [one.split()[:2] for one in requests]
        assert len(agents) == len({tuple(one) for one in agents}), doubled
        assert all(kind == "agent" for kind, _ in agents), doubled
        _, stats, _ = http("GET", f"{url}/query/stats?service={SERVICE}&agg=count")
        assert [one["count"] for one in stats["rows"]] == [len(sent) + len(doubled)]
    for name, texts in traffic.numbered.items():
        mine = [row for row in rows if row.get("producer") == name]
        mine.sort(key=lambda row: (int(row["producer_epoch"]), int(row["seq"])))
        assert [row["message"] for row in mine] == texts

    check_spread(traffic, rows)
    check_zombies(cluster, traffic)
    assert [one["over"] for one in split(cluster)["splits"]] == [OVER]


def check_spread(traffic: Traffic, rows: list[dict[str, Any]]) -> None:
    """Who belongs elsewhere moved, once; who does not stayed; requests are in several shards too."""
    generations = (*UNSPLIT, Generation(OVER, 1))
    state = ClusterState(splits={("default", SERVICE): generations})
    view = ClusterView("n", state, alive=lambda _: True)
    home = view.shard_of("default", SERVICE, "", 1)
    held = shards_of_service("default", SERVICE, OVER)
    shards: set[int] = set()
    for name, epoch in traffic.epochs.items():
        moves = view.shard_under("default", SERVICE, name, 1) != home
        assert (epoch >= EPOCHS_OF_A_GENERATION) is moves, (name, epoch)
        epochs = {int(row["producer_epoch"]) for row in rows if row.get("producer") == name}
        assert len(epochs) == 1 + moves
        shards.add(view.shard_of("default", SERVICE, name, epoch))
    assert shards <= set(held)
    assert len(shards) > 1


def check_zombies(cluster: LocalCluster, traffic: Traffic) -> None:
    """Rows under the epoch from before are refused through every node, and say which is the newest."""
    moved = [name for name, epoch in traffic.epochs.items() if epoch >= EPOCHS_OF_A_GENERATION]
    for name, url in itertools.product(moved, cluster.urls):
        row = {"seq": 10**6, "message": "from the dead"}
        body = {"service": SERVICE, "producer": name, "epoch": 1, "logs": [row]}
        status, answer, _ = http("POST", f"{url}/ingest", json.dumps(body).encode())
        assert (status, answer["code"]) == (409, "FENCED"), answer
        query = urllib.parse.urlencode({"service": SERVICE, "producer": name, "epoch": 1})
        status, answer, _ = http("GET", f"{url}/logs/replay?{query}")
        assert (status, answer["missing"]) == (200, [])


def test_what_cannot_be_split_is_refused_with_a_word_on_what_can(cluster: LocalCluster) -> None:
    """Fewer shards than now, more than there are, no service; the same again is no error."""
    assert split(cluster)["splits"] == []
    assert split(cluster, "pay", "--over", "3")["was"] == 1
    again = split(cluster, "pay", "--over", "3")
    assert (again["was"], again["over"], again["generation"]) == (3, 3, 1)
    url = cluster.urls[0] + "/cluster/splits"
    for body, reason in (
        ({"service": "pay", "over": 2}, "spread over 3 shards already"),
        ({"service": "pay", "over": 33}, "has 32 shards"),
        ({"service": "_failed", "over": 2}, "cannot be split"),
        ({"service": "pay"}, '"over": a whole number'),
    ):
        status, answer, _ = http("POST", url, json.dumps(body).encode())
        assert status == 400
        assert reason in answer["error"]["message"]
    (row,) = split(cluster)["splits"]
    assert (row["tenant"], row["service"], row["over"]) == ("default", "pay", 3)
