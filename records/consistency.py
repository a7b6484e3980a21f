"""How many replicas must answer: the quorum rule and the three levels a request may ask for.

Source: DeCandia et al., "Dynamo" (SOSP 2007), section 4.5.
"""

from dataclasses import dataclass

from records.errors import InvalidRequest, InvalidSettings

LEVELS = ("one", "quorum", "all")


@dataclass(frozen=True, slots=True)
class QuorumPolicy:
    """n replicas, w acks for a write, r answers for a read. A read sees each acked write if w + r > n."""

    n: int = 3
    w: int = 2
    r: int = 2

    def __post_init__(self) -> None:
        for name, value in (("n", self.n), ("w", self.w), ("r", self.r)):
            if not 1 <= value <= self.n:
                raise InvalidSettings(f"quorum {name} must be in 1..{self.n}, got {value}")
        if self.w + self.r <= self.n:
            raise InvalidSettings(f"w + r must exceed n: {self.w} + {self.r} <= {self.n}")

    def acks_needed(self, level: str | None, owners: int) -> int:
        """Acks for a write at `level` (default: w) on `owners` replicas; never less than w."""
        needed = {"one": self.w, "quorum": self.w, "all": owners, None: self.w}
        return self._level(needed, level)

    def answers_needed(self, level: str | None, owners: int) -> int:
        """Answers for a read at `level` (default: r). `one` trades completeness for speed."""
        needed = {"one": 1, "quorum": self.r, "all": owners, None: self.r}
        return self._level(needed, level)

    @staticmethod
    def _level(needed: dict[str | None, int], level: str | None) -> int:
        if level not in needed:
            raise InvalidRequest(f"consistency is one of {', '.join(LEVELS)}, not {level!r}")
        return needed[level]
