"""Clock: the only way to the time.

`monotonic` measures durations, `boottime` also counts suspended time (leases use it: a node that slept
must notice), `wall_micros` stamps rows. No decision about what survives rests on the wall clock.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Three times and a sleep."""

    def monotonic(self) -> float:
        """Seconds; never goes back."""
        ...

    def boottime(self) -> float:
        """Seconds since boot, suspended time included."""
        ...

    def wall_micros(self) -> int:
        """Microseconds since 1970 UTC; may jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds`."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Seconds; never goes back."""
        return time.monotonic()

    def boottime(self) -> float:
        """Seconds since boot, suspended time included (monotonic where there is no such clock)."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    def wall_micros(self) -> int:
        """Microseconds since 1970 UTC."""
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds`."""
        await asyncio.sleep(seconds)
