"""A real cluster for the benchmark, made with the plans and processes of `quorumlog up`."""

import http.client
import json
import os
import secrets
import signal
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from bench.measure import cpu_seconds, memory_bytes
from chaos.local_cluster import free_port_base
from node import up_process
from node.up import wait_ready
from node.up_plan import existing_cluster, node_toml, plan_cluster

#: Seconds for a cluster to become ready: with much stored it reads its logs first.
READY_SECONDS = 600.0


class Cluster:
    """Running nodes: their addresses, their CPU, what they hold.

    In a folder that has a cluster the same one starts again, with its data.
    """

    def __init__(self, folder: Path, nodes: int) -> None:
        tables = sorted(folder.glob("node*/node.toml"))
        self.fresh = not tables
        if tables:
            read = {one.parent.name: tomllib.loads(one.read_text()) for one in tables}
            self.plan = existing_cluster(folder, read)
        else:
            self.plan = plan_cluster(
                folder, f"ql-bench-{secrets.token_hex(4)}", nodes, None, free_port_base(nodes)
            )
            self._write(folder)
        self.ports = [node.http_port for node in self.plan.nodes]
        self.urls = [node.url for node in self.plan.nodes]
        self.folder = folder
        self._running: list[up_process.NodeProcess] = []

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "secret").write_bytes(os.urandom(32))
        (folder / "secret").chmod(0o600)
        for node in self.plan.nodes:
            node.folder.mkdir(exist_ok=True)
            node.config.write_text(node_toml(self.plan, node), encoding="utf-8")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> float:
        """Starts all nodes at once; seconds until each of them serves.

        Nodes of the folder that still run, as their benchmark was killed, are stopped first.
        """
        left = [found for node in self.plan.nodes if (found := up_process.find(node))]
        up_process.stop(left)
        started = time.perf_counter()
        self._running = [up_process.start(node, self.fresh) for node in self.plan.nodes]
        try:
            wait_ready(self._running, READY_SECONDS)
            self._check()
        except BaseException:
            self.stop()
            raise
        self.fresh = False
        return time.perf_counter() - started

    def _check(self) -> None:
        """That those who answer are our nodes: another program may have taken a port in between.

        Raises:
            RuntimeError: another cluster answers.
        """
        for port in self.ports:
            told = get(port, "/cluster")["cluster_id"]
            if told != self.plan.id:
                raise RuntimeError(f"port {port} answers for cluster {told}, not {self.plan.id}")

    def stop(self) -> None:
        """Asks the nodes to end."""
        up_process.stop(self._running)

    def kill(self) -> None:
        """SIGKILL to all nodes at once."""
        for one in self._running:
            os.kill(one.pid, signal.SIGKILL)
        for one in self._running:
            if one.child is not None:
                one.child.wait()

    @property
    def pids(self) -> list[int]:
        """The process of each node."""
        return [one.pid for one in self._running]

    def cpu_seconds(self) -> list[float]:
        """CPU of each node's process so far."""
        return [cpu_seconds(one.pid) for one in self._running]

    def memory_bytes(self, field: str = "VmHWM") -> list[int]:
        """Memory of each process; by default the most it has had."""
        return [memory_bytes(one.pid, field) for one in self._running]

    def stored_bytes(self) -> int:
        """Bytes of all copies, as the nodes count them."""
        return sum(status["bytes"] for status in self.storage_status())

    def storage_status(self) -> list[dict[str, Any]]:
        """What each node tells of its storage."""
        nodes = get(self.ports[0], "/cluster/nodes")["nodes"]
        return [node["status"]["storage"] for node in nodes]


def get(port: int, path: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON at a path; raises if the status is not 200."""
    with connection(port) as link:
        return ask(link, path, params)


@contextmanager
def connection(port: int) -> Iterator[http.client.HTTPConnection]:
    """A connection that is closed after use."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        yield link
    finally:
        link.close()


def ask(
    link: http.client.HTTPConnection, path: str, params: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One question over an open connection."""
    link.request("GET", path + ("?" + urlencode(params) if params else ""))
    answer = link.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"GET {path}: {answer.status} {body[:300]!r}")
    return json.loads(body)


def metric(port: int, name: str) -> float:
    """One of a node's metrics without labels; 0 if there is none."""
    with connection(port) as link:
        link.request("GET", "/metrics")
        lines = link.getresponse().read().decode().splitlines()
    return next((float(one.split()[1]) for one in lines if one.startswith(name + " ")), 0.0)


def count(port: int) -> int:
    """All rows that a reader sees."""
    answer = get(port, "/query/stats", {"agg": "count"})
    assert answer["complete"], answer
    return sum(row["count"] for row in answer["rows"])
