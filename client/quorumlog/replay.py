"""What a producer was asked to send again, and what of that is next. Pure.

A request has the server's id and ranges of seqs; GAP stands for rows that the server misses although it
had acknowledged them. Each answer of the server repeats what it still waits for, so nothing is remembered
beyond that: what was sent and still is waited for is sent again, ROUNDS times, and then left alone; what
was never sent goes out all the same. At most REQUESTS are under way; what does not fit comes again with a
later answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .ranges import Range, Ranges

#: The id of what the server misses below `ackTill`.
GAP = ""
REQUESTS = 16
ROUNDS = 5


@dataclass(slots=True)
class _Request:
    waiting: Ranges = field(default_factory=Ranges)
    busy: bool = False
    rounds: int = 0
    sent: Ranges = field(default_factory=Ranges)


class ReplayPlan:
    """The requests under way. One chunk of a request is out at a time."""

    def __init__(self) -> None:
        self._requests: dict[str, _Request] = {}

    def ask(self, name: str, ranges: Iterable[Range]) -> None:
        """The server waits for `ranges`. Ignored while earlier ones of this request are under way."""
        wanted = Ranges(ranges)
        known = self._requests.get(name)
        if known is not None and (known.busy or known.waiting):
            return
        if known is None:
            if not wanted or not self._room():
                return
            known = self._requests[name] = _Request()
        fresh = Ranges(wanted)
        for first, last in known.sent:
            fresh.remove(first, last)
        if len(fresh) == len(wanted):
            known.rounds, known.sent = 0, Ranges()  # nothing of it was sent before
        if known.rounds < ROUNDS:
            known.rounds += 1
            known.waiting = wanted
        else:
            known.waiting = fresh

    def _room(self) -> bool:
        if len(self._requests) < REQUESTS:
            return True
        idle = [name for name, one in self._requests.items() if not one.busy and not one.waiting]
        for name in idle[:1]:
            del self._requests[name]
        return bool(idle)

    def next(self, rows_max: int) -> tuple[str, Range] | None:
        """The next rows to send, at most `rows_max` seqs; call `done` for them afterwards."""
        for name, one in self._requests.items():
            for first, last in one.waiting:
                if not one.busy:
                    one.busy = True
                    return name, (first, min(last, first + rows_max - 1))
        return None

    def done(self, name: str, first: int, last: int) -> None:
        """These seqs were sent, or are known to be gone."""
        one = self._requests.get(name)
        if one is not None:
            one.busy = False
            one.waiting.remove(first, last)
            one.sent.add(first, last)

    def put_back(self, name: str) -> None:
        """A chunk failed: it stays to be sent."""
        one = self._requests.get(name)
        if one is not None:
            one.busy = False

    def clear(self) -> None:
        """A new epoch: what was asked was about the one before."""
        self._requests.clear()
