"""Positions on the hash ring, and half-open arcs of it.

The ring has 2^64 positions, and after the last comes 0 again. An arc `[start, end)` with
`end <= start` passes through 0; with `end == start` it is the whole ring, so no arc is empty.
"""

from dataclasses import dataclass
from typing import NewType

Token = NewType("Token", int)

TOKEN_BITS = 64
RING_SIZE = 1 << TOKEN_BITS


@dataclass(frozen=True, slots=True, order=True)
class TokenRange:
    """The half-open arc from `start` up to, not including, `end`; both in 0..2^64-1."""

    start: Token
    end: Token

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", self.end)):
            if not 0 <= value < RING_SIZE:
                raise ValueError(f"{name} must be in 0..2^64-1, got {value}")

    def __contains__(self, token: int) -> bool:
        if self.start < self.end:
            return self.start <= token < self.end
        return token >= self.start or token < self.end

    @property
    def width(self) -> int:
        """How many tokens the arc holds, 1..2^64."""
        return (self.end - self.start) % RING_SIZE or RING_SIZE
