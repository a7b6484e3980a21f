"""The write path's numbers. Parts (clock, replicas, threads) are constructor arguments, not settings."""

from dataclasses import dataclass

from records.errors import InvalidSettings
from records.row_filters import MODES


@dataclass(frozen=True, slots=True)
class WriteSettings:
    """Bounds and times of the way from a batch to its acknowledgement."""

    #: Rows at which a gathering block is written although others are still under way. More rows
    #: share one encode and one fsync, fewer wait less. From: design.md, "20k rows or more".
    block_target_rows: int = 20_000
    #: Rows and Arrow bytes that several requests together may bring into one block.
    block_max_rows: int = 65_536
    block_max_bytes: int = 16 << 20
    #: Filters of words and ids in the sidecar, with which searches skip row groups: "auto" builds
    #: what is cheap (words only by the native kernel), "on" all, "off" none. From: docs/adr/0012.
    filters: str = "auto"
    #: Seconds that rows gather at most while other blocks of the same owners are under way.
    linger_seconds: float = 0.05
    #: Blocks of one set of owners under way at once, so that encode, send and fsync overlap.
    blocks_in_flight: int = 4
    #: Seconds of one try to put a block on one owner; then the same bytes are sent again.
    put_timeout_seconds: float = 2.0
    #: Pause before an owner that failed is tried again: doubled from first to max, with jitter.
    backoff_first_seconds: float = 0.05
    backoff_max_seconds: float = 1.0
    #: Bytes under way to one owner; beyond, it waits its turn while the others make up the quorum.
    owner_bytes_in_flight: int = 64 << 20
    #: Seconds to hold a request that too many full disks stand against, before 507.
    disk_full_hold_seconds: float = 1.0
    #: Bytes (decoded bodies) and requests admitted at once; beyond, 429.
    admitted_bytes: int = 256 << 20
    admitted_requests: int = 2_000
    #: Arrow bytes of rows that wait or are being written; beyond, 429. Covers callers that left.
    pending_bytes: int = 512 << 20
    #: Producers whose ack arithmetic is kept; the one longest unused is forgotten and recovered anew.
    producers_remembered: int = 50_000
    #: Seconds that a recovering producer waits for the owners beyond the N-W+1 it needs.
    recovery_grace_seconds: float = 0.05
    #: Replay requests open at once on one node, and finished ones that it remembers; gaps beyond the
    #: first are counted and stay visible at `/logs/replay` of their producer. About 1 kB each.
    replay_open_max: int = 10_000
    replay_finished_max: int = 1_000
    #: Seconds without progress until a replay request expires. The gap stays: only rows or a skip end it.
    replay_age_seconds: float = 3_600.0
    #: Seconds between two looks for gaps of producers that are silent, or came with a new shard.
    replay_look_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if name != "filters" and getattr(self, name) <= 0:
                raise InvalidSettings(f"[write] {name} must be positive")
        if self.filters not in MODES:
            raise InvalidSettings(f"[write] filters must be one of {', '.join(MODES)}")
        if self.block_target_rows > self.block_max_rows:
            raise InvalidSettings("[write] block_target_rows exceeds block_max_rows")
