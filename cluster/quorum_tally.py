"""The counting rule of one quorum operation, and nothing else.

An operation succeeds when each group of members has as many acks as it needs. There is one group as a
rule; while a shard moves there are two, the owners of the old ring epoch and of the new, and both must
agree. A member that refuses for good counts no more; if it acks after all, the ack stands.

Invariant: success never turns into anything else, whatever arrives later. Hints are not acks.
Source: DeCandia et al., "Dynamo" (SOSP 2007), section 4.5; the two groups are Raft's joint consensus.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Group:
    """Members of which `needed` must ack."""

    members: frozenset[str]
    needed: int

    def __post_init__(self) -> None:
        if self.needed < 1:
            raise ValueError(f"a quorum of {self.needed} decides nothing")


class QuorumTally:
    """Acks and refusals of one operation, by member."""

    __slots__ = ("_held", "_refused", "groups")

    def __init__(self, groups: Iterable[Group]) -> None:
        self.groups = tuple(groups)
        self._held: dict[str, int] = {}
        self._refused: set[str] = set()

    @classmethod
    def over(cls, members: Iterable[str], needed: int) -> "QuorumTally":
        """A tally of one group."""
        return cls((Group(frozenset(members), needed),))

    def ack(self, member: str, held: int = 0) -> None:
        """`member` has done it. `held`: how much of it the member had before (rows, for a put)."""
        self._held[member] = held
        self._refused.discard(member)

    def refuse(self, member: str) -> None:
        """`member` will not do it in this operation."""
        if member not in self._held:
            self._refused.add(member)

    @property
    def acked(self) -> frozenset[str]:
        """Who has acked."""
        return frozenset(self._held)

    @property
    def acks(self) -> int:
        """Acks of the group that has the fewest."""
        return min((len(self._acked_of(group)) for group in self.groups), default=0)

    @property
    def needed(self) -> int:
        """Acks still wanting in the group that wants the most; 0 after success."""
        return max((max(0, g.needed - len(self._acked_of(g))) for g in self.groups), default=0)

    @property
    def success(self) -> bool:
        """Whether each group has what it needs."""
        return all(len(self._acked_of(group)) >= group.needed for group in self.groups)

    @property
    def impossible(self) -> bool:
        """Whether refusals leave some group too small, ever."""
        return any(len(group.members - self._refused) < group.needed for group in self.groups)

    @property
    def refused_by_all(self) -> bool:
        """Whether every member has refused: none has done it, and none is still to answer."""
        return all(group.members <= self._refused - self._held.keys() for group in self.groups)

    def held_before(self, members: int) -> int:
        """How much at least `members` of each group held before the operation."""
        return min((self._held_of(group, members) for group in self.groups), default=0)

    def _acked_of(self, group: Group) -> frozenset[str]:
        return group.members & self._held.keys()

    def _held_of(self, group: Group, members: int) -> int:
        amounts = sorted((self._held[one] for one in self._acked_of(group)), reverse=True)
        return amounts[members - 1] if len(amounts) >= members else 0
