"""What a local cluster looks like, as values: nodes, ports, settings, the text of `node.toml`. Pure.

DIR/secret            32 random bytes that the nodes know each other by (mode 0600)
DIR/nodeI/node.toml   the node's settings; written once, yours to edit
DIR/nodeI/node.log    what the node logs, one JSON object a line
DIR/cluster.json      who runs where, written when all nodes are ready
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.cli_errors import USAGE, CliError

PORT_BASE = 7171
#: Node i listens on the ports of node 1 plus 10 times (i - 1).
PORT_STEP = 10
NODES_MAX = 20
PORT_NAMES = ("http", "peer", "raft")


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node on this machine. `folder` holds its settings, its log and its data.

    `joins`: the cluster was there before it, so it waits as a spare until `nodes add` gives it shards.
    """

    id: str
    folder: Path
    http_port: int
    peer_port: int
    raft_port: int
    host: str = "127.0.0.1"
    joins: bool = False

    @property
    def config(self) -> Path:
        """Its settings."""
        return self.folder / "node.toml"

    @property
    def log(self) -> Path:
        """Its log."""
        return self.folder / "node.log"

    @property
    def pid_file(self) -> Path:
        """Where the id of its process is noted."""
        return self.folder / "node.pid"

    @property
    def url(self) -> str:
        """Its HTTP address."""
        return f"http://{self.host}:{self.http_port}"

    def ports(self) -> dict[str, int]:
        """Its ports by name."""
        return {"http": self.http_port, "peer": self.peer_port, "raft": self.raft_port}

    def described(self, pid: int) -> dict[str, Any]:
        """Its entry in cluster.json."""
        return {
            "id": self.id,
            "pid": pid,
            "http": self.url,
            "peer": f"{self.host}:{self.peer_port}",
            "raft": f"{self.host}:{self.raft_port}",
            "data": str(self.folder),
            "log": str(self.log),
            "config": str(self.config),
        }


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """The nodes and how many copies they keep."""

    id: str
    nodes: tuple[NodePlan, ...]
    replicas: int

    @property
    def managers(self) -> tuple[NodePlan, ...]:
        """The voters of the Raft group: 1, 3 or 5 of the nodes."""
        count = len(self.nodes)
        return self.nodes[: 5 if count >= 5 else 3 if count >= 3 else 1]

    @property
    def quorum(self) -> tuple[int, int, int]:
        """(N, W, R): a majority writes, and enough read to meet it."""
        written = self.replicas // 2 + 1
        return self.replicas, written, self.replicas - written + 1


def plan_cluster(
    folder: Path, cluster_id: str, nodes: int, replicas: int | None, port_base: int
) -> ClusterPlan:
    """The plan of a new cluster.

    Raises:
        CliError: numbers that do not go together.
    """
    if not 1 <= nodes <= NODES_MAX:
        raise CliError(f"--nodes is from 1 to {NODES_MAX}, not {nodes}", code=USAGE)
    if replicas is not None and not 1 <= replicas <= nodes:
        raise CliError(
            f"--rf {replicas} needs as many nodes, there are {nodes}", f"--nodes {replicas}", USAGE
        )
    numbers = range(1, nodes + 1)
    plans = tuple(_node(folder, k, port_base + PORT_STEP * (k - 1)) for k in numbers)
    return ClusterPlan(cluster_id, plans, replicas or min(3, nodes))


def grown(plan: ClusterPlan, folder: Path, nodes: int) -> tuple[NodePlan, ...]:
    """The nodes that an existing cluster lacks to have `nodes`, on the ports after its last.

    Raises:
        CliError: it has more, or there cannot be so many.
    """
    held = len(plan.nodes)
    if nodes < held:
        raise CliError(
            f"the cluster in {folder} has {held} nodes, which `up` does not take away",
            "leave --nodes out; `nodes remove NODE --wait` takes a node's rows from it",
            USAGE,
        )
    if nodes > NODES_MAX:
        raise CliError(f"--nodes is from 1 to {NODES_MAX}, not {nodes}", code=USAGE)
    names = {one.id for one in plan.nodes}
    free = [k for k in range(1, NODES_MAX + held + 1) if f"node{k}" not in names]
    base = max(one.http_port for one in plan.nodes)
    return tuple(
        _node(folder, number, base + PORT_STEP * (k + 1), joins=True)
        for k, number in enumerate(free[: nodes - held])
    )


def _node(folder: Path, number: int, base: int, joins: bool = False) -> NodePlan:
    last = base + len(PORT_NAMES) - 1
    if base < 1 or last > 65_535:
        raise CliError(f"ports {base}..{last} do not exist", "a lower --port-base", USAGE)
    name = f"node{number}"
    return NodePlan(name, folder / name, base, base + 1, base + 2, joins=joins)


def node_toml(cluster: ClusterPlan, node: NodePlan) -> str:
    """The settings file of a node of a new cluster. Relative paths start at the file."""
    n, w, r = cluster.quorum
    table = {
        "id": cluster.id,
        "secret_file": "../secret",
        "managers": {one.id: f"{one.host}:{one.raft_port}" for one in cluster.managers},
        "peers": {one.id: f"{one.host}:{one.peer_port}" for one in cluster.nodes},
        "storage": [one.id for one in cluster.nodes],
        "n": n,
        "w": w,
        "r": r,
    }
    return settings_text(node, table)


def settings_text(node: NodePlan, cluster: Mapping[str, Any]) -> str:
    """The settings file of `node`, with the `[cluster]` table that all nodes of a cluster have alike."""
    tables: dict[str, Mapping[str, Any]] = {
        "node": {
            "id": node.id,
            "roles": ["ingestor", "storage", "query", "dashboard"],
            "data": ".",
            "host": node.host,
            "http_port": node.http_port,
            "peer_port": node.peer_port,
            "raft_port": node.raft_port,
        },
        "cluster": cluster,
    }
    head = "# Written by `quorumlog up`; yours to edit. Each setting: docs/operations.md\n"
    return head + "".join(f"\n[{name}]\n{_table(table)}" for name, table in tables.items())


def _table(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value)


def existing_cluster(folder: Path, tables: Mapping[str, Mapping[str, Any]]) -> ClusterPlan:
    """The plan of a cluster that was made before, from the tables of its `node.toml` files by node id.

    Raises:
        CliError: a file lacks what must be there.
    """
    nodes = []
    try:
        for name, content in tables.items():
            node = content["node"]
            http, peer, raft = (int(node[f"{kind}_port"]) for kind in PORT_NAMES)
            known = str(node["id"]) in content["cluster"]["storage"]
            nodes.append(
                NodePlan(str(node["id"]), folder / name, http, peer, raft, joins=not known)
            )
        cluster = next(iter(tables.values()))["cluster"]
        nodes.sort(key=lambda one: one.http_port)
        return ClusterPlan(str(cluster["id"]), tuple(nodes), int(cluster["n"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CliError(
            f"a node.toml in {folder} lacks a setting: {error}",
            "repair it, or start a new cluster in another folder with --data",
        ) from error
