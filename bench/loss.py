"""Acked rows lost to a kill -9 of every node, right after the last acknowledgement; ours only.

It shows no power cut: what the kernel has taken survives a kill. That is tested with the chaos suite.
"""

import http.client
import json
from pathlib import Path
from typing import Any

from bench import corpus, load, nodes
from bench.corpus import Body


def run(rows: int, batch: int, connections: int, folder: Path) -> dict[str, Any]:
    """Three nodes take the rows, are killed, start again and are asked what they have."""
    bodies = corpus.bodies("slim", corpus.SEED, rows, batch)
    acked = [0]

    def post(link: http.client.HTTPConnection, _: int, body: Body) -> None:
        link.request("POST", "/logs", body.json, {"Content-Type": "application/x-ndjson"})
        answer = link.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"POST /logs: {answer.status} {text[:300]!r}")
        acked[0] += json.loads(text)["accepted"]

    with nodes.Cluster(folder / "loss", 3) as cluster:
        load.drive(bodies, cluster.urls, connections, post)
        cluster.kill()
        restart_seconds = cluster.start()
        seen = nodes.count(cluster.ports[0])
    return {
        "acked_rows": acked[0],
        "seen_rows": seen,
        "lost_rows": max(0, acked[0] - seen),
        "restart_seconds": restart_seconds,
    }
