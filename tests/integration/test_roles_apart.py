"""Roles apart, as in docker-compose.cluster.yml: three ingestors vote, storage and query nodes follow them.

Real processes on loopback. What a single process hides is crossed here: state by long poll, proposals
through a manager, every put, scan and seal over the wire.
"""

import json
from pathlib import Path

import pytest

from node.up_plan import ClusterPlan, node_toml
from tests.support.cluster import LocalCluster, eventually, http

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

ROLES = {
    **{f"node{i}": ["ingestor"] for i in (1, 2, 3)},
    **{f"node{i}": ["storage"] for i in (4, 5, 6)},
    "node7": ["query", "dashboard"],
}


def apart(folder: Path) -> LocalCluster:
    """A cluster of seven processes whose settings name three managers and three storage nodes."""
    cluster = LocalCluster(folder, 7)
    managers = ClusterPlan(cluster.plan.id, cluster.plan.nodes[:3], 3)
    voters = ", ".join(f'"{one.id}" = "127.0.0.1:{one.raft_port}"' for one in managers.nodes)
    for node in cluster.plan.nodes:
        lines = []
        for line in node_toml(cluster.plan, node).splitlines():
            if line.startswith("roles ="):
                line = f"roles = {json.dumps(ROLES[node.id])}"
            elif line.startswith("managers ="):
                line = f"managers = {{ {voters} }}"
            elif line.startswith("storage ="):
                line = 'storage = ["node4", "node5", "node6"]'
            lines.append(line)
        node.config.write_text("\n".join(lines) + "\n")
    return cluster


def test_rows_cross_all_roles_and_survive_the_loss_of_one_of_each(tmp_path: Path) -> None:
    """Written at an ingestor, kept by storage nodes, read at the query node; then one of each is killed."""
    cluster = apart(tmp_path / "c")
    try:
        cluster.start()
        ingestor, query = cluster.node("node1").url, cluster.node("node7").url
        rows = b"".join(b'{"service":"s%d","message":"row %d"}\n' % (i % 7, i) for i in range(200))
        headers = {"Content-Type": "application/x-ndjson"}

        status, answer, _ = http("POST", f"{ingestor}/logs", rows, headers)
        assert (status, answer["accepted"]) == (200, 200)
        numbered = {"service": "pay", "producer": "p", "logs": [{"seq": 1, "message": "one"}]}
        status, answer, _ = http("POST", f"{ingestor}/ingest", json.dumps(numbered).encode())
        assert (status, answer["ackTill"]) == (200, 1)

        found = http("GET", f"{query}/query/stats?agg=count")[1]
        assert found["complete"]
        assert found["rows"] == [{"count": 201}]
        for text in ("one", "row 7"):  # located over the wire: by sequence, by position
            row = http("GET", f"{query}/query?message={text.replace(' ', '%20')}")[1]["rows"][0]
            around = http("GET", f"{query}/query/context?id={row['_id']}&service=*")[1]
            assert around["row"] == row
            assert around["complete"]
            assert around["before"] or around["after"]
        assert http("POST", f"{query}/logs", rows, headers)[0] == 405, "a query node takes no rows"
        assert http("GET", f"{ingestor}/query")[0] == 404, "an ingestor answers no queries"

        cluster.kill("node2", "node5")
        numbered["logs"] = [{"seq": 2, "message": "two"}]
        status, answer, _ = http("POST", f"{ingestor}/ingest", json.dumps(numbered).encode())
        assert (status, answer["ackTill"]) == (200, 2)

        def all_there() -> bool:
            answer = http("GET", f"{query}/query/stats?agg=count")[1]
            return answer["complete"] and answer["rows"] == [{"count": 202}]

        eventually(all_there)
        cluster.stop()
    finally:
        for process in cluster.running.values():
            if process.child is not None and process.child.poll() is None:
                process.child.kill()
                process.child.wait(10)
