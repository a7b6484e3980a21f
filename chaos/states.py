"""What the nodes hold in the end, each by its own word: entries and digest of every shard.

Asked of `/cluster` after the last reads, again and again until the owners of each shard agree or time is
up. So the checkers see whether replicas converge, and how long that took.
"""

import contextlib
import http.client
import time
from collections.abc import Callable
from typing import Any

from chaos.history import NodeState
from chaos.local_cluster import LocalCluster

#: Seconds in which owners must agree after the last reads.
CONVERGE_SECONDS = 10.0
_PAUSE_SECONDS = 0.5
#: Words in an event of level error that tell of damaged bytes. (A tail torn by a kill -9 is a warning: every
#: node of a run may have one, and it shows neither that damage was found nor that it has spread.)
DAMAGE = ("damaged", "set aside", "cannot be read")


def last_states(
    cluster: LocalCluster, now: Callable[[], int], seconds: float = CONVERGE_SECONDS
) -> list[NodeState]:
    """The states when all owners agree, or those of the last look. Blocks. Empty if nobody answers."""
    until = time.monotonic() + seconds
    states: list[NodeState] = []
    while True:
        # a node that does not answer now may at the next look
        with contextlib.suppress(OSError, ValueError, KeyError, http.client.HTTPException):
            states = _look(cluster, now) or states
        if (states and agree(states)) or time.monotonic() > until:
            return [with_damage(cluster, one) for one in states]
        time.sleep(_PAUSE_SECONDS)


def agree(states: list[NodeState]) -> bool:
    """Whether all nodes that hold anything of a shard hold the same."""
    shards = {shard for state in states for shard in state.shards}
    return all(len({state.shards.get(shard, (0, "")) for state in states}) == 1 for shard in shards)


def _look(cluster: LocalCluster, now: Callable[[], int]) -> list[NodeState]:
    answer: Any = cluster.get("/cluster", timeout=10.0)
    states = []
    for one in answer["nodes"]:
        storage = (one.get("status") or {}).get("storage")
        if storage is None:
            return []  # this look is not whole
        shards = {
            str(shard): (int(held["entries"]), str(held["digest"]))
            for shard, held in storage["shards"].items()
            if held["entries"]
        }
        states.append(NodeState(one["id"], now(), shards, int(storage["quarantined_blocks"])))
    return states


def with_damage(cluster: LocalCluster, state: NodeState) -> NodeState:
    """The state with the count of the log's reports of damage."""
    errors = [one for one in cluster.logs(state.node) if one.get("level") == "error"]
    texts = [str(one.get("event") or one.get("message") or "") for one in errors]
    count = sum(any(word in text for word in DAMAGE) for text in texts)
    return NodeState(state.node, state.t, state.shards, state.quarantined, count)
