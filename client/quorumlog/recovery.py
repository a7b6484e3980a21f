"""Reads a buffer file back: which rows wait for an ack, and what was lost to damage.

Invariant: each row that comes back has the bytes and the seq it was written with. A torn tail (bytes
after the last whole frame) is reported as `good_end` and cut by the caller; seqs that are missing
between two whole frames are `lost`, and are declared to the server as skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from mmap import mmap

from . import frames
from .errors import BufferCorrupt
from .frames import Meta
from .groups import Group
from .ranges import Range, Ranges


@dataclass(slots=True)
class Recovered:
    """What a file holds. `meta.next_seq` and `meta.ack_till` are brought up to date."""

    meta: Meta
    good_end: int
    groups: list[Group] = field(default_factory=list)
    lost: list[Range] = field(default_factory=list)
    damaged_bytes: int = 0
    #: Groups of acked rows that the file still has.
    kept: list[Group] = field(default_factory=list)


def recover(data: bytes | mmap, keep_rows: Callable[[int], bool]) -> Recovered:
    """Reads `data`; `keep_rows(size_bytes)` says whether a group's rows stay in memory.

    Raises:
        BufferCorrupt: the identity (the META frame) cannot be read, so no row has a name.
    """
    meta: Meta | None = None
    groups: list[Group] = []
    ack_till, end, damaged = 0, len(frames.MAGIC), 0
    for frame in frames.scan(data):
        damaged += frame.offset - end
        end = frame.end
        if frame.kind == frames.META and meta is None:
            meta = frames.decode_meta(frame.payload)
            ack_till = max(ack_till, meta.ack_till)
        elif frame.kind == frames.ACK:
            ack_till = max(ack_till, frames.decode_ack(frame.payload))
        elif frame.kind == frames.ROWS:
            groups.append(_group(frame, keep_rows))
    if meta is None:
        raise BufferCorrupt("buffer without its META frame: whose rows these are is not known")
    kept = [replace(group, rows=None) for group in groups if group.last <= ack_till]
    groups = [group for group in groups if group.last > ack_till]
    next_seq = max([meta.next_seq, ack_till + 1, *(group.last + 1 for group in groups)])
    meta = replace(meta, next_seq=next_seq, ack_till=ack_till)
    lost = [] if meta.moving else _holes(meta, groups)
    return Recovered(meta, end, groups, lost, damaged, kept if not meta.moving else [])


def _group(frame: frames.Frame, keep_rows: Callable[[int], bool]) -> Group:
    first, count = frames.decode_rows_head(frame.payload)
    size = len(frame.payload)
    rows = frames.decode_rows(frame.payload)[1] if keep_rows(size) else None
    return Group(first, count, size, rows, frame.offset, frame.end - frame.offset)


def _holes(meta: Meta, groups: list[Group]) -> list[Range]:
    held = Ranges((group.first, group.last) for group in groups)
    return held.gaps(meta.ack_till + 1, meta.next_seq - 1)
