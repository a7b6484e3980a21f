"""Faults in the midst of a change of the ring: a node joins, is drained or replaced, and others fail.

A target is `trouble:role:stage`, such as `kill:new-node:copying`, or two at once, such as
`kill+cut:raft-leader+old-owner:copying`. The change is begun; others must be refused; when a shard is seen in
that stage, whoever has the role for that shard is struck (`chaos.faults.striking`). It counts only if the
change still runs after the blow; `still_in_stage` tells whether that shard was in its stage even then.

    stage    before (struck, then the change is asked for; it may end without the struck),
             begun (struck as soon as it is taken), copying (written to both, read from the old owners),
             settling (read from the new ones), after (struck when the change has ended)

The heal ends the trouble and waits until the change has ended: who is stuck fails the run (L2). Copies are
made slow enough for their stage to be met. Between faults the ring is put back without trouble.
"""

import contextlib
import time
from abc import abstractmethod
from typing import Any

from chaos.asking import told
from chaos.faults.base import Kind, Proof, Site, Targets
from chaos.faults.changes import (
    NO_MOVE,
    Change,
    begin,
    entries_held,
    in_stage,
    owners,
    running_spare,
    second,
    wait_for_end,
    without_trouble,
    writers,
)
from chaos.faults.striking import cast, end_of_trouble, strike
from chaos.processes import FaultDidNotBite
from node.cli_errors import CliError


class Move(Kind):
    """One change with its troubles."""

    @abstractmethod
    def prepared(self, site: Site, wanted: str) -> Change:
        """Brings the ring to where the change makes sense; the change. `wanted`: what follows the stage."""

    def settled(self, site: Site, proof: Proof) -> None:
        """After the end: whatever must be put back."""

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof: the stage as told just before and just after the blow, and the refusals of other
        changes.

        Raises:
            FaultDidNotBite: the stage was not met.
        """
        troubles, roles, stage, *wanted = targets[0].split(":")
        wait_for_end(site)
        change = self.prepared(site, "".join(wanted))
        if stage in ("before", "begun", "after"):
            number, proof = _at_an_end(site, change, troubles, roles, stage)
            move: dict[str, Any] = dict(NO_MOVE)
        else:
            held = entries_held(site)
            number = begin(site, change)
            proof: Proof = {"second": second(site, number, change)}
            move = in_stage(site, number, stage, roles, {s for one in held.values() for s in one})
            proof |= strike(site, cast(site, troubles, roles, move))
            proof |= _taken_over(site, move, proof["struck"], held)
        struck = [node for _, node in proof["blows"]]
        after = told(site.cluster, "/cluster/moves", avoid=struck)["change"] or {}
        if stage not in ("before", "after") and after.get("id") != number:
            raise FaultDidNotBite(f"change {number} was over when {proof['struck']} was struck")
        now = [one["shard"] for one in after.get("moving", ()) if one["stage"] == stage]
        return {
            "change": number, "asked": change.path, "wanted": "".join(wanted), "stage": stage,
            "shard": move["shard"], "still_in_stage": move["shard"] in now, **proof,
        }  # fmt: skip

    def heal(self, site: Site, targets: Targets) -> Proof:
        """The struck nodes are back, the change has ended, the ring is as before."""
        begun = time.monotonic()
        end_of_trouble(site)
        ready = time.monotonic() - begun
        ended = wait_for_end(site)
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
            end_of_trouble(site)
        with contextlib.suppress(CliError):
            wait_for_end(site)


def _at_an_end(
    site: Site, change: Change, troubles: str, roles: str, stage: str
) -> tuple[int, Proof]:
    """Strikes before a change is asked for, as it is taken, or when it has ended; number and proof."""
    if stage == "after":
        number = begin(site, change, 0)
        wait_for_end(site)
        return number, strike(site, cast(site, troubles, roles, NO_MOVE))
    blows = cast(site, troubles, roles, NO_MOVE)
    struck = [node for _, node in blows]
    if stage == "before":
        proof = strike(site, blows)
        return begin(site, change, avoid=struck), proof
    number = begin(site, change)
    proof = strike(site, blows)
    return number, proof | {"second": second(site, number, change, struck)}


class Join(Move):
    """A node comes in."""

    name = "join"

    def prepared(self, site: Site, wanted: str) -> Change:
        """The spare runs and has no shards."""
        spare = running_spare(site, 0)
        if spare in owners(site):
            without_trouble(site, Change(f"/cluster/nodes/{spare}/drain", {}))
        return Change(f"/cluster/nodes/{spare}/add", {})


class Drain(Move):
    """A node gives up all its shards, and stays."""

    name = "drain"

    def prepared(self, site: Site, wanted: str) -> Change:
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

    def prepared(self, site: Site, wanted: str) -> Change:
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


def _taken_over(
    site: Site, move: dict[str, Any], struck: str, held: dict[str, dict[int, int]]
) -> Proof:
    """For a shard that is read from its new node already: what this holds, what it must at least.

    It was filled from two of three owners or more, so it holds no less than the second of them did before.
    """
    if move["stage"] != "settling" or not move["to"] or move["to"] in struck.split(", "):
        return {}
    old = [node for node in writers(site, move) if node != move["to"]]
    before = sorted(held[node].get(move["shard"], 0) for node in old if node in held)
    now = entries_held(site).get(move["to"])
    if now is None or len(before) < 2:
        return {}
    return {"new_node_holds": now.get(move["shard"], 0), "must_hold": before[-2]}


KINDS: tuple[Kind, ...] = (Join(), Drain(), Replace())
