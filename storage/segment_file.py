"""Segment files: a merged block as a Parquet file that any reader opens, named by its hour, Hive-style.

    date=2026-11-22/hour=05/00000012.parquet

A segment is a block (records.block_codec) whose front, all that precedes the Parquet body, lies inside the
body: between the last row group and the footer, where Parquet readers look only by offset. So the file is
whole by itself, for them as for us, and there is no second file to lose:

    row groups · front (prefix, header, sidecar) · "QLSG0001" · length of the front (8 bytes) · footer

The rest of the store addresses a segment as the block it is: *virtual* offsets 0.. are front, then body.

Invariant: every row in hour=HH lies in that hour. Segments of entries that span several hours (an entry is
never cut), or of years no calendar holds, lie under Hive's name for "no value".
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from records.block_codec import parse_prefix
from records.errors import BlockCorrupt
from records.timestamps import hour_of

MARK = struct.Struct(">8sQ")
MAGIC = b"QLSG0001"
SUFFIX = ".parquet"
NO_HOUR = "__HIVE_DEFAULT_PARTITION__"
_TAIL = struct.Struct("<I4s")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOURS = range(hour_of(-62_135_596_800_000_000), hour_of(253_402_300_800_000_000))


@dataclass(frozen=True, slots=True)
class Extents:
    """Bytes of row groups, of the front and of the footer with its tail; they tell where all else is."""

    groups: int
    front: int
    footer: int

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self.groups + self.front + MARK.size + self.footer

    @property
    def block_bytes(self) -> int:
        """Length of the block."""
        return self.groups + self.front + self.footer

    def spans(self, start: int, length: int) -> Iterator[tuple[int, int]]:
        """(file offset, length) of the pieces that make up virtual bytes start..start+length, in order."""
        body = self.front + self.groups
        regions = (
            (0, self.front, self.groups),
            (self.front, body, 0),
            (body, body + self.footer, self.groups + self.front + MARK.size),
        )
        for low, high, at in regions:
            first, last = max(low, start), min(high, start + length)
            if first < last:
                yield at + first - low, last - first


def segment_parts(block: bytes | memoryview) -> tuple[memoryview, ...]:
    """The pieces of the file of a block that has rows, in order; joined they are the file."""
    view = memoryview(block)
    front = parse_prefix(view).body[0]
    footer_bytes, magic = _TAIL.unpack(view[-_TAIL.size :])
    assert magic == b"PAR1", "a block with rows has a Parquet body"
    footer = len(view) - _TAIL.size - footer_bytes
    mark = memoryview(MARK.pack(MAGIC, front))
    return view[front:footer], view[:front], mark, view[footer:]


def read_extents(handle: int) -> Extents:
    """Where the parts of an open segment file lie, from its end.

    Raises:
        BlockCorrupt: it is no segment file, or its end is damaged.
        OSError: it cannot be read.
    """
    size = os.fstat(handle).st_size
    tail = os.pread(handle, _TAIL.size, max(0, size - _TAIL.size))
    if len(tail) < _TAIL.size or not tail.endswith(b"PAR1"):
        raise BlockCorrupt("the file does not end as Parquet does")
    footer = _TAIL.unpack(tail)[0] + _TAIL.size
    at = size - footer - MARK.size
    mark = os.pread(handle, MARK.size, at) if at >= 0 else b""
    if len(mark) < MARK.size or not mark.startswith(MAGIC):
        raise BlockCorrupt("no mark before the Parquet footer")
    front = MARK.unpack(mark)[1]
    if front > at:
        raise BlockCorrupt("the front is longer than the file")
    return Extents(at - front, front, footer)


def hour_within(min_ts: int, max_ts: int) -> int | None:
    """The hour that both times lie in, if there is one with a calendar date."""
    hour = hour_of(min_ts)
    return hour if hour == hour_of(max_ts) and hour in _HOURS else None


def segment_path(number: int, min_ts: int, max_ts: int) -> Path:
    """Where the segment lies below the segments' folder."""
    hour = hour_within(min_ts, max_ts)
    date = when = NO_HOUR
    if hour is not None:
        moment = _EPOCH + timedelta(hours=hour)
        date, when = moment.date().isoformat(), f"{moment.hour:02d}"
    return Path(f"date={date}") / f"hour={when}" / f"{number:08d}{SUFFIX}"


def segment_files(directory: Path) -> dict[int, Path]:
    """The segment files below `directory` by number, ascending."""
    found = {
        int(path.stem): path
        for path in directory.glob(f"date=*/hour=*/*{SUFFIX}")
        if path.stem.isdecimal()
    }
    return dict(sorted(found.items()))
