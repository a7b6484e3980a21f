"""The format of a buffer file: framed, checksummed records. Pure: bytes in, records out.

A file is the magic, then frames. A frame is a marker, its kind, the length and the CRC-32 of kind,
length and payload (all little-endian), then the payload:

    META  JSON: service, producer, epoch, next_seq, ack_till, moving
    ROWS  first_seq u64, count u32, count lengths u32, the rows one after the other
    ACK   ack_till u64

Invariant: a frame is whole or it is not there. Bytes after the last whole frame are a torn tail, and
are cut. A bad frame *before* a whole one is damage: what can be read is kept, the seqs in between
are reported as lost, never passed over in silence. The marker is how the next frame is found.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from mmap import mmap

from .errors import BufferCorrupt

MAGIC = b"QLBUF\x00\x00\x01"
MARKER = b"\xf1QL\xf2"
META, ROWS, ACK = 1, 2, 3
_HEAD = struct.Struct("<4sBII")
_CRC_OF = struct.Struct("<BI")
_ROWS_HEAD = struct.Struct("<QI")
_ACK = struct.Struct("<Q")

Bytes = bytes | memoryview
FileContent = bytes | mmap


@dataclass(frozen=True, slots=True)
class Meta:
    """Whose rows these are, and where numbering goes on.

    `moving`: there is no identity (see sender): all rows in the file wait for a new epoch. Epoch 0:
    there never was one.
    """

    service: str
    producer: str
    epoch: int
    next_seq: int
    ack_till: int
    moving: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame found at `offset`; `end` is the offset after it."""

    kind: int
    offset: int
    end: int
    payload: Bytes


def encode(kind: int, payload: bytes) -> bytes:
    """One frame."""
    crc = zlib.crc32(payload, zlib.crc32(_CRC_OF.pack(kind, len(payload))))
    return _HEAD.pack(MARKER, kind, len(payload), crc) + payload


def encode_meta(meta: Meta) -> bytes:
    """A META frame."""
    return encode(META, json.dumps(asdict(meta), separators=(",", ":")).encode())


def encode_rows(first_seq: int, rows: Sequence[bytes]) -> bytes:
    """A ROWS frame of rows with consecutive seqs."""
    lengths = struct.pack(f"<{len(rows)}I", *map(len, rows))
    return encode(ROWS, b"".join((_ROWS_HEAD.pack(first_seq, len(rows)), lengths, *rows)))


def encode_ack(ack_till: int) -> bytes:
    """An ACK frame."""
    return encode(ACK, _ACK.pack(ack_till))


def decode_meta(payload: Bytes) -> Meta:
    """The identity of a file. Unknown keys of later versions are ignored."""
    try:
        raw = json.loads(bytes(payload))
        return Meta(
            service=str(raw["service"]),
            producer=str(raw["producer"]),
            epoch=int(raw["epoch"]),
            next_seq=int(raw["next_seq"]),
            ack_till=int(raw["ack_till"]),
            moving=bool(raw.get("moving", False)),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BufferCorrupt(f"META frame cannot be read: {error!r}") from error


def decode_rows_head(payload: Bytes) -> tuple[int, int]:
    """(first seq, count) of a ROWS frame."""
    first, count = _ROWS_HEAD.unpack_from(payload)
    return first, count


def decode_rows(payload: Bytes) -> tuple[int, list[bytes]]:
    """(first seq, rows) of a ROWS frame."""
    first, count = _ROWS_HEAD.unpack_from(payload)
    lengths = struct.unpack_from(f"<{count}I", payload, _ROWS_HEAD.size)
    at = _ROWS_HEAD.size + 4 * count
    rows: list[bytes] = []
    for length in lengths:
        rows.append(bytes(payload[at : at + length]))
        at += length
    if at != len(payload):
        raise BufferCorrupt(f"ROWS frame of seq {first}: {len(payload)} bytes, lengths say {at}")
    return first, rows


def decode_ack(payload: Bytes) -> int:
    """The position of an ACK frame."""
    return _ACK.unpack(payload)[0]


def frame_at(data: FileContent, offset: int) -> Frame | None:
    """The whole frame at `offset`, or None."""
    start = offset + _HEAD.size
    if start > len(data):
        return None
    marker, kind, length, crc = _HEAD.unpack_from(data, offset)
    if marker != MARKER or start + length > len(data):
        return None
    payload = memoryview(data)[start : start + length]
    if zlib.crc32(payload, zlib.crc32(_CRC_OF.pack(kind, length))) != crc:
        return None
    return Frame(kind, offset, start + length, payload)


def scan(data: FileContent) -> Iterator[Frame]:
    """All whole frames after the magic, in order; what lies between them is not whole."""
    offset = len(MAGIC)
    while offset < len(data):
        frame = frame_at(data, offset)
        if frame is None:
            offset = data.find(MARKER, offset + 1)
            if offset < 0:
                return
            continue
        yield frame
        offset = frame.end
