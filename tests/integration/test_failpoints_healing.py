"""Killed at each named place of healing, retention and moves: real processes, one story.

A node dies between writing a hint and syncing it, before it forgets one that is delivered, before it answers
a repair, when it hears of a delete, when it has blanked rows or dropped entries, after it sealed a
producer's epoch, and at each step of a shard's move. It is started again each time. In the end every node
shows what was acknowledged and not deleted, once, and all owners hold the same.
"""

import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node import up_process
from runtime.failpoints import LOG_VARIABLE, VARIABLE
from tests.integration.test_membership import agree, fourth_node, up_process_ready
from tests.support.cluster import LocalCluster, eventually, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
SETTINGS = """
[storage]
compact_interval_seconds = 0.05
compact_cpu_share = 0.9
[retention]
interval_seconds = 0.2
[rebalance]
let_go_after_seconds = 0.3
"""
DAY, ROWS = 86_400, 60
LINES = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}
#: Rounds of this story: which node dies where. What is not here is passed under any load
#: (chaos/faults/processes.py).
HINTING = {"node1": "hint.before-sync", "node2": "hint.after-sync"}
HINTED = {"node1": "hint.delivered", "node2": "seal.producer", "node3": "repair.before-ack"}
RETIRING = {"node1": "retire.observed", "node2": "retire.erased", "node3": "retire.drop"}
MOVING = {
    "node1": "move.hand-over",
    "node2": "move.raise-ring",
    "node3": "move.let-go",
    "node4": "move.take-over",
}


class Story:
    """A cluster, and the messages that it must show."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.shown: set[str] = set()
        self.died: list[str] = []
        self._armed: dict[str, str] = {}
        self._batch = 0

    def batch(self) -> Callable[[int], bool]:
        """A new batch: what sends it through a node, and says whether it was acknowledged."""
        self._batch += 1
        texts = [f"svc{n % 12} batch {self._batch} row {n}" for n in range(ROWS)]
        rows = [json.dumps({"service": one.split()[0], "message": one}) for one in texts]
        headers = {**LINES, "Idempotency-Key": f"batch-{self._batch}"}
        self.shown |= set(texts)

        def sent(node: int) -> bool:
            with contextlib.suppress(OSError):
                url = self.cluster.urls[node] + "/logs"
                return http("POST", url, "\n".join(rows).encode(), headers, 5.0)[0] == 200
            return False

        return sent

    def all_die(
        self, points: dict[str, str], act: Callable[[], Any], then: dict[str, str] | None = None
    ) -> None:
        """Starts nodes so that each dies at its point, does `act` until all have, starts them again.

        `then`: where they die next, if nothing passes there before that: they are armed with it at once.
        """
        cluster = self.cluster
        for node, point in points.items():
            if self._armed.get(node) == point:
                continue
            if node in cluster.running:
                cluster.kill(node)
            self.start(node, self.armed(node, point))
        for node in points:
            if points[node] != "repair.before-ack":  # it dies of what it meets after its start
                up_process_ready(cluster, node)
        left = set(points)

        def buried() -> bool:
            with contextlib.suppress(OSError):
                act()
            for node in [one for one in left if not cluster.running[one].running]:
                self.buried(node)
                self.start(node, self.armed(node, then[node]) if then and node in then else {})
                left.discard(node)
            return not left

        eventually(buried, 60.0, 0.05)
        for node in points:
            up_process_ready(cluster, node)

    def start(self, node: str, environment: dict[str, str]) -> None:
        """Starts a node; one that is in nobody's settings joins."""
        plan = self.cluster.node(node)
        new = not (plan.folder / "store").exists()
        self.cluster.running[node] = up_process.start(plan, join=new, environment=environment)

    def armed(self, node: str, point: str) -> dict[str, str]:
        """The environment of a node that dies at `point`."""
        note = self.cluster.node(node).folder / "failpoints.log"
        note.unlink(missing_ok=True)
        self._armed[node] = point
        return {VARIABLE: f"{point}=kill@1", LOG_VARIABLE: str(note)}

    def buried(self, node: str) -> None:
        """It ended where it should."""
        process = self.cluster.running.pop(node)
        assert process.exit_code == -signal.SIGKILL, self.cluster.log_text(node)[-2000:]
        self.died += (self.cluster.node(node).folder / "failpoints.log").read_text().split()

    def delete(self, word: str) -> None:
        """Deletes the rows with a phrase."""
        services = ",".join(f"svc{n}" for n in range(12))
        body = json.dumps({"q": f'"{word}"', "service": services}).encode()
        self.ask("POST", "/delete", body)
        self.shown = {one for one in self.shown if word not in one}

    def ask(self, method: str, path: str, body: bytes) -> None:
        """A command to whoever answers it; to be repeated, as its nodes may die of it."""
        for url in self.cluster.urls[:3]:
            with contextlib.suppress(OSError):
                if http(method, url + path, body, JSON, 5.0)[0] in (200, 202):
                    return

    def everywhere(self) -> bool:
        """Whether each node shows what it must, once."""
        for url in self.cluster.urls:
            status, text, _ = http(
                "GET", url + "/query", headers={"Accept": "application/x-ndjson"}
            )
            found = Counter(
                json.loads(one)["message"] for one in str(text).splitlines() if "message" in one
            )
            if status != 200 or dict(found) != dict.fromkeys(self.shown, 1):
                return False
        return True


def hints(story: Story) -> None:
    """Two nodes die of hints for the third, which is away; then each of what they are for."""
    story.cluster.kill("node3")
    first, second = story.batch(), story.batch()
    story.all_die(HINTING, lambda: (first(0), second(1)))
    for sent in (first, second, story.batch()):
        eventually(lambda sent=sent: sent(0), 30.0)
    body = json.dumps({"service": "svc1", "producer": "p"}).encode()
    story.all_die(HINTED, lambda: story.ask("POST", "/ingest/epoch", body), RETIRING)


def retires(story: Story) -> None:
    """A delete is heard of, carried out by another node; a third drops what is below a watermark."""
    rows = [
        {"service": "old", "message": f"ancient {n}", "timestamp": time.time() - 30 * DAY}
        for n in range(5)
    ]
    url, body = story.cluster.urls[0] + "/ingest", json.dumps(rows).encode()
    eventually(lambda: http("POST", url, body, JSON)[0] == 200)
    keep = json.dumps({"keep_days": 7}).encode()
    story.all_die(
        RETIRING,
        lambda: (story.delete("batch 1 row"), story.ask("PUT", "/cluster/retention", keep)),
        MOVING,
    )


def moves(story: Story) -> None:
    """A fourth node is added; each of the four dies at another step."""
    fourth_node(story.cluster)
    story.all_die(MOVING, lambda: story.ask("POST", "/cluster/nodes/node4/add", b"{}"))
    eventually(lambda: story.cluster.get("/cluster/moves")["change"] is None, 60.0)


def test_killed_at_each_named_place_of_healing_nothing_is_lost(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "c", settings=SETTINGS) as cluster:
        story = Story(cluster)

        for chapter in (hints, retires, moves):
            chapter(story)
            sent = story.batch()
            eventually(lambda sent=sent: sent(0), 30.0)
            eventually(story.everywhere, 30.0, 0.3)

        points = [*HINTING.values(), *HINTED.values(), *RETIRING.values(), *MOVING.values()]
        assert sorted(story.died) == sorted(points)
        eventually(lambda: agree(cluster), 30.0)
