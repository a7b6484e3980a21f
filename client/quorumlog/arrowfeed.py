"""Arrow batches out of an HTTP body while it arrives, in bounded memory.

pyarrow reads a stream from a blocking file only. So a thread reads from `_Pipe`, the event loop fills
it, and each waits for the other: at most `_PIECES` pieces of the body and `_BATCHES` batches are held.
Closing either end ends the other.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

from .errors import ConnectionLost
from .results import import_pyarrow

_PIECES = 16
_BATCHES = 2


class _Closed(Exception):
    """The consumer has gone."""


class _Pipe:
    """A readable file for pyarrow, written from the event loop."""

    closed = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._room = asyncio.Semaphore(_PIECES)
        self._pieces: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        self._rest = memoryview(b"")
        self._ended: BaseException | None = None

    async def put(self, piece: bytes) -> None:
        """Waits for room."""
        await self._room.acquire()
        self._pieces.put(piece)

    def end(self, error: BaseException | None = None) -> None:
        """No more pieces; the reader gets EOF, or `error`."""
        self._pieces.put(error or EOFError())

    def read(self, size: int = -1) -> bytes:
        """Blocks until `size` bytes are there, or the end."""
        parts: list[memoryview] = []
        wanted = size if size >= 0 else 1 << 62
        while wanted > 0:
            if not self._rest and not self._next_piece():
                break
            part, self._rest = self._rest[:wanted], self._rest[wanted:]
            wanted -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _next_piece(self) -> bool:
        if self._ended is None:
            piece = self._pieces.get()
            if isinstance(piece, bytes):
                self._rest = memoryview(piece)
                self._loop.call_soon_threadsafe(self._room.release)
                return True
            self._ended = piece
        if not isinstance(self._ended, EOFError):
            raise self._ended
        return False


async def batches(body: AsyncIterable[bytes]) -> AsyncGenerator[Any, None]:
    """The `pyarrow.RecordBatch`es of an Arrow IPC stream.

    Raises:
        ConnectionLost: the body ended in the middle.
        MissingExtra: pyarrow is not installed.
    """
    pa = import_pyarrow()
    loop = asyncio.get_running_loop()
    pipe = _Pipe(loop)
    found: asyncio.Queue[Any] = asyncio.Queue()
    room = threading.Semaphore(_BATCHES)
    stopped = threading.Event()

    def read_all() -> None:
        try:
            with pa.ipc.open_stream(pipe) as reader:
                for batch in reader:
                    room.acquire()
                    if stopped.is_set():
                        return
                    loop.call_soon_threadsafe(found.put_nowait, batch)
        except (pa.ArrowInvalid, OSError) as error:
            raise ConnectionLost(f"the Arrow stream cannot be read: {error}") from error

    async def fill() -> None:
        try:
            async for piece in body:
                await pipe.put(piece)
        except BaseException as error:
            pipe.end(error)
            raise
        pipe.end()

    filler = asyncio.create_task(fill(), name="quorumlog-arrow-fill")
    reader = loop.run_in_executor(None, read_all)
    reader.add_done_callback(lambda done: found.put_nowait(done.exception()))
    try:
        while (batch := await found.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield batch
            room.release()
    finally:
        stopped.set()
        room.release()
        filler.cancel()
        pipe.end(_Closed())
        await asyncio.gather(filler, reader, return_exceptions=True)
