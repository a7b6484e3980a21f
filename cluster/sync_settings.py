"""Settings of the repair that runs without a read."""

from dataclasses import dataclass

from records.errors import InvalidSettings


@dataclass(frozen=True, slots=True)
class RepairSettings:
    """Anti-entropy of one storage node."""

    #: Seconds between two comparisons with a peer that has the same: about 100 bytes each.
    interval_seconds: float = 5.0
    #: Most seconds until a peer is tried again that failed, or from which a difference could not be mended.
    wait_seconds_max: float = 60.0
    #: Age in seconds at which an entry is compared. Less finds a loss sooner, more takes fewer writes on
    #: their way for one.
    settled_after_seconds: float = 3.0
    #: Seconds until what lacks is looked for again; only what lacks then as well is copied.
    second_look_seconds: float = 1.0
    #: Bytes of blocks copied to this node in a second, at most.
    bytes_per_second: int = 64 << 20

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise InvalidSettings(f"repair {name} must be positive, got {getattr(self, name)}")
        if self.wait_seconds_max < self.interval_seconds:
            raise InvalidSettings("repair wait_seconds_max must not be below interval_seconds")
