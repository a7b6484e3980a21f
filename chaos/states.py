"""What the nodes hold in the end, each by its own word: entries and digest of every shard.

Asked of `/cluster` after the last reads, again and again until the owners of each shard agree or time is
up. So the checkers see whether replicas converge, and how long that took.
"""

import contextlib
import http.client
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
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
    """Whether all owners of each shard hold the same of it, and nobody else anything."""
    shards = {shard for state in states for shard in state.shards}
    return not any(disagreeing(states, shard) for shard in shards)


def disagreeing(states: Iterable[NodeState], shard: str) -> dict[str, int]:
    """Entries held of a shard by node, if its owners differ or somebody else holds any; {} if all is well."""
    told = list(states)
    own = [one for one in told if one.owns is None or shard in one.owns]
    held = {one.node: one.shards.get(shard, (0, "")) for one in told}
    strangers = [one for one in told if one not in own and shard in one.shards]
    equal = len({held[one.node] for one in own}) <= 1
    return {} if equal and not strangers else {node: count for node, (count, _) in held.items()}


def _look(cluster: LocalCluster, now: Callable[[], int]) -> list[NodeState]:
    answer: Any = cluster.get("/cluster", timeout=10.0)
    owned: dict[str, list[str]] = {}
    for one in cluster.get("/cluster/shards", timeout=10.0)["shards"]:
        for node in one["owners"]:
            owned.setdefault(node, []).append(str(one["shard"]))
    states = []
    for one in answer["nodes"]:
        storage = (one.get("status") or {}).get("storage")
        if storage is None and cluster.spares and one["id"] not in cluster.running:
            continue  # it was replaced, and ended on purpose
        if storage is None:
            return []  # this look is not whole
        shards = {
            str(shard): (int(held["entries"]), str(held["digest"]))
            for shard, held in storage["shards"].items()
            if held["entries"]
        }
        owns = tuple(owned.get(one["id"], ()))
        set_aside = int(storage["quarantined_blocks"])
        states.append(NodeState(one["id"], now(), shards, set_aside, owns=owns))
    return states


def with_damage(cluster: LocalCluster, state: NodeState) -> NodeState:
    """The state with the count of the log's reports of damage."""
    errors = [one for one in cluster.logs(state.node) if one.get("level") == "error"]
    texts = [str(one.get("event") or one.get("message") or "") for one in errors]
    count = sum(any(word in text for word in DAMAGE) for text in texts)
    return replace(state, damage=count)
