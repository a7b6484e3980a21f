"""Bodies in pieces: cut by content alone, and decoded no faster than they are used."""

from dataclasses import replace
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.limits import Limits
from ingestor.listeners.body import DECODED_AT_ONCE, BodyReader, LineCutter
from records.errors import TooLarge
from runtime.clock import SystemClock

LARGEST_PART = 16 << 20


class Chunks:
    """A stream that is there already."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)

    async def readany(self) -> bytes:
        return self._chunks.pop(0) if self._chunks else b""


def cut(limits: Limits, data: bytes, at: list[int]) -> list[bytes]:
    cutter, pieces, start = LineCutter(limits), [], 0
    for end in [*sorted(min(one, len(data)) for one in at), len(data)]:
        pieces += cutter.feed(data[start:end])
        start = end
    return pieces + cutter.finish()


@given(
    data=st.text("\nab", max_size=150),
    at=st.lists(st.integers(0, 150), max_size=6),
    piece_bytes=st.integers(3, 30),
    piece_rows=st.integers(1, 6),
    row_bytes_max=st.integers(3, 60),
)
@settings(max_examples=300)
def test_pieces_do_not_depend_on_how_the_network_cut(
    data: str, at: list[int], piece_bytes: int, piece_rows: int, row_bytes_max: int
) -> None:
    """A resend in other packets has the same pieces; lines of a legal length come whole and in order."""
    limits = replace(
        Limits(), piece_bytes=piece_bytes, piece_rows=piece_rows, row_bytes_max=row_bytes_max
    )
    body = data.encode()

    pieces = cut(limits, body, at)

    assert pieces == cut(limits, body, [])
    assert all(piece.count(b"\n") <= piece_rows for piece in pieces)
    whole = b"".join(pieces)
    longest = max(len(line) for line in body.split(b"\n"))
    if longest <= max(row_bytes_max, piece_bytes):
        assert whole == body
    else:
        assert whole.count(b"\n") == body.count(b"\n")
        assert max(len(line) for line in whole.split(b"\n")) > row_bytes_max


@pytest.mark.parametrize("encoding", ["zstd", "identity"])
async def test_a_piece_of_many_lines_is_cut_at_its_rows(encoding: str) -> None:
    """Empty lines count as lines, and each is found in the first window that holds enough of them."""
    body = b"\n" * 1_000_000
    wire = zstandard.compress(body) if encoding == "zstd" else body
    reader = BodyReader(Chunks(wire), None, encoding, Limits(), SystemClock())

    sizes = [len(piece) async for piece in reader.pieces(now)]

    assert sizes == [100_000] * 10


async def now(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


async def test_a_bomb_is_decoded_in_small_portions() -> None:
    """A chunk of 130 KB that means 4 GiB: no portion is larger than a few MiB, and it ends with 413."""
    packer = zstandard.ZstdCompressor().compressobj()
    zeros = b"\0" * (1 << 20)
    bomb = b"".join(packer.compress(zeros) for _ in range(4 << 10)) + packer.flush()
    portions: list[int] = []

    async def run(function: Any, *arguments: Any) -> Any:
        taken = function(*arguments)
        portions.append(sum(map(len, taken)))
        return taken

    reader = BodyReader(Chunks(bomb), None, "zstd", Limits(), SystemClock())
    with pytest.raises(TooLarge):
        async for _ in reader.pieces(run):
            pass

    assert max(portions) <= DECODED_AT_ONCE + LARGEST_PART
    assert sum(portions) <= Limits().decoded_bytes + DECODED_AT_ONCE + LARGEST_PART
