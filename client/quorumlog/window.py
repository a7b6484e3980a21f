"""What a producer knows of its rows: acked, stored, on the way, still to send. Pure.

Invariant: a row leaves the buffer only at or below `ack_till`; it counts as settled when the server
said that it is durable: at or below `ackTill`, or in a request answered 200 and not listed as
missing. `ack_till` never falls.

A server that answers less than it told us before (it never should) is not believed downwards: the
prefix that we know settled is used instead, and the difference is reported as `unfillable`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .ranges import Range, Ranges


@dataclass(frozen=True, slots=True)
class Progress:
    """What one answer changed."""

    #: The new position up to which rows may leave the buffer.
    ack_till: int
    #: Rows of this very request that the server still calls missing: send again after a pause.
    again: bool
    #: Ranges the server misses that were acked before and are gone from the buffer.
    unfillable: tuple[Range, ...]


class AckWindow:
    """The seqs of one producer epoch. `recovered_till` is the last seq found in the buffer."""

    def __init__(self, ack_till: int, recovered_till: int) -> None:
        self.ack_till = ack_till
        self.highest_sent = max(ack_till, recovered_till)
        self._stored = Ranges()
        self._in_flight = Ranges()
        self._holes = Ranges()

    @property
    def settled_till(self) -> int:
        """All rows up to here are durable on a quorum, or skipped on purpose."""
        return self._stored.run_end(self.ack_till)

    @property
    def in_flight(self) -> int:
        """How many rows are in requests without an answer."""
        return len(self._in_flight)

    def next_range(self, available_till: int, rows_max: int) -> Range | None:
        """The lowest rows to send: not settled, not on the way, at most `rows_max`."""
        busy = Ranges([*self._stored, *self._in_flight, *self._holes])
        gap = busy.gap_from(self.ack_till + 1, available_till)
        if gap is None:
            return None
        return gap[0], min(gap[1], gap[0] + rows_max - 1)

    def start(self, first: int, last: int) -> None:
        """These rows are in a request now."""
        self._in_flight.add(first, last)
        self.highest_sent = max(self.highest_sent, last)

    def stop(self, first: int, last: int) -> None:
        """The request ended, with or without an answer."""
        self._in_flight.remove(first, last)

    def add_hole(self, first: int, last: int) -> None:
        """These seqs have no row and wait to be declared skipped."""
        self._holes.add(first, last)

    def is_foreign(self, ack_till: int, missing: Sequence[Range]) -> bool:
        """True if the server knows seqs that this buffer never sent: the name was used before."""
        highest = max([ack_till, *(last for _, last in missing)])
        return highest > self.highest_sent

    def not_acked_since(self, told: int, missing: Sequence[Range]) -> tuple[Range, ...]:
        """`missing` of an answer to what was sent at `ack_till` = `told`, without what was acked since.

        Answers overtake one another: one that was made before another's `ackTill` calls rows missing
        that are durable by now. To believe it would mean to send them again, or, if they are gone from
        the buffer, to declare stored rows as lost.
        """
        if self.ack_till <= told or not missing:
            return tuple(missing)
        left = Ranges(missing)
        left.remove(told + 1, self.ack_till)
        return tuple(left)

    def on_stored(self, first: int, last: int) -> None:
        """These rows are durable (or refused for good), whatever the server's `ackTill` says."""
        self._stored.add(first, last)
        self._holes.remove(first, last)

    def on_ack(self, request: Range, ack_till: int, missing: Sequence[Range]) -> Progress:
        """Takes over `ackTill` and `missing` of an answer to `request`, after `on_stored`."""
        first, last = request
        again = False
        unfillable: list[Range] = []
        for low, high in missing:
            self._stored.remove(low, high)
            again = again or (low <= last and first <= high)
            if low <= self.ack_till:
                unfillable.append((low, min(high, self.ack_till)))
        believed = ack_till if ack_till >= self.ack_till else self.settled_till
        self.ack_till = max(self.ack_till, believed)
        self._stored.remove(0, self.ack_till)
        return Progress(self.ack_till, again, tuple(unfillable))

    def unsettled(self, till: int) -> list[Range]:
        """The ranges up to `till` without a promise from the server."""
        return self._stored.gaps(self.ack_till + 1, till)
