"""One connection between two nodes: frames both ways, one request at a time.

    hello      client -> server, first: head {"version", "token", "node"}; not answered if it is right
    request    client -> server: head {"op", "ms", "head"}, payload
    answer     server -> client: head (the operation's, or {"error"}), payload

The protocol stands on the event loop's buffered protocols, so that bytes go from the socket into the
memory where a block stays, and out of it by `writev`. Who is at the other end is known from the hello;
a connection belongs to one request until it is answered. A caller that gives up closes it, and that
cancels the work at the other side. docs/adr/0013.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import cast

from cluster.peer_frames import FrameReader
from records.errors import EnvelopeCorrupt, QuorumlogError

VERSION = 1
#: Bytes of a hello: all that a stranger can make us hold.
HELLO_BYTES = 4 << 10

Part = bytes | memoryview


class PeerConnection(asyncio.BufferedProtocol):
    """Frames in, frames out. Use on one event loop; one reader at a time."""

    def __init__(self, limit: int) -> None:
        self.reader = FrameReader(limit)
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self._error: Exception | None = None
        self._frames: deque[memoryview] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False

    # -- called by the event loop ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remembers the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's have no such base

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self.reader.target()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come. What is no frame, and a third one before the first was answered, ends all."""
        self.reader.filled(nbytes)
        try:
            while (frame := self.reader.take()) is not None:
                self.arrived(frame)
        except QuorumlogError as error:
            self._error = error
            self.abort()
            self._wake()

    def arrived(self, frame: memoryview) -> None:
        """Keeps a frame until it is asked for.

        Raises:
            EnvelopeCorrupt: more than one waits.
        """
        if self._frames:
            raise EnvelopeCorrupt("frames came without being asked for")
        self._frames.append(frame)
        self._wake()

    def eof_received(self) -> bool:
        """The other side has ended: so do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more comes or goes."""
        self.lost, self._error = True, self._error or exc
        self._wake()

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket takes bytes again."""
        self._paused = False
        self._wake()

    # -- called by us ---------------------------------------------------------------------------

    def send(self, parts: Iterable[Part]) -> None:
        """Queues parts, unjoined and uncopied; they must not change until they are sent."""
        if self.lost or self._transport is None:
            raise ConnectionResetError("the connection is closed")
        self._transport.writelines([part for part in parts if len(part)])

    async def drained(self) -> None:
        """Returns when most of what was sent has left.

        Raises:
            ConnectionResetError: it never will.
        """
        while self._paused and not self.lost:
            await self._wait()
        if self.lost:
            raise ConnectionResetError("the connection was lost") from self._error

    async def frame(self) -> memoryview:
        """The next frame.

        Raises:
            ConnectionResetError: the other side is gone.
            QuorumlogError: what came is no frame, or not welcome; the connection is closed.
        """
        while not self._frames:
            if isinstance(self._error, QuorumlogError):
                raise self._error
            if self.lost:
                raise ConnectionResetError("the connection was lost") from self._error
            await self._wait()
        return self._frames.popleft()

    @property
    def quiet(self) -> bool:
        """Whether nothing has come that was not asked for."""
        return not self._frames and self.reader.empty and self._error is None

    def close(self) -> None:
        """Closes once all is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        assert self._waiter is None, "two readers of one connection"
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
