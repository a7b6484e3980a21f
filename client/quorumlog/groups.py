"""Rows that were written together, and what can be done to them. Pure.

Invariant: the rows of a group have consecutive seqs, and lists of groups are sorted by seq.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .ranges import Range
from .rows import renumber

#: Rows and bytes of one group at most: bounds what one read back from disk costs.
GROUP_ROWS_MAX = 5000
GROUP_BYTES_MAX = 4 << 20


@dataclass(slots=True)
class Group:
    """Rows with consecutive seqs that were written in one frame.

    `rows` is None when they are only on disk, in the frame of `length` bytes at `offset`.
    """

    first: int
    count: int
    size_bytes: int
    rows: list[bytes] | None
    offset: int = -1
    length: int = 0

    @property
    def last(self) -> int:
        """The seq of the last row."""
        return self.first + self.count - 1


def group_of(first: int, rows: list[bytes], offset: int = -1, length: int = 0) -> Group:
    """A group of `rows` in memory."""
    return Group(first, len(rows), sum(map(len, rows)), rows, offset, length)


def find(groups: Sequence[Group], seq: int) -> int:
    """Index of the group that holds `seq`, or -1."""
    at = bisect_right(groups, seq, key=lambda group: group.first) - 1
    return at if at >= 0 and groups[at].last >= seq else -1


def parts_within(first: int, rows: list[bytes], keep: Sequence[Range]) -> Iterator[Group]:
    """What the ranges `keep` leave of the rows from `first`."""
    last = first + len(rows) - 1
    for low, high in keep:
        low, high = max(low, first), min(high, last)
        if low <= high:
            yield group_of(low, rows[low - first : high - first + 1])


def renumbered(rows: Sequence[bytes], first: int) -> list[bytes]:
    """The rows with consecutive seqs from `first`."""
    return [renumber(row, first + at) for at, row in enumerate(rows)]


def head(rows: list[bytes]) -> list[bytes]:
    """As many of the first rows as fit into one group; at least one if there is one."""
    size = 0
    for count, row in enumerate(rows[:GROUP_ROWS_MAX]):
        size += len(row)
        if size > GROUP_BYTES_MAX and count:
            return rows[:count]
    return rows[:GROUP_ROWS_MAX]
