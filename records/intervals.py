"""SeqIntervals: the set of sequence numbers present, as sorted, disjoint, closed intervals.

The ack arithmetic and the replicas' dedupe stand on it: `ackTill` is the end of the interval that
starts at 1, `missing` are the gaps below the largest. Adding is O(log n) plus what it merges.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from sortedcontainers import SortedDict

Span = tuple[int, int]


class SeqIntervals:
    """A mutable set of positive ints. Invariant: spans are disjoint and not adjacent."""

    __slots__ = ("_ends",)

    def __init__(self, spans: Iterable[Iterable[int]] = ()) -> None:
        self._ends: Any = SortedDict()
        for first, last in spans:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Adds first..last, both included."""
        if not 1 <= first <= last:
            raise ValueError(f"not a span of sequences: {first}..{last}")
        ends = self._ends
        index = ends.bisect_right(first) - 1
        if index >= 0 and ends.peekitem(index)[1] >= first - 1:
            start, end = ends.peekitem(index)
            first, last = start, max(last, end)
            del ends[start]
        while True:
            index = ends.bisect_left(first)
            if index == len(ends) or ends.peekitem(index)[0] > last + 1:
                break
            _, end = ends.popitem(index)
            last = max(last, end)
        ends[first] = last

    def update(self, spans: Iterable[Iterable[int]]) -> None:
        """Adds each span."""
        for first, last in spans:
            self.add(first, last)

    def overlap(self, first: int, last: int) -> list[Span]:
        """The parts of first..last that are present, ascending."""
        ends = self._ends
        index = max(ends.bisect_right(first) - 1, 0)
        found: list[Span] = []
        while index < len(ends):
            start, end = ends.peekitem(index)
            if start > last:
                break
            if end >= first:
                found.append((max(start, first), min(end, last)))
            index += 1
        return found

    def gaps(self, first: int, last: int) -> list[Span]:
        """The parts of first..last that are absent, ascending."""
        found: list[Span] = []
        at = first
        for start, end in self.overlap(first, last):
            if start > at:
                found.append((at, start - 1))
            at = end + 1
        if at <= last:
            found.append((at, last))
        return found

    @property
    def contiguous_end(self) -> int:
        """The largest k with all of 1..k present; 0 if 1 is absent."""
        return self._ends.get(1, 0)

    @property
    def largest(self) -> int:
        """The largest sequence present; 0 if none."""
        return self._ends.peekitem(-1)[1] if self._ends else 0

    def spans(self) -> list[Span]:
        """All spans, ascending."""
        return list(self._ends.items())

    def copy(self) -> "SeqIntervals":
        """An independent copy."""
        twin = SeqIntervals()
        twin._ends = self._ends.copy()
        return twin

    def __len__(self) -> int:
        return sum(end - start + 1 for start, end in self._ends.items())

    def __contains__(self, seq: object) -> bool:
        return isinstance(seq, int) and bool(self.overlap(seq, seq))

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeqIntervals) and self._ends == other._ends

    def __hash__(self) -> int:
        raise TypeError("SeqIntervals is mutable")

    def __repr__(self) -> str:
        return f"SeqIntervals({self.spans()})"


def counted_at_least(sets: list[SeqIntervals], needed: int) -> SeqIntervals:
    """The sequences that are present in at least `needed` of `sets`: one sweep over all span ends."""
    edges: list[tuple[int, int]] = []
    for one in sets:
        for start, end in one:
            edges.append((start, 1))
            edges.append((end + 1, -1))
    edges.sort()
    result, depth, opened = SeqIntervals(), 0, 0
    for at, step in edges:
        before, depth = depth, depth + step
        if before < needed <= depth:
            opened = at
        elif depth < needed <= before and at > opened:
            result.add(opened, at - 1)
    return result
