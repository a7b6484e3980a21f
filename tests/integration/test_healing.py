"""A node that was away, and a disk that lies: what one replica lacks comes back, first by hints, then without."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import LocalCluster, eventually, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

ROWS = 400


def write(cluster: LocalCluster, text: str, first: int, last: int) -> None:
    """Rows of forty services through the first and the second node, all acknowledged."""
    for node, numbers in enumerate((range(first, last, 2), range(first + 1, last, 2))):
        lines = [
            json.dumps({"service": f"svc{n % 40}", "level": "info", "message": f"{text} {n}"})
            for n in numbers
        ]
        body = "\n".join(lines).encode()
        status, answer, _ = http("POST", cluster.urls[node] + "/logs", body)
        assert status == 200, answer


def storage(cluster: LocalCluster) -> dict[str, dict[str, Any]]:
    """Each running node's own figures, by node."""
    found = {}
    for index, node in enumerate(cluster.ids):
        if node in cluster.running:
            listed = cluster.get("/cluster/nodes", index)["nodes"]
            found[node] = next(one for one in listed if one["id"] == node)["status"]["storage"]
    return found


def digests(cluster: LocalCluster) -> list[Any]:
    """The Merkle root of each shard, one map a node."""
    return [one["shards"] for one in storage(cluster).values()]


def alike(cluster: LocalCluster) -> bool:
    """Whether all three nodes hold the same entries."""
    found = digests(cluster)
    return len(found) == 3 and found[0] == found[1] == found[2] != {}


def count(cluster: LocalCluster, node: int = 0) -> int:
    """Rows that a complete read sees."""
    status, answer, _ = http("GET", cluster.urls[node] + "/query/stats")
    assert status == 200, answer
    assert answer["complete"], answer
    return answer["rows"][0]["count"] if answer["rows"] else 0


def metric(cluster: LocalCluster, node: int, name: str) -> float:
    """The sum of a metric's samples on a node."""
    _, found, _ = http(
        "GET", cluster.urls[node] + "/metrics", headers={"Accept": "application/json"}
    )
    return sum(value for key, value in found.items() if key.split("{")[0] == name)


def test_a_node_that_was_away_gets_what_it_missed(tmp_path: Path) -> None:
    """First by hints, with no read and within seconds; then, all hints deleted, by reads.

    Rows are written before, while and after the third node is dead. Hints are no part of what was promised:
    without them every read is complete all the same, and the reads repair what was missed.
    """
    with running_cluster(tmp_path, 3) as cluster:
        away = cluster.ids[2]
        write(cluster, "before", 0, ROWS)
        cluster.kill(away)
        write(cluster, "hinted", 0, ROWS)
        eventually(lambda: all(one["hint_bytes"].get(away) for one in storage(cluster).values()))

        cluster.start_one(away)
        eventually(lambda: alike(cluster), seconds=20)
        eventually(
            lambda: not any(any(one["hint_bytes"].values()) for one in storage(cluster).values())
        )
        assert metric(cluster, 0, "quorumlog_handoff_entries_total") > 0
        assert metric(cluster, 2, "quorumlog_read_repair_entries_total") == 0

        cluster.kill(away)
        write(cluster, "unhinted", 0, ROWS)
        eventually(lambda: all(one["hint_bytes"].get(away) for one in storage(cluster).values()))
        for path in tmp_path.rglob("*.hints"):
            path.unlink()
        cluster.start_one(away)

        for node in range(3):
            assert count(cluster, node) == 3 * ROWS
        eventually(lambda: count(cluster, 2) == 3 * ROWS and alike(cluster), seconds=30, every=1.0)
        assert not cluster.errors_logged()
