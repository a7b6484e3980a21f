"""The data path of the fault proxy: one connection's two directions, each through a chain of toxics.

A *link* is one direction: a reader that stamps each piece as it arrives, a queue, a worker that takes
pieces through the chain in order, and the destination. The worker waits only in ways that a change of
the chain interrupts: what it holds then goes out at once, and the next piece meets the new chain.
Because waits are reckoned from the stamp of arrival, a burst under 200 ms of latency takes 200 ms.

As in the original: the end of one direction closes the whole destination, so a half-closed connection
is not kept; whether a toxic hits a connection is drawn per connection, again after each change.

Source: Toxiproxy (Shopify), its documented behaviour.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from chaos.toxics import Stream, Toxic
from runtime.entropy import Entropy

CHUNK_BYTES = 32 * 1024
#: Seconds for what was written to leave, once a connection is over; then it is dropped.
LINGER_SECONDS = 1.0
#: Pieces that wait for a link's worker; then the sender is no longer read from.
QUEUE_CHUNKS = 1024
_RESET = struct.pack("ii", 1, 0)

Chunk = tuple[bytes, float]


class Ended(Exception):
    """The connection is over: a toxic says so."""


class Link:
    """One direction of one connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        chain: Callable[[], Sequence[Toxic]],
        entropy: Entropy,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._chain_now, self._entropy = chain, entropy
        self._queue: deque[Chunk | None] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._chain: list[Toxic] = []
        self._changed = True
        self._passed: dict[Toxic, int] = {}
        self._debt: dict[Toxic, float] = {}
        self.bytes_in = 0
        self.bytes_out = 0

    def on_change(self) -> None:
        """The chain has another toxic, or one has other numbers: waits end, lots are drawn anew."""
        self._changed = True
        self._wake.set()

    async def run(self) -> None:
        """Carries data until the connection is over, in whatever way."""
        reading = asyncio.create_task(self._read(), name="toxid-read")
        try:
            with contextlib.suppress(Ended, OSError):
                await self._work()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await self._reader.read(CHUNK_BYTES):
                self.bytes_in += len(data)
                self._queue.append((data, loop.time()))
                self._wake.set()
                if len(self._queue) >= QUEUE_CHUNKS:
                    self._room.clear()
                    await self._room.wait()
        except OSError:
            pass  # reset by that side: for the other one it is an end
        self._queue.append(None)
        self._wake.set()

    async def _work(self) -> None:
        while True:
            self._redraw()
            idle = self._idle_seconds()
            if not self._queue:
                if not await self._wait(idle):
                    raise Ended  # a timeout toxic saw no data for so long
                continue
            item = self._queue.popleft()
            self._room.set()
            if item is None:
                await self._at_end()
                return
            await self._pass(*item)

    def _redraw(self) -> None:
        if self._changed:
            self._changed = False
            chain = list(self._chain_now())
            if any(one.kind == "timeout" and one not in chain for one in self._chain):
                raise Ended  # what was dropped is gone: the connection cannot go on
            self._chain = [one for one in chain if self._entropy.uniform(0, 1) < one.toxicity]

    def _idle_seconds(self) -> float | None:
        limits = [one.attributes.get("timeout", 0) for one in self._chain if one.kind == "timeout"]
        return min((limit / 1000 for limit in limits if limit > 0), default=None)

    async def _wait(self, seconds: float | None) -> bool:
        """False after `seconds`; True as soon as there is data or another chain."""
        self._wake.clear()
        if self._queue or self._changed:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _sleep(self, seconds: float) -> bool:
        """Waits; False if the chain changed meanwhile."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self._changed and (left := until - loop.time()) > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()
        return not self._changed

    # -- one piece through the chain

    async def _pass(self, data: bytes, stamp: float) -> None:
        ends = False
        for toxic in self._chain:
            if self._changed:
                break  # interrupted: what is held goes out at once
            if toxic.kind == "latency":
                stamp = await self._late(toxic, stamp)
            elif toxic.kind == "bandwidth":
                data = await self._throttled(toxic, data)
            elif toxic.kind == "slicer":
                data = await self._sliced(toxic, data)
            elif toxic.kind == "timeout":
                return  # dropped
            elif toxic.kind == "limit_data":
                data, ends = self._limited(toxic, data)
            elif toxic.kind == "reset_peer":
                await asyncio.sleep(toxic.attributes.get("timeout", 0) / 1000)
                raise Ended
            if ends:
                break
        await self._send(data)
        if ends:
            raise Ended

    async def _send(self, data: bytes) -> None:
        if data:
            self._writer.write(data)
            await self._writer.drain()
            self.bytes_out += len(data)

    async def _late(self, toxic: Toxic, stamp: float) -> float:
        jitter = toxic.attributes.get("jitter", 0)
        delay = toxic.attributes.get("latency", 0)
        delay += self._entropy.uniform(-jitter, jitter) if jitter > 0 else 0.0
        due = stamp + max(0.0, delay) / 1000
        await self._sleep(due - asyncio.get_running_loop().time())
        return due

    async def _throttled(self, toxic: Toxic, data: bytes) -> bytes:
        """Sends slices of 100 ms while there is more than one; returns the rest when it is due."""
        rate = toxic.attributes.get("rate", 0)
        if rate <= 0:
            await self._until_changed()
            return data
        loop = asyncio.get_running_loop()
        debt = self._debt.get(toxic, 0.0) + len(data) / (rate * 1000)
        while len(data) > rate * 100:
            if not await self._sleep(0.1):
                return data
            await self._send(data[: rate * 100])
            data, debt = data[rate * 100 :], debt - 0.1
        begin = loop.time()
        if await self._sleep(debt):
            self._debt[toxic] = debt - (loop.time() - begin)
        return data

    async def _sliced(self, toxic: Toxic, data: bytes) -> bytes:
        """Sends it in pieces with a pause after each; returns the last, or the rest if the chain changes."""
        average = max(1, toxic.attributes.get("average_size", 0))
        variation = min(max(0, toxic.attributes.get("size_variation", 0)), average - 1)
        pause = toxic.attributes.get("delay", 0) / 1e6
        at = 0
        for end in cuts(len(data), average, variation, self._entropy)[:-1]:
            await self._send(data[at:end])
            at = end
            if not await self._sleep(pause):
                break
        return data[at:]

    async def _until_changed(self) -> None:
        while not self._changed:
            self._wake.clear()
            await self._wake.wait()

    def _limited(self, toxic: Toxic, data: bytes) -> tuple[bytes, bool]:
        """What may still pass, and whether that was the last. Counted over updates."""
        left = max(0, toxic.attributes.get("bytes", 0) - self._passed.get(toxic, 0))
        passed = data[:left]
        self._passed[toxic] = self._passed.get(toxic, 0) + len(passed)
        return passed, len(data) >= left

    async def _at_end(self) -> None:
        """The sender has ended; whoever waits for data still has its say."""
        for toxic in self._chain:
            if toxic.kind == "reset_peer":
                await asyncio.sleep(toxic.attributes.get("timeout", 0) / 1000)
            elif toxic.kind == "slow_close" and not self._changed:
                await self._sleep(toxic.attributes.get("delay", 0) / 1000)
            elif toxic.kind == "timeout" and not self._changed:
                limit = toxic.attributes.get("timeout", 0) / 1000
                await (self._sleep(limit) if limit > 0 else self._until_changed())


def cuts(length: int, average: int, variation: int, entropy: Entropy) -> list[int]:
    """Where pieces of about `average` +- `variation` bytes end; the last is `length`.

    Cut in the middle, give or take the variation, again and again. `variation` < `average`.
    """
    ends: list[int] = []
    waiting = [(0, length)]
    while waiting:
        low, high = waiting.pop()
        if high - low <= average + variation:
            ends.append(high)
            continue
        shift = int(entropy.uniform(-variation, variation)) if variation else 0
        middle = min(max((low + high) // 2 + shift, low + 1), high - 1)
        waiting += [(middle, high), (low, middle)]
    return ends


class Connection:
    """A client's connection and the one to the upstream; both end together."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        chain: Callable[[Stream], Sequence[Toxic]],
        entropy: Entropy,
    ) -> None:
        self._writers = (client[1], upstream[1])
        self.up = Link(client[0], upstream[1], lambda: chain("upstream"), entropy)
        self.down = Link(upstream[0], client[1], lambda: chain("downstream"), entropy)
        kinds = {one.kind for one in (*chain("upstream"), *chain("downstream"))}
        if "reset_peer" in kinds:  # only connections made under the toxic end by a reset
            for writer in self._writers:
                _set_linger(writer)

    def on_change(self) -> None:
        """The proxy's toxics have changed."""
        self.up.on_change()
        self.down.on_change()

    async def run(self) -> None:
        """Carries both directions. The end of one closes its destination, which ends the other."""
        links = ((self.up, self._writers[1]), (self.down, self._writers[0]))
        tasks = [asyncio.create_task(_carry(link, writer)) for link, writer in links]
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        """Closes both sockets. Whoever does not take the rest of its data in time does not get it."""
        for writer in self._writers:
            writer.close()
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                for writer in self._writers:
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
        except TimeoutError:
            for writer in self._writers:
                writer.transport.abort()


async def _carry(link: Link, writer: asyncio.StreamWriter) -> None:
    await link.run()
    writer.close()


def _set_linger(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
