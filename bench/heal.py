"""`python -m bench heal`: how soon and for how many bytes a node catches up that was away.

Three nodes on this machine, rows at a steady rate, the third node killed for a while. It is started again
while rows still come: until it has compared each shard with each other owner and lacks nothing that it knows
of is one figure, the other one is,
after the last row, until the digests of all three are the same. Nothing is read meanwhile, and no hints are
kept, so nothing else repairs. The bytes copied stand beside those that a peer's store grew by: blocks
travel as they are.
"""

import argparse
import base64
import http.client
import json
import os
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import results
from chaos.local_cluster import LocalCluster, running_cluster

#: Merging would change what a store's growth tells, and hints would fill the gap before it is looked for.
SETTINGS = "\n[storage]\ncompact = false\nhint_bytes_max = 0\n"
LEAF_BYTES, BASE_BYTES, PAYLOAD_FACTOR = 4096, 16_384, 1.10
PREFIX = "quorumlog_sync_"


@dataclass(frozen=True)
class Plan:
    """The load; seconds before, during and after the outage."""

    rows_per_second: int = 5_000
    batch_rows: int = 500
    services: int = 50
    #: Random text in each row, which does not shrink: for bytes of difference instead of rows.
    padding_bytes: int = 0
    before_seconds: float = 10.0
    outage_seconds: float = 60.0
    after_seconds: float = 20.0
    wait_seconds: float = 120.0
    #: Whether to wait for a comparison of equals, which comes every 5 s.
    quiet: bool = True


TINY = Plan(1_000, 50, 20, 0, 1.0, 2.0, 1.0, 30.0, quiet=False)


@dataclass
class Load:
    """Rows at a rate to one node, from a thread, until `stop`."""

    port: int
    plan: Plan
    acked: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it; the last batch is answered."""
        self._ended.set()
        self._thread.join(60)

    def _run(self) -> None:
        plan, sent, began = self.plan, 0, time.monotonic()
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self._ended.is_set():
            body = b"\n".join(_row(sent + k, plan) for k in range(plan.batch_rows))
            sent += plan.batch_rows
            try:
                self._send(link, body)
            except (OSError, http.client.HTTPException) as error:  # the next batch connects anew
                self.failures.append(repr(error))
                link.close()
            self._ended.wait(max(0.0, began + sent / plan.rows_per_second - time.monotonic()))
        link.close()

    def _send(self, link: http.client.HTTPConnection, body: bytes) -> None:
        link.request("POST", "/logs", body, {"Content-Type": "application/x-ndjson"})
        answer = link.getresponse()
        text = answer.read()
        if answer.status == 200:
            self.acked += json.loads(text)["accepted"]
        else:
            self.failures.append(f"{answer.status} {text[:200]!r}")


def _row(number: int, plan: Plan) -> bytes:
    row: dict[str, Any] = {
        "service": f"svc{number % plan.services}",
        "level": ("info", "warn", "error")[number % 7 % 3],
        "message": f"order {number * 2654435761 % 10**9} was handled in {number * 37 % 1000} ms",
        "user": number * 40503 % 65_536,
    }
    if plan.padding_bytes:
        row["padding"] = base64.b64encode(os.urandom(plan.padding_bytes * 3 // 4)).decode()
    return json.dumps(row).encode()


def run(plan: Plan, folder: Path) -> dict[str, Any]:
    """The figures of one outage."""
    with running_cluster(folder, settings=SETTINGS) as cluster:
        away, port = cluster.ids[2], cluster.plan.nodes[0].http_port
        load = Load(port, plan)
        time.sleep(plan.before_seconds)
        cluster.kill(away)
        before, stored = _stored(cluster, 0), load.acked
        time.sleep(plan.outage_seconds)
        lacking = {"rows": load.acked - stored, "bytes": _stored(cluster, 0) - before}
        began = time.monotonic()
        cluster.start_one(away)
        ready = time.monotonic()
        caught_up = _until(lambda: caught_up_with(_repair(cluster), 2), ready, plan.wait_seconds)
        time.sleep(plan.after_seconds)
        load.stop()
        stopped = time.monotonic()
        equal = _until(lambda: _equal(cluster), stopped, plan.wait_seconds)
        counted = _counted(cluster)
        quiet = _quiet_bytes(cluster) if plan.quiet else None
    bound = PAYLOAD_FACTOR * lacking["bytes"] + LEAF_BYTES * counted["stored"] + BASE_BYTES
    return {
        "plan": asdict(plan),
        "acked_rows": load.acked,
        "refused": load.failures,
        "lacking": lacking,
        "ready_seconds": ready - began,
        "caught_up_seconds_after_ready": caught_up,
        "equal_seconds_after_last_row": equal,
        "copied": counted,
        "bound_bytes": bound,
        "in_sync_tree_bytes_a_session": quiet,
    }


def _until(check: Any, since: float, seconds: float) -> float | None:
    """Seconds from `since` until it holds; None if it never does."""
    while time.monotonic() - since < seconds:
        if check():
            return time.monotonic() - since
        time.sleep(0.05)
    return None


def _storage(cluster: LocalCluster, node: int) -> dict[str, Any]:
    nodes = cluster.get("/cluster/nodes", node)["nodes"]
    return next(one["status"]["storage"] for one in nodes if one["id"] == cluster.ids[node])


def _stored(cluster: LocalCluster, node: int) -> int:
    return int(_storage(cluster, node)["bytes"])


def _equal(cluster: LocalCluster) -> bool:
    shards = [_storage(cluster, node)["shards"] for node in range(3)]
    return bool(shards[0]) and shards[0] == shards[1] == shards[2]


def _repair(cluster: LocalCluster) -> dict[str, Any]:
    """What the node that was away says of its comparisons since it is back."""
    answer = cluster.get("/cluster/repair", 2)
    return answer["nodes"].get(cluster.ids[2], {})


def caught_up_with(repair: dict[str, Any], peers: int) -> bool:
    """Whether each shard was compared with so many other owners, and nothing is known to lack."""
    shards = repair.get("shards", [])
    return bool(shards) and all(
        len(one["compared_at"]) == peers and not one["lacking"] for one in shards
    )


def _counted(cluster: LocalCluster) -> dict[str, int]:
    """What the node that was away has counted since it is back."""
    link = http.client.HTTPConnection("127.0.0.1", cluster.plan.nodes[2].http_port, timeout=30)
    link.request("GET", "/metrics", headers={"Accept": "application/json"})
    samples = json.loads(link.getresponse().read())
    link.close()

    def value(name: str, label: str, of: str) -> int:
        return int(samples.get(f'{PREFIX}{name}_total{{{label}="{of}"}}', 0))

    outcomes = ("stored", "needless", "settled", "vanished")
    return {
        **{one: value("entries", "outcome", one) for one in outcomes},
        **{one: value("sessions", "outcome", one) for one in ("equal", "differs", "unfinished")},
        **{f"{one}_bytes": value("bytes", "kind", one) for one in ("trees", "blocks")},
    }


def _quiet_bytes(cluster: LocalCluster) -> float | None:
    """Bytes about trees of a session between equals; None if none was seen."""
    first = _counted(cluster)
    if _until(lambda: _counted(cluster)["equal"] > first["equal"], time.monotonic(), 20) is None:
        return None
    now = _counted(cluster)
    if now["differs"] != first["differs"]:
        return None
    return (now["trees_bytes"] - first["trees_bytes"]) / (now["equal"] - first["equal"])


def main(words: list[str]) -> int:
    """Prints the figures, and writes them beside the other results."""
    parser = argparse.ArgumentParser(prog="bench heal", description=__doc__)
    parser.add_argument("--rate", type=int, default=5_000, help="rows a second")
    parser.add_argument("--batch", type=int, default=500, help="rows a request")
    parser.add_argument("--padding", type=int, default=0, help="bytes of random text in each row")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds")
    parser.add_argument("--tiny", action="store_true", help="a few rows, to see that it works")
    parser.add_argument("--out", type=Path, default=results.OUT, help="folder for the result")
    options = parser.parse_args(words)
    load = {"padding_bytes": options.padding, "outage_seconds": options.outage}
    plan = TINY if options.tiny else Plan(options.rate, options.batch, **load)
    found: dict[str, Any] = results.head()
    with tempfile.TemporaryDirectory(prefix="quorumlog-bench-") as folder:
        found |= run(plan, Path(folder) / "heal")
    stamp = str(found["at"]).replace(":", "").replace("+0000", "Z")
    results.write(options.out / f"heal-{stamp}.json", found)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0 if found["equal_seconds_after_last_row"] is not None else 1
