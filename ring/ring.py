"""The ring: which nodes own which shard, at one epoch. Immutable; the table is the authority.

Invariants, checked in the constructor, so no Ring exists that breaks one:
- member ids are distinct and sorted; every owner is a member;
- the owners of a shard are distinct nodes, 1..n of them (none only while there are no members);
- position 0 is the preferred node for reading data; the order is part of the ring.
A ring that RingBuilder made has more to it, see ring.placement: each shard has `effective_n` owners,
on as many zones as can be, and each node its share. A ring in the middle of a move may not.

How the table came about is not decided here; see ring.builder. A reader never recomputes it: two
versions of the builder may disagree, two readers of one table cannot.

Source: DeCandia et al., "Dynamo" (SOSP 2007), sections 4.2, 4.3, 6.2; OpenStack Swift's ring.
"""

import reprlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from sortedcontainers import SortedDict

from records.errors import InvalidRequest
from records.ids import NodeId, RingEpoch, ShardId
from ring.shards import DEFAULT_SHARD_COUNT, MAX_SHARD_COUNT, arc_of
from ring.tokens import Token, TokenRange

#: Longest member id and zone name, in characters; the same limit as for a service name.
NAME_LENGTH_MAX = 128
#: Largest weight. Weights are relative, so a large one buys nothing that 1000 : 1 does not.
WEIGHT_MAX = 1_000_000.0
#: Largest replication factor; with more, an ack waits for the slowest of too many.
REPLICATION_MAX = 16
#: Most members of a ring: what the size limits of messages and of the replicated state allow.
MEMBERS_MAX = 1000


@dataclass(frozen=True, slots=True, order=True)
class RingMember:
    """A storage node as placement sees it: its zone (what fails together) and relative capacity.

    Weight 0 keeps the node a member and gives it no shards: how a node is drained.
    """

    id: str
    zone: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name, text, low in (("id", self.id, 1), ("zone", self.zone, 0)):
            if not isinstance(text, str) or not low <= len(text) <= NAME_LENGTH_MAX:
                raise InvalidRequest(
                    f"ring member {name} must be text of {low}..{NAME_LENGTH_MAX} characters, "
                    f"got {reprlib.repr(text)}"
                )
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise InvalidRequest(
                    f"ring member {name} is not Unicode: {reprlib.repr(text)}"
                ) from error
        number = isinstance(self.weight, int | float) and not isinstance(self.weight, bool)
        if not number or not 0 <= self.weight <= WEIGHT_MAX:  # nor NaN
            raise InvalidRequest(
                f"weight of ring member {self.id!r} must be in 0..{WEIGHT_MAX:g}, "
                f"got {reprlib.repr(self.weight)}"
            )
        object.__setattr__(self, "weight", abs(float(self.weight)))  # 1 and 1.0, 0 and -0: one text


class VirtualNode(NamedTuple):
    """A member's claim on one shard: the arc's first token, and the place in the owners' order."""

    token: Token
    shard: ShardId
    member: NodeId
    position: int


@lru_cache(maxsize=8)
def _arcs_of(shard_count: int) -> SortedDict:
    """First token of each arc -> shard. The same for all rings of so many shards; nobody changes it."""
    return SortedDict((arc_of(s, shard_count).start, ShardId(s)) for s in range(shard_count))


@dataclass(frozen=True, slots=True)
class Ring:
    """An immutable map shard -> ordered owners, with its epoch. Make one with RingBuilder."""

    epoch: RingEpoch
    n: int
    members: tuple[RingMember, ...]
    table: tuple[tuple[NodeId, ...], ...]
    _arcs: SortedDict = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.epoch < 0:
            raise InvalidRequest(f"ring epoch must not be negative, got {self.epoch}")
        if not 1 <= self.n <= REPLICATION_MAX:
            raise InvalidRequest(f"ring n must be in 1..{REPLICATION_MAX}, got {self.n}")
        if not 1 <= len(self.table) <= MAX_SHARD_COUNT:
            raise InvalidRequest(
                f"a ring has 1..{MAX_SHARD_COUNT} shards, this one {len(self.table)}"
            )
        if len(self.members) > MEMBERS_MAX:
            raise InvalidRequest(
                f"a ring has at most {MEMBERS_MAX} members, not {len(self.members)}"
            )
        ids = [member.id for member in self.members]
        if ids != sorted(set(ids)):
            raise InvalidRequest("ring members must be sorted by id, each once")
        self._check_owners()
        object.__setattr__(self, "_arcs", _arcs_of(self.shard_count))

    def _check_owners(self) -> None:
        known = {member.id for member in self.members}
        least = min(1, len(known))
        for shard, owners in enumerate(self.table):
            if len(set(owners)) != len(owners):
                raise InvalidRequest(f"shard {shard} has an owner twice: {owners}")
            if not known.issuperset(owners):
                raise InvalidRequest(f"shard {shard} has an owner that is no member: {owners}")
            if not least <= len(owners) <= self.n:
                raise InvalidRequest(
                    f"shard {shard} must have {least}..{self.n} owners, has {len(owners)}"
                )

    @staticmethod
    def empty(n: int = 3, shard_count: int = DEFAULT_SHARD_COUNT) -> "Ring":
        """The ring before the first storage node: epoch 0, no members, no owners."""
        return Ring(RingEpoch(0), n, (), ((),) * shard_count)

    @property
    def shard_count(self) -> int:
        """How many shards; fixed for a cluster's life."""
        return len(self.table)

    @property
    def effective_n(self) -> int:
        """Replicas a shard should have: n, or the number of members with weight if fewer."""
        return min(self.n, sum(member.weight > 0 for member in self.members))

    @property
    def zones(self) -> dict[NodeId, str]:
        """The zone of each member."""
        return {NodeId(member.id): member.zone for member in self.members}

    def owners(self, shard: int) -> tuple[NodeId, ...]:
        """The shard's owners, distinct; position 0 is preferred for reading data.

        Raises:
            ValueError: there is no such shard (a negative number is not counted from the end).
        """
        if not 0 <= shard < len(self.table):
            raise ValueError(f"shard must be in 0..{len(self.table) - 1}, got {shard}")
        return self.table[shard]

    def shard_at(self, token: int) -> ShardId:
        """The shard whose arc holds `token` (0..2^64-1)."""
        return self._arcs.peekitem(self._arcs.bisect_right(token) - 1)[1]

    def arc(self, shard: int) -> TokenRange:
        """The shard's arc of the ring."""
        return arc_of(shard, self.shard_count)

    def shards_of(self, node: str) -> tuple[ShardId, ...]:
        """The shards that `node` owns a replica of, ascending; empty for a stranger."""
        return tuple(ShardId(s) for s, owners in enumerate(self.table) if node in owners)

    def virtual_nodes(self) -> tuple[VirtualNode, ...]:
        """Every claim, in order of token, then of position."""
        return tuple(
            VirtualNode(self.arc(shard).start, ShardId(shard), owner, position)
            for shard, owners in enumerate(self.table)
            for position, owner in enumerate(owners)
        )

    def loads(self, position: int | None = None) -> dict[NodeId, int]:
        """Replicas on each member, members without any included; of one position, if given."""
        counts: Counter[str] = Counter()
        for owners in self.table:
            counts.update(owners if position is None else owners[position : position + 1])
        return {NodeId(member.id): counts[member.id] for member in self.members}

    def replica_sets(self) -> dict[frozenset[NodeId], tuple[ShardId, ...]]:
        """Shards grouped by the set of their owners: what one block may carry together."""
        groups: dict[frozenset[NodeId], list[ShardId]] = {}
        for shard, owners in enumerate(self.table):
            groups.setdefault(frozenset(owners), []).append(ShardId(shard))
        return {owners: tuple(shards) for owners, shards in groups.items()}


def sorted_members(members: Iterable[RingMember]) -> tuple[RingMember, ...]:
    """Members in the order a ring keeps them."""
    return tuple(sorted(members, key=lambda member: member.id))
