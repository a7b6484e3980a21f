"""Bytes of blocks by place: log files and segment files behind one `read`. Thread-safe.

A block is addressed from its first byte wherever it lies, so what decodes blocks need not know about
segments. Files are opened for each read: they may be removed at any time once their blocks were merged, and
a read that comes too late fails like a damaged one (the caller takes a new snapshot, which knows better).
A process that is out of file descriptors or memory learns nothing about a block: that is no damage.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from records.errors import BlockCorrupt, Overloaded, QuorumlogError
from storage.holdings import BlockPlace
from storage.segment_file import Extents, read_extents, segment_path
from storage.wal import file_name

#: Segments whose extents are remembered; three numbers each.
_EXTENTS_KEPT = 65_536
#: What this process or machine is short of for the moment.
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS})


def is_scarcity(error: BaseException) -> bool:
    """Whether a read failed for want of file descriptors or memory, and so tells nothing of the file."""
    return isinstance(error, OSError) and error.errno in _SCARCE


def _unreadable(error: Exception, place: BlockPlace) -> QuorumlogError:
    """What a failed read of a block means."""
    if is_scarcity(error):
        return Overloaded(f"nothing can be read now: {error}", retry_after_seconds=1.0)
    return BlockCorrupt(f"cannot read: {error}", ordinal=place.ordinal)


class BlockFiles:
    """Where a node's blocks lie."""

    def __init__(self, log: Path, segments: Path) -> None:
        self.log, self.segments = log, segments
        self._extents: dict[int, Extents] = {}

    def path(self, place: BlockPlace) -> Path:
        """The file that a block lies in."""
        if place.file < 0:
            return self.segments / segment_path(-place.file, place.min_ts, place.max_ts)
        return self.log / file_name(place.file)

    def read(self, place: BlockPlace, start: int, length: int) -> bytes:
        """Bytes `start`..`start + length` of a block.

        Raises:
            BlockCorrupt: the disk cannot give them (details: `ordinal`).
            Overloaded: no file can be opened now.
        """
        try:
            handle = os.open(self.path(place), os.O_RDONLY)
            try:
                data = self._pread(handle, place, start, length)
            finally:
                os.close(handle)
        except (OSError, BlockCorrupt) as error:
            raise _unreadable(error, place) from error
        if len(data) != length:
            raise BlockCorrupt("the file ends inside the block", ordinal=place.ordinal)
        return data

    def read_pieces(self, wanted: Sequence[tuple[BlockPlace, int]], length: int) -> list[bytes]:
        """`length` bytes from each (block, offset); a file is opened once for neighbours.

        Raises:
            BlockCorrupt: the disk cannot give them (details: `ordinal`).
            Overloaded: no file can be opened now.
        """
        found: list[bytes] = []
        handle = file = -1
        try:
            for place, start in wanted:
                try:
                    if handle < 0 or place.file != file:
                        if handle >= 0:
                            os.close(handle)
                            handle = -1
                        handle, file = os.open(self.path(place), os.O_RDONLY), place.file
                    data = self._pread(handle, place, start, length)
                except (OSError, BlockCorrupt) as error:
                    raise _unreadable(error, place) from error
                if len(data) != length:
                    raise BlockCorrupt("the file ends inside the block", ordinal=place.ordinal)
                found.append(data)
        finally:
            if handle >= 0:
                os.close(handle)
        return found

    def _pread(self, handle: int, place: BlockPlace, start: int, length: int) -> bytes:
        if place.file >= 0:
            return os.pread(handle, length, place.offset + start)
        extents = self._extents.get(place.file)
        if extents is None:
            extents = read_extents(handle)
            if len(self._extents) >= _EXTENTS_KEPT:
                self._extents.clear()
            self._extents[place.file] = extents
        spans = extents.spans(start, length)
        return b"".join(os.pread(handle, size, offset) for offset, size in spans)

    def forget(self, place: BlockPlace) -> None:
        """The segment was removed."""
        self._extents.pop(place.file, None)
