"""RingDelta: which shard moves from whom to whom, and the small steps that carry it out.

A move is a *proposal*: the bytes are carried, and the stages are kept, by cluster.rebalance and the
replicated state. What is fixed here is that at most one replica of a shard moves at a time, so a
write quorum of the shard's owners is never new at once. A delta is therefore cut into *rounds*; in
one round each shard makes at most one move, and after it stands a whole ring of its own epoch.

    old (epoch e) --round 1--> ring (e+1) --round 2--> ... --last round--> the target's table

The last ring has the target's order too. On the way a shard's owners are always distinct nodes;
zones may coincide for a while where no order of single moves avoids it.

A delta needs nothing but two rings, so a change can be looked at before anyone makes it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from records.errors import InvalidRequest
from records.ids import NodeId, RingEpoch, ShardId
from ring.ring import Ring, RingMember, sorted_members


@dataclass(frozen=True, slots=True, order=True)
class ReplicaMove:
    """One replica of one shard: copied to `target`, after which `source` gives it up.

    `source` is None for an added replica, `target` None for one that is only given up. Copies are
    read from a quorum of old owners, not from `source` alone, which may be dead.
    """

    shard: ShardId
    source: NodeId | None
    target: NodeId | None

    def __post_init__(self) -> None:
        assert self.source != self.target, f"a move to itself, or of nothing: {self}"

    def applied_to(self, owners: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
        """The owners after this move: the target in the source's place, or last if it is added."""
        if self.source is None:
            assert self.target is not None
            return (*owners, self.target)
        here = owners.index(self.source)
        target = () if self.target is None else (self.target,)
        return (*owners[:here], *target, *owners[here + 1 :])


@dataclass(frozen=True, slots=True)
class RingDelta:
    """The difference between two rings of one cluster."""

    old: Ring
    new: Ring
    moves: tuple[ReplicaMove, ...]
    """By shard, and within a shard in the order in which they are made."""
    reordered: tuple[ShardId, ...]
    """Shards with the same owners in another order: no bytes move."""

    @staticmethod
    def between(old: Ring, new: Ring) -> "RingDelta":
        """What has to happen to get from `old` to `new`.

        Raises:
            InvalidRequest: the shard counts differ, so the rings are of different clusters.
        """
        if old.shard_count != new.shard_count:
            raise InvalidRequest(
                f"a ring of {old.shard_count} shards cannot become one of {new.shard_count}"
            )
        zones = {**old.zones, **new.zones}
        moves: list[ReplicaMove] = []
        reordered: list[ShardId] = []
        for shard, (before, after) in enumerate(zip(old.table, new.table, strict=True)):
            if before == after:
                continue
            moves += moves_of(ShardId(shard), before, after, zones)
            if set(before) == set(after):
                reordered.append(ShardId(shard))
        return RingDelta(old, new, tuple(moves), tuple(reordered))

    @property
    def copies(self) -> int:
        """Replicas that must be copied: what the change costs in bytes, in whole shards."""
        return sum(move.target is not None for move in self.moves)

    def gains(self) -> dict[NodeId, int]:
        """Replicas each node receives; nodes that receive none are absent."""
        return dict(Counter(move.target for move in self.moves if move.target is not None))

    def losses(self) -> dict[NodeId, int]:
        """Replicas each node gives up; nodes that give up none are absent."""
        return dict(Counter(move.source for move in self.moves if move.source is not None))

    def rounds(self) -> tuple[tuple[ReplicaMove, ...], ...]:
        """The moves in rounds: round k holds the k-th move of each shard that has so many."""
        rounds: list[list[ReplicaMove]] = []
        seen: Counter[int] = Counter()
        for move in self.moves:
            if seen[move.shard] == len(rounds):
                rounds.append([])
            rounds[seen[move.shard]].append(move)
            seen[move.shard] += 1
        return tuple(tuple(moves) for moves in rounds)

    def rings(self) -> tuple[Ring, ...]:
        """The rings after each round, epochs rising by 1 from the old one; the last has new's table.

        A ring on the way has the members of both ends, since some still own what they will give
        up, and the greater n of both, since some shards have already, or still, more replicas.
        """
        rounds = self.rounds()
        members = _members_on_the_way(self.old, self.new)
        n = max(self.old.n, self.new.n)
        table = list(self.old.table)
        rings: list[Ring] = []
        for epoch, moves in enumerate(rounds[:-1], start=self.old.epoch + 1):
            for move in moves:
                table[move.shard] = move.applied_to(table[move.shard])
            rings.append(Ring(RingEpoch(epoch), n, members, tuple(table)))
        last = RingEpoch(self.old.epoch + max(len(rounds), 1))
        return (*rings, Ring(last, self.new.n, self.new.members, self.new.table))


def _members_on_the_way(old: Ring, new: Ring) -> tuple[RingMember, ...]:
    return sorted_members({member.id: member for member in (*old.members, *new.members)}.values())


def moves_of(
    shard: ShardId,
    before: tuple[NodeId, ...],
    after: tuple[NodeId, ...],
    zones: Mapping[NodeId, str],
) -> list[ReplicaMove]:
    """The moves of one shard, none if only the order differs.

    Replicas are added first, then exchanged, then dropped.

    Each exchange is the one that leaves the owners on the most zones; if equal, one that keeps the
    target's place in the order.
    """
    sources = [node for node in before if node not in after]
    targets = [node for node in after if node not in before]
    moves: list[ReplicaMove] = []
    owners = before
    while targets:
        candidates = sources if len(sources) >= len(targets) else [None]
        options = [ReplicaMove(shard, s, t) for t in targets for s in candidates]
        move = max(options, key=lambda option: _merit(option, owners, after, zones))
        owners = move.applied_to(owners)
        targets = [node for node in targets if node != move.target]
        sources = [node for node in sources if node != move.source]
        moves.append(move)
    return [*moves, *(ReplicaMove(shard, source, None) for source in sources)]


def _merit(
    move: ReplicaMove,
    owners: tuple[NodeId, ...],
    after: tuple[NodeId, ...],
    zones: Mapping[NodeId, str],
) -> tuple[int, bool]:
    result = move.applied_to(owners)
    assert move.target is not None
    in_place = result.index(move.target) == after.index(move.target)
    return len({zones[node] for node in result}), in_place
