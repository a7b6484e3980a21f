"""Frames: whole ones decode to what was sent, damaged ones are refused."""

import pytest

from records import envelope
from records.errors import EnvelopeCorrupt

HEAD = {"op": "put", "ids": [b"\x00" * 16], "deep": {"a": [1, None, True, "é"]}}


def test_a_frame_gives_back_head_and_payload() -> None:
    """Both directions; the payload is a view into the frame."""
    head, payload = envelope.decode(envelope.encode(HEAD, b"payload"))

    assert head == HEAD
    assert bytes(payload) == b"payload"


def test_every_cut_and_every_flip_before_the_payload_is_refused() -> None:
    """A frame is checked byte by byte up to its payload, which has a checksum of its own."""
    frame = envelope.encode(HEAD, b"payload")
    for cut in range(len(frame)):
        with pytest.raises(EnvelopeCorrupt):
            envelope.decode(frame[:cut])
    for at in range(len(frame) - len(b"payload")):
        damaged = bytearray(frame)
        damaged[at] ^= 0x40
        with pytest.raises(EnvelopeCorrupt):
            envelope.decode(bytes(damaged))


def test_a_head_that_is_no_map_is_refused() -> None:
    """Peers speak in maps, so that a newer one may add keys."""
    frame = envelope.encode_head({}, 0)
    packed = envelope.packb([1])
    import struct
    import zlib

    forged = struct.pack(">4sIIQ", b"QLE1", len(packed), zlib.crc32(packed), 0) + packed
    assert envelope.decode(frame)[0] == {}
    with pytest.raises(EnvelopeCorrupt, match="not a map"):
        envelope.decode(forged)


def test_trailing_bytes_are_not_msgpack() -> None:
    """One value, nothing behind it."""
    with pytest.raises(EnvelopeCorrupt):
        envelope.unpackb(envelope.packb(1) + b"\x00")


@pytest.mark.parametrize("packed", [b"\x81\x90\x01", b"\x81\x80\x01", b"\x81\x81\x01\x02\x03"])
def test_a_map_with_a_list_or_map_for_a_key_is_refused(packed: bytes) -> None:
    """msgpack can say it, Python's dict cannot hold it: an error of ours, not a TypeError."""
    with pytest.raises(EnvelopeCorrupt):
        envelope.unpackb(packed)
