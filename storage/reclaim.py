"""What merging made superfluous: old segments, and log files none of whose blocks is read any more. Pure.

A log file that holds one big block among many that were merged would stay for its sake: when less than half
of a file is read, its blocks become segments, as they are, and it goes.

A log file may go once the catalog on disk is past it and places no block in it. The log must still give
back everything if the catalog is lost: blocks are in segments by then, and the other records (fences, epochs,
what producers were told) are written again at the log's end before the file is removed. They only ever
rise, so a record twice is a record once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from storage.engine import Engine
from storage.holdings import BlockPlace
from storage.log_format import Record, RecordType
from storage.wal import Position

#: Seconds between two looks for log files that can go.
_LOG_SECONDS = 10.0
_TOLD_IN_RECORD = 1000
#: Share of a log file that is still read at which its blocks are moved out of it. What is freed is then at
#: least as much as what is written; the log takes at most twice what its blocks do.
_READ_SHARE = 0.5


@dataclass(slots=True)
class Superseded:
    """Segments to remove, each not before its time, and whether the log may have useless files."""

    segments: list[tuple[float, BlockPlace]] = field(default_factory=list)
    log_dirty: bool = False
    _next_log: float = float("-inf")

    def add(self, places: Iterable[BlockPlace], not_before: float) -> None:
        """These places were merged, and the catalog that says so is durable."""
        for place in places:
            if place.file < 0:
                self.segments.append((not_before, place))
            else:
                self.log_dirty = True
        self._next_log = max(self._next_log, not_before)

    def due(self, now: float) -> list[BlockPlace]:
        """Segments to remove now."""
        found = [place for at, place in self.segments if at <= now]
        self.segments = [one for one in self.segments if one[0] > now]
        return found

    def log_due(self, now: float) -> bool:
        """Whether to look at the log files now."""
        if not self.log_dirty or now < self._next_log:
            return False
        self.log_dirty, self._next_log = False, now + _LOG_SECONDS
        return True


def log_files_to_keep(blocks: Iterable[BlockPlace], flushed: Position) -> Callable[[int], bool]:
    """Whether a log file is still needed, by its sequence."""
    used = {place.file for place in blocks if place.file > 0}
    return lambda sequence: sequence >= flushed.file or sequence in used


def blocks_to_move(
    blocks: Iterable[BlockPlace], sizes: Mapping[int, int], flushed: Position, bytes_max: int
) -> tuple[int, ...]:
    """Ordinals of big blocks that keep a log file alive the rest of which was merged; () if none does much.

    Args:
        sizes: bytes of the log files by sequence.
        bytes_max: of blocks at a time, at least one; the file goes when the last was moved.
    """
    held: dict[int, list[BlockPlace]] = defaultdict(list)
    for place in blocks:
        if 0 < place.file < flushed.file:
            held[place.file].append(place)
    read = {file: sum(place.length for place in places) for file, places in held.items()}
    wasteful = [
        file
        for file, places in held.items()
        if read[file] <= _READ_SHARE * sizes.get(file, 0) and all(place.rows for place in places)
    ]
    if not wasteful:
        return ()
    chosen, taken = [], 0
    for place in held[min(wasteful, key=lambda file: read[file])]:
        taken += place.length
        if chosen and taken > bytes_max:
            break
        chosen.append(place.ordinal)
    return tuple(chosen)


def state_records(engine: Engine) -> list[Record]:
    """Everything the log says beside blocks, as it stands now; of the ring epoch, what is known at all."""
    book = engine.holdings.producers
    records = [Record(RecordType.RING_EPOCH, engine.ring_epoch)]
    for shard, (epoch, leader) in sorted(engine.fences.items()):
        records.append(Record(RecordType.FENCE, [shard, epoch, leader]))
    for (shard, producer), epoch in book.newest.items():
        records.append(Record(RecordType.PRODUCER_EPOCH, [shard, *producer, epoch]))
    told = [[list(key), till] for key, till in book.told.items()]
    for start in range(0, len(told), _TOLD_IN_RECORD):
        records.append(Record(RecordType.TOLD, told[start : start + _TOLD_IN_RECORD]))
    return records
