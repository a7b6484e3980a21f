"""Preference lists: the ordered replicas of a shard.

The *primaries* are the shard's owners, on distinct members and as many zones as there are; then
come the *fallbacks*, all other members with weight, that keep hints while a primary is down. The
order is a pure function of (ring, shard), so members at one epoch agree without talking. Whether a
member is up is not decided here; see cluster.membership. A hint never counts as a replica.

Source: DeCandia et al., "Dynamo" (SOSP 2007), sections 4.3 and 4.6.
"""

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass

from records.ids import NodeId, ShardId
from ring.hashing import affinity
from ring.ring import Ring


@dataclass(frozen=True, slots=True)
class PreferenceList:
    """Who holds a shard, best first, and who keeps hints for it; no node is in both or twice."""

    shard: ShardId
    primaries: tuple[NodeId, ...]
    fallbacks: tuple[NodeId, ...]

    def __post_init__(self) -> None:
        assert len({*self.primaries, *self.fallbacks}) == len(self), f"a node twice: {self}"

    def __len__(self) -> int:
        return len(self.primaries) + len(self.fallbacks)

    def __iter__(self) -> Iterator[NodeId]:
        yield from self.primaries
        yield from self.fallbacks

    def stand_ins(self, down: Container[str]) -> dict[NodeId, NodeId]:
        """For each primary in `down` the fallback that keeps its hints, in order, each used once.

        Primaries for which no living fallback is left are absent from the answer: their hints stay
        with the coordinator's caller, and anti-entropy has to bring them up to date.
        """
        living = (node for node in self.fallbacks if node not in down)
        absent = (node for node in self.primaries if node in down)
        return dict(zip(absent, living, strict=False))


def preference_list(ring: Ring, shard: int) -> PreferenceList:
    """The shard's preference list at this ring's epoch.

    Fallbacks go round the zones, those with the fewest members in the list so far first, so that a
    hint is not kept in the zone that just failed; within that, by affinity of shard and node.
    Cost: O(members^2) small steps; keep it with the ring.
    """
    owners = ring.owners(shard)
    zones = ring.zones
    liking = {
        NodeId(member.id): affinity("fallback", str(shard), member.id)
        for member in ring.members
        if member.weight > 0 and member.id not in owners
    }
    used = Counter(zones[owner] for owner in owners)
    fallbacks: list[NodeId] = []
    while liking:
        best = min(liking, key=lambda node: (used[zones[node]], -liking[node], node))
        used[zones[best]] += 1
        fallbacks.append(best)
        del liking[best]
    return PreferenceList(ShardId(shard), owners, tuple(fallbacks))


def preference_lists(ring: Ring) -> tuple[PreferenceList, ...]:
    """The preference list of every shard, by shard."""
    return tuple(preference_list(ring, shard) for shard in range(ring.shard_count))
