"""Frames out of a stream: whatever the cuts, the same frames; nothing is allocated for nonsense."""

import pytest

from cluster.peer_frames import SMALL_BYTES, FrameReader
from records import envelope
from records.errors import EnvelopeCorrupt

FRAMES = [
    envelope.encode({"n": 1}, b"small"),
    envelope.encode({"n": 2}, bytes(range(256)) * 700),  # larger than the small buffer
    envelope.encode({}),
    envelope.encode({"long": b"h" * (SMALL_BYTES + 5)}, b"tail"),
    envelope.encode({"n": 5}, b"x" * (SMALL_BYTES - 40)),
]


def read(stream: bytes, step: int, limit: int = 1 << 24) -> list[bytes]:
    """The frames of `stream`, which comes `step` bytes at a time."""
    reader, frames, at = FrameReader(limit), [], 0
    while at < len(stream):
        target = reader.target()
        assert len(target) > 0, "a reader that takes nothing more"
        part = stream[at : at + min(step, len(target))]
        target[: len(part)] = part
        reader.filled(len(part))
        at += len(part)
        while (frame := reader.take()) is not None:
            frames.append(bytes(frame))
    assert reader.empty
    return frames


@pytest.mark.parametrize("step", [1, 7, 20, 4096, SMALL_BYTES, 1 << 20])
def test_frames_come_out_as_they_went_in_however_they_are_cut(step: int) -> None:
    """Several small ones in one read, one large one in many."""
    assert read(b"".join(FRAMES), step) == FRAMES


def test_a_frame_keeps_its_bytes_when_the_next_is_read() -> None:
    """The small buffer is used again; what was taken is the caller's."""
    reader = FrameReader(1 << 20)
    kept = []
    for frame in (FRAMES[0], FRAMES[2]):
        reader.target()[: len(frame)] = frame
        reader.filled(len(frame))
        kept.append(reader.take())

    assert [bytes(one or b"") for one in kept] == [FRAMES[0], FRAMES[2]]


def test_a_frame_above_the_limit_is_refused_by_its_prefix() -> None:
    """Twenty bytes are enough to know; the memory it asks for is never allocated."""
    reader = FrameReader(1000)
    prefix = envelope.encode_head({}, 1 << 40)
    reader.target()[: len(prefix)] = prefix
    reader.filled(len(prefix))

    with pytest.raises(EnvelopeCorrupt, match="exceeds 1000"):
        reader.take()


def test_what_has_another_magic_is_refused() -> None:
    """Before its length is believed."""
    reader = FrameReader(1 << 20)
    reader.target()[:20] = b"GET / HTTP/1.1\r\nHost"
    reader.filled(20)

    with pytest.raises(EnvelopeCorrupt):
        reader.take()
