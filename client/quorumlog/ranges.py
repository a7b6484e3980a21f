"""A set of whole numbers as closed, disjoint, sorted intervals. Pure.

Small by nature (gaps are few), so plain lists and a scan are enough.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]


class Ranges:
    """Closed intervals `[first, last]`; neighbours are joined."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges: list[Range] = []
        for first, last in ranges:
            self.add(first, last)

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __len__(self) -> int:
        """How many numbers are in the set."""
        return sum(last - first + 1 for first, last in self._ranges)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._ranges, (number, 1 << 64)) - 1
        return at >= 0 and self._ranges[at][1] >= number

    def add(self, first: int, last: int) -> None:
        """Adds `[first, last]`; an empty range adds nothing."""
        if last < first:
            return
        kept: list[Range] = []
        for low, high in self._ranges:
            if high + 1 < first or last + 1 < low:
                kept.append((low, high))
            else:
                first, last = min(first, low), max(last, high)
        kept.append((first, last))
        kept.sort()
        self._ranges = kept

    def remove(self, first: int, last: int) -> None:
        """Takes `[first, last]` out; an empty range takes nothing."""
        if last < first:
            return
        kept: list[Range] = []
        for low, high in self._ranges:
            if high < first or last < low:
                kept.append((low, high))
                continue
            if low < first:
                kept.append((low, first - 1))
            if last < high:
                kept.append((last + 1, high))
        self._ranges = kept

    def gap_from(self, start: int, end: int) -> Range | None:
        """The first maximal run in `[start, end]` that is not in the set."""
        for low, high in self._ranges:
            if high < start:
                continue
            if low > start:
                return (start, min(low - 1, end)) if start <= end else None
            start = high + 1
        return (start, end) if start <= end else None

    def gaps(self, start: int, end: int) -> list[Range]:
        """All maximal runs in `[start, end]` that are not in the set."""
        found: list[Range] = []
        while (gap := self.gap_from(start, end)) is not None:
            found.append(gap)
            start = gap[1] + 1
        return found

    def run_end(self, start: int) -> int:
        """The last number of the run that follows `start` without a gap (`start` if none does)."""
        for low, high in self._ranges:
            if low <= start + 1 <= high:
                return high
        return start
