"""A real cluster: real processes on loopback, in a folder of its own.

Made with the same plans and processes as `quorumlog up`. Ports are looked for below the range that the
kernel hands out, so that a client's outgoing connection cannot take one between a kill and a restart.
"""

import http.client
import json
import os
import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaos import processes
from node import up_process
from node.cli_errors import CliError
from node.up import wait_ready
from node.up_plan import ClusterPlan, NodePlan, node_toml, plan_cluster
from node.up_process import NodeProcess

READY_SECONDS = 60.0
#: Seconds that a node is given to end after its disk is gone, before it is killed.
END_SECONDS = 5.0
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
    """Nodes that can be killed, paused and started again. All calls block."""

    def __init__(
        self,
        folder: Path,
        nodes: int,
        settings: str = "",
        *,
        data: str = ".",
        hosts: Sequence[str] = (),
        spare: int = 0,
    ) -> None:
        """`settings`: TOML tables added to each node's file. `data`: its folder for data, in its own.

        `spare`: nodes beside these that the others' settings do not name; `start_fresh` has one join.

        `hosts`: the nodes' addresses, if not all on loopback. `within`, to be filled before the start:
        words of a command that becomes the node, by node id; `environment` likewise.
        """
        base = free_port_base(nodes + spare)
        plan = plan_cluster(folder, "ql-test", nodes, None, base)
        more = plan_cluster(folder, "ql-test", nodes + spare, None, base).nodes[nodes:]
        if hosts:
            pairs = zip((*plan.nodes, *more), hosts, strict=True)
            placed = tuple(replace(one, host=host) for one, host in pairs)
            plan, more = replace(plan, nodes=placed[:nodes]), placed[nodes:]
        self.plan: ClusterPlan = plan
        self.spares: tuple[NodePlan, ...] = more
        self.folder = folder
        self.running: dict[str, NodeProcess] = {}
        self.within: dict[str, Sequence[str]] = {}
        self.environment: dict[str, Mapping[str, str]] = {}
        #: Called before a start that finds no node running, but the first.
        self.before_cold_start: Callable[[], None] | None = None
        self._founded = self._destroyed = False
        #: Spares that have joined: started again with all others.
        self._joined: set[str] = set()
        self._starting = threading.Lock()
        self._data = data
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "secret").touch(mode=0o600)
        (folder / "secret").write_bytes(secrets.token_bytes(32))
        for node in (*self.plan.nodes, *more):
            node.folder.mkdir()
            text = node_toml(self.plan, node).replace('data = "."', f'data = "{data}"')
            node.config.write_text(text + settings, encoding="utf-8")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all nodes."""
        return tuple(node.id for node in self.plan.nodes)

    @property
    def members(self) -> tuple[str, ...]:
        """The ids of all nodes that belong to it now: the first ones, and spares that have joined."""
        return (*self.ids, *sorted(self._joined))

    @property
    def urls(self) -> list[str]:
        """The HTTP addresses of all nodes."""
        return [node.url for node in self.plan.nodes]

    def process(self, node_id: str) -> NodeProcess:
        """The process of a node.

        Raises:
            FaultDidNotBite: it was not started again after something earlier: nothing is there to break.
        """
        if node_id not in self.running:
            raise processes.FaultDidNotBite(f"{node_id} does not run")
        return self.running[node_id]

    def node(self, node_id: str) -> NodePlan:
        """A node by id."""
        return next(node for node in (*self.plan.nodes, *self.spares) if node.id == node_id)

    def data(self, node_id: str) -> Path:
        """Where a node keeps its data."""
        return self.node(node_id).folder / self._data

    def start(self) -> None:
        """Starts what does not run and waits until all are ready.

        Raises:
            CliError: one ended, or is not ready after READY_SECONDS.
        """
        if self._founded and not self.running and self.before_cold_start is not None:
            self.before_cold_start()
        for node_id in self.members:
            if node_id not in self.running:
                self.start_without_waiting(node_id)
        wait_ready(list(self.running.values()), READY_SECONDS)
        self._founded = True

    def start_one(self, node_id: str) -> None:
        """Starts one node and waits until it is ready.

        Raises:
            CliError: as `start`.
        """
        self.start_without_waiting(node_id)
        wait_ready([self.running[node_id]], READY_SECONDS)

    def start_fresh(self, node_id: str) -> None:
        """A spare joins with an empty disk; ends it first if it runs.

        Raises:
            CliError: as `start`.
        """
        if node_id in self.running:
            self.end_somehow(node_id)
        shutil.rmtree(self.data(node_id), ignore_errors=True)
        self.data(node_id).mkdir(parents=True)
        self._joined.add(node_id)
        self.start_without_waiting(node_id, join=True)
        wait_ready([self.running[node_id]], READY_SECONDS)

    def start_without_waiting(
        self, node_id: str, environment: Mapping[str, str] | None = None, join: bool = False
    ) -> NodeProcess:
        """Starts one node; it may never be ready. `environment`: beside what it always gets.

        Raises:
            CliError: the cluster was destroyed meanwhile (the run was interrupted while a fault was held).
        """
        with self._starting:
            if self._destroyed:
                raise CliError("the cluster is gone: nothing is started any more")
            process = up_process.start(
                self.node(node_id),
                bootstrap=not self._founded,
                join=join,
                environment={**self.environment.get(node_id, {}), **(environment or {})},
                within=self.within.get(node_id, ()),
            )
            self.running[node_id] = process
            return process

    def revive(self, *node_ids: str, if_read_only: bool = False) -> dict[str, list[str]]:
        """Waits until these nodes are ready; starts those that ended, as a supervisor does.

        `if_read_only`: also restarts those that take no more writes. Returns whom it had to start.

        Raises:
            CliError: as `start`.
        """
        gone = [one for one in node_ids if one in self.running and not self.running[one].running]
        if if_read_only:
            live = [one for one in node_ids if one in self.running and one not in gone]
            gone += [one for one in live if self._read_only(one)]
        self.end_somehow(*gone)
        self.start()
        wait_ready([self.running[one] for one in node_ids], READY_SECONDS)
        return {"restarted": gone} if gone else {}

    def _read_only(self, node_id: str) -> bool:
        try:
            answer = self.get("/cluster", self.ids.index(node_id), timeout=10)
            figures = {one["id"]: one.get("status") or {} for one in answer["nodes"]}
            return bool(figures[node_id].get("storage", {}).get("read_only"))
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            return True  # it says nothing of itself: as good as closed

    def end_somehow(self, *node_ids: str) -> dict[str, int]:
        """Ends processes at once, also those that are ending by themselves; the ids they had."""
        pids = {}
        for node_id in node_ids:
            child = self.process(node_id).child
            assert child is not None, "started here"
            child.kill()  # sends nothing if it has ended
            pids[node_id] = child.pid
        for node_id in node_ids:
            child = self.running.pop(node_id).child
            assert child is not None, "started here"
            child.wait(END_SECONDS)
        return pids

    def stop_some(self, *node_ids: str) -> dict[str, int | None]:
        """SIGTERM; returns when the processes have ended, with their exit codes.

        Raises:
            FaultDidNotBite: one had to be killed, or ended with an error.
        """
        ending = {node_id: self.process(node_id) for node_id in node_ids}
        killed = up_process.stop(list(ending.values()))
        codes = {node_id: one.exit_code for node_id, one in ending.items()}
        for node_id in node_ids:
            del self.running[node_id]
        if killed or any(codes.values()):
            raise processes.FaultDidNotBite(f"not all ended in order upon SIGTERM: {codes}")
        return codes

    def kill(self, *node_ids: str) -> dict[str, int]:
        """kill -9, all at once; returns when the processes are gone, with the ids they had.

        Raises:
            FaultDidNotBite: one ended otherwise.
        """
        pids = processes.kill([self.process(node_id) for node_id in node_ids])
        for node_id in node_ids:
            del self.running[node_id]
        return dict(zip(node_ids, pids, strict=True))

    def pause(self, *node_ids: str) -> dict[str, int]:
        """SIGSTOP; returns when the processes are stopped, with their ids.

        Raises:
            FaultDidNotBite: one could not be stopped.
        """
        paused = [self.process(node_id) for node_id in node_ids]
        return dict(zip(node_ids, processes.pause(paused), strict=True))

    def is_stopped(self, node_id: str) -> bool:
        """Whether SIGSTOP holds a node."""
        return processes.state(self.running[node_id].pid) == "T"

    def retire(self, node_id: str) -> None:
        """Ends a spare that is to be no member any more; nobody starts it again but `start_fresh`."""
        if node_id in self.running:
            self.end_somehow(node_id)
        self._joined.discard(node_id)

    def resume(self, *node_ids: str) -> None:
        """SIGCONT, and waits until the nodes are ready.

        Raises:
            CliError: as `start`.
        """
        paused = [self.process(node_id) for node_id in node_ids]
        processes.resume(paused)
        wait_ready(paused, READY_SECONDS)

    def stop(self) -> None:
        """Ends all nodes in order; none may need a SIGKILL."""
        killed = up_process.stop(list(self.running.values()))
        self.running.clear()
        assert not killed, f"did not end within 10 s of SIGTERM: {[one.plan.id for one in killed]}"

    def destroy(self) -> None:
        """Ends whatever runs, at once, paused or not; nothing can be started after it."""
        with self._starting:
            self._destroyed = True
        children = [one.child for one in self.running.values() if one.child is not None]
        left = [child for child in children if child.poll() is None]
        self.running.clear()
        for child in left:
            child.kill()
        for child in left:  # one on a stalled disk may take long; the others have ended by then
            child.wait(10)

    def get(self, path: str, node: int = 0, timeout: float = 30.0) -> Any:
        """The JSON of a GET to a node."""
        connection = http.client.HTTPConnection(
            self.plan.nodes[node].host, self.plan.nodes[node].http_port, timeout=timeout
        )
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def log_text(self, node_id: str) -> str:
        """All that a node has said so far; empty if nothing."""
        log = self.node(node_id).log
        return log.read_text(errors="replace") if log.exists() else ""

    def logs(self, node_id: str) -> list[dict[str, Any]]:
        """The node's log events; a line that is none has the level `raw`."""
        events = []
        for line in self.log_text(node_id).splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                events.append({"level": "raw", "message": line})
        return events

    def errors_logged(self) -> list[dict[str, Any]]:
        """Events of level error, and lines that are no events: neither belongs into a log."""
        return [
            event
            for node in (*self.plan.nodes, *self.spares)
            for event in self.logs(node.id)
            if event["level"] in ("error", "critical", "raw")
        ]


@contextmanager
def running_cluster(folder: Path, nodes: int = 3, settings: str = "") -> Iterator[LocalCluster]:
    """A cluster that is ready; stopped in the end, or killed if something failed."""
    cluster = LocalCluster(folder, nodes, settings)
    try:
        cluster.start()
        yield cluster
        cluster.stop()
    finally:
        cluster.destroy()
