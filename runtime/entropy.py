"""Entropy: random numbers and the tails of new ids; seeded in tests."""

import random
import secrets
from typing import Protocol


class Entropy(Protocol):
    """A source of randomness."""

    def bytes(self, count: int) -> bytes:
        """`count` random bytes."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number in low..high."""
        ...


class SystemEntropy:
    """The operating system's."""

    def bytes(self, count: int) -> bytes:
        """`count` random bytes, fit for secrets."""
        return secrets.token_bytes(count)

    def uniform(self, low: float, high: float) -> float:
        """A number in low..high."""
        return secrets.SystemRandom().uniform(low, high)


class SeededEntropy:
    """The same numbers for the same seed; not for secrets."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - deterministic on purpose

    def bytes(self, count: int) -> bytes:
        """`count` bytes."""
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        """A number in low..high."""
        return self._random.uniform(low, high)
