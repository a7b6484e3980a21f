"""A real cluster for tests: real processes on loopback, in a folder of the test's own.

Made with the same plans and processes as `quorumlog up`. Ports are looked for below the range that the
kernel hands out, so that a client's outgoing connection cannot take one between a kill and a restart.
"""

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node import up_process
from node.up import wait_ready
from node.up_plan import ClusterPlan, NodePlan, node_toml, plan_cluster
from node.up_process import NodeProcess

READY_SECONDS = 60.0
PORT_RANGE = range(15_000, 32_000, 100)


def free_port_base(nodes: int) -> int:
    """A base such that all ports of a plan are free now; differs from one process to the next."""
    start = (os.getpid() * 7) % len(PORT_RANGE)
    for step in range(len(PORT_RANGE)):
        base = PORT_RANGE[(start + step) % len(PORT_RANGE)]
        if all(_is_free(base + 10 * node + port) for node in range(nodes) for port in range(3)):
            return base
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class LocalCluster:
    """Nodes that can be killed and started again."""

    def __init__(self, folder: Path, nodes: int, settings: str = "") -> None:
        """`settings`: TOML tables added to each node's file."""
        base = free_port_base(nodes)
        self.plan: ClusterPlan = plan_cluster(folder, "ql-test", nodes, None, base)
        self.folder = folder
        self.running: dict[str, NodeProcess] = {}
        self._founded = False
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "secret").write_bytes(os.urandom(32))
        (folder / "secret").chmod(0o600)
        for node in self.plan.nodes:
            node.folder.mkdir()
            node.config.write_text(node_toml(self.plan, node) + settings)

    @property
    def urls(self) -> list[str]:
        """The HTTP addresses of all nodes."""
        return [node.url for node in self.plan.nodes]

    def node(self, node_id: str) -> NodePlan:
        """A node by id."""
        return next(node for node in self.plan.nodes if node.id == node_id)

    def start(self) -> None:
        """Starts what does not run and waits until all are ready."""
        for node in self.plan.nodes:
            if node.id not in self.running:
                self.running[node.id] = up_process.start(node, bootstrap=not self._founded)
        wait_ready(list(self.running.values()), READY_SECONDS)
        self._founded = True

    def start_one(self, node_id: str) -> None:
        """Starts one node and waits until it is ready."""
        self.running[node_id] = up_process.start(self.node(node_id))
        wait_ready([self.running[node_id]], READY_SECONDS)

    def kill(self, *node_ids: str) -> None:
        """kill -9; returns when the processes are gone."""
        killed = [self.running.pop(node_id) for node_id in node_ids]
        for process in killed:
            os.kill(process.pid, signal.SIGKILL)
        for process in killed:
            assert process.child is not None
            assert process.child.wait(10) == -signal.SIGKILL

    def stop(self) -> None:
        """Ends all nodes in order; none may need a SIGKILL."""
        killed = up_process.stop(list(self.running.values()))
        self.running.clear()
        assert not killed, f"did not end within 10 s of SIGTERM: {[one.plan.id for one in killed]}"

    def get(self, path: str, node: int = 0, timeout: float = 30.0) -> Any:
        """The JSON of a GET that must succeed."""
        return http("GET", self.urls[node] + path, timeout=timeout)[1]

    def logs(self, node_id: str) -> list[dict[str, Any]]:
        """The node's log events."""
        events = []
        for line in self.node(node_id).log.read_text(errors="replace").splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                events.append({"level": "raw", "message": line})
        return events

    def errors_logged(self) -> list[dict[str, Any]]:
        """Events of level error, and lines that are no events: neither belongs into a log."""
        return [
            event
            for node in self.plan.nodes
            for event in self.logs(node.id)
            if event["level"] in ("error", "critical", "raw")
        ]


def http(
    method: str,
    url: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 30.0,
) -> tuple[int, Any, dict[str, str]]:
    """(status, JSON or text, headers) of one request; an error status is an answer, not an exception."""
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, _decoded(answer.read()), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _decoded(error.read()), dict(error.headers)


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


@contextmanager
def running_cluster(folder: Path, nodes: int = 3, settings: str = "") -> Iterator[LocalCluster]:
    """A cluster that is ready; stopped (or killed, if the test failed) in the end."""
    cluster = LocalCluster(folder, nodes, settings)
    try:
        cluster.start()
        yield cluster
        cluster.stop()
    finally:
        for process in cluster.running.values():
            if process.child is not None and process.child.poll() is None:
                process.child.kill()
                process.child.wait(10)


def eventually(check: Any, seconds: float = 10.0, every: float = 0.1) -> Any:
    """The first truthy value of `check()`; fails when time is up."""
    until = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < until, f"not within {seconds} s: {check}"
        time.sleep(every)
