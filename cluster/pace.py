"""Pace: so many bytes a second, by a token bucket that may run into debt. The bucket is pure.

What comes costs what it costs, and is paid afterwards: who is in debt waits until it is paid back. So no
request is too large for the bucket, and over any time the mean stays below rate plus burst.
"""

from runtime.clock import Clock


class TokenBucket:
    """`rate` tokens a second, at most `burst` saved up."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._at = burst, now

    def spend(self, tokens: float, now: float) -> float:
        """Takes tokens; the seconds until the bucket is out of debt."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - tokens
        self._at = now
        return max(0.0, -self._tokens / self._rate)


class Pace:
    """Waits as a token bucket says. Shared by everything that may be so fast together."""

    def __init__(self, clock: Clock, bytes_per_second: float) -> None:
        """At most a second's worth is saved up."""
        self._clock = clock
        self._bucket = TokenBucket(bytes_per_second, bytes_per_second, clock.monotonic())

    async def spend(self, count: int) -> None:
        """Returns when `count` more bytes are within the pace."""
        seconds = self._bucket.spend(count, self._clock.monotonic())
        if seconds:
            await self._clock.sleep(seconds)
