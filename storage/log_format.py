"""The bytes of a log file: framed records, found again after any damage. Pure: bytes in, records out.

    0   4  magic "QLR1"
    4   1  type                   5   3  zero
    8   4  file sequence          12  4  salt of the file (random; clients cannot forge a record)
    16  4  meta length            20  8  body length
    28  8  durable_upto: bytes of this file known to be on disk when the record was written
    36  4  CRC-32 of the meta     40  4  CRC-32 of bytes 0..40
    44     meta (msgpack) · body (a block, verbatim: it carries its own checksums) · zeros to 8 bytes

All integers big-endian. A file begins with a FILE record, whose meta says where the file before it ended.

The torn-tail rule: the first bad record at X is *corruption* if any later record says durable_upto > X:
those bytes were once on disk, so they are quarantined and fetched from peers. Otherwise nobody was ever
promised them: they are cut. Either way reading goes on at the next whole record, so one bad sector does
not take its neighbours along. Source: reliability.md 2.2, "Torn writes".
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from records import envelope
from records.block_codec import PREFIX_BYTES, parse_prefix
from records.errors import BlockCorrupt, EnvelopeCorrupt
from records.native import crc32

MAGIC = b"QLR1"
FORMAT_VERSION = 1
HEAD = struct.Struct(">4sB3xIIIQQI")
HEAD_BYTES = HEAD.size + 4
ALIGN = 8
#: A record's meta is a few ids; more is not ours.
MAX_META_BYTES = 16 << 20
_CRC = struct.Struct(">I")
_SEARCH_BYTES = 1 << 20


class RecordType(IntEnum):
    """What a record means; numbers are for ever."""

    FILE = 1
    BLOCK = 2
    FENCE = 3
    PRODUCER_EPOCH = 4
    RING_EPOCH = 5
    TOLD = 6
    COMMIT = 7


@dataclass(frozen=True, slots=True)
class Record:
    """One record to write. `meta` are plain values; `body` is a block's bytes or empty."""

    type: RecordType
    meta: Any = None
    body: bytes | memoryview = b""


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """One whole record in a file: where it lies, and what it says."""

    type: int
    offset: int
    end: int
    body_offset: int
    body_bytes: int
    durable_upto: int
    meta: Any


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes `start`..`end` that hold no whole record. `corrupt`: they were durable once."""

    start: int
    end: int
    corrupt: bool
    reason: str


@dataclass(frozen=True, slots=True)
class FileScan:
    """A file's content: whole records ascending, what is damaged, and where its last record ends."""

    records: tuple[FoundRecord, ...]
    damages: tuple[Damage, ...]
    end: int


def padding(length: int) -> int:
    """Zeros after `length` bytes up to the next record."""
    return -length % ALIGN


def frame_bytes(meta_bytes: int, body_bytes: int) -> int:
    """Length of a whole record on disk."""
    length = HEAD_BYTES + meta_bytes + body_bytes
    return length + padding(length)


def encode(
    kind: int, meta: bytes, body_bytes: int, sequence: int, salt: int, durable_upto: int
) -> bytes:
    """A record up to its body: head and packed `meta`."""
    head = HEAD.pack(
        MAGIC, kind, sequence, salt, len(meta), body_bytes, durable_upto, zlib.crc32(meta)
    )
    return b"".join((head, _CRC.pack(zlib.crc32(head)), meta))


class _Bad(Exception):
    """A record is not whole; its text says why."""


def _read_at(data: memoryview, at: int, sequence: int, salt: int | None) -> tuple[FoundRecord, int]:
    """The record at `at` and its salt.

    Raises:
        _Bad: any check fails.
    """
    if at + HEAD_BYTES > len(data):
        raise _Bad("the head is cut")
    head = data[at : at + HEAD.size]
    magic, kind, number, found_salt, meta_len, body_len, durable, meta_crc = HEAD.unpack(head)
    if magic != MAGIC:
        raise _Bad("no magic")
    if zlib.crc32(head) != _CRC.unpack_from(data, at + HEAD.size)[0]:
        raise _Bad("the head fails its checksum")
    if number != sequence or (salt is not None and found_salt != salt):
        raise _Bad("a record of another file")
    body_at = at + HEAD_BYTES + meta_len
    end = at + frame_bytes(meta_len, body_len)
    if meta_len > MAX_META_BYTES or end > len(data):
        raise _Bad("the record is cut")
    packed = data[at + HEAD_BYTES : body_at]
    if zlib.crc32(packed) != meta_crc:
        raise _Bad("the meta fails its checksum")
    if kind == RecordType.BLOCK:
        try:
            check_block(data[body_at : body_at + body_len])
        except BlockCorrupt as error:
            raise _Bad(error.message) from error
    try:
        meta = envelope.unpackb(packed)
    except EnvelopeCorrupt as error:
        raise _Bad(f"the meta cannot be read: {error}") from error
    return FoundRecord(kind, at, end, body_at, body_len, durable, meta), found_salt


def check_block(block: memoryview) -> None:
    """Verifies the length and the three checksums of a block.

    Raises:
        BlockCorrupt: one fails.
    """
    parts = parse_prefix(block[:PREFIX_BYTES])
    if parts.total_bytes != len(block):
        raise BlockCorrupt("the block has another length than its prefix says")
    checks = (
        (parts.header, parts.header_crc),
        (parts.sidecar, parts.sidecar_crc),
        (parts.body, parts.body_crc),
    )
    for (start, end), crc in checks:
        if crc32(block[start:end]) != crc:
            raise BlockCorrupt("the block fails a checksum")


def _magics_after(data: memoryview, at: int) -> Iterator[int]:
    """Aligned offsets >= `at` where the magic stands."""
    wanted = int.from_bytes(MAGIC, "little")
    for start in range(at + padding(at), len(data), _SEARCH_BYTES):
        chunk = data[start : start + _SEARCH_BYTES]
        words = np.frombuffer(chunk[: len(chunk) // ALIGN * ALIGN], "<u4")[::2]
        for index in np.flatnonzero(words == wanted):
            yield start + int(index) * ALIGN


def _resync(
    data: memoryview, after: int, sequence: int, salt: int | None
) -> tuple[FoundRecord, int] | None:
    """The first whole record at an aligned offset > `after`."""
    for at in _magics_after(data, after + 1):
        try:
            return _read_at(data, at, sequence, salt)
        except _Bad:
            continue
    return None


def read_file(
    data: bytes | memoryview, sequence: int, start: int = 0, limit: int | None = None
) -> FileScan:
    """Reads a log file's bytes from offset `start`, by the torn-tail rule above.

    Zeros to the end of the file are preallocated space, not damage. Cost: one pass over the bytes.

    Args:
        limit: where the file's writer knew it to end durably (the next file says so): damage before it
            is corruption, and what stands after it was never acknowledged and is not read.
    """
    view = memoryview(data)[:limit]
    at, salt = start, None
    records: list[FoundRecord] = []
    holes: list[tuple[int, int, str]] = []
    while at < len(view):
        try:
            record, salt = _read_at(view, at, sequence, salt)
        except _Bad as error:
            following = _resync(view, at, sequence, salt)
            stop = following[0].offset if following else _content_end(view, at, limit)
            if stop > at:
                holes.append((at, stop, str(error)))
            if following is None:
                break
            record, salt = following
        records.append(record)
        at = record.end
    durable = max([record.durable_upto for record in records] + [limit or 0])
    damages = tuple(Damage(a, b, durable > a, reason) for a, b, reason in holes)
    return FileScan(tuple(records), damages, records[-1].end if records else start)


def _content_end(data: memoryview, start: int, limit: int | None) -> int:
    """End of what is not preallocated zeros, at or after `start`; all of it if `limit` is known."""
    return len(data) if limit is not None else start + len(bytes(data[start:]).rstrip(b"\0"))
