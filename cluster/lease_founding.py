"""The founding of a cluster: quorum settings first, then the first ring. Pure.

Only the Raft leader asks, and each answer is a compare-and-set proposal against "nothing was decided
yet", so it does no harm if two leaders ask, or one asks twice. Later rings are not made here; see
cluster.rebalance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.state_types import ClusterState, Member
from ring.builder import build_ring
from ring.ring import RingMember
from ring.serde import to_dict

BuildRing = Callable[[Sequence[Member], int, int], dict[str, Any]]
"""(storage members, n, shards) -> the first ring as plain values."""
Proposal = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class FoundingSettings:
    """What a new cluster begins with; ignored once it is decided."""

    cluster_id: str
    n: int
    w: int
    r: int
    shard_count: int
    #: Ids of the storage members that the first ring waits for.
    storage: frozenset[str]


def first_ring(members: Sequence[Member], n: int, shard_count: int) -> dict[str, Any]:
    """The first ring of these storage members."""
    rows = [RingMember(m.id, m.zone, m.weight) for m in members]  # pyright: ignore[reportArgumentType]
    return to_dict(build_ring(rows, n=n, shard_count=shard_count))


def founding_step(
    state: ClusterState, settings: FoundingSettings, build: BuildRing = first_ring
) -> Proposal | None:
    """The next decision of a new cluster, or None when there is nothing to decide yet, or any more."""
    if state.cluster_epoch == 0:
        return "SetQuorum", {
            "expected_cluster_epoch": 0,
            "n": settings.n,
            "w": settings.w,
            "r": settings.r,
            "cluster_id": settings.cluster_id,
            "shard_count": settings.shard_count,
        }
    if state.ring is not None or state.ring_epoch:
        return None
    storage = [m for m in state.with_role("storage") if m.id in settings.storage]
    if {m.id for m in storage} != settings.storage:
        return None
    ring = build(storage, state.quorum.n, state.shard_count)
    return "SetRing", {"expected_ring_epoch": 0, "map": ring, "stage": "new"}
