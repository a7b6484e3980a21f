"""Deadline: an absolute point in monotonic time that a request must not outlive.

Made once where the request enters, then handed down; over the wire it travels as what is left, in ms.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from records.errors import DeadlineExceeded
from runtime.clock import Clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deadline:
    """`at` in the clock's monotonic seconds."""

    clock: Clock
    at: float

    @classmethod
    def after(cls, clock: Clock, seconds: float) -> "Deadline":
        """The deadline `seconds` from now."""
        return cls(clock, clock.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def expired(self) -> bool:
        """Whether nothing is left."""
        return self.clock.monotonic() >= self.at

    def clamp(self, seconds: float) -> float:
        """`seconds`, or what is left if that is less."""
        return min(seconds, self.remaining())

    def sooner(self, seconds: float) -> "Deadline":
        """The earlier of this one and `seconds` from now."""
        return Deadline(self.clock, min(self.at, self.clock.monotonic() + seconds))

    async def wait(self, work: Awaitable[T]) -> T:
        """The result of `work`, cancelled when the deadline passes.

        Raises:
            DeadlineExceeded: the outcome is unknown.
        """
        try:
            # Not wait_for: before Python 3.12 it may swallow the cancellation of its caller.
            async with asyncio.timeout(self.remaining()):
                return await work
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed") from error
