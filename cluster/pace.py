"""Pace: so many bytes a second; and Portion: how much to ask for at once on a link of unknown speed.

Pace is a bucket of time. What comes costs what it costs, and is paid afterwards: who is in debt waits until
it is paid back. So no request is too large for it, and over any time the mean stays below the rate plus one
second's worth. Portion is pure: it is told what a request brought, and says how much the next one asks for.
"""

from dataclasses import dataclass

from runtime.clock import Clock

#: Seconds' worth that may be saved up while nothing is sent.
BURST_SECONDS = 1.0
#: Bytes per second below which a link counts as cut: what is known to take longer is given so much time.
LEAST_BYTES_PER_SECOND = 50_000
#: Bytes that a request aims at, at most: more would keep the event loop busy with one answer.
ASK_BYTES_MAX = 4 << 20
#: Seconds that one answer should take: long enough for the link to be used, short enough to learn from.
ASK_SECONDS = 2.0
#: By how much the time for one thing, which may not be split, grows at most.
_PATIENCE_MAX = 16


class Pace:
    """Waits until so many bytes may have gone. Shared by everything that may be so fast together."""

    def __init__(self, clock: Clock, bytes_per_second: float = 0.0) -> None:
        """`bytes_per_second`: where `spend` is not told another; 0: as fast as it goes."""
        self._clock, self._rate = clock, bytes_per_second
        #: When all that was spent is paid.
        self._paid_at = float("-inf")

    async def spend(self, count: int, bytes_per_second: float | None = None) -> None:
        """Returns when `count` more bytes are within the pace."""
        rate = self._rate if bytes_per_second is None else bytes_per_second
        if rate <= 0:
            return
        now = self._clock.monotonic()
        self._paid_at = max(self._paid_at, now - BURST_SECONDS) + count / rate
        if self._paid_at > now:
            await self._clock.sleep(self._paid_at - now)


@dataclass(slots=True)
class Portion:
    """How many things the next request asks for, and how long it may take. Of things of unknown size.

    Begins with one. Grows to what the link carries in ASK_SECONDS, at most `things_max` and ASK_BYTES_MAX;
    a time-out makes it a quarter, and at one thing doubles the time instead, until half is enough. So on any
    link that carries something a request comes through in the end, and one that carries nothing is given up
    soon.
    """

    call_seconds: float
    things_max: int
    things: int = 1
    patience: int = 1

    @property
    def seconds(self) -> float:
        """Within which the request must be answered."""
        return self.call_seconds * self.patience

    def came(self, things: int, size: int, seconds: float, bytes_max: int = ASK_BYTES_MAX) -> None:
        """A request brought so many things, of `size` bytes in all, within `seconds`.

        The next one asks for no more than about `bytes_max`.
        """
        if not things:
            return
        by_time = things * ASK_SECONDS / max(seconds, 1e-3)
        by_size = things * min(bytes_max, ASK_BYTES_MAX) / max(size, 1)
        self.things = max(1, int(min(by_time, by_size, 4 * things, self.things_max)))
        if 2 * seconds <= self.seconds:
            self.patience = max(1, self.patience // 2)

    def timed_out(self) -> bool:
        """A request was not answered in time; whether to ask for less at once (else: later, for longer)."""
        if self.things > 1:
            self.things = max(1, self.things // 4)
            return True
        self.patience = min(2 * self.patience, _PATIENCE_MAX)
        return False
