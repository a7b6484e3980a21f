"""The node that copies, and the node that is copied to, killed in the middle of a change: real processes.

A fourth node is added slowly. While shards are being copied the Raft leader, which copies them, is killed
with SIGKILL; another goes on. Then the new node is killed; the change waits for it and ends after its
restart. Rows that were acknowledged before and meanwhile are read by every node, once.
"""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from node import up_process
from tests.integration.test_membership import agree, fourth_node, read_all, up_process_ready
from tests.support.cluster import LocalCluster, eventually, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SERVICES = [f"svc{number}" for number in range(40)]
SETTINGS = "\n[rebalance]\nlet_go_after_seconds = 0.5\n"
#: Bytes per second of copies: some seconds for what is sent here.
RATE = 400_000


def send(cluster: LocalCluster, round_: int) -> list[str]:
    """Rows of all services, sent until they are acknowledged; their messages."""
    dice = random.Random(round_)
    texts = [
        f"{name} {round_} {dice.randbytes(1_000).hex()}" for name in SERVICES for _ in range(10)
    ]
    rows = [json.dumps({"service": one.split()[0], "message": one}) for one in texts]
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": f"round-{round_}"}
    url, body = cluster.urls[1], "\n".join(rows).encode()

    def acknowledged() -> bool:
        try:
            return http("POST", f"{url}/logs", body, headers)[0] == 200
        except OSError:
            return False

    eventually(acknowledged, 40.0)
    return texts


def moves(cluster: LocalCluster, node: int) -> dict[str, Any]:
    return cluster.get("/cluster/moves", node)


def copying(cluster: LocalCluster, node: int) -> bool:
    """Whether some shard is in its first stage, and bytes of it have been put."""
    found = moves(cluster, node)
    stages = {one["stage"] for one in (found["change"] or {"moving": []})["moving"]}
    return "copying" in stages and found["figures"].get("copied_bytes", 0) > 0


def test_a_change_outlives_the_node_that_copies_and_the_one_it_copies_to(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "c", settings=SETTINGS) as cluster:
        sent = [text for number in range(5) for text in send(cluster, number)]
        plan = fourth_node(cluster)
        cluster.running["node4"] = up_process.start(plan, join=True)
        up_process_ready(cluster, "node4")
        body = json.dumps({"bytes_per_second": RATE, "parallel": 4}).encode()
        assert http("POST", cluster.urls[0] + "/cluster/nodes/node4/add", body)[0] == 202
        eventually(lambda: copying(cluster, 0), 30.0, 0.02)

        leader = cluster.get("/cluster/leader")["node"]
        cluster.kill(leader)
        other = next(at for at, one in enumerate(cluster.ids) if one not in (leader, "node4"))
        eventually(lambda: copying(cluster, other), 30.0, 0.02)
        assert cluster.get("/cluster/leader", other)["node"] != leader
        cluster.kill("node4")
        cluster.start_one(leader)
        assert moves(cluster, other)["change"] is not None
        sent += send(cluster, 5)
        cluster.running["node4"] = up_process.start(plan)
        up_process_ready(cluster, "node4")

        eventually(lambda: moves(cluster, other)["change"] is None, 60.0)
        eventually(lambda: agree(cluster), 30.0)
        for url in cluster.urls:
            read = asyncio.run(read_all(url))
            assert not set(sent) - read.keys()
            assert set(read.values()) == {1}
