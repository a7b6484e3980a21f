"""The operations that change the ring while data flows: begin, step, abort, end. Pure.

    BeginChange   the target is fixed; a second change is refused until this one has ended
    StepChange    shards start (write both, read old), flip (write both, read new), finish (new alone)
    AbortChange   nothing starts any more; what is copying is taken back, what reads new is finished
    EndChange     the ring is the target; the quorum is the one asked for

Each of them raises the ring epoch, so that storage nodes refuse whoever writes by the stage before. All
progress is in the state: another Raft leader goes on where the last one was.

Invariants: a shard makes one move at a time, of one replica; `ring` names the owners that are read; a
write needs W of both owner sets while they differ; the owners that are read never hold less than was
acknowledged, as a flip is proposed only after a copy from a quorum (cluster.shard_copy).

Source: reliability.md 2.2, "Ring change during writes"; the two quorums are Raft's joint consensus.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cluster.state_args import NEVER, Args, count, expect, is_shard, shards, text
from cluster.state_types import (
    COPYING,
    SETTLING,
    ClusterState,
    CommandError,
    DedupeRow,
    Quorum,
    RingChange,
    ShardMove,
)
from records.errors import InvalidRequest
from records.ids import NodeId, RingEpoch
from ring.ring import Ring, RingMember, sorted_members
from ring.serde import from_dict, ring_of, to_dict

Row = tuple[str, ...]
#: Shards that may move at once; more only means more at risk of being copied again.
PARALLEL_MAX = 256
BYTES_PER_SECOND_MAX = 1 << 40
#: Copies of each row, at most.
REPLICAS_MAX = 16


def row_after(move: ShardMove, row: Row) -> Row:
    """The owners once the move is made."""
    if not move.source:
        return (*row, move.target) if move.target else row
    at = row.index(move.source)
    return (*row[:at], *((move.target,) if move.target else ()), *row[at + 1 :])


def row_before(move: ShardMove, row: Row) -> Row:
    """The owners before the move that led to `row`."""
    if not move.target:
        return (*row, move.source) if move.source else row
    at = row.index(move.target)
    return (*row[:at], *((move.source,) if move.source else ()), *row[at + 1 :])


def write_groups(row: Row, move: ShardMove | None) -> tuple[Row, ...]:
    """The owner sets of which each must acknowledge a write; the one that is read comes first."""
    if move is None or not (move.source or move.target):
        return (row,)
    return row, (row_after if move.stage == COPYING else row_before)(move, row)


def begin_change(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """A change towards `map`. The ring gets the members of both ends and the greater n meanwhile.

    While it runs W and R are the greater of before and after, so old and new quorums meet.
    """
    if (
        state.change is not None
    ):  # first: the ring steps on meanwhile, and who asks need not hear of that
        raise CommandError("CHANGE_RUNNING", f"change {state.change.id} is running")
    expect("ring epoch", count(args, "expected_ring_epoch"), state.ring_epoch)
    if state.moves:
        raise CommandError("MOVE_RUNNING", f"shard {min(state.moves)} is being moved")
    ring, target = _ring(state), _target(state, args.get("map"))
    final, meanwhile, settle = _quorums(state, args, ring, target)
    change = RingChange(
        id=state.ring_epoch + 1,
        reason=text(args, "reason", empty=True),
        target=to_dict(target),
        before=to_dict(ring),
        quorum=final,
        parallel=count(args, "parallel", 1, PARALLEL_MAX),
        bytes_per_second=count(args, "bytes_per_second", 0, BYTES_PER_SECOND_MAX),
        retire=_leaving(state, target, text(args, "retire", empty=True)),
        settle=settle,
    )
    members = {member.id: member for member in (*ring.members, *target.members)}
    n = max(ring.n, target.n)
    changed = replace(
        state,
        change=change,
        quorum=meanwhile,
        w_floor=state.acked_on,
        r_floor=state.read_by if meanwhile.r > state.read_by else 0,
    )
    if meanwhile != state.quorum:
        changed = replace(changed, cluster_epoch=state.cluster_epoch + 1)
    next_ring = Ring(_next(state), n, sorted_members(members.values()), ring.table)
    return _with_ring(changed, next_ring), change.id


def _ring(state: ClusterState) -> Ring:
    if state.ring is None:
        raise CommandError("NO_RING", "the cluster has no ring yet")
    return ring_of(state.ring)


def _next(state: ClusterState) -> RingEpoch:
    return RingEpoch(state.ring_epoch + 1)


def _with_ring(state: ClusterState, ring: Ring) -> ClusterState:
    return replace(state, ring=to_dict(ring), ring_epoch=int(ring.epoch))


def _target(state: ClusterState, value: Any) -> Ring:
    try:
        ring = from_dict(value)
    except InvalidRequest as error:
        raise CommandError("INVALID", "map is not a ring") from error
    if len(ring.table) != state.shard_count:
        raise CommandError("INVALID", f"the ring must have {state.shard_count} shards")
    if not all(ring.table):
        raise CommandError("INVALID", "a shard would have no owner")
    for member in ring.members:
        known = state.members.get(member.id)
        if known is None or not known.has("storage"):
            raise CommandError("UNKNOWN_NODE", f"{member.id} is no storage member")
    return ring


def _leaving(state: ClusterState, target: Ring, node: str) -> str:
    if node and node not in state.members:
        raise CommandError("UNKNOWN_NODE", f"{node} is not a member")
    if node and any(member.id == node for member in target.members):
        raise CommandError("INVALID", f"{node} would still be in the ring")
    return node


def _quorums(
    state: ClusterState, args: Args, ring: Ring, target: Ring
) -> tuple[Quorum, Quorum, bool]:
    """(in force in the end, meanwhile, whether owners must be filled up before the end)."""
    before = state.quorum
    wanted: Any = args.get("quorum", [target.n, before.w, before.r])
    if not isinstance(wanted, list) or len(wanted) != 3:
        raise CommandError("INVALID", "quorum must be [n, w, r]")
    named: Args = {"n": wanted[0], "w": wanted[1], "r": wanted[2]}
    n = count(named, "n", 1, REPLICAS_MAX)
    final = Quorum(n, count(named, "w", 1, n), count(named, "r", 1, n))
    if final.n != target.n:
        raise CommandError("INVALID", f"n is {final.n}, the ring's is {target.n}")
    if final.w + final.r <= final.n:
        raise CommandError("INVALID", f"r + w must be more than n, got {final}")
    largest = max(before.n, final.n)
    meanwhile = Quorum(largest, max(before.w, final.w), max(before.r, final.r))
    if meanwhile.w + meanwhile.r <= largest:
        raise CommandError(
            "INVALID", "the quorums of before and after do not meet: go by two steps"
        )
    fewest = min(len(row) for row in (*ring.table, *target.table))
    for name, held, needed in (("w", before.w, meanwhile.w), ("r", before.r, meanwhile.r)):
        if needed > held and needed > fewest:
            text_ = f"{name}={needed} cannot be met while a shard has {fewest} owners"
            raise CommandError("INVALID", text_)
    return final, meanwhile, final.r + state.acked_on <= largest


def step_change(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """Shards that `start` ([shard, source, target]), `flip`, `finish`; `cancel` while aborting."""
    expect("ring epoch", count(args, "expected_ring_epoch"), state.ring_epoch)
    change = _running(state, args)
    ring = _ring(state)
    table = list(ring.table)
    moving = dict(state.moving)
    for shard in sorted(_at(state, args, "finish", SETTLING)):
        move = moving.pop(shard)
        if not (move.source or move.target):
            change = replace(change, settled=change.settled | {shard})
    for shard in sorted(_at(state, args, "flip", COPYING)):
        move = moving[shard]
        table[shard] = tuple(NodeId(node) for node in row_after(move, table[shard]))
        moving[shard] = move._replace(stage=SETTLING)
    cancelled = _at(state, args, "cancel", COPYING)
    if cancelled and not change.aborting:
        raise CommandError("INVALID", "a move is cancelled only while the change is aborted")
    for shard in cancelled:
        if moving.pop(shard).stage != COPYING:
            raise CommandError("INVALID", f"shard {shard} is both flipped and cancelled")
    for shard, move in _starts(state, args, change):
        if shard in moving or shard in state.moving:
            raise CommandError("MOVE_RUNNING", f"shard {shard} is being moved")
        moving[shard] = move
    if len(moving) > change.parallel:
        raise CommandError("INVALID", f"at most {change.parallel} shards move at once")
    changed = replace(state, moving=moving, change=change)
    return _with_ring(changed, Ring(_next(state), ring.n, ring.members, tuple(table))), None


def _running(state: ClusterState, args: Args) -> RingChange:
    if state.change is None:
        raise CommandError("NO_CHANGE", "no change of the ring is running")
    expect("change", count(args, "id"), state.change.id)
    return state.change


def _at(state: ClusterState, args: Args, key: str, stage: str) -> frozenset[int]:
    found = shards(args, key, state.shard_count)
    for shard in sorted(found):
        if shard not in state.moving or state.moving[shard].stage != stage:
            raise CommandError("INVALID", f"{key}: shard {shard} is not {stage}")
    return found


def _starts(state: ClusterState, args: Args, change: RingChange) -> list[tuple[int, ShardMove]]:
    rows: Any = args.get("start", [])
    if not isinstance(rows, list):
        raise CommandError("INVALID", "start must be a list of [shard, source, target]")
    if rows and change.aborting:
        raise CommandError("INVALID", "the change is being aborted")
    now, target = _ring(state).table, ring_of(change.target).table
    found: dict[int, ShardMove] = {}
    for row in rows:
        if not isinstance(row, list) or len(row) != 3 or not is_shard(row[0], state.shard_count):
            raise CommandError("INVALID", "start must be a list of [shard, source, target]")
        shard, source, to = row
        if shard in found:
            raise CommandError("INVALID", f"start names shard {shard} twice")
        _check_move(now[shard], target[shard], shard, source, to)
        if not (source or to) and not (change.settle and shard not in change.settled):
            raise CommandError("INVALID", f"shard {shard} need not be settled")
        found[shard] = ShardMove(source, to, COPYING)
    return sorted(found.items())


def _check_move(now: Row, target: Row, shard: int, source: Any, to: Any) -> None:
    """The move leads towards the target: it gives up what is not wanted, for what is."""
    if not isinstance(source, str) or (source and (source not in now or source in target)):
        raise CommandError("INVALID", f"shard {shard} does not leave {source!r}")
    if not isinstance(to, str) or (to and (to in now or to not in target)):
        raise CommandError("INVALID", f"shard {shard} does not go to {to!r}")
    if source and not to and len(now) <= len(target):
        raise CommandError("INVALID", f"shard {shard} would have too few owners")


def raises_r(state: ClusterState) -> bool:
    """Whether the change under way ends with an R above the one that a reader may still go by.

    Then it must not end before N-R+1 owners of each shard know a ring of it (cluster.rebalance), R being that
    of such readers: each meets one of these, and is told. An aborted change keeps the greater W instead.
    """
    change = state.change
    return change is not None and not change.aborting and change.quorum.r > state.read_by


def abort_change(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """Goes no further. What was moved stays moved: each shard has all its replicas at any time."""
    change = _running(state, args)
    return replace(state, change=replace(change, aborting=True)), change.id


def end_change(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """The ring is the target now (or what an aborted change came to); the change is over."""
    expect("ring epoch", count(args, "expected_ring_epoch"), state.ring_epoch)
    change = _running(state, args)
    if state.moving:
        raise CommandError("MOVE_RUNNING", f"shard {min(state.moving)} is being moved")
    ring = _ring(state)
    if change.aborting:
        return _given_up(state, change, ring)
    target = ring_of(change.target)
    left = [s for s, row in enumerate(ring.table) if set(row) != set(target.table[s])]
    if left:
        raise CommandError("INVALID", f"shard {left[0]} is not where it should be")
    if change.settle and len(change.settled) < state.shard_count:
        raise CommandError("INVALID", "not all shards are settled")
    epoch = state.cluster_epoch + (change.quorum != state.quorum)
    final = change.quorum
    changed = replace(
        state,
        change=None,
        quorum=final,
        cluster_epoch=epoch,
        w_floor=final.w if change.settle else min(state.acked_on, final.w),
        r_floor=0,
    )
    if change.retire:
        changed = _retired(changed, change.retire)
    last = Ring(_next(state), target.n, target.members, target.table)
    return _with_ring(changed, last), int(last.epoch)


def _given_up(state: ClusterState, change: RingChange, ring: Ring) -> tuple[ClusterState, Any]:
    """An aborted change ends: members as before, and those that own something by now.

    W and R stay the greater ones: lowering them is a change of its own.
    """
    before = ring_of(change.before)
    owning = {owner for row in ring.table for owner in row}
    members: dict[str, RingMember] = {member.id: member for member in before.members}
    for member in ring_of(change.target).members:
        if member.id in owning:
            members.setdefault(member.id, member)
    n = max(before.n, *(len(row) for row in ring.table))
    quorum = state.quorum._replace(n=max(n, state.quorum.w, state.quorum.r))
    changed = replace(state, change=None, quorum=quorum)
    last = Ring(_next(state), n, sorted_members(members.values()), ring.table)
    return _with_ring(changed, last), int(last.epoch)


def _retired(state: ClusterState, node: str) -> ClusterState:
    """Takes a member out for ever; its id comes back only with a higher incarnation."""
    member = state.members.get(node)
    if member is None:
        return state
    if led := state.shards_of(node):
        raise CommandError("IN_USE", f"{node} still leads {len(led)} shards")
    dedupe = dict(state.dedupe)
    if node in dedupe:
        dedupe[node] = DedupeRow(dedupe[node].incarnation, NEVER)
    members = {name: one for name, one in state.members.items() if name != node}
    marks = {name: mark for name, mark in state.marks.items() if name != node}
    retired = {**state.retired, node: member.incarnation}
    return replace(state, members=members, retired=retired, marks=marks, dedupe=dedupe)


MOVE_OPS: dict[str, Callable[[ClusterState, Args], tuple[ClusterState, Any]]] = {
    "BeginChange": begin_change,
    "StepChange": step_change,
    "AbortChange": abort_change,
    "EndChange": end_change,
}
