"""Acked rows that are kept for a while, so that they can be sent again when somebody asks. Pure.

Bounded in bytes and in age, the oldest go first; what goes can no longer be replayed, and is then said to
be gone. Rows are kept by whole groups, as they were written.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import islice, takewhile

from .groups import Group

#: Bytes that a group of its own takes in memory, whatever its rows: a row a group is the usual case.
GROUP_COST = 400


class KeptGroups:
    """Groups of acked rows, ascending by seq. Times are seconds of one monotonic clock.

    `bytes_max` bounds rows and what keeping track of them takes (GROUP_COST each).
    """

    def __init__(self, bytes_max: int, seconds_max: float) -> None:
        self._bytes_max = bytes_max
        self._seconds_max = seconds_max
        self._groups: deque[tuple[float, Group]] = deque()
        #: Bytes of all kept rows.
        self.size_bytes = 0

    def add(self, group: Group, now: float) -> None:
        """Keeps one more, of higher seqs than all before."""
        self._groups.append((now, group))
        self.size_bytes += group.size_bytes

    def evict(self, now: float) -> list[Group]:
        """Takes out what is too much or too old."""
        gone: list[Group] = []
        while self._groups:
            since, group = self._groups[0]
            if self._cost() <= self._bytes_max and now - since <= self._seconds_max:
                break
            self._groups.popleft()
            self.size_bytes -= group.size_bytes
            gone.append(group)
        return gone

    def _cost(self) -> int:
        return self.size_bytes + GROUP_COST * len(self._groups)

    def groups(self) -> list[Group]:
        """All that is kept, ascending."""
        return [group for _, group in self._groups]

    def within(self, first: int, last: int) -> list[Group]:
        """What is kept of the seqs first..last, ascending."""
        at = bisect_left(self._groups, first, key=lambda one: one[1].last)
        later = (group for _, group in islice(self._groups, at, None))
        return list(takewhile(lambda group: group.first <= last, later))

    def drop(self, group: Group) -> bool:
        """Takes one out that is damaged; False if it is not kept."""
        for at, (_, held) in enumerate(self._groups):
            if held is group:
                del self._groups[at]
                self.size_bytes -= group.size_bytes
                return True
        return False

    def clear(self) -> None:
        """Keeps nothing any more."""
        self._groups.clear()
        self.size_bytes = 0
