"""How long a manager waits for its leader: each in a slot of its own, so that one of them is first. Pure.

Raft draws this time by lot. Two managers whose times end within what a vote request takes (a tick, an
fsync, a hop: about 30 ms) both stand, neither is elected, and all wait once more: with two left and 250 ms
to draw from, 23 of 100 times. Here the interval is cut into as many slots as there are managers, and each
draws from the first quarter of its slot. Slots go round with the term, so that nobody is always first:
one with a shorter log cannot win, only hold up the others for a slot.

Safety does not rest on these times (Ongaro's thesis, 3.9); the interval is the one of the settings.
"""

#: Share of a slot from which a time is drawn; the rest is the lead that each has over the next.
JITTER = 0.25


def election_seconds(
    low: float, high: float, rank: int, managers: int, term: int, lot: float
) -> float:
    """Seconds without a word of the leader after which the manager of this rank stands for election.

    `lot` in 0..1 is drawn for each call. All managers of a group know the same ranks.
    """
    slot = (rank + term) % managers
    return low + (high - low) * (slot + JITTER * lot) / managers
