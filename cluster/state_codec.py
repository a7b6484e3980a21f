"""ClusterState and commands as bytes.

One state gives the same bytes on every node (mappings are sorted), so that dumps can be compared.
Commands are msgpack `{lv, op, rid: [node, incarnation, counter], at, args}`. `at` is the proposer's
wall clock in microseconds, for people only; `apply` does not read it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.state_types import (
    Checkpoint,
    ClusterState,
    CommandError,
    DedupeRow,
    Member,
    Quorum,
    RingChange,
    ShardLeader,
    ShardMove,
    Versioned,
)
from records.envelope import packb, unpackb
from records.errors import EnvelopeCorrupt
from ring.generations import UNSPLIT, Generation

STATE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Command:
    """One decoded command. `proposer`, `incarnation` and `counter` are its request id."""

    level: int
    op: str
    proposer: str
    incarnation: int
    counter: int
    args: dict[str, Any]


def encode_command(
    op: str, args: Mapping[str, Any], rid: tuple[str, int, int], *, level: int, at: int = 0
) -> bytes:
    """The bytes that travel through the log."""
    return packb({"lv": level, "op": op, "rid": list(rid), "at": at, "args": dict(args)})


def decode_command(data: bytes) -> Command:
    """The command in `data`.

    Raises:
        CommandError: MALFORMED, whatever is wrong with the bytes.
    """
    try:
        raw = unpackb(data)
    except (EnvelopeCorrupt, TypeError, OverflowError) as error:
        raise CommandError("MALFORMED", "not a msgpack command") from error
    if not isinstance(raw, dict):
        raise CommandError("MALFORMED", "not a map")
    level: Any = raw.get("lv")
    op, rid, args = raw.get("op"), raw.get("rid"), raw.get("args")
    if not (_is_count(level) and isinstance(op, str) and isinstance(args, dict)):
        raise CommandError("MALFORMED", "lv, op or args is missing or of a wrong type")
    if not (isinstance(rid, list) and len(rid) == 3 and isinstance(rid[0], str) and rid[0]):
        raise CommandError("MALFORMED", "rid is not [node, incarnation, counter]")
    if not (_is_count(rid[1]) and _is_count(rid[2])):
        raise CommandError("MALFORMED", "rid is not [node, incarnation, counter]")
    return Command(level, op, rid[0], rid[1], rid[2], args)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def to_bytes(state: ClusterState, *, full: bool = True) -> bytes:
    """Deterministic bytes. `full=False` leaves out what only voters need (the dedupe rows)."""
    return packb(
        {
            "format": STATE_FORMAT,
            "applied_index": state.applied_index,
            "cluster_id": state.cluster_id,
            "cluster_epoch": state.cluster_epoch,
            "feature_level": state.feature_level,
            "quorum": list(state.quorum),
            "w_floor": state.w_floor,
            "r_floor": state.r_floor,
            "shard_count": state.shard_count,
            "members": [_member_row(m) for _, m in sorted(state.members.items())],
            "retired": [list(item) for item in sorted(state.retired.items())],
            "marks": [list(item) for item in sorted(state.marks.items())],
            "ring": None if state.ring is None else dict(state.ring),
            "ring_epoch": state.ring_epoch,
            "ring_stage": state.ring_stage,
            "moves": sorted(state.moves),
            "change": _change_row(state.change),
            "moving": [[s, *move] for s, move in sorted(state.moving.items())],
            "leaders": [[s, *lead] for s, lead in sorted(state.leaders.items())],
            "splits": [[*key, [list(g) for g in one]] for key, one in sorted(state.splits.items())],
            "schemas": _versioned_rows(state.schemas),
            "watermarks": [[*key, mark] for key, mark in sorted(state.watermarks.items())],
            "deletes": [list(item) for item in sorted(state.deletes.items())],
            "grants": _versioned_rows(state.grants),
            "dedupe": _dedupe_rows(state) if full else [],
            "history": state.history,
            "checkpoint": list(state.checkpoint),
        }
    )


def ring_hash(state: ClusterState) -> bytes:
    """32 bytes over what one ring epoch stands for: who owns what, and what moves in which stage."""
    moving = [[s, *move] for s, move in sorted(state.moving.items())]
    ring = None if state.ring is None else dict(state.ring)
    return hashlib.sha256(packb([state.ring_epoch, ring, moving])).digest()


def _member_row(m: Member) -> list[Any]:
    return [m.id, list(m.roles), m.incarnation, m.http, m.peer, m.raft, m.zone, m.weight, m.store]


def _change_row(change: RingChange | None) -> list[Any] | None:
    if change is None:
        return None
    return [
        change.id,
        change.reason,
        dict(change.target),
        dict(change.before),
        list(change.quorum),
        change.parallel,
        change.bytes_per_second,
        change.aborting,
        change.retire,
        change.settle,
        sorted(change.settled),
    ]


def _change(row: list[Any] | None) -> RingChange | None:
    if row is None:
        return None
    number, reason, target, before, quorum, parallel, rate, aborting, retire, settle, settled = row
    return RingChange(
        number,
        reason,
        target,
        before,
        Quorum(*quorum),
        parallel,
        rate,
        aborting,
        retire,
        settle,
        frozenset(settled),
    )


def _generations(row: Any) -> tuple[Generation, ...]:
    """Dumps of the first version have the factor alone."""
    if isinstance(row, int):
        return (*UNSPLIT, Generation(row, 0))
    return tuple(Generation(factor, at) for factor, at in row)


def _versioned_rows(rows: Mapping[str, Versioned]) -> list[Any]:
    return [[name, row.version, row.body] for name, row in sorted(rows.items())]


def _dedupe_rows(state: ClusterState) -> list[Any]:
    return [
        [node, row.incarnation, row.floor, [list(r) for r in sorted(row.results.items())]]
        for node, row in sorted(state.dedupe.items())
    ]


def from_bytes(data: bytes | memoryview) -> ClusterState:
    """The state that `to_bytes` wrote.

    Raises:
        EnvelopeCorrupt: other bytes, or a format that this binary does not know.
    """
    raw = unpackb(data)
    if not isinstance(raw, dict) or raw.get("format") != STATE_FORMAT:
        raise EnvelopeCorrupt("not a cluster state of a known format")
    try:
        return ClusterState(
            applied_index=raw["applied_index"],
            cluster_id=raw["cluster_id"],
            cluster_epoch=raw["cluster_epoch"],
            feature_level=raw["feature_level"],
            quorum=Quorum(*raw["quorum"]),
            w_floor=raw.get("w_floor", 0),
            r_floor=raw.get("r_floor", 0),
            shard_count=raw["shard_count"],
            members={row[0]: Member(row[0], tuple(row[1]), *row[2:]) for row in raw["members"]},
            retired={node: incarnation for node, incarnation in raw["retired"]},
            marks={node: mark for node, mark in raw.get("marks", [])},
            ring=raw["ring"],
            ring_epoch=raw["ring_epoch"],
            ring_stage=raw["ring_stage"],
            moves=frozenset(raw["moves"]),
            change=_change(raw.get("change")),  # absent in dumps of the first version
            moving={row[0]: ShardMove(*row[1:]) for row in raw.get("moving", [])},
            leaders={row[0]: ShardLeader(*row[1:]) for row in raw["leaders"]},
            splits={(t, s): _generations(row) for t, s, row in raw["splits"]},
            schemas={name: Versioned(v, body) for name, v, body in raw["schemas"]},
            watermarks={(t, s): mark for t, s, mark in raw["watermarks"]},
            deletes={name: predicate for name, predicate in raw["deletes"]},
            grants={name: Versioned(v, body) for name, v, body in raw["grants"]},
            dedupe={
                node: DedupeRow(incarnation, floor, {c: r for c, r in results})
                for node, incarnation, floor, results in raw["dedupe"]
            },
            history=raw["history"],
            checkpoint=Checkpoint(*raw["checkpoint"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EnvelopeCorrupt(f"cluster state: {type(error).__name__}: {error}") from error
