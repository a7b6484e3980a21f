"""Watermarks and deletes on a working cluster: a node that is away meanwhile brings nothing back.

Three nodes. Rows are written, one node is killed; the others delete and move the watermark, merge and remove;
the node comes back with everything on its disk. Read through it, alone or with repair: nothing is there that
was hidden, and in the end its digests are those of the others.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cluster import LocalCluster, eventually, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
SETTINGS = """
[storage]
compact_interval_seconds = 0.05
compact_cpu_share = 0.9
[retention]
interval_seconds = 0.2
"""
DAY = 86_400
KIND = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes that look at retention all the time."""
    with running_cluster(tmp_path_factory.mktemp("retain") / "c", settings=SETTINGS) as made:
        yield made


def send(cluster: LocalCluster, rows: list[dict[str, Any]], node: int = 0) -> None:
    """One batch, acknowledged."""
    body = json.dumps(rows).encode()

    def sent() -> bool:
        return http("POST", cluster.urls[node] + "/ingest", body, KIND)[0] == 200

    eventually(sent, 20)


def rows(service: str, days: float, *texts: str) -> list[dict[str, Any]]:
    """Rows of a service, some days old."""
    at = time.time() - days * DAY
    return [
        {"timestamp": at, "service": service, "message": text, "level": "info"} for text in texts
    ]


def listed(cluster: LocalCluster, node: int = 1, consistency: str = "quorum") -> list[str]:
    """All messages, complete."""

    def asked() -> Any:
        path = f"{cluster.urls[node]}/query?limit=1000&consistency={consistency}"
        status, answer, _ = http("GET", path)
        return answer if status == 200 and answer["complete"] else None

    return sorted(row["message"] for row in eventually(asked, 20)["rows"])


def seen(cluster: LocalCluster, node: int = 1, consistency: str = "quorum") -> list[str]:
    """All messages, complete; a fold counts as many."""
    found = listed(cluster, node, consistency)
    _, counts, _ = http("GET", f"{cluster.urls[node]}/query/stats?by=service")
    assert sum(row["count"] for row in counts["rows"]) == len(found)
    sql = b"SELECT count(*) AS n, count(message) AS m FROM logs"
    status, table, _ = http("POST", cluster.urls[node] + "/sql", sql)
    assert (status, table["rows"]) == (200, [{"n": len(found), "m": len(found)}]), table
    return found


def command(cluster: LocalCluster, *words: str, node: int = 0) -> tuple[int, Any]:
    """(exit code, JSON) of the command line."""
    line = [sys.executable, "-m", "node", *words, "--json", "--server", cluster.urls[node]]
    done = subprocess.run(line, capture_output=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def digests(cluster: LocalCluster) -> list[dict[str, Any]]:
    """Per node, the digest of each shard that holds entries."""
    nodes = cluster.get("/cluster")["nodes"]
    shards = [one["status"]["storage"]["shards"] for one in nodes]
    return [{shard: one["digest"] for shard, one in found.items()} for found in shards]


def test_a_node_that_was_away_resurrects_nothing(cluster: LocalCluster) -> None:
    """Hidden on the others while it was down; then it is read through, repaired from, and counted on."""
    send(cluster, rows("pay", 0.5, "card 1", "cash 2"))
    send(cluster, rows("pay", 30, "ancient 3") + rows("audit", 30, "ledger 4"), 1)
    kept = ["card 1", "cash 2", "ancient 3", "ledger 4"]
    assert seen(cluster) == sorted(kept)
    eventually(lambda: digests(cluster)[2] == digests(cluster)[0], 20)
    cluster.kill("node3")

    code, made = command(cluster, "delete", "card", "--service", "pay")
    assert code == 3, made  # not all nodes answer
    assert made["not_answering"] == ["node3"]
    command(cluster, "retention", "set", "forever", "--service", "audit")
    command(cluster, "retention", "set", "7")
    eventually(lambda: listed(cluster) == ["cash 2", "ledger 4"], 20)
    send(cluster, rows("pay", 0, "card 5"))
    send(cluster, rows("pay", 40, "too late 6"))
    after = ["card 5", "cash 2", "ledger 4"]
    assert seen(cluster) == after

    cluster.start_one("node3")

    for node in (2, 1, 0):
        for consistency in ("one", "quorum", "all"):
            if consistency != "one" or node != 2:  # one owner alone may lack what came meanwhile
                assert seen(cluster, node, consistency) == after, (node, consistency)
    code, done = command(cluster, "delete", "--status", made["id"], "--wait", "30", node=2)
    assert (code, done["state"]) == (0, "removed"), done
    assert done["removed_on"] == ["node1", "node2", "node3"]
    eventually(lambda: digests(cluster)[2] == digests(cluster)[0], 30)
    assert all(seen(cluster, node, "all") == after for node in range(3))


def test_a_restart_of_all_shows_nothing_again(cluster: LocalCluster) -> None:
    """Watermarks and deletes are in the replicated state; no read is served before it is known."""
    before = seen(cluster)

    cluster.kill(*cluster.ids)
    cluster.start()

    assert all(seen(cluster, node) == before for node in range(3))
    assert [one["keep_days"] for one in command(cluster, "retention", "show")[1]["rules"]] == [
        7.0,
        "forever",
    ]
    assert cluster.errors_logged() == []


@pytest.mark.parametrize(
    ("method", "path", "body", "reason"),
    [
        ("PUT", "/cluster/retention", {"keep_days": -1}, "keep_days"),
        ("PUT", "/cluster/retention", {"service": "a"}, "keep_days"),
        ("PUT", "/cluster/retention", {"service": 7, "keep_days": 1}, "service"),
        ("POST", "/delete", {"q": "card"}, "services"),
        ("POST", "/delete", {"service": "a", "level": "info"}, "level"),
        ("POST", "/delete", {"service": "a", "q": "(("}, "q"),
        ("POST", "/delete", {"service": "a", "q": 'path:~"("'}, "regex"),
        ("POST", "/delete", {"service": "a", "from": "yesterdayish"}, "from"),
        ("POST", "/delete", ["service"], "object"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    cluster: LocalCluster, method: str, path: str, body: Any, reason: str
) -> None:
    """400 with the reason; nothing is hidden."""
    status, answer, _ = http(method, cluster.urls[0] + path, json.dumps(body).encode(), KIND)

    assert status == 400, answer
    assert reason in json.dumps(answer["error"])
    assert http("GET", cluster.urls[0] + "/delete/nothing")[0] == 404
