"""Who is struck amid a change of the ring, and how: one node, or two at once in two ways.

A blow is (trouble, node). Troubles: kill (-9), pause (SIGSTOP), cut (all wires of the node; needs a network
of its own). Roles: `new-node` takes a shard over, `raft-leader` carries the change out, `old-owner` has the
shard.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from chaos.asking import told
from chaos.faults.base import Proof, Site
from chaos.faults.changes import writers
from chaos.processes import FaultDidNotBite

Blow = tuple[str, str]


def cast(site: Site, troubles: str, roles: str, move: Mapping[str, Any]) -> list[Blow]:
    """The blows of `kill+cut` to `raft-leader+old-owner`: as many nodes as there are roles, each another one.

    Raises:
        FaultDidNotBite: nobody has a role.
    """
    blows: list[Blow] = []
    for trouble, role in zip(troubles.split("+"), roles.split("+"), strict=True):
        blows.append((trouble, _who(site, role, move, [node for _, node in blows])))
    return blows


def _who(site: Site, role: str, move: Mapping[str, Any], taken: Sequence[str]) -> str:
    leader = told(site.cluster, "/cluster/leader").get("node")
    if role == "new-node" and move["to"] not in taken:
        return move["to"]
    if role == "raft-leader" and leader not in taken:
        if leader not in site.cluster.running:
            raise FaultDidNotBite("nobody knows a Raft leader")
        return leader
    left = [one for one in sorted(writers(site, move)) if one not in taken]
    old = [one for one in left if one != move["to"] and one in site.cluster.running]
    others = [one for one in old if one != leader] or old
    if not others:
        raise FaultDidNotBite(f"nobody is left to be {role}")
    return others[site.pick(0, len(others) - 1)]


def strike(site: Site, blows: Sequence[Blow]) -> Proof:
    """Strikes all; the proof of each.

    Raises:
        FaultDidNotBite: one is as before.
    """
    proof: Proof = {"blows": [list(blow) for blow in blows], "pids": {}}
    for trouble, node in blows:
        if trouble == "kill":
            proof["pids"] |= site.cluster.kill(node)
        elif trouble == "pause":
            proof["pids"] |= site.cluster.pause(node)
        elif trouble == "cut":
            proof["cut_from"] = _cut(site, node)
        else:
            raise FaultDidNotBite(f"{trouble!r} is no trouble")
    proof["struck"] = ", ".join(node for _, node in blows)
    proof["crashed"] = any(trouble == "kill" for trouble, _ in blows)
    return proof


def _cut(site: Site, node: str) -> list[str]:
    """One node against all others, both ways. That they reach one another again shows the heal."""
    if site.network is None:
        raise FaultDidNotBite("this run has no network of its own")
    others = [one for one in sorted(site.cluster.running) if one != node]
    for other in others:
        site.network.cut(node, other)
        site.network.cut(other, node)
    port = site.cluster.node(node).http_port
    reached = [other for other in others if site.network.reaches(other, node, port)]
    if reached:
        raise FaultDidNotBite(f"{', '.join(reached)} still reach {node}")
    return others


def end_of_trouble(site: Site) -> None:
    """Nobody is stopped, cut off or down any more; all are ready.

    Raises:
        CliError: one is not.
    """
    cluster = site.cluster
    stopped = [node for node in cluster.running if cluster.is_stopped(node)]
    if stopped:
        cluster.resume(*stopped)
    if site.network is not None:
        site.network.heal()
    cluster.start()
    cluster.revive(*cluster.running)
