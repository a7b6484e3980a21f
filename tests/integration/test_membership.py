"""A cluster that grows, shrinks and loses a disk while rows come in: real processes.

One story, as each chapter needs the cluster of the one before: a fourth node joins, one is drained, one
comes back with an empty disk, then with the one before. Two writers never pause: numbered rows by the
client library, and JSON lines without numbers sent again until they are acknowledged. In the end every
acknowledged row is read, once, by every node; owners agree; nobody else holds anything.
"""

import asyncio
import json
import shutil
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from node import up_process
from node.up_plan import NodePlan, node_toml
from quorumlog import Client, Producer
from tests.support.cluster import LocalCluster, eventually, free_port_base, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SERVICES = [f"svc{number}" for number in range(8)]
SETTINGS = "\n[rebalance]\nlet_go_after_seconds = 1.0\nparallel = 8\n"


@dataclass(slots=True)
class Load:
    """Rows that were acknowledged, by writers that run until they are told to stop."""

    urls: list[str]
    stop: threading.Event = field(default_factory=threading.Event)
    acked: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def lines(self) -> None:
        """Unnumbered rows of all services; the same body again until it is acknowledged."""
        number = 0
        while not self.stop.is_set():
            texts = [f"{service} line {number}" for service in SERVICES]
            rows = [
                json.dumps({"service": text.split()[0], "level": "info", "message": text})
                for text in texts
            ]
            headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": f"k{number}"}
            for turn in range(60):
                url = self.urls[(number + turn) % len(self.urls)]
                try:
                    status, answer, _ = http(
                        "POST", f"{url}/logs", "\n".join(rows).encode(), headers
                    )
                except OSError as error:
                    status, answer = 0, error
                if status == 200:
                    self.acked += texts
                    break
                if status not in (0, 429, 503):
                    self.failures.append(f"{status} {answer}")
                self.stop.wait(0.1)
            number += 1
            self.stop.wait(0.05)

    def numbered(self) -> None:
        """Numbered rows by a producer of the client library."""
        asyncio.run(self._numbered())

    async def _numbered(self) -> None:
        async with Producer(self.urls, "numbered", close_timeout_seconds=60) as one:
            number = 0
            sent: list[str] = []
            while not self.stop.is_set():
                for _ in range(10):
                    sent.append(f"numbered row {number}")
                    one.send(level="info", message=sent[-1])
                    number += 1
                await asyncio.sleep(0.05)
            await one.flush(timeout=60)
            self.acked += sent


def fourth_node(cluster: LocalCluster) -> NodePlan:
    """A node that the others' settings do not name."""
    base = free_port_base(1)
    plan = NodePlan("node4", cluster.folder / "node4", base, base + 1, base + 2, joins=True)
    plan.folder.mkdir()
    plan.config.write_text(node_toml(cluster.plan, plan) + SETTINGS, encoding="utf-8")
    cluster.plan = replace(cluster.plan, nodes=(*cluster.plan.nodes, plan))
    return plan


def change(cluster: LocalCluster, path: str, body: dict[str, Any] | None = None) -> Any:
    """Asks any node for a change and waits until it has ended."""
    url = cluster.plan.nodes[0].url
    status, answer, _ = http("POST", url + path, json.dumps(body or {}).encode())
    assert status == 202, answer
    eventually(lambda: cluster.get("/cluster/moves")["change"] is None, 60.0)
    return answer


def owned(cluster: LocalCluster) -> Counter[str]:
    """Shards that each node owns."""
    shards = cluster.get("/cluster/shards")["shards"]
    return Counter(owner for one in shards for owner in one["owners"])


def stores(cluster: LocalCluster) -> dict[str, dict[str, Any]]:
    """What each live node holds, by shard."""
    nodes = cluster.get("/cluster/nodes")["nodes"]
    return {one["id"]: one["status"]["storage"]["shards"] for one in nodes if one["status"]}


def agree(cluster: LocalCluster) -> bool:
    """Whether owners have equal digests and nobody else holds anything."""
    held = stores(cluster)
    assert any(held.values())
    for one in cluster.get("/cluster/shards")["shards"]:
        shard = str(one["shard"])
        if len({json.dumps(held[owner].get(shard)) for owner in one["owners"]}) != 1:
            return False
        if any(shard in held[node] for node in held.keys() - set(one["owners"])):
            return False
    return True


async def read_all(url: str) -> Counter[str]:
    """How often each message is read through one node."""
    counts: Counter[str] = Counter()
    async with Client([url]) as client:
        async for batch in client.stream("arrow", fields="message"):
            counts.update(batch["message"].to_pylist())
    return counts


def test_a_cluster_grows_shrinks_and_replaces_a_lost_disk_under_writes(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "c", settings=SETTINGS) as cluster:
        load = Load(cluster.urls)
        writers = [threading.Thread(target=one) for one in (load.lines, load.numbered)]
        for one in writers:
            one.start()
        try:
            _grow(cluster)
            _drain(cluster)
            _lose_a_disk(cluster)
            _plug_the_old_disk_in(cluster)
        finally:
            load.stop.set()
            for one in writers:
                one.join(90)

        assert load.failures == []
        assert len(load.acked) > 500
        eventually(lambda: agree(cluster), 60.0)
        for url in cluster.urls:
            read = asyncio.run(read_all(url))
            assert not set(load.acked) - read.keys()
            assert set(read.values()) == {1}


def _grow(cluster: LocalCluster) -> None:
    plan = fourth_node(cluster)
    cluster.running["node4"] = up_process.start(plan, join=True)
    up_process_ready(cluster, "node4")
    status, planned, _ = http("POST", f"{cluster.urls[0]}/cluster/nodes/node4/add?dry_run=1", b"{}")
    assert (status, planned["gains"]) == (200, {"node4": 24})
    assert (planned["n"], planned["fewest_owners"]) == (3, 3)

    change(cluster, "/cluster/nodes/node4/add")

    assert owned(cluster) == {"node1": 24, "node2": 24, "node3": 24, "node4": 24}


def up_process_ready(cluster: LocalCluster, node: str) -> None:
    plan = cluster.node(node)
    eventually(lambda: (up_process.ask(plan, "/ready") or (0,))[0] == 200, 60.0)


def _drain(cluster: LocalCluster) -> None:
    change(cluster, "/cluster/nodes/node2/drain")

    assert owned(cluster) == {"node1": 32, "node3": 32, "node4": 32}
    eventually(lambda: not stores(cluster)["node2"], 30.0)


def _lose_a_disk(cluster: LocalCluster) -> None:
    """Refused under its old name; out of the ring; then a new node under that name (S6)."""
    cluster.kill("node3")
    folder = cluster.node("node3").folder
    (folder / "store").rename(folder / "old-store")
    refused = up_process.start(cluster.node("node3"))
    assert refused.child is not None
    assert refused.child.wait(60) != 0
    cluster.running["node3"] = up_process.start(cluster.node("node3"), join=True)
    waits = eventually(lambda: _waits_for(cluster, "node3"), 60.0)
    assert "store is not the one it had" in waits

    change(cluster, "/cluster/nodes/node3/remove")
    up_process_ready(cluster, "node3")
    change(cluster, "/cluster/nodes/node3/add")


def _plug_the_old_disk_in(cluster: LocalCluster) -> None:
    """It lacks what node3 promised since: refused, also if it is started as it was; the newer one is not."""
    folder = cluster.node("node3").folder
    cluster.kill("node3")
    (folder / "store").rename(folder / "new-store")
    (folder / "old-store").rename(folder / "store")
    cluster.start_without_waiting("node3")
    waits = eventually(lambda: _waits_for(cluster, "node3"), 60.0)
    assert "store is not the one it had" in waits

    cluster.kill("node3")
    shutil.rmtree(folder / "store")
    (folder / "new-store").rename(folder / "store")
    cluster.start_one("node3")


def _waits_for(cluster: LocalCluster, node: str) -> str:
    answer = up_process.ask(cluster.node(node), "/ready")
    waiting = answer[1].get("waiting_for", []) if answer else []
    return next((one for one in waiting if "store" in one), "")
