"""RingBuilder: add, remove and reweigh members, then build the next ring.

The builder proposes; Raft commits what it proposed, table and all. Building is a pure function of
(the ring before, the set of changes): the order of calls makes no difference, nor does the process.
Of all rings that satisfy the placement rule the next one has the fewest replicas moved.
"""

from typing import Self

from records.errors import InvalidRequest
from records.ids import RingEpoch
from ring.assignment import assign
from ring.placement import placement_rule, violations
from ring.ring import Ring, RingMember, sorted_members
from ring.shards import DEFAULT_SHARD_COUNT


class RingBuilder:
    """Edits a ring's members; `build` gives the next ring. Errors are InvalidRequest, at the call."""

    def __init__(
        self, ring: Ring | None = None, *, n: int = 3, shard_count: int = DEFAULT_SHARD_COUNT
    ) -> None:
        """Starts from `ring`, or from an empty one; `n` and `shard_count` count only without one."""
        self._ring = ring if ring is not None else Ring.empty(n, shard_count)
        self._n = self._ring.n
        self._members = {member.id: member for member in self._ring.members}

    def add(self, member: RingMember) -> Self:
        """A new member; an id that was removed before may come back."""
        if member.id in self._members:
            raise InvalidRequest(f"ring member {member.id!r} is there already")
        self._members[member.id] = member
        return self

    def remove(self, member_id: str) -> Self:
        """Takes a member out; its replicas move to others."""
        self._known(member_id)
        del self._members[member_id]
        return self

    def reweigh(self, member_id: str, weight: float) -> Self:
        """Changes a member's relative capacity; 0 drains it but keeps it a member."""
        member = self._known(member_id)
        self._members[member_id] = RingMember(member.id, member.zone, weight)
        return self

    def replicate(self, n: int) -> Self:
        """Changes the replication factor; existing replicas stay where they can."""
        Ring.empty(n)  # checks the bounds
        self._n = n
        return self

    def _known(self, member_id: str) -> RingMember:
        if member_id not in self._members:
            raise InvalidRequest(f"there is no ring member {member_id!r}")
        return self._members[member_id]

    def build(self) -> Ring:
        """The next ring, epoch + 1. Cost: milliseconds at 32 shards; see ring.flow.

        Raises:
            InvalidRequest: no member with weight would be left of a ring that had owners, or that
                has members: each shard would lose its last replica.
        """
        members = sorted_members(self._members.values())
        zones = {member.id: member.zone for member in members if member.weight > 0}
        if not zones and (members or self._ring.effective_n):
            raise InvalidRequest("a ring needs at least one member with weight above 0")
        rule = placement_rule(members, self._n, self._ring.shard_count)
        table = assign(rule, zones, self._ring.table)
        ring = Ring(RingEpoch(self._ring.epoch + 1), self._n, members, table)
        assert not violations(ring), violations(ring)
        return ring


def build_ring(
    members: list[RingMember], *, n: int = 3, shard_count: int = DEFAULT_SHARD_COUNT
) -> Ring:
    """The first ring (epoch 1) of these members, in any order."""
    builder = RingBuilder(n=n, shard_count=shard_count)
    for member in members:
        builder.add(member)
    return builder.build()
