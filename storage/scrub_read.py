"""What a scrub reads of one file: log files in windows of whole records, segments as a block. Blocking.

Bytes are read from the disk, not from the page cache, as far as the kernel lets go of it: rot under a
cached page would not show. All checksums are verified: frames, metas and blocks of the log; prefix, header,
sidecar, body and mark of a segment. What is found damaged is only told; storage.scrub decides. A file that
cannot be opened for want of descriptors or memory is none of that: OSError. Of a log file that the disk
cannot read everywhere the records on its other pages are whole.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from records.block import BlockHeader
from records.block_codec import decode_block, decode_header
from records.errors import BlockCorrupt, EnvelopeCorrupt
from storage.block_files import is_scarcity
from storage.blocks import BlockPlace
from storage.log_format import RecordType, read_file
from storage.segment_file import read_extents

#: Bytes of a log file read at a time, unless one record is longer.
WINDOW_BYTES = 4 << 20
_PAGE = 4096
#: The largest unit in which Linux caches files: a huge page.
_UNIT_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Claims:
    """What a block's own header says it holds: ids and rows of its entries, in order."""

    block_id: bytes
    rows: int
    ids: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, header: BlockHeader) -> "Claims":
        """Of a block's header."""
        ids = b"".join(entry.entry_id for entry in header.entries)
        counts = np.array([entry.row_count for entry in header.entries], np.int64)
        return cls(bytes(header.block_id), header.rows, np.frombuffer(ids, "V16"), counts)


@dataclass(frozen=True, slots=True)
class Read:
    """What one step read: up to `end` of a file; `blocks` by their offset; `damages` as (start, end, why).

    `gone`: the file is no more (it was merged, and removed).
    """

    end: int
    size: int
    cpu_seconds: float
    blocks: dict[int, Claims]
    damages: tuple[tuple[int, int, str], ...] = ()
    gone: bool = False


def _let_go(handle: int, start: int = 0, end: int = 0) -> None:
    """Drops what the page cache has of `start`..`end` (to the end of the file if that is 0).

    The kernel keeps a page, or a larger unit of its cache, that lies only partly in the range.
    """
    low = start // _UNIT_BYTES * _UNIT_BYTES
    high = -(-end // _UNIT_BYTES) * _UNIT_BYTES
    with contextlib.suppress(OSError):  # some file systems know no such advice
        os.posix_fadvise(handle, low, high - low if end else 0, os.POSIX_FADV_DONTNEED)


def _read(handle: int, start: int, length: int) -> bytes:
    """Bytes of a file; OSError if the disk cannot give them."""
    parts = []
    while length:
        part = os.pread(handle, length, start)
        if not part:
            break
        parts.append(part)
        start, length = start + len(part), length - len(part)
    return b"".join(parts)


def _read_around(handle: int, start: int, length: int) -> tuple[bytes, str]:
    """Bytes of a file, zeros for those that are not there or on a page that the disk cannot give; and why."""
    try:
        return _read(handle, start, length).ljust(length, b"\0"), ""
    except OSError as error:
        why, pages = _why(error), []
    for at in range(start - start % _PAGE, start + length, _PAGE):
        low, high = max(at, start), min(at + _PAGE, start + length)
        try:
            page = _read(handle, low, high - low)
        except OSError as error:
            why, page = _why(error), b""
        pages.append(page.ljust(high - low, b"\0"))
    return b"".join(pages), why


def _why(error: Exception) -> str:
    """What of the file an error tells; raises it if it tells of this process alone."""
    if is_scarcity(error):
        raise error
    return f"cannot read: {error}" if isinstance(error, OSError) else str(error)


def read_log_window(path: Path, sequence: int, start: int, limit: int) -> Read:
    """Verifies whole records of a log file from offset `start` on; `limit`: where what is durable ends.

    Args:
        start: where a record begins.
    """
    began = time.thread_time()
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return Read(limit, 0, 0.0, {}, gone=True)
    except OSError as error:
        return Read(limit, 0, 0.0, {}, ((start, limit, _why(error)),))
    try:
        return _window(handle, sequence, start, limit, began)
    finally:
        os.close(handle)


def _window(handle: int, sequence: int, start: int, limit: int, began: float) -> Read:
    wanted = WINDOW_BYTES
    while True:
        stop = min(limit, start + wanted)
        _let_go(handle, start, stop)
        data, why = _read_around(
            handle, start, stop - start
        )  # zeros in place of a record are damage
        scan = read_file(data, sequence, 0, len(data))
        whole = stop == limit
        end = scan.records[-1].end if scan.records else 0
        if not whole and not end:  # one record is longer than the window, or damage is
            wanted *= 2
            continue
        damages = tuple(
            (start + one.start, start + one.end, why or one.reason)
            for one in scan.damages
            if whole or one.end <= end
        )
        blocks = {}
        for record in scan.records:
            if record.type == RecordType.BLOCK:
                body = memoryview(data)[record.body_offset : record.body_offset + record.body_bytes]
                with contextlib.suppress(BlockCorrupt, EnvelopeCorrupt):  # of a newer format
                    blocks[start + record.body_offset] = Claims.of(decode_header(body))
        at = stop if whole else start + end
        return Read(at, stop - start, time.thread_time() - began, blocks, damages)


def read_segment(path: Path, place: BlockPlace) -> Read:
    """Verifies a whole segment file; its damage, if any, is told as all of it."""
    began = time.thread_time()
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return Read(0, 0, 0.0, {}, gone=True)
    except OSError as error:
        return Read(0, 0, 0.0, {}, ((0, place.length, _why(error)),))
    try:
        _let_go(handle)
        extents = read_extents(handle)
        if extents.block_bytes != place.length:
            raise BlockCorrupt(f"{extents.block_bytes} bytes instead of {place.length}")
        pieces = extents.spans(0, place.length)
        data = b"".join(_read(handle, at, length) for at, length in pieces)
        claims = Claims.of(decode_block(data).header)
    except (OSError, BlockCorrupt, EnvelopeCorrupt) as error:
        why = ((0, place.length, f"segment: {_why(error)}"),)
        return Read(place.length, place.length, time.thread_time() - began, {}, why)
    finally:
        os.close(handle)
    return Read(place.length, place.length, time.thread_time() - began, {0: claims})
