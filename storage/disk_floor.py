"""The free-space floor: below it a node is read-only, above it (with hysteresis) writable again. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class DiskFloor:
    """Bytes to keep free. Without the hysteresis a node near the floor would flap."""

    floor_bytes: int
    hysteresis_bytes: int
    free_bytes: int = 0
    low: bool = False

    def observe(self, free_bytes: int) -> bool:
        """Takes a measurement; whether `low` changed."""
        self.free_bytes = free_bytes
        before = self.low
        self.low = free_bytes < self.floor_bytes + (self.hysteresis_bytes if before else 0)
        return self.low != before
