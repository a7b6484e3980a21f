"""Faults in the midst of a change of the ring: a node joins, is drained or replaced, and another one fails.

A target is `trouble:role:stage`, such as `kill:new-node:copying`. The change is begun; a second one must be
refused; when a shard is seen in that stage, whoever has the role for that shard is struck. It counts only
if the change still runs after the blow; `still_in_stage` tells whether that shard was in its stage even then.

    trouble  kill (-9), pause (SIGSTOP), cut (all wires of the node; needs a network of its own)
    role     new-node (takes the shard over), raft-leader (carries the change out), old-owner
    stage    copying (written to both, read from the old owners), settling (read from the new ones)

The heal ends the trouble and waits until the change has ended: who is stuck fails the run (L2). Copies are
made slow enough for their stage to be met. Between faults the ring is put back without trouble.
"""

import contextlib
import time
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from chaos.asking import ask, told, until
from chaos.faults.base import Kind, Proof, Site, Targets
from chaos.processes import FaultDidNotBite
from node.cli_errors import CliError

#: Bytes per second of a change that is to be met while it copies, and shards that move at once.
RATE, PARALLEL = 400_000, 4
#: Seconds in which a change must begin, reach a stage, and end once all is well again.
BEGIN_SECONDS, STAGE_SECONDS, END_SECONDS = 20.0, 30.0, 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """What is asked of the cluster."""

    path: str
    body: dict[str, Any]


class Move(Kind):
    """One change with one trouble."""

    @abstractmethod
    def prepared(self, site: Site) -> Change:
        """Brings the ring to where the change makes sense; the change."""

    def settled(self, site: Site, proof: Proof) -> None:
        """After the end: whatever must be put back."""

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof: the stage as told just before and just after the blow, and the second change's refusal.

        Raises:
            FaultDidNotBite: the stage was not met.
        """
        trouble, role, stage = targets[0].split(":")
        _wait_for_end(site)
        change = self.prepared(site)
        held = entries_held(site)
        number = begin(site, change)
        second = _second(site)
        before = _in_stage(site, number, stage, role, {s for one in held.values() for s in one})
        node = _who(site, role, before)
        blow = _strike(site, trouble, node)
        after = told(site.cluster, "/cluster/moves", avoid=node)
        still = (after["change"] or {}).get("id") == number
        same = still and before["shard"] in [
            one["shard"] for one in after["change"]["moving"] if one["stage"] == stage
        ]
        if not still:
            raise FaultDidNotBite(f"change {number} was over when {node} was struck")
        return {
            "change": number, "asked": change.path, "second": second, "struck": node,
            "trouble": trouble, "stage": stage, "shard": before["shard"], "still_in_stage": same,
            "crashed": trouble == "kill", **blow, **_taken_over(site, before, node, held),
        }  # fmt: skip

    def heal(self, site: Site, targets: Targets) -> Proof:
        """The struck node is back, the change has ended, the ring is as before."""
        trouble = targets[0].split(":")[0]
        begun = time.monotonic()
        _end_of_trouble(site, trouble)
        ready = time.monotonic() - begun
        ended = _wait_for_end(site)
        over = time.monotonic() - begun
        proof = {
            "ready_seconds": round(ready, 2),
            "ended_seconds": round(over, 1),
            "ring_epoch": ended,
        }
        self.settled(site, proof)
        return proof

    def undo(self, site: Site, targets: Targets) -> None:
        """Nobody stays away, and no change goes on."""
        with contextlib.suppress(FaultDidNotBite, CliError, OSError, KeyError):
            _end_of_trouble(site, targets[0].split(":")[0])
        with contextlib.suppress(CliError):
            _wait_for_end(site)


class Join(Move):
    """A node comes in."""

    name = "join"

    def prepared(self, site: Site) -> Change:
        """The spare runs and has no shards."""
        spare = running_spare(site, 0)
        if spare in owners(site):
            without_trouble(site, Change(f"/cluster/nodes/{spare}/drain", {}))
        return Change(f"/cluster/nodes/{spare}/add", {})


class Drain(Move):
    """A node gives up all its shards, and stays."""

    name = "drain"

    def prepared(self, site: Site) -> Change:
        """All four are in."""
        spare = running_spare(site, 0)
        for node in sorted({*site.cluster.ids, spare} - owners(site)):
            without_trouble(site, Change(f"/cluster/nodes/{node}/add", {}))
        inside = sorted(owners(site))
        victim = inside[site.pick(0, len(inside) - 1)]
        return Change(f"/cluster/nodes/{victim}/drain", {})


class Replace(Move):
    """A node that is no manager leaves for good; a fresh one takes its place."""

    name = "replace"

    def prepared(self, site: Site) -> Change:
        """One of the two spares is in, the other one runs with an empty disk."""
        inside = [node.id for node in site.cluster.spares if node.id in owners(site)]
        if not inside:
            inside = [running_spare(site, 0)]
            without_trouble(site, Change(f"/cluster/nodes/{inside[0]}/add", {}))
        (fresh,) = {node.id for node in site.cluster.spares} - {inside[0]}
        site.cluster.start_fresh(fresh)
        return Change(f"/cluster/nodes/{inside[0]}/replace", {"with": fresh})

    def settled(self, site: Site, proof: Proof) -> None:
        """Who was replaced is no member any more: its process ends."""
        inside = owners(site)
        left = [node.id for node in site.cluster.spares if node.id not in inside]
        for node in left:
            if node in site.cluster.running:
                site.cluster.retire(node)
        proof["left"] = left


def entries_held(site: Site) -> dict[str, dict[int, int]]:
    """How many entries each node that answers holds, by shard."""
    nodes = told(site.cluster, "/cluster")["nodes"]
    stores = {one["id"]: (one.get("status") or {}).get("storage") for one in nodes}
    return {
        node: {int(s): held["entries"] for s, held in store["shards"].items() if held["entries"]}
        for node, store in stores.items()
        if store
    }


def _taken_over(
    site: Site, move: dict[str, Any], struck: str, held: dict[str, dict[int, int]]
) -> Proof:
    """For a shard that is read from its new node already: what this holds, what it must at least.

    It was filled from two of three owners or more, so it holds no less than the second of them did before.
    """
    if move["stage"] != "settling" or not move["to"] or move["to"] == struck:
        return {}
    old = [node for node in _writers(site, move) if node != move["to"]]
    before = sorted(held[node].get(move["shard"], 0) for node in old if node in held)
    now = entries_held(site).get(move["to"])
    if now is None or len(before) < 2:
        return {}
    return {"new_node_holds": now.get(move["shard"], 0), "must_hold": before[-2]}


# -- the cluster ---------------------------------------------------------------------------------


def running_spare(site: Site, number: int) -> str:
    """A spare by number; it has joined and runs."""
    spare = site.cluster.spares[number].id
    if spare not in site.cluster.running:
        site.cluster.start_fresh(spare)
    return spare


def owners(site: Site) -> set[str]:
    """Nodes that own shards."""
    shards = told(site.cluster, "/cluster/shards")["shards"]
    return {owner for one in shards for owner in one["owners"]}


def begin(site: Site, change: Change, rate: int = RATE) -> int:
    """Begins a change; its number.

    Raises:
        CliError: it is refused.
    """
    body = {**change.body, "parallel": PARALLEL, "bytes_per_second": rate}

    def asked() -> int | None:
        answer = ask(site.cluster, change.path, body)
        if answer is None:
            return None
        status, value = answer
        if status == 202:
            return int(value["change"])
        if status in (404, 409) and _reason(value) != "CHANGE_RUNNING":
            return None  # the ring stepped on, or the node has not registered yet
        running = told(site.cluster, "/cluster/moves")["change"]
        if running:  # the first try was taken, and its answer lost
            return int(running["id"])
        raise CliError(f"{change.path} is refused: {value}")

    return until(f"{change.path} to begin", asked, BEGIN_SECONDS, 0.2)


def without_trouble(site: Site, change: Change) -> None:
    """A change from its begin to its end, at full speed."""
    begin(site, change, 0)
    _wait_for_end(site)


def _second(site: Site) -> str:
    """What a second change is told while one runs."""
    answer = ask(site.cluster, "/cluster/rebalance", {})
    return "no answer" if answer is None else f"{answer[0]} {_reason(answer[1])}"


def _reason(value: Any) -> str:
    detail = value.get("error", value) if isinstance(value, dict) else {}
    return str(detail.get("reason", detail.get("code", "")) if isinstance(detail, dict) else detail)


def _in_stage(
    site: Site, number: int, stage: str, role: str, stored: set[int]
) -> dict[str, Any]:  # fmt: skip
    """A move of the change that is in that stage, of a shard with rows, and has somebody in that role."""

    def look() -> dict[str, Any] | None:
        answer = ask(site.cluster, "/cluster/moves")
        change = answer[1].get("change") if answer is not None else None
        if change is not None and change["id"] != number:
            change = None
        if answer is not None and change is None:
            raise FaultDidNotBite(f"change {number} ended before it was seen {stage}")
        for one in (change or {}).get("moving", []):
            cast = one["to"] or role != "new-node"
            if one["stage"] == stage and one["shard"] in stored and cast:
                return one
        return None

    return until(f"a shard to be {stage}", look, STAGE_SECONDS)


def _who(site: Site, role: str, move: dict[str, Any]) -> str:
    if role == "new-node":
        return move["to"]
    leader = told(site.cluster, "/cluster/leader").get("node")
    if role == "raft-leader":
        if leader not in site.cluster.running:
            raise FaultDidNotBite("nobody knows a Raft leader")
        return leader
    old = sorted(_writers(site, move) - {move["to"]})
    others = [node for node in old if node != leader] or old
    return others[site.pick(0, len(others) - 1)]


def _writers(site: Site, move: dict[str, Any]) -> set[str]:
    """Owners of a shard that moves, old and new."""
    shards = told(site.cluster, "/cluster/shards")["shards"]
    (row,) = [one for one in shards if one["shard"] == move["shard"]]
    named = {node for group in row["writes_to"] for node in group}
    return named | {move["from"]} - {None}


def _strike(site: Site, trouble: str, node: str) -> Proof:
    if trouble == "kill":
        return {"pids": site.cluster.kill(node)}
    if trouble == "pause":
        return {"pids": site.cluster.pause(node)}
    if trouble == "cut":
        return _cut(site, node)
    raise FaultDidNotBite(f"{trouble!r} is no trouble")


def _cut(site: Site, node: str) -> Proof:
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
    return {"cut_from": others}


def _end_of_trouble(site: Site, trouble: str) -> None:
    cluster = site.cluster
    if trouble == "pause":
        stopped = [node for node in cluster.running if cluster.is_stopped(node)]
        if stopped:
            cluster.resume(*stopped)
    if trouble == "cut" and site.network is not None:
        site.network.heal()
    cluster.start()
    cluster.revive(*cluster.running)


def _wait_for_end(site: Site) -> int:
    """The ring epoch once no change runs."""

    def look() -> int | None:
        answer = ask(site.cluster, "/cluster/moves")
        if answer is None or answer[1].get("change", True):
            return None
        return int(answer[1]["ring_epoch"])

    try:
        return until("the end of a change", look, END_SECONDS, 0.1)
    except CliError as error:
        state = ask(site.cluster, "/cluster/moves")
        raise CliError(f"{error}; {None if state is None else str(state[1])[:400]}") from error


KINDS: tuple[Kind, ...] = (Join(), Drain(), Replace())
