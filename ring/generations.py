"""Generations of a split: which factor holds for which rows, for ever.

A service that is split over more shards begins a new *generation*. What began under an older one stays
where it is, with all that its owners know of it: a producer's epoch carries its generation (epochs issued
under g lie in [g * EPOCHS_OF_A_GENERATION, (g + 1) * EPOCHS_OF_A_GENERATION)), so the shard of a numbered
row is a pure function of (tenant, service, producer, epoch, generations), and no later one changes it.
Generation 0 has factor 1: each service begins whole on its home shard.

Factors only grow, so the shards of an older generation are among those of a newer one. Pure.
"""

from collections.abc import Sequence
from typing import NamedTuple

#: Epochs of one generation. Part of what places rows: never change it.
EPOCHS_OF_A_GENERATION = 1 << 20
#: Generations of one service. The greatest epoch is 2^26: JSON readers keep it exactly (2^53).
MAX_GENERATIONS = 64


class Generation(NamedTuple):
    """`factor`: over how many shards; `at_micros`: when it began, by the clock of who proposed it."""

    factor: int
    at_micros: int


#: Of a service that was never split.
UNSPLIT = (Generation(1, 0),)


def generation_of(epoch: int) -> int:
    """The generation that a producer's epoch was issued under."""
    return epoch // EPOCHS_OF_A_GENERATION


def next_epoch(newest: int, generation: int) -> int | None:
    """The epoch to issue after `newest` under `generation`; None: an epoch of a later one is there.

    Epoch 1 is the one that producers begin with unasked, so 2 is the first to be issued.
    """
    found = max(newest + 1, 2, generation * EPOCHS_OF_A_GENERATION)
    return found if generation_of(found) == generation else None


def highest_factor(generations: Sequence[Generation]) -> int:
    """Over how many shards rows may lie: what a read asks."""
    return max(one.factor for one in generations)


def begun_before(generations: Sequence[Generation], micros: int) -> int:
    """The generation in force just before `micros`."""
    return max(0, sum(one.at_micros < micros for one in generations[1:]))
