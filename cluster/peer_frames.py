"""Frames out of a stream of bytes, read straight into the memory where they stay. Pure.

A caller asks for `target()`, fills some of it from its socket, says how much (`filled`), and takes the
frames that are complete (`take`). Small frames go through a buffer of 64 KiB; of a larger one only what
came with its beginning is copied, the rest arrives in place: the kernel's copy is the only one.

Invariant: no more is allocated than `limit` allows, and none before the prefix was read and believed.
"""

from typing import Any

import numpy as np

from records import envelope
from records.errors import EnvelopeCorrupt

SMALL_BYTES = 64 << 10


class FrameReader:
    """Cuts one connection's bytes into frames."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of a frame; may be raised between two frames."""
        self.limit = limit
        self._small = memoryview(bytearray(SMALL_BYTES))
        self._held = 0
        self._large: memoryview | None = None
        self._large_held = 0

    @property
    def empty(self) -> bool:
        """Whether no byte of a frame is held."""
        return not self._held and self._large is None

    def target(self) -> memoryview:
        """Where the next bytes go; empty if frames wait to be taken and there is no more room."""
        if self._large is not None:
            return self._large[self._large_held :]
        return self._small[self._held :]

    def filled(self, count: int) -> None:
        """`count` bytes of `target()` are there."""
        if self._large is not None:
            self._large_held += count
        else:
            self._held += count

    def take(self) -> memoryview | None:
        """The next whole frame, whose memory is the caller's; None if more bytes are needed.

        Raises:
            EnvelopeCorrupt: not a frame, or longer than `limit`. Nothing after it can be read.
        """
        if self._large is not None:
            return self._take_large(self._large)
        if self._held < envelope.PREFIX_BYTES:
            return None
        size = envelope.frame_bytes(self._small)
        if size > self.limit:
            raise EnvelopeCorrupt(f"frame of {size} bytes exceeds {self.limit}")
        if size <= self._held:
            frame = memoryview(bytes(self._small[:size]))
            rest = self._held - size
            self._small[:rest] = bytes(self._small[size : self._held])
            self._held = rest
            return frame
        if size > SMALL_BYTES:
            memory: Any = np.empty(size, np.uint8)  # not zeroed: it is filled from the socket
            large = memoryview(memory)
            large[: self._held] = self._small[: self._held]
            self._large, self._large_held, self._held = large, self._held, 0
        return None

    def _take_large(self, large: memoryview) -> memoryview | None:
        if self._large_held < len(large):
            return None
        self._large, self._large_held = None, 0
        return large
