"""The buffer's format: both ways, each byte cut, each byte flipped."""

from __future__ import annotations

import zlib

import pytest

from quorumlog import frames
from quorumlog.errors import BufferCorrupt
from quorumlog.frames import Meta

META = Meta("pay", "p-1", 3, 41, 40)
ROWS = [b'{"seq":41,"message":"a"}', b'{"seq":42,"message":"\xf0\x9f\x98\x80"}', b'{"seq":43}']


def _file() -> tuple[bytes, list[int]]:
    """A file of four frames, and where each ends."""
    parts = [
        frames.encode_meta(META),
        frames.encode_rows(41, ROWS[:2]),
        frames.encode_ack(41),
        frames.encode_rows(43, ROWS[2:]),
    ]
    data, ends = frames.MAGIC, []
    for part in parts:
        data += part
        ends.append(len(data))
    return data, ends


def test_frames_come_back_as_written() -> None:
    """META, ROWS and ACK both ways."""
    data, _ = _file()

    meta, rows, ack, more = frames.scan(data)

    assert frames.decode_meta(meta.payload) == META
    assert frames.decode_rows(rows.payload) == (41, ROWS[:2])
    assert frames.decode_rows_head(rows.payload) == (41, 2)
    assert frames.decode_ack(ack.payload) == 41
    assert frames.decode_rows(more.payload) == (43, ROWS[2:])
    assert [frame.kind for frame in (meta, rows, ack)] == [frames.META, frames.ROWS, frames.ACK]


def test_the_format_is_fixed() -> None:
    """Files written today must be readable for ever: written out by hand from the module's text."""
    payload = (1).to_bytes(8, "little")
    length = (8).to_bytes(4, "little")
    crc = zlib.crc32(b"\x03" + length + payload).to_bytes(4, "little")

    assert frames.encode_ack(1) == b"\xf1QL\xf2" + b"\x03" + length + crc + payload
    assert frames.MAGIC == b"QLBUF\x00\x00\x01"


def test_a_cut_at_each_byte_leaves_the_whole_frames_before_it() -> None:
    """A torn tail costs the torn frame alone."""
    data, ends = _file()
    for cut in range(len(frames.MAGIC), len(data)):
        found = [frame.end for frame in frames.scan(data[:cut])]
        assert found == [end for end in ends if end <= cut]


def test_a_flip_of_each_byte_is_noticed_and_costs_one_frame() -> None:
    """A damaged frame is not served; the frames after it are found by their marker."""
    data, ends = _file()
    for at in range(len(frames.MAGIC), len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x55
        hit = next(end for end in ends if at < end)
        found = [frame.end for frame in frames.scan(bytes(damaged))]
        assert found == [end for end in ends if end != hit], at


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"service":1}', b"\xff"])
def test_unreadable_meta_is_an_error(payload: bytes) -> None:
    """Whose rows these are must be known."""
    with pytest.raises(BufferCorrupt):
        frames.decode_meta(payload)
