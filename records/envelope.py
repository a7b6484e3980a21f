"""The versioned frame around every node-to-node message, and the one home of msgpack.

    0   4  magic "QLE1"
    4   4  length of the head, big-endian, <= 8 MiB
    8   4  CRC-32 of the head
    12  8  length of the payload
    20     head: msgpack map · payload: bytes, verbatim (a block, an Arrow stream), checked by its own codec

A reader ignores head keys that it does not know, so that a newer node may add some.
"""

import struct
import zlib
from typing import Any

import msgpack

from records.errors import EnvelopeCorrupt

MAGIC = b"QLE1"
MAX_HEAD_BYTES = 8 << 20
_PREFIX = struct.Struct(">4sIIQ")
PREFIX_BYTES = _PREFIX.size


def packb(value: Any) -> bytes:
    """msgpack bytes of plain values; map order is the dict's order."""
    packed: Any = msgpack.packb(value, use_bin_type=True)
    return packed


def unpackb(data: bytes | memoryview) -> Any:
    """Plain values from msgpack bytes; lists stay lists, keys may be ints.

    Raises:
        EnvelopeCorrupt: truncated, trailing or malformed bytes.
    """
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise EnvelopeCorrupt(f"msgpack: {error}") from error


def encode(head: dict[str, Any], payload: bytes | memoryview = b"") -> bytes:
    """One frame. Copies the payload once; use `encode_head` to send it apart."""
    return b"".join((encode_head(head, len(payload)), payload))


def encode_head(head: dict[str, Any], payload_bytes: int) -> bytes:
    """The frame up to its payload."""
    packed = packb(head)
    if len(packed) > MAX_HEAD_BYTES:
        raise EnvelopeCorrupt(f"head of {len(packed)} bytes exceeds {MAX_HEAD_BYTES}")
    return _PREFIX.pack(MAGIC, len(packed), zlib.crc32(packed), payload_bytes) + packed


def frame_bytes(prefix: bytes | memoryview) -> int:
    """Length of the whole frame that begins with these PREFIX_BYTES.

    Raises:
        EnvelopeCorrupt: bad magic, or a head that is too long.
    """
    magic, head_bytes, _, payload_bytes = _PREFIX.unpack_from(prefix)
    if magic != MAGIC or head_bytes > MAX_HEAD_BYTES:
        raise EnvelopeCorrupt("frame has a wrong magic or length")
    return PREFIX_BYTES + head_bytes + payload_bytes


def decode(frame: bytes | memoryview) -> tuple[dict[str, Any], memoryview]:
    """(head, payload) of one whole frame; the payload is a view, not a copy.

    Raises:
        EnvelopeCorrupt: bad magic, length or checksum.
    """
    view = memoryview(frame)
    if len(view) < _PREFIX.size:
        raise EnvelopeCorrupt(f"frame of {len(view)} bytes is shorter than its prefix")
    magic, head_bytes, crc, payload_bytes = _PREFIX.unpack_from(view)
    end = _PREFIX.size + head_bytes
    if magic != MAGIC or head_bytes > MAX_HEAD_BYTES or len(view) != end + payload_bytes:
        raise EnvelopeCorrupt("frame has a wrong magic or length")
    packed = view[_PREFIX.size : end]
    if zlib.crc32(packed) != crc:
        raise EnvelopeCorrupt("head fails its checksum")
    head = unpackb(packed)
    if not isinstance(head, dict):
        raise EnvelopeCorrupt("head is not a map")
    return head, view[end:]
