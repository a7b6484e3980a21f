"""When managers stand for election: within the interval, never two of them close to one another."""

import itertools

import pytest
from pysyncobj import SyncObj

from cluster.consensus_election import election_seconds
from cluster.consensus_raft import RaftNode

LOW, HIGH = 0.25, 0.5
#: What a vote request takes: a tick of 20 ms, an fsync, a hop.
VOTE_SECONDS = 0.03


@pytest.mark.parametrize(("managers", "lead"), [(1, 0.0), (3, 2 * VOTE_SECONDS), (5, VOTE_SECONDS)])
@pytest.mark.parametrize("term", range(12))
def test_each_has_a_lead_over_the_next_in_every_term(managers: int, lead: float, term: int) -> None:
    """The latest of one slot against the earliest of the next, whoever has them."""
    ends = sorted(
        [election_seconds(LOW, HIGH, rank, managers, term, lot) for lot in (0.0, 1.0)]
        for rank in range(managers)
    )

    assert all(LOW <= first <= last < HIGH for first, last in ends)
    assert all(second[0] - first[1] >= lead for first, second in itertools.pairwise(ends))


def test_each_is_first_in_turn() -> None:
    """One that cannot win, for want of entries, holds up the others in one term of three alone."""
    first = [
        min(range(3), key=lambda rank: election_seconds(LOW, HIGH, rank, 3, term, 0.5))
        for term in range(6)
    ]

    assert sorted(first[:3]) == [0, 1, 2]
    assert first[:3] == first[3:]


def test_pysyncobj_asks_for_the_time_by_the_name_that_is_replaced() -> None:
    """A private name: another version may have another."""
    name = "_SyncObj__generateRaftTimeout"

    assert callable(getattr(SyncObj, name))
    assert getattr(RaftNode, name) is not getattr(SyncObj, name)
