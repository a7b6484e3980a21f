"""Reading a request's body: within budgets of bytes and time, in pieces if it is long.

A slow client may keep a connection, not a share of memory: silence within a body ends it, and so does a
body that takes long without keeping up a least rate. Lines are cut into pieces by content alone (bytes
and line ends, not by how the network cut them), so that a resend has the same pieces and identities.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ingestor.decompress import Decoder
from ingestor.limits import Limits
from records.errors import InvalidRequest, TooLarge
from runtime.clock import Clock

#: Encoded bytes that are decoded on the event loop; more go to a thread.
INLINE_BYTES = 16 << 10
#: A stream has no limit of bytes; one that decodes to more than the budget of a whole body and to so
#: many times its wire bytes is a bomb. Repetitive logs reach a hundred.
BOMB_RATIO = 200
#: Bytes that a thread decodes before they are looked at. More means fewer changes of thread, and as
#: much more memory for each request that is being read.
DECODED_AT_ONCE = 4 << 20
#: Bytes in which line ends are counted at once.
_WINDOW_BYTES = 256 << 10
_NEWLINE = b"\n"


class SlowClient(InvalidRequest):
    """The body did not come in time; nothing of what is missing was used."""

    code = "REQUEST_TIMEOUT"
    http_status = 408


class Stream(Protocol):
    """aiohttp's StreamReader, as far as it is needed."""

    async def readany(self) -> bytes:
        """All bytes that are there, joined; waits for some; empty at the end."""
        ...

    async def readchunk(self) -> tuple[bytes, bool]:
        """(the next bytes as they came, whether they end a chunk of chunked encoding, then maybe empty)."""
        ...


Run = Callable[..., Awaitable[Any]]


class BodyReader:
    """One request's body. `wire`: the chunks as they came are kept for passing the request on."""

    def __init__(
        self, stream: Stream, length: int | None, encoding: str, limits: Limits, clock: Clock
    ) -> None:
        self._stream = stream
        self._length = length
        self._limits = limits
        self._clock = clock
        most = min(limits.decoded_bytes, limits.document_bytes)
        self._decoder = Decoder(encoding, replace(limits, decoded_bytes=most))
        self._encoding = self._decoder.encoding  # "identity" also if the sender says nothing
        self.wire: list[bytes] = []
        self.wire_bytes = 0
        if length is not None and length > limits.wire_bytes:
            self._too_long = length
        else:
            self._too_long = 0

    async def whole(self, run: Run) -> bytes:
        """All of the body, decoded.

        Raises:
            TooLarge, InvalidRequest (damaged, cut short), SlowClient.
        """
        if self._too_long:
            limit = self._limits.wire_bytes
            raise TooLarge(f"the body has {self._too_long} bytes; at most {limit}", limit=limit)
        async for chunk in self._chunks():
            self.wire.append(chunk)
            if self.wire_bytes > self._limits.wire_bytes:
                limit = self._limits.wire_bytes
                raise TooLarge(f"the body is over {limit} bytes", limit=limit)
        if self._encoding == "identity" or self.wire_bytes <= INLINE_BYTES // 4:
            return self._decode()
        return await run(self._decode)

    def _decode(self) -> bytes:
        pieces = [piece for chunk in self.wire for piece in self._decoder.feed(chunk)]
        self._decoder.finish()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def pieces(self, run: Run) -> AsyncIterator[bytes]:
        """Whole lines in pieces of at most `piece_bytes` and `piece_rows`; bodies of any length.

        Raises:
            InvalidRequest (damaged, cut short), SlowClient, TooLarge (the decoded budget of a piece).
        """
        unbounded = replace(self._limits, decoded_bytes=1 << 62, wire_bytes=1 << 62)
        self._decoder = Decoder(self._encoding, unbounded)
        cutter = LineCutter(self._limits)
        async for chunk in self._chunks():
            async for part in self._decoded(chunk, run):
                self._check_ratio()
                for piece in cutter.feed(part):
                    yield piece
        self._decoder.finish()
        for piece in cutter.finish():
            yield piece

    async def _decoded(self, chunk: bytes, run: Run) -> AsyncIterator[bytes]:
        """What `chunk` decodes to, made as it is used: the whole of it may be 30,000 times as much."""
        parts = self._decoder.feed(chunk)
        if self._encoding == "identity" or len(chunk) <= INLINE_BYTES // 4:
            for part in parts:
                yield part
            return
        while batch := await run(_take, parts, DECODED_AT_ONCE):
            for part in batch:
                yield part

    def _check_ratio(self) -> None:
        decoded, wire = self._decoder.decoded_bytes, self._decoder.wire_bytes
        if decoded > self._limits.decoded_bytes and decoded > BOMB_RATIO * wire:
            text = f"{wire} bytes decode to over {decoded}"
            raise TooLarge(text, limit=self._limits.decoded_bytes)

    async def _chunks(self) -> AsyncIterator[bytes]:
        limits, clock = self._limits, self._clock
        begun = clock.monotonic()
        while True:
            try:
                async with asyncio.timeout(limits.idle_seconds):
                    chunk = await self._next()
            except TimeoutError:
                text = f"the body stopped for {limits.idle_seconds:g} s at byte {self.wire_bytes}"
                raise SlowClient(text) from None
            if not chunk:
                return
            self.wire_bytes += len(chunk)
            elapsed = clock.monotonic() - begun
            slowest = self.wire_bytes / limits.body_bytes_per_second
            if elapsed > limits.body_seconds and elapsed > slowest:
                rate = limits.body_bytes_per_second
                raise SlowClient(f"the body came slower than {rate} bytes/s for {elapsed:.0f} s")
            yield chunk

    async def _next(self) -> bytes:
        """The next bytes; empty at the end.

        Of a plain body of known length as they came from the socket: joining what has gathered meanwhile is
        one more copy of the body, since its pieces are joined again. Chunked encoding may cut a body byte
        by byte, and each chunk of a compressed one goes to a thread: there they are joined.
        """
        if self._length is None or self._encoding != "identity":
            return await self._stream.readany()
        chunk, of_chunked = await self._stream.readchunk()
        return await self._stream.readany() if of_chunked and not chunk else chunk


def _take(parts: Iterator[bytes], enough: int) -> list[bytes]:
    """The next parts, of `enough` bytes or a little more; none at the end."""
    taken: list[bytes] = []
    for part in parts:
        taken.append(part)
        enough -= len(part)
        if enough <= 0:
            break
    return taken


class LineCutter:
    """Cuts decoded bytes into pieces of whole lines, by content alone.

    A piece ends at the last line end within its first `piece_bytes`, or at line end `piece_rows` if that
    comes first. A line beyond `row_bytes_max` is cut just above it, so that the parser refuses the
    row while memory holds no more of it.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False
        #: Just above what the parser takes, and no shorter than a piece.
        self._line_bytes_max = max(limits.row_bytes_max, limits.piece_bytes) + 1

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces that are complete with `data`."""
        pieces: list[bytes] = []
        if self._skipping:
            end = data.find(_NEWLINE)
            if end < 0:
                return pieces
            data = data[end:]
            self._skipping = False
        self._add(data)
        if self._size >= self._limits.piece_bytes:
            pieces += self._cut_all()
        return pieces

    def _add(self, data: bytes) -> None:
        if data:
            self._parts.append(data)
            self._size += len(data)

    def finish(self) -> list[bytes]:
        """What is left, as the last pieces."""
        return self._cut_all(last=True)

    def _cut_all(self, last: bool = False) -> list[bytes]:
        """All pieces of what is held. The rest is copied once, not once for each piece."""
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        pieces: list[bytes] = []
        at = 0
        while at < len(whole) and (last or len(whole) - at >= self._limits.piece_bytes):
            end = self._end_of_piece(whole, at)
            if end is None and last:
                end = len(whole)
            if end is None:
                break
            pieces.append(self._shortened(whole, at, end))
            at = end
        rest = whole[at:]
        if len(rest) > self._line_bytes_max:
            self._skipping = True
            rest = rest[: self._line_bytes_max]
        self._parts, self._size = [], 0
        self._add(rest)
        return pieces

    def _shortened(self, whole: bytes, start: int, end: int) -> bytes:
        """A piece; a line that is too long is cut as it would have been, had it come in parts."""
        if end - start <= self._line_bytes_max + 1:
            return whole[start:end]
        return whole[start : start + self._line_bytes_max] + whole[end - 1 : end]

    def _end_of_piece(self, whole: bytes, start: int) -> int | None:
        """Where the piece that begins at `start` ends; None if that is not yet known."""
        limits = self._limits
        full = len(whole) - start >= limits.piece_bytes
        end = whole.rfind(_NEWLINE, start, start + limits.piece_bytes) + 1
        if full and end == 0:
            end = whole.find(_NEWLINE, start + limits.piece_bytes) + 1
        if end - start > limits.piece_rows:  # fewer bytes hold fewer lines
            at = self._end_of_rows(whole, start, end)
            if at is not None:
                return at
        return end if full and end else None

    def _end_of_rows(self, whole: bytes, start: int, end: int) -> int | None:
        """The end of line `piece_rows` from `start`, if it is before `end`."""
        left = self._limits.piece_rows
        for at in range(start, end, _WINDOW_BYTES):
            stop = min(end, at + _WINDOW_BYTES)
            ends = np.frombuffer(whole, np.uint8, stop - at, at) == _NEWLINE[0]
            count = int(np.count_nonzero(ends))  # four times as fast as bytes.count
            if count >= left:
                return at + int(np.flatnonzero(ends)[left - 1]) + 1
            left -= count
        return None
