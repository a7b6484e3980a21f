"""The settings of one node: the TOML file that `quorumlog node --config FILE` reads.

    [node]     who this process is and where it listens
    [cluster]  who the others are: the same on every node of a cluster
    [storage] [write] [query] [ingest] [enrich] [repair]   the packages' own settings, all with defaults

Environment variables win over the file: QUORUMLOG_NODE__HTTP_PORT=7171 (see runtime.settings).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.state_types import ROLES
from records.consistency import QuorumPolicy
from records.errors import InvalidSettings
from runtime.settings import build, load_toml, overlay_environment


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """One process. `advertise` is the host that others reach it at; ports 0 are not allowed."""

    id: str
    data: Path
    roles: tuple[str, ...] = ("ingestor", "storage", "query", "dashboard")
    host: str = "127.0.0.1"
    advertise: str = ""
    http_port: int = 7171
    peer_port: int = 7172
    raft_port: int = 7173
    zone: str = ""
    weight: float = 1.0
    log_level: str = "info"
    #: Threads for CPU work, as many for writes as for questions. 0: one per core, at least 2.
    workers: int = 0

    def __post_init__(self) -> None:
        unknown = set(self.roles) - set(ROLES)
        if unknown or not self.roles:
            raise InvalidSettings(f"[node] roles are some of {', '.join(ROLES)}, got {self.roles}")
        for name in ("http_port", "peer_port", "raft_port"):
            if not 1 <= getattr(self, name) <= 65_535:
                raise InvalidSettings(f"[node] {name} must be in 1..65535")

    def address(self, port: int) -> str:
        """host:port as others reach it."""
        return f"{self.advertise or self.host}:{port}"

    @property
    def worker_threads(self) -> int:
        """Threads in the pool."""
        return self.workers or max(2, os.cpu_count() or 2)


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What all nodes agree on. `managers` are the Raft voters: id -> host:port of their Raft port.

    `peers`: id -> host:port of the node-to-node port, to find the first members by. `storage`: the ids
    that must have registered before the first ring is made. `secret_file`: 32 random bytes, mode 0600.
    """

    id: str
    managers: Mapping[str, str]
    peers: Mapping[str, str]
    storage: tuple[str, ...]
    secret_file: Path
    n: int = 3
    w: int = 2
    r: int = 2
    shards: int = 32

    def __post_init__(self) -> None:
        QuorumPolicy(self.n, self.w, self.r)
        if len(self.managers) not in (1, 3, 5):
            raise InvalidSettings(f"[cluster] has {len(self.managers)} managers, not 1, 3 or 5")
        missing = set(self.managers) - set(self.peers)
        if missing:
            raise InvalidSettings(f"[cluster] peers lacks the managers {sorted(missing)}")
        if not self.storage:
            raise InvalidSettings("[cluster] storage names no node")


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole file. The tables of the packages stay raw until their owner builds them."""

    node: NodeSettings
    cluster: ClusterSettings
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def table(self, name: str) -> Mapping[str, Any]:
        """The raw table of a package; empty if absent."""
        return self.tables.get(name, {})


PACKAGE_TABLES = ("storage", "write", "query", "ingest", "enrich", "repair", "rebalance")


def load_settings(path: Path, environment: Mapping[str, str]) -> Settings:
    """The settings in a TOML file with the environment on top. Relative paths start at the file.

    Raises:
        InvalidSettings: names the file, the table and the key.
    """
    tables = overlay_environment(load_toml(path), environment)
    known = {"node", "cluster", *PACKAGE_TABLES}
    for name in tables:
        if name not in known:
            raise InvalidSettings(
                f"{path}: unknown table [{name}]; known: {', '.join(sorted(known))}"
            )
    here = path.resolve().parent
    node = _absolute(build(NodeSettings, tables.get("node", {}), "node"), "data", here)
    cluster = build(ClusterSettings, tables.get("cluster", {}), "cluster")
    cluster = _absolute(cluster, "secret_file", here)
    rest = {name: tables[name] for name in PACKAGE_TABLES if name in tables}
    return Settings(node, cluster, rest)


def _absolute(settings: Any, name: str, base: Path) -> Any:
    return replace(settings, **{name: base / getattr(settings, name)})
