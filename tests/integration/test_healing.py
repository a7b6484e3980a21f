"""A node that was away, and a disk that lies: what one replica lacks comes back, by hints or without."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import LocalCluster, eventually, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROWS = 400
#: A pass of the scrub every two seconds.
SETTINGS = """
[storage]
scrub_period_seconds = 2.0
scrub_cpu_share = 0.5
warm_cpu_share = 0.0
[query]
repair_delay_seconds = 0.1
"""


def write(cluster: LocalCluster, text: str, services: int) -> None:
    """Rows through the first and the second node, all acknowledged."""
    for node in (0, 1):
        lines = [
            json.dumps({"service": f"svc{n % services}", "level": "info", "message": f"{text} {n}"})
            for n in range(node, ROWS, 2)
        ]
        status, answer, _ = http("POST", cluster.urls[node] + "/logs", "\n".join(lines).encode())
        assert status == 200, answer


def storage(cluster: LocalCluster) -> dict[str, dict[str, Any]]:
    """Each running node's own figures, by node."""
    found = {}
    for index, node in enumerate(cluster.ids):
        if node in cluster.running:
            listed = cluster.get("/cluster/nodes", index)["nodes"]
            found[node] = next(one for one in listed if one["id"] == node)["status"]["storage"]
    return found


def alike(cluster: LocalCluster) -> bool:
    """Whether all three nodes hold the same entries, by the roots of their Merkle trees."""
    found = [one["shards"] for one in storage(cluster).values()]
    return len(found) == 3 and found[0] == found[1] == found[2] != {}


def hinted(cluster: LocalCluster, away: str) -> bool:
    """Whether both living nodes keep hints for the one that is away."""
    return all(one["hint_bytes"].get(away) for one in storage(cluster).values())


def count(cluster: LocalCluster, node: int) -> int:
    """Rows that a complete read sees."""
    status, answer, _ = http("GET", cluster.urls[node] + "/query/stats")
    assert status == 200, answer
    assert answer["complete"], answer
    return answer["rows"][0]["count"]


def metric(cluster: LocalCluster, node: int, name: str) -> float:
    """The sum of a metric's samples on a node."""
    headers = {"Accept": "application/json"}
    _, found, _ = http("GET", cluster.urls[node] + "/metrics", headers=headers)
    return sum(value for key, value in found.items() if key.split("{")[0] == name)


def damage(folder: Path) -> tuple[int, int]:
    """Flips a bit in the body of each segment, and in the last block of each log file; how many of both.

    A log file whose blocks were all merged by then is of no use, and goes with its damage.
    """
    segments = [
        (path, path.stat().st_size // 3) for path in (folder / "segments").rglob("*.parquet")
    ]
    found = [(path, path.read_bytes().rfind(b"QLB1")) for path in (folder / "log").iterdir()]
    logs = [(path, at + 60) for path, at in found if at >= 0]
    for path, at in segments + logs:
        data = bytearray(path.read_bytes())
        data[at] ^= 0x04
        path.write_bytes(data)
    return len(segments), len(logs)


def test_what_a_replica_lacks_comes_back(tmp_path: Path) -> None:
    """A node is dead while rows are written, twice; then its disk flips bits. It ends up like the others.

    1. By hints: within seconds, with no read. 2. All hints deleted: reads are complete all the same, and
    repair what was missed. 3. Damaged segments are set aside and brought back with no read.
    """
    with running_cluster(tmp_path, 3, SETTINGS) as cluster:
        away = cluster.ids[2]
        write(cluster, "before", 40)
        cluster.kill(away)
        write(cluster, "hinted", 40)
        eventually(lambda: hinted(cluster, away))
        cluster.start_one(away)
        eventually(lambda: alike(cluster))
        eventually(
            lambda: not any(any(s["hint_bytes"].values()) for s in storage(cluster).values())
        )
        assert metric(cluster, 0, "quorumlog_handoff_entries_total") > 0
        assert metric(cluster, 2, "quorumlog_read_repair_entries_total") == 0

        cluster.kill(away)
        write(cluster, "unhinted", 3)
        eventually(lambda: hinted(cluster, away))
        for path in tmp_path.rglob("*.hints"):
            path.unlink()
        cluster.start_one(away)
        for node in range(3):
            assert count(cluster, node) == 3 * ROWS
        eventually(lambda: count(cluster, 2) == 3 * ROWS and alike(cluster), 30, every=1.0)
        assert not cluster.errors_logged()

        eventually(lambda: storage(cluster)[away]["segments"], 30)
        write(cluster, "flipped", 3)
        cluster.kill(away)
        segments, logs = damage(cluster.node(away).folder / "store")
        assert segments
        assert logs
        cluster.start_one(away)
        eventually(lambda: storage(cluster)[away]["quarantined_blocks"] >= segments, 20)
        eventually(lambda: storage(cluster)[away]["scrub"]["last_pass_damaged"] is not None)
        eventually(lambda: alike(cluster), 60)
        assert metric(cluster, 2, "quorumlog_sync_entries_total") > 0
        assert metric(cluster, 2, "quorumlog_read_repair_entries_total") == 0
        for node in range(3):
            assert count(cluster, node) == 4 * ROWS
