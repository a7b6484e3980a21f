"""Answers that end after every number of bytes, one after the other: what half an answer makes of a client.

A link of its own to one node ends each connection after k bytes of the answer, for k = 1, 2, 3 … until all
of it comes through. Each time one small request goes through it, by the client library's own HTTP shell;
rows that are not acknowledged are sent again, the same bytes, through the other nodes. All of it stands in
the history, so that a row that is doubled, lost, or acknowledged by half an answer is seen there (I1, I2,
I5).

    /logs          one row without a number         /ingest    one row with a number
    /query/stats   a count by client                /query     the head and the first rows of a stream

The link is an `asyncio` server here, not the fault server: it knows for each connection whether it kept back
anything, and costs no request.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from chaos import workload
from chaos.corpus import group_of
from chaos.history import READ, Range
from chaos.workload import Client, Traffic
from quorumlog.wire import Wire, WireSettings

#: Clients whose rows the sweep sends, and who reads.
LINES, NUMBERED, READER = "sweep-lines1", "sweep-numbered1", "sweep-reader1"
#: Seconds of a sweep at most, and for an answer that comes, or never will.
SWEEP_SECONDS, ANSWER_SECONDS = 180.0, 12.0
#: Links at once, so that many lengths are tried at a time.
LINKS = 12
#: Bytes that are swept of a stream, and of other answers at most.
STREAM_BYTES, ANSWER_BYTES_MAX = 400, 2000
#: Lengths beyond that of the answer measured: others have some digits more.
DIGITS = 8

Sender = Callable[[Client, str], Awaitable[bool]]


class Cutter:
    """A link that ends each connection after `limit` bytes of what the node answers (0: never).

    `passed`: bytes of the last connection's answer that came through; `kept`: whether there were more.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = host, port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.limit, self.passed, self.kept = 0, 0, False

    async def start(self) -> str:
        """The address to dial."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def stop(self) -> None:
        """Ends all connections, and takes no more."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.passed, self.kept = 0, False
        try:
            with contextlib.suppress(OSError):
                there = await asyncio.open_connection(*self._upstream)
                asked = asyncio.create_task(_forward(reader, there[1]))
                try:
                    await self._answer(there[0], writer)
                finally:
                    asked.cancel()
                    there[1].close()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            left = self.limit - self.passed if self.limit else len(data)
            writer.write(data[:left])
            await writer.drain()
            self.passed += len(data[:left])
            if len(data) > left:
                self.kept = True
                return


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


@dataclass(slots=True)
class Sweeper:
    """Sweeps a node. Called on a thread; it works on the run's event loop. `addresses`: host and port."""

    traffic: Traffic
    addresses: Mapping[str, tuple[str, int]]
    seed: int
    loop: asyncio.AbstractEventLoop
    #: Of the numbered rows; the next number of a row of either kind.
    epoch: int = 0
    lines: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __call__(self, node: str, path: str) -> dict[str, Any]:
        """What was swept of one kind of request: see `_one`. Blocks."""
        work = asyncio.run_coroutine_threadsafe(self._sweep(node, path), self.loop)
        return work.result(SWEEP_SECONDS + 4 * ANSWER_SECONDS)

    async def _sweep(self, node: str, path: str) -> dict[str, Any]:
        if path == "/ingest" and not self.epoch:
            self.epoch = await self._epoch()

        def lines(cut: Traffic, wire: Wire) -> Awaitable[bool]:
            number = next(self.lines)
            return self._rows(cut, node, wire, LINES, number, _lines(cut, number))

        def numbers(cut: Traffic, wire: Wire) -> Awaitable[bool]:
            number = next(self.numbers)
            send = _numbers(cut, number, self.epoch)
            return self._rows(cut, node, wire, NUMBERED, number, send)

        def counts(cut: Traffic, wire: Wire) -> Awaitable[bool]:
            return workload.count(self._client(cut, READER, wire), node)

        def stream(cut: Traffic, wire: Wire) -> Awaitable[bool]:
            return _stream(cut, wire, node)

        asks = {"/logs": lines, "/ingest": numbers, "/query/stats": counts, "/query": stream}
        return await self._one(path, node, asks[path])

    async def _one(
        self, path: str, node: str, ask: Callable[[Traffic, Wire], Awaitable[bool]]
    ) -> dict[str, Any]:
        """`bytes`: of a whole answer; `cut`: how many ended earlier, one of each length; `ended`: whether no
        length was left out; `taken`: lengths at which less than an answer was taken for one.
        """
        cuts, taken = list[int](), list[int]()
        whole = 0
        lengths: Iterator[int] = iter(())

        until = self.traffic.clock.monotonic() + SWEEP_SECONDS

        async def send(cutter: Cutter, cut: Traffic, k: int) -> bool:
            cutter.limit = k
            wire = Wire(WireSettings(request_timeout_seconds=ANSWER_SECONDS))
            try:
                return await ask(cut, wire)
            finally:
                await wire.close()

        async def work(cutter: Cutter, cut: Traffic) -> None:
            for k in lengths:
                if self.traffic.clock.monotonic() > until:
                    return
                answered = await send(cutter, cut, k)
                if cutter.kept:
                    cuts.append(k)
                if cutter.kept and answered:
                    taken.append(k)

        cutters = [Cutter(*self.addresses[node]) for _ in range(LINKS)]
        try:
            cuttings = [
                (one, replace(self.traffic, urls={node: f"http://{await one.start()}"}))
                for one in cutters
            ]
            if await send(*cuttings[0], 0):
                whole = cutters[0].passed
            top = STREAM_BYTES if path == "/query" else min(whole + DIGITS, ANSWER_BYTES_MAX)
            lengths = iter(range(1, top + 1))
            await asyncio.gather(*(work(*one) for one in cuttings))
        finally:
            for one in cutters:
                await one.stop()
        ended = whole > 0 and set(range(1, min(top, whole - DIGITS))) <= set(cuts)
        return {"bytes": whole, "cut": len(cuts), "ended": ended, "taken": taken}

    async def _rows(
        self, cut: Traffic, node: str, wire: Wire, name: str, k: int, send: Sender
    ) -> bool:
        """Whether rows were acknowledged through the cut link; if not, they are now, through the others."""
        if await send(self._client(cut, name, wire), node):
            return True
        others = list(self.traffic.urls)
        client = Client(self.traffic, name, self.seed, others.index(node) + 1)
        try:
            await client.until_acked([(k, k)], lambda through: send(client, through))
        finally:
            await client.wire.close()
        return False

    def _client(self, traffic: Traffic, name: str, wire: Wire) -> Client:
        return Client(traffic, name, self.seed, 0, wire)

    async def _epoch(self) -> int:
        client = Client(self.traffic, NUMBERED, self.seed, 0)
        try:
            return await workload.ask_epoch(client, self.traffic.services[NUMBERED])
        finally:
            await client.wire.close()


def _lines(traffic: Traffic, k: int) -> Sender:
    batch: Range = (k, k)
    rows = traffic.lines(LINES, k, k)
    body = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)

    async def send(client: Client, node: str) -> bool:
        return await workload.send_lines(client, node, body, batch)

    return send


def _numbers(traffic: Traffic, k: int, epoch: int) -> Sender:
    batch: Range = (k, k)
    body = workload.ack_body(traffic, NUMBERED, epoch, batch)

    async def send(client: Client, node: str) -> bool:
        return await workload.send_numbered(client, node, body, batch, epoch)

    return send


async def _stream(traffic: Traffic, wire: Wire, node: str) -> bool:
    group = group_of("agent1", 1)
    op = traffic.recorder.invoke(READER, READ, node, covers=group)
    return await workload.read_rows(wire, traffic, op, node, {"chaos_group": group})
