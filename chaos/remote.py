"""A cluster that is not ours: clients write into it and read from it, and their own links are broken.

Nothing of the nodes is touched. Only scenarios whose faults are faults of the clients' links are *safe*; the
links lead from here to the addresses that were given. Rows stay in the cluster, under services of the run's
own (`chaos-…`); whatever else is stored there is neither read nor judged.
"""

import http.client
import json
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chaos.faults import KINDS
from chaos.faults.links import LinkFault
from chaos.local_cluster import LocalCluster
from chaos.scenarios import Scenario
from node.cli_errors import USAGE, CliError
from node.up_plan import ClusterPlan

ASK_SECONDS = 10.0


def is_safe(scenario: Scenario) -> bool:
    """Whether all faults of a scenario are those of the clients' links."""
    recipes = (scenario.recipe, *scenario.recipe.also)
    return not scenario.needs and all(isinstance(KINDS[one.what], LinkFault) for one in recipes)


@dataclass(frozen=True, slots=True)
class RemoteNode:
    """A node by its HTTP address; `id` is what it calls itself."""

    id: str
    host: str
    http_port: int

    @property
    def url(self) -> str:
        """Its HTTP address."""
        return f"http://{self.host}:{self.http_port}"


@dataclass(frozen=True, slots=True)
class RemotePlan:
    """The nodes that were named, and the quorum that the cluster tells."""

    nodes: tuple[RemoteNode, ...]
    quorum: tuple[int, int, int]


class RemoteCluster(LocalCluster):
    """The nodes that were named; nothing can be started or ended here."""

    def __init__(self, servers: Sequence[str]) -> None:  # pyright: ignore[reportMissingSuperCall]
        """Asks each who it is.

        Raises:
            CliError: no plain HTTP address, or no node answers there.
        """
        nodes, quorum = [], (0, 0, 0)
        for server in servers:
            parts = urllib.parse.urlsplit(server if "//" in server else f"http://{server}")
            found = RemoteNode("", parts.hostname or "", _port(parts))
            if (
                parts.scheme != "http"
                or not (found.host and found.http_port)
                or parts.path.strip("/")
            ):
                raise CliError(f"{server} is no http://HOST:PORT", code=USAGE)
            answer = _ask(found, "/cluster")
            try:
                told = answer["quorum"]
                nodes.append(RemoteNode(str(answer["node"]), found.host, found.http_port))
                quorum = (int(told["n"]), int(told["w"]), int(told["r"]))
            except (KeyError, TypeError) as error:
                raise CliError(f"{server} is no node of quorumlog: {error!r}") from error
        if len({node.id for node in nodes}) != len(nodes):
            raise CliError("two of the addresses are the same node", code=USAGE)
        self.remote = RemotePlan(tuple(nodes), quorum)
        self.running, self.spares = {}, ()

    @property
    def plan(self) -> ClusterPlan:  # type: ignore[override]
        """Looks like a plan as far as clients and links need it: `nodes` and `quorum`."""
        return self.remote  # type: ignore[return-value]


def _port(parts: urllib.parse.SplitResult) -> int:
    """80 if none is said, 0 if what is said is none."""
    try:
        return 80 if parts.port is None else parts.port
    except ValueError:
        return 0


def _ask(node: RemoteNode, path: str) -> Any:
    connection = http.client.HTTPConnection(node.host, node.http_port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise CliError(f"{node.url} does not answer: {error}") from error
    finally:
        connection.close()
