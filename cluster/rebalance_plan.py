"""What a change of the ring does next. Pure: the state and what was copied in, one command out.

    BeginChange ... StepChange(start) copy StepChange(flip) StepChange(finish, start) ... EndChange

A shard starts (write both, read old), is copied by the executor, flips (write both, read new), finishes
(new alone). One command carries all shards that are due, so the ring epoch rises once for them. Nothing
is remembered here: the next leader computes the same from the state; a copy that was not yet flipped is
made again, which costs a comparison.

Whether everybody has heard of the stage before is the executor's to see: it asks for a step only then.

Also here: the rings that people ask for (add, drain, remove, replace, weigh, replicate).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from cluster.state_args import NAME_CHARS_MAX
from cluster.state_types import COPYING, SETTLING, ClusterState
from records.errors import InvalidRequest
from records.ids import ShardId
from ring.builder import RingBuilder
from ring.delta import ReplicaMove, RingDelta, moves_of
from ring.ring import Ring, RingMember
from ring.serde import ring_of, to_dict


@dataclass(frozen=True, slots=True)
class Command:
    """A command for the replicated state."""

    op: str
    args: dict[str, Any]


def next_command(state: ClusterState, copied: Collection[int]) -> Command | None:
    """What to propose now, None if copies must come first (or nothing is to do).

    Args:
        copied: shards whose copy is complete since they started.
    """
    change = state.change
    if change is None or state.ring is None:
        return None
    at = {stage: _at(state, stage) for stage in (COPYING, SETTLING)}
    args: dict[str, Any] = {"expected_ring_epoch": state.ring_epoch, "id": change.id}
    if at[SETTLING]:
        args["finish"] = at[SETTLING]
    if change.aborting:
        if at[COPYING]:
            args["cancel"] = at[COPYING]
        return Command("StepChange" if state.moving else "EndChange", args)
    if flips := [shard for shard in at[COPYING] if shard in copied]:
        args["flip"] = flips
    room = change.parallel - len(state.moving) + len(at[SETTLING])
    if starts := _starts(state, room):
        args["start"] = starts
    if len(args) > 2:
        return Command("StepChange", args)
    return None if state.moving else Command("EndChange", args)


def _at(state: ClusterState, stage: str) -> list[int]:
    return sorted(shard for shard, move in state.moving.items() if move.stage == stage)


def _starts(state: ClusterState, room: int) -> list[list[Any]]:
    """The next move of up to `room` shards that do not move now."""
    found: dict[int, list[Any]] = {}
    for move in _first_moves(state):
        if len(found) >= room:
            break
        found[move.shard] = [int(move.shard), move.source or "", move.target or ""]
    change = state.change
    if change is not None and change.settle:
        for shard in range(state.shard_count):
            if len(found) >= room:
                break
            if shard not in found and shard not in state.moving and shard not in change.settled:
                found[shard] = [shard, "", ""]
    return [found[shard] for shard in sorted(found)]


def _first_moves(state: ClusterState) -> Iterator[ReplicaMove]:
    """The next move of each shard that does not move now and has one to make, made as they are asked for.

    A change looks here many times a second, and only for the next few of up to 4096 shards.
    """
    if state.change is None or state.ring is None:
        return
    now, target = ring_of(state.ring), ring_of(state.change.target)
    zones = {**now.zones, **target.zones}
    for shard, (before, after) in enumerate(zip(now.table, target.table, strict=True)):
        if before != after and shard not in state.moving:
            yield from moves_of(ShardId(shard), before, after, zones)[:1]


def moves_left(state: ClusterState) -> tuple[ReplicaMove, ...]:
    """Moves that are not complete, in order; those under way as far as they have not flipped."""
    if state.change is None or state.ring is None:
        return ()
    return RingDelta.between(ring_of(state.ring), ring_of(state.change.target)).moves


def drained(state: ClusterState) -> frozenset[str]:
    """Nodes that should lead no shards: those that leave, and those of weight 0."""
    if state.ring is None:
        return frozenset()
    rings = [state.ring] if state.change is None else [state.change.target]
    found = {m.id for ring in rings for m in ring_of(ring).members if m.weight == 0}
    if state.change is not None and state.change.retire:
        found.add(state.change.retire)
    return frozenset(found)


# -- what people ask for ------------------------------------------------------------------------


def begin(state: ClusterState, target: Ring, reason: str, **more: Any) -> Command:
    """The command that begins a change towards `target`; `more`: see state_moves.begin_change.

    A `reason` longer than a text may be is cut: it is for people, and must not keep a change from beginning.
    """
    args = {"parallel": 4, "bytes_per_second": 0, **more}
    args |= {
        "expected_ring_epoch": state.ring_epoch,
        "map": to_dict(target),
        "reason": reason[:NAME_CHARS_MAX],
    }
    return Command("BeginChange", args)


def current_ring(state: ClusterState) -> Ring:
    """The ring in force.

    Raises:
        InvalidRequest: there is none yet.
    """
    if state.ring is None:
        raise InvalidRequest("the cluster has no ring yet")
    return ring_of(state.ring)


def ring_with(state: ClusterState, node: str) -> Ring:
    """The ring with `node` in it, at the zone and weight that it registered with.

    Raises:
        InvalidRequest: it is no storage member, or is in the ring already with a weight.
    """
    ring = current_ring(state)
    here = {member.id: member for member in ring.members}
    joining = _joining(state, node)
    if node not in here:
        return RingBuilder(ring).add(joining).build()
    if here[node].weight > 0:
        raise InvalidRequest(f"{node} is in the ring already")
    return RingBuilder(ring).reweigh(node, joining.weight).build()


def _joining(state: ClusterState, node: str) -> RingMember:
    member = state.members.get(node)
    if member is None or not member.has("storage"):
        known = ", ".join(one.id for one in state.with_role("storage"))
        raise InvalidRequest(f"{node!r} is no storage member; registered: {known or 'none'}")
    return RingMember(member.id, member.zone, member.weight or 1.0)


def ring_drained(state: ClusterState, node: str) -> Ring:
    """The ring with nothing on `node`, which stays a member."""
    ring = RingBuilder(current_ring(state)).reweigh(node, 0.0).build()
    return _enough(state, ring, node)


def ring_without(state: ClusterState, node: str, instead: str = "") -> Ring:
    """The ring without `node`; `instead`, if named, takes its place.

    Raises:
        InvalidRequest: these are one node, or not in the ring and out of it; or too few would be left.
    """
    if node == instead:
        raise InvalidRequest(f"{node} cannot take its own place")
    builder = RingBuilder(current_ring(state)).remove(node)
    if instead:
        builder.add(_joining(state, instead))
    return _enough(state, builder.build(), node)


def ring_of_living(state: ClusterState, dead: Collection[str]) -> Ring:
    """The ring without `dead`.

    Raises:
        InvalidRequest: fewer nodes would be left than a row has copies.
    """
    builder = RingBuilder(current_ring(state))
    for node in dead:
        builder.remove(node)
    ring = builder.build()
    if ring.effective_n < state.quorum.n:
        raise InvalidRequest(f"{ring.effective_n} storage nodes are left for n={state.quorum.n}")
    return ring


def _enough(state: ClusterState, ring: Ring, node: str) -> Ring:
    """Refuses what leaves fewer owners than a write needs."""
    if ring.effective_n < max(state.quorum.w, state.quorum.r):
        raise InvalidRequest(
            f"without {node} there would be {ring.effective_n} storage nodes;"
            f" a write needs {state.quorum.w}, a read {state.quorum.r}"
        )
    return ring


def ring_even(state: ClusterState) -> Ring:
    """The ring of the same members as it would be built now, with the fewest moves."""
    return RingBuilder(current_ring(state)).build()


def ring_replicated(state: ClusterState, n: int) -> Ring:
    """The ring with `n` replicas of each shard.

    Raises:
        InvalidRequest: there are fewer storage nodes than that.
    """
    ring = RingBuilder(current_ring(state)).replicate(n).build()
    if ring.effective_n < n and n > state.quorum.n:
        raise InvalidRequest(
            f"n={n} needs as many storage nodes in the ring, not {ring.effective_n}"
        )
    return ring
