"""Clock: the only way to the time.

`monotonic` measures durations, `boottime` also counts suspended time (leases use it: a node that slept
must notice), `wall_micros` stamps rows. No decision about what survives rests on the wall clock.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
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


#: Names a file that holds microseconds to add to the wall clock: for tests of clocks that are wrong.
OFFSET_VARIABLE = "QUORUMLOG_CLOCK_OFFSET_FILE"


class OffsetClock(SystemClock):
    """A machine whose wall clock is wrong by what a file says at the moment; durations stay right."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def wall_micros(self) -> int:
        """Microseconds since 1970 UTC, off by so much; not off while there is no such file."""
        try:
            offset = int(self._path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            offset = 0
        return super().wall_micros() + offset


def clock_of(environment: Mapping[str, str]) -> SystemClock:
    """The machine's clocks, or those of a machine whose wall clock is wrong, if the environment asks."""
    path = environment.get(OFFSET_VARIABLE, "")
    return OffsetClock(Path(path)) if path else SystemClock()
