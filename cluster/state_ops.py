"""The operations on the replicated state, one function each, in a table.

Each is a pure function (state, args) -> (state, value) that raises `CommandError` when its
compare-and-set does not hold. No clock, no randomness, no dependence on the order of a mapping:
every node runs the same commands and must come to the same state.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cluster.state_args import NEVER, Args
from cluster.state_args import count as _count
from cluster.state_args import expect as _expect
from cluster.state_args import is_shard as _named
from cluster.state_args import shards as _listed
from cluster.state_args import text as _text
from cluster.state_moves import MOVE_OPS, REPLICAS_MAX
from cluster.state_splits import split_service
from cluster.state_types import (
    ROLES,
    ClusterState,
    CommandError,
    DedupeRow,
    Member,
    Quorum,
    ShardLeader,
    Versioned,
)
from records.errors import InvalidRequest
from ring.ring import Ring
from ring.serde import from_dict, ring_of, to_dict

Op = Callable[[ClusterState, Args], tuple[ClusterState, Any]]

MEMBERS_MAX = 256
SHARDS_MAX = 4096
#: Deletes in force at most: each scan of the tenant looks at each of them.
DELETES_MAX = 256
#: The versioned document that watermarks follow from (cluster.retention).
RETENTION_RULES = "quorumlog.retention"


def _put(rows: Mapping[Any, Any], key: Any, value: Any) -> dict[Any, Any]:
    return {**rows, key: value}


def _drop(rows: Mapping[Any, Any], key: Any) -> dict[Any, Any]:
    return {k: v for k, v in rows.items() if k != key}


def noop(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """Nothing: the barrier."""
    return state, None


def register_node(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """Adds a member, or its next incarnation. The very same again only tells how far its store has come."""
    roles = args.get("roles")
    if not isinstance(roles, list) or not roles or any(r not in ROLES for r in roles):
        raise CommandError("INVALID", f"roles must be some of {', '.join(ROLES)}")
    weight = args.get("weight", 1.0)
    if not isinstance(weight, (int, float)) or isinstance(weight, bool) or not 0 <= weight <= 1e6:
        raise CommandError("INVALID", "weight must be a number in 0..1000000")
    member = Member(
        id=_text(args, "id"),
        roles=tuple(sorted(set(roles))),
        incarnation=_count(args, "incarnation", 1),
        http=_text(args, "http", empty=True),
        peer=_text(args, "peer", empty=True),
        raft=_text(args, "raft", empty=True),
        zone=_text(args, "zone", empty=True),
        weight=float(weight),
        store=_text(args, "store", empty=True),
    )
    known, mark = state.members.get(member.id), _mark(args)
    if known is not None and (why := _lost_its_store(state, known, member, mark)):
        raise CommandError("STORE_LOST", f"{member.id} owns shards, but its store is {why}")
    marks = _put(state.marks, member.id, mark) if mark else state.marks
    if known == member:
        return replace(state, marks=marks), member.incarnation
    oldest = known.incarnation if known else state.retired.get(member.id, 0)
    if member.incarnation <= oldest:
        raise CommandError("STALE_INCARNATION", f"{member.id} is at incarnation {oldest}")
    if known is None and len(state.members) >= MEMBERS_MAX:
        raise CommandError("FULL", f"at most {MEMBERS_MAX} members")
    retired = _drop(state.retired, member.id)
    members = _put(state.members, member.id, member)
    return replace(state, members=members, retired=retired, marks=marks), member.incarnation


def _mark(args: Args) -> int:
    """How far the store has come; 0: it does not say."""
    return _count(args, "mark") if "mark" in args else 0


def _lost_its_store(state: ClusterState, known: Member, member: Member, mark: int) -> str:
    """In which way an owner comes back with less than it promised (a new node); empty: in none."""
    older = 0 < mark < state.marks.get(known.id, 0)
    if not known.store or state.ring is None or (member.store == known.store and not older):
        return ""
    if all(m.id != known.id for m in ring_of(state.ring).members):
        return ""
    return (
        "an older copy of the one it had" if member.store == known.store else "not the one it had"
    )


def retire_node(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """Removes a member for ever; the id comes back only with a higher incarnation."""
    node, incarnation = _text(args, "id"), _count(args, "incarnation", 1)
    member = state.members.get(node)
    if member is None:
        raise CommandError("UNKNOWN_NODE", f"{node} is not a member")
    _expect("incarnation", incarnation, member.incarnation)
    led = state.shards_of(node)
    if led:
        raise CommandError("IN_USE", f"{node} still leads {len(led)} shards")
    if state.ring is not None and any(m.id == node for m in ring_of(state.ring).members):
        raise CommandError("IN_USE", f"{node} is still in the ring")
    dedupe = dict(state.dedupe)
    if node in dedupe:
        dedupe[node] = DedupeRow(dedupe[node].incarnation, NEVER)
    retired, marks = _put(state.retired, node, incarnation), _drop(state.marks, node)
    members = _drop(state.members, node)
    changed = replace(state, members=members, retired=retired, marks=marks, dedupe=dedupe)
    return changed, incarnation


def set_quorum(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """N, W, R. The first one also names the cluster and fixes its number of shards for ever."""
    _expect("cluster epoch", _count(args, "expected_cluster_epoch"), state.cluster_epoch)
    if state.change is not None:
        raise CommandError("CHANGE_RUNNING", f"change {state.change.id} of the ring is running")
    n = _count(args, "n", 1, REPLICAS_MAX)
    w, r = _count(args, "w", 1, n), _count(args, "r", 1, n)
    if r + w <= n:
        raise CommandError("INVALID", f"r + w must be more than n, got {r} + {w} and {n}")
    first = state.cluster_epoch == 0
    if state.ring is not None:
        _check_quorums_meet(state, n, w, r)
    cluster_id, shards = state.cluster_id, state.shard_count
    if "cluster_id" in args:
        cluster_id = _text(args, "cluster_id")
    if "shard_count" in args:
        shards = _count(args, "shard_count", 1, SHARDS_MAX)
    if not first and (cluster_id, shards) != (state.cluster_id, state.shard_count):
        raise CommandError("INVALID", "cluster_id and shard_count are fixed for ever")
    epoch = state.cluster_epoch + 1
    changed = replace(
        state,
        quorum=Quorum(n, w, r),
        w_floor=w if state.ring is None else min(w, state.acked_on),
        r_floor=state.read_by if state.ring is not None and r > state.read_by else 0,
        cluster_epoch=epoch,
        cluster_id=cluster_id,
        shard_count=shards,
    )
    return changed, epoch


def _check_quorums_meet(state: ClusterState, n: int, w: int, r: int) -> None:
    """Old writes meet new reads, and new writes meet reads under way; else it is a change of the ring."""
    if n != state.quorum.n:
        raise CommandError("NEEDS_CHANGE", "another n is a change of the ring")
    if r + state.acked_on <= n or w + state.quorum.r <= n:
        raise CommandError("NEEDS_CHANGE", "reads would miss rows acknowledged before")


def set_ring(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """The next ring, as ring.serde.to_dict gives it, with the epoch that it will have.

    `starts` and `ends` name shards whose move begins or is complete with it; a shard whose owners
    change gets one new owner at most, and none while another move of it runs.
    """
    _expect("ring epoch", _count(args, "expected_ring_epoch"), state.ring_epoch)
    if state.change is not None:
        raise CommandError("CHANGE_RUNNING", f"change {state.change.id} of the ring is running")
    ring = _ring(state, args.get("map"))
    count = state.shard_count
    starts, ends = _listed(args, "starts", count), _listed(args, "ends", count)
    if not ends <= state.moves:
        raise CommandError("INVALID", f"shard {min(ends - state.moves)} is not being moved")
    running = (starts | _changed(state, ring)) & (state.moves - ends)
    if running:
        raise CommandError("MOVE_RUNNING", f"shard {min(running)} is being moved")
    changed = replace(
        state,
        ring=to_dict(ring),
        ring_epoch=int(ring.epoch),
        ring_stage=_text(args, "stage", empty=True),
        moves=(state.moves - ends) | starts,
    )
    return changed, int(ring.epoch)


def _ring(state: ClusterState, value: Any) -> Ring:
    try:
        ring = from_dict(value)
    except InvalidRequest as error:
        raise CommandError("INVALID", "map is not a ring") from error
    if ring.epoch != state.ring_epoch + 1:
        raise CommandError("INVALID", f"the next ring has epoch {state.ring_epoch + 1}")
    if len(ring.table) != state.shard_count:
        raise CommandError("INVALID", f"the ring must have {state.shard_count} shards")
    for member in ring.members:
        known = state.members.get(member.id)
        if known is None or not known.has("storage"):
            raise CommandError("UNKNOWN_NODE", f"{member.id} is no storage member")
    return ring


def _changed(state: ClusterState, ring: Ring) -> set[int]:
    """Shards whose set of owners differs from the ring before."""
    if state.ring is None:
        return set()
    before = ring_of(state.ring).table
    changed = {s for s, owners in enumerate(ring.table) if set(owners) != set(before[s])}
    for shard in sorted(changed):
        if len(set(ring.table[shard]) - set(before[shard])) > 1:
            raise CommandError("INVALID", f"shard {shard} would get two new owners at once")
    return changed


def _is_shard(state: ClusterState, shard: Any) -> bool:
    return _named(shard, state.shard_count)


def assign(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """Shard leaders: `assignments` is a list of [shard, node, expected epoch].

    Each item is its own compare-and-set. The value lists what was done, [[shard, epoch], …], and
    what was not, [[shard, code], …]; a single refused item is an error of the command.
    """
    rows = args.get("assignments")
    if not isinstance(rows, list) or not 0 < len(rows) <= state.shard_count:
        raise CommandError("INVALID", "assignments must be a list of [shard, node, epoch]")
    leaders = dict(state.leaders)
    done: list[list[Any]] = []
    refused: list[list[Any]] = []
    for row in rows:
        code, shard, node, epoch = _check_assignment(state, leaders, row)
        if code:
            refused.append([shard, code])
        else:
            incarnation = state.members[node].incarnation
            leaders[shard] = ShardLeader(node, epoch + 1, incarnation)
            done.append([shard, epoch + 1])
    if not done:
        shard, code = refused[0]
        raise CommandError(code, f"shard {shard} and {len(refused) - 1} more were not assigned")
    return replace(state, leaders=leaders), {"assigned": done, "refused": refused}


def _check_assignment(
    state: ClusterState, leaders: Mapping[int, ShardLeader], row: Any
) -> tuple[str, int, str, int]:
    if not isinstance(row, list) or len(row) != 3 or not _is_shard(state, row[0]):
        raise CommandError("INVALID", "an assignment is [shard, node, expected epoch]")
    shard, node, expected = row
    member = state.members.get(node) if isinstance(node, str) else None
    if not isinstance(expected, int) or isinstance(expected, bool):
        raise CommandError("INVALID", "an assignment is [shard, node, expected epoch]")
    current = leaders[shard].epoch if shard in leaders else 0
    if expected != current:
        return "MISMATCH", shard, "", current
    if member is None or not member.has("ingestor"):
        return "UNKNOWN_NODE", shard, "", current
    return "", shard, node, current


def set_watermark(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """Rows of a tenant and service before `t` (µs) are gone. Merged by max: it never goes back.

    The service "" stands for those without a watermark of their own; such a one begins where it is, as what
    was hidden must not come back. `rules_version`: of the rules that it follows from.
    """
    key = (_text(args, "tenant"), _text(args, "service", empty=True))
    if "rules_version" in args:
        rules = state.schemas.get(RETENTION_RULES)
        version = rules.version if rules else 0
        _expect("version of the rules", _count(args, "rules_version"), version)
    known = state.watermarks.get(key, state.watermarks.get((key[0], ""), 0))
    mark = max(_count(args, "t"), known)
    return replace(state, watermarks=_put(state.watermarks, key, mark)), mark


def add_delete(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """A delete predicate under an id; the same id with another predicate is refused."""
    name, predicate = _text(args, "id"), args.get("predicate")
    if predicate is None:
        raise CommandError("INVALID", "predicate is missing")
    if state.deletes.get(name, predicate) != predicate:
        raise CommandError("MISMATCH", f"delete {name} is another predicate")
    if name not in state.deletes and len(state.deletes) >= DELETES_MAX:
        raise CommandError("FULL", f"at most {DELETES_MAX} deletes")
    return replace(state, deletes=_put(state.deletes, name, predicate)), None


def drop_delete(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """Forgets a predicate once every storage member has proved that it repaired through it.

    Without proof where all that it can hide lies below watermarks.
    """
    name, proofs = _text(args, "id"), args.get("proofs")
    if not isinstance(proofs, list) or not all(isinstance(p, str) for p in proofs):
        raise CommandError("INVALID", "proofs must be a list of members")
    if name not in state.deletes:
        raise CommandError("UNKNOWN", f"no delete {name}")
    missing = {m.id for m in state.with_role("storage")} - set(proofs)
    if missing and not below_watermarks(state, state.deletes[name]):
        raise CommandError("MISMATCH", f"no proof of {min(missing)}")
    return replace(state, deletes=_drop(state.deletes, name)), None


def below_watermarks(state: ClusterState, predicate: Any) -> bool:
    """Whether no row that the predicate can match lies at or above a watermark; one of 0 hides nothing."""
    if not isinstance(predicate, Mapping) or "end" not in predicate:
        return False
    tenant, services, end = predicate["tenant"], predicate["services"], predicate["end"]
    of_tenant = {service: mark for (t, service), mark in state.watermarks.items() if t == tenant}
    default = of_tenant.get("")
    if default is None and not services:
        return False
    found = (of_tenant.get(one, default) for one in services or of_tenant)
    return all(mark is not None and 0 < mark >= end for mark in found)


def put_schema(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """The next version of a schema."""
    return _put_versioned(state, args, "schemas", _text(args, "name"))


def put_grant(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """A credential (hashes only) and what it may do."""
    return _put_versioned(state, args, "grants", _text(args, "id"))


def _put_versioned(
    state: ClusterState, args: Args, section: str, name: str
) -> tuple[ClusterState, Any]:
    rows: Mapping[str, Versioned] = getattr(state, section)
    version = rows[name].version if name in rows else 0
    _expect("version", _count(args, "expected_version"), version)
    if args.get("body") is None:
        raise CommandError("INVALID", "body is missing")
    changed = _put(rows, name, Versioned(version + 1, args["body"]))
    return replace(state, **{section: changed}), version + 1


def drop_grant(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """Takes a credential away; a second time is no error."""
    return replace(state, grants=_drop(state.grants, _text(args, "id"))), None


def set_feature_level(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """Opens newer commands. Proposed when every manager's binary knows the level; only rises."""
    level = _count(args, "level", 1, 1 << 31)
    if level < state.feature_level:
        raise CommandError("MISMATCH", f"the feature level is {state.feature_level}")
    return replace(state, feature_level=level), level


OPS: dict[str, Op] = {
    "Noop": noop,
    "RegisterNode": register_node,
    "RetireNode": retire_node,
    "SetQuorum": set_quorum,
    "SetRing": set_ring,
    "Assign": assign,
    "SetWatermark": set_watermark,
    "AddDelete": add_delete,
    "DropDelete": drop_delete,
    "PutSchema": put_schema,
    "PutGrant": put_grant,
    "DropGrant": drop_grant,
    "SetFeatureLevel": set_feature_level,
    "SplitService": split_service,
    **MOVE_OPS,
}
#: Operations that can make the state larger; only these are checked against STATE_BYTES_MAX.
GROWING = frozenset(
    {
        "RegisterNode",
        "SetRing",
        "SetWatermark",
        "AddDelete",
        "PutSchema",
        "PutGrant",
        "SplitService",
        "BeginChange",
        "StepChange",
    }
)
