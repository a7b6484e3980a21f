"""What a scrub decides: what is read next, how long to rest, what of a reading is damage. Pure.

A pass goes through the log files, then the segments, each ascending; its cursor says where it is, so it is
taken up after a restart. Files that come meanwhile are the next pass's.

A block is damaged if a checksum fails where it lies, if no block begins there, or if the block there is not
the one that the holdings (and so the catalog) name: then this replica does not have what it says it has.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from storage.holdings import BlockPlace, Holdings
from storage.scrub_read import Claims, Read

LOG, SEGMENT = "log", "segment"
#: Damaged ranges remembered, so that each counts once however often it is read.
KNOWN_MAX = 10_000
#: Seconds of rest at most: what there is to read changes.
PAUSE_MAX = 600.0
#: Share of the period in which a pass means to be done.
_IN_TIME = 0.9


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a pass is: the next bytes to read are those of file `number` from `offset` on, or after it."""

    kind: str = LOG
    number: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class LastPass:
    """The last full pass: wall seconds, bytes read, damages found."""

    began: float
    ended: float
    bytes: int
    damaged: int


@dataclass(slots=True)
class Progress:
    """A pass under way (`began` is None between two), and the last one that was completed."""

    began: float | None = None
    cursor: Cursor = field(default_factory=Cursor)
    bytes: int = 0
    damaged: int = 0
    last: LastPass | None = None
    known: dict[tuple[int, int], None] = field(default_factory=dict)

    def begin(self, now: float) -> None:
        """A new pass."""
        self.began, self.cursor, self.bytes, self.damaged = now, Cursor(), 0, 0

    def end(self, now: float) -> None:
        """Everything was read."""
        assert self.began is not None
        self.last = LastPass(self.began, now, self.bytes, self.damaged)
        self.began = None

    def knows(self, file: int, start: int) -> bool:
        """Whether a damaged range was met before, and what stood there written again."""
        return (file, start) in self.known

    def learn(self, file: int, start: int) -> None:
        """A damaged range is dealt with; of very many the oldest is forgotten."""
        self.known[file, start] = None
        while len(self.known) > KNOWN_MAX:
            del self.known[next(iter(self.known))]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        last, at = self.last, self.cursor
        return {
            "version": 1,
            "began": self.began,
            "cursor": [at.kind, at.number, at.offset],
            "bytes": self.bytes,
            "damaged": self.damaged,
            "last": last and [last.began, last.ended, last.bytes, last.damaged],
            "known": [list(key) for key in self.known],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Progress":
        """The inverse.

        Raises:
            LookupError, TypeError, ValueError: these are no such values.
        """
        kind, number, offset = values["cursor"]
        if kind not in (LOG, SEGMENT) or values["version"] != 1:
            raise ValueError("of another version")
        found = cls(None if values["began"] is None else float(values["began"]))
        found.cursor = Cursor(kind, int(number), int(offset))
        found.bytes, found.damaged = int(values["bytes"]), int(values["damaged"])
        if values["last"]:
            began, ended, size, damaged = values["last"]
            found.last = LastPass(float(began), float(ended), int(size), int(damaged))
        found.known = {(int(a), int(b)): None for a, b in values["known"][:KNOWN_MAX]}
        return found


def seconds_until_due(progress: Progress, now: float, period: float) -> float:
    """How long until the next pass begins; 0 if it is time. A clock that went back means now."""
    last = progress.last
    if last is None or now < last.began:
        return 0.0
    return max(0.0, last.began + period - now)


def next_file(cursor: Cursor, logs: Iterable[int], segments: Iterable[int]) -> Cursor | None:
    """Where to read next: at the cursor if that file is there, else at the next one; None: all is read."""
    if cursor.kind == LOG:
        for number in sorted(logs):
            if number > cursor.number:
                return Cursor(LOG, number)
            if number == cursor.number:
                return cursor
        cursor = Cursor(SEGMENT)
    for number in sorted(segments):
        if number >= cursor.number:
            return Cursor(SEGMENT, number)
    return None


def after(cursor: Cursor, read: Read, limit: int) -> Cursor:
    """The cursor once `read` is dealt with; `limit`: the end of the file."""
    if cursor.kind == SEGMENT or read.gone or read.end >= limit:
        return Cursor(cursor.kind, cursor.number + 1)
    return replace(cursor, offset=read.end)


def rest_seconds(read: Read, cpu_share: float, bytes_per_second: int, pace: float) -> float:
    """Seconds to rest after a reading: for the CPU, for the disk, and so that a pass fills its period.

    Args:
        pace: seconds that this reading may take of what is left of the period.
    """
    cpu = read.cpu_seconds * (1 / cpu_share - 1)
    return min(PAUSE_MAX, max(cpu, read.size / bytes_per_second, pace))


def pace_seconds(progress: Progress, size: int, total: int, now: float, period: float) -> float:
    """Seconds for `size` bytes of `total` if the pass is to end within its period."""
    if progress.began is None:
        return 0.0
    left = max(0.0, _IN_TIME * period - max(0.0, now - progress.began))  # a clock may go back
    return left * size / max(size, total - progress.bytes, 1)


def damaged_blocks(
    holdings: Holdings, places: Iterable[BlockPlace], read: Read
) -> list[tuple[int, str]]:
    """(ordinal, why) of those of `places` that are not what a reading of their bytes must show.

    Args:
        places: all blocks that lie in the range that was read; those that are no more are left out.
    """
    found = []
    for place in places:
        if holdings.blocks[place.ordinal] is None:
            continue
        if read.gone:
            found.append((place.ordinal, "its file is gone"))
        elif (claims := read.blocks.get(place.offset)) is not None:
            if why := _disagreement(holdings, place, claims):
                found.append((place.ordinal, why))
        else:
            at = place.offset
            why = [reason for start, end, reason in read.damages if start <= at < end]
            found.append((place.ordinal, (why or ["no block begins there"])[0]))
    return found


def _disagreement(holdings: Holdings, place: BlockPlace, claims: Claims) -> str:
    """How the block on disk differs from the one that is filed; empty if it does not."""
    if claims.block_id != bytes(place.block_id) or claims.rows != place.rows:
        return "another block lies there"
    rows = holdings.table.rows[holdings.present(place.ordinal)]
    index = rows["index"].astype(np.int64)
    if len(index) and int(index.max()) >= len(claims.ids):
        return "it has fewer entries than are filed"
    same = (rows["id"] == claims.ids[index]) & (rows["row_count"] == claims.counts[index])
    return "" if bool(same.all()) else "it has other entries than are filed"
