"""Which rows of the entry table were received after a moment, without reading all of its times. Pure.

Rows come in about the order in which they were received. So a pass remembers how far it went and the newest
time up to there: a later question, about a later moment, begins behind that. What claims to come from more
than RECENT_MICROS after the moment in question (a wrong clock) would spoil the mark, and is kept by number
instead. Numbers are of one generation of the table: with another one everything is looked at again.
"""

from dataclasses import dataclass

import numpy as np

from records.sync import RECENT_MICROS

#: Marks kept. Questions come from each other owner once in some seconds, each about its own moment.
MARKS_MAX = 16
#: Rows of a wrong clock that a mark keeps; with more of them there is no mark.
ODD_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Mark:
    """Of the first `count` rows all were received by `newest`, but for `odd`."""

    count: int
    newest: int
    odd: np.ndarray


class Newest:
    """The marks of one table. Use on one event loop: `begin`, then `found` from any thread."""

    def __init__(self) -> None:
        self._generation = -1
        self._marks: list[Mark] = []

    def begin(self, generation: int, until: int) -> Mark:
        """Where to begin for a question about `until`."""
        if generation != self._generation:
            self._generation, self._marks = generation, []
        usable = [one for one in self._marks if one.newest <= until]
        none = Mark(0, -(1 << 62), np.empty(0, np.int64))
        return max(usable, key=lambda one: one.count, default=none)

    def keep(self, generation: int, mark: Mark | None) -> None:
        """Remembers how far a pass went."""
        if mark is not None and generation == self._generation:
            self._marks = [*self._marks[1 - MARKS_MAX :], mark]


def received_after(received: np.ndarray, until: int, begin: Mark) -> tuple[np.ndarray, Mark | None]:
    """(numbers of the rows received in until < t <= until + RECENT_MICROS, the mark after this pass)."""
    tail = received[begin.count :]
    odd = begin.odd[received[begin.odd] <= until + RECENT_MICROS]
    odd = odd[received[odd] > until]
    fresh = np.flatnonzero(tail > until)
    times = tail[fresh]
    far = times > until + RECENT_MICROS
    numbers = np.concatenate((odd, begin.count + fresh[~far]))
    strange = np.concatenate((begin.odd, begin.count + fresh[far]))
    mark = None
    if len(strange) <= ODD_MAX:
        newest = max(begin.newest, min(until, int(tail.max(initial=begin.newest))))
        newest = max(newest, int(times[~far].max(initial=newest)))
        mark = Mark(len(received), newest, strange)
    return numbers, mark
