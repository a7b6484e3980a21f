"""Settings of a storage node: documented numbers."""

from dataclasses import dataclass

from records.errors import InvalidSettings

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """One node's disk and memory."""

    #: Bytes preallocated for a log file. More means fewer files, less wastes less on a small disk.
    log_file_bytes: int = 64 * _MIB
    #: Bytes that may wait for the log; beyond it puts get 429. At 200 MB/s this is about a second.
    waiting_bytes_max: int = 256 * _MIB
    #: Seconds without an append until a commit record marks the durable end (one more fdatasync).
    idle_seconds: float = 0.1
    #: Bytes of decoded columns kept in memory. More answers repeated scans faster.
    cache_bytes: int = 192 * _MIB
    #: Bytes of blocks' filters kept in memory: 1 to 3 bytes a row. Of the oldest blocks beyond it a search
    #: reads what it needs from disk, 64 bytes of each row group's filter.
    filter_bytes: int = 192 * _MIB
    #: Free bytes of the file system below which the node is read-only (507).
    disk_floor_bytes: int = 512 * _MIB
    #: Free bytes above the floor at which it writes again; keeps it from flapping.
    disk_hysteresis_bytes: int = 128 * _MIB
    #: Seconds between looks at the free space.
    disk_interval_seconds: float = 1.0
    #: Seconds between writes of the catalog. More means a longer log tail to read at start.
    catalog_interval_seconds: float = 0.5
    #: Share of one core that reads filters and counts of stored blocks ahead, after a start and while few
    #: rows come, the newest first: about 0.5 ms a block. 0: the first questions read them.
    warm_cpu_share: float = 0.25
    #: Threads for scans and fetches.
    workers: int = 2
    #: Scans that may run or wait; beyond it they get 429. Each holds a byte per entry of the node.
    scans_max: int = 64
    #: Groups of one fold; beyond it the answer is cut and says so.
    max_groups: int = 100_000
    #: Values that quantiles and distinct counts of one fold may carry.
    max_values: int = 2_000_000
    #: Bytes of one scan's rows; beyond it the answer is cut and says so.
    max_scan_bytes: int = 16 * _MIB
    #: Bytes of one fetch; the caller asks again for the rest.
    max_fetch_bytes: int = 32 * _MIB
    #: Whether small blocks are merged into segments.
    compact: bool = True
    #: Rows below which a block of the log is merged with others; bigger ones stay as they are.
    compact_below_rows: int = 16_384
    #: Rows of a segment that is merged no more. More means fewer pieces for a scan to open, and more
    #: to read where little of one is wanted.
    segment_rows: int = 131_072
    #: Bytes of blocks that one merge reads, and half of which ends a segment's growth.
    segment_bytes: int = 16 * _MIB
    #: Share of one core that merging may take; ingest has the rest.
    compact_cpu_share: float = 0.2
    #: Seconds between two looks for small blocks.
    compact_interval_seconds: float = 0.25
    #: Bytes of hints kept for each owner that is away, 16 for each entry it missed; 0: no hints are kept.
    #: More bridges a longer absence; what is dropped is left to anti-entropy.
    hint_bytes_max: int = 64 * _MIB
    #: Seconds after which a hint is dropped. Longer absences are anti-entropy's: one comparison then costs
    #: less than names of all that was missed.
    hint_age_seconds_max: float = 3 * 3600.0
    #: Share of the time in which hints are delivered to one owner that is back, and so of the bandwidth.
    handoff_share: float = 0.25
    #: Seconds in which everything stored is read back and its checksums verified; 0: never.
    scrub_period_seconds: float = 24 * 3600.0
    #: Share of one core, and bytes a second, that reading back may take.
    scrub_cpu_share: float = 0.05
    scrub_bytes_per_second: int = 16 * _MIB
    #: Whether a put verifies the block's checksums before it is stored (0.1 ms for 400 kB).
    verify_puts: bool = True

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not isinstance(value, bool) and value < 0:
                raise InvalidSettings(f"storage {name} must not be negative, got {value}")
        if self.workers < 1:
            raise InvalidSettings("storage workers must be at least 1")
        if not 0 < self.compact_cpu_share <= 1:
            raise InvalidSettings("storage compact_cpu_share must be in 0 .. 1")
        if self.warm_cpu_share > 1:
            raise InvalidSettings("storage warm_cpu_share must be in 0 .. 1")
        for name in ("handoff_share", "scrub_cpu_share"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidSettings(f"storage {name} must be in 0 .. 1")
        if self.scrub_bytes_per_second < 1:
            raise InvalidSettings("storage scrub_bytes_per_second must be at least 1")
        if self.log_file_bytes < 4096:
            raise InvalidSettings("storage log_file_bytes must be at least 4096")
