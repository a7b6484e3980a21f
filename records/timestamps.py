"""Time as the store keeps it: int64 microseconds since 1970-01-01 UTC, half-open ranges, hours.

Finer digits live in a column of their own (`timestamp_ns`, 0..999). No clock here: "now" is an argument.
"""

from dataclasses import dataclass

MICROS_PER_SECOND = 1_000_000
MICROS_PER_MINUTE = 60 * MICROS_PER_SECOND
MICROS_PER_HOUR = 60 * MICROS_PER_MINUTE
MIN_MICROS = -(1 << 62)
MAX_MICROS = 1 << 62

#: An entry that touches more hours than this is filed under WIDE_HOUR alone, which every read of
#: its shard compares as well. More costs tree updates per entry, fewer makes stragglers "wide".
MAX_ENTRY_HOURS = 26
WIDE_HOUR = -(1 << 40)


def hour_of(micros: int) -> int:
    """Hours since the epoch, rounded down."""
    return micros // MICROS_PER_HOUR


def hours_touched(min_micros: int, max_micros: int) -> tuple[int, ...]:
    """The hours an entry is filed under in the Merkle tree; a function of its header alone."""
    first, last = hour_of(min_micros), hour_of(max_micros)
    if last - first >= MAX_ENTRY_HOURS:
        return (WIDE_HOUR,)
    return tuple(range(first, last + 1))


@dataclass(frozen=True, slots=True)
class TimeRange:
    """start <= t < end, in microseconds; the default is all of time."""

    start: int = MIN_MICROS
    end: int = MAX_MICROS

    @property
    def bounded(self) -> bool:
        """Whether both ends are given."""
        return self.start > MIN_MICROS and self.end < MAX_MICROS

    def overlaps(self, min_micros: int, max_micros: int) -> bool:
        """Whether any t in min..max (both included) lies in the range."""
        return min_micros < self.end and max_micros >= self.start

    def covers(self, min_micros: int, max_micros: int) -> bool:
        """Whether all of min..max lies in the range."""
        return self.start <= min_micros and max_micros < self.end
