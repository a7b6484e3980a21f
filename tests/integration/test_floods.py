"""Too much of something, against a real node: bombs, tiny requests, slow and silent clients.

One node (N=1). What is bounded is read from /proc: the peak of resident memory, descriptors, threads; and
the number of tasks from the node's own gauge. Companion of test_bad_input.py, which goes through the kinds.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from tests.support.cluster import LocalCluster, eventually, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

#: A write is held for 2 s: less than the slow uploads take.
SETTINGS = "\n[ingest]\nhold_seconds = 2.0\n"
MIB = 1 << 20
NDJSON, JSON, CSV = "application/x-ndjson", "application/json", "text/csv"
#: One document of the allowed 128 MiB, as text and joined, and the pieces of a stream: well below 1 GiB.
BOMB_GROWTH_BYTES = 400 * MIB

#: Worker threads, the store's, Raft's and the libraries' own: pools that fill up once.
THREADS_MAX = 40


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One node; in the end it may have logged no error."""
    folder = tmp_path_factory.mktemp("floods") / "c"
    with running_cluster(folder, nodes=1, settings=SETTINGS) as cluster:
        yield cluster
        assert cluster.errors_logged() == []


class Process:
    """What the kernel says of the node's process."""

    def __init__(self, node: LocalCluster) -> None:
        self._folder = Path(f"/proc/{node.running['node1'].pid}")

    def bytes_of(self, name: str) -> int:
        """`VmRSS` or `VmHWM`, bytes."""
        for line in (self._folder / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
        raise AssertionError(f"no {name}")

    def forget_peak(self) -> None:
        """Sets VmHWM to what is resident now."""
        try:
            (self._folder / "clear_refs").write_text("5")
        except PermissionError:
            pytest.skip("the kernel does not let us reset the peak of memory")

    def descriptors(self) -> int:
        """Open files and sockets."""
        return sum(1 for _ in (self._folder / "fd").iterdir())

    def threads(self) -> int:
        """Threads."""
        return sum(1 for _ in (self._folder / "task").iterdir())


def tasks(node: LocalCluster) -> int:
    """Tasks of the node's event loop."""
    text = http("GET", f"{node.urls[0]}/metrics")[1]
    line = next(line for line in text.splitlines() if line.startswith("quorumlog_tasks "))
    return int(float(line.split()[1]))


def post(node: LocalCluster, body: bytes, kind: str, encoding: str = "identity") -> tuple:
    """(status, answer) of POST /logs."""
    headers = {"Content-Type": kind, "Content-Encoding": encoding}
    status, answer, _ = http("POST", node.urls[0] + "/logs", body, headers, timeout=100)
    return status, answer


def repeated_gzip(unit: bytes, times: int) -> bytes:
    """gzip of `unit` many times over, made quickly: one flushed deflate block repeated. No trailer."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(unit) + packer.flush(zlib.Z_FULL_FLUSH)
    return gzip.compress(b"")[:10] + block * times


def repeated_zstd(unit: bytes, times: int) -> bytes:
    """zstd of `unit` many times over: a frame repeated."""
    return zstandard.compress(unit) * times


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "10 GiB of zeros, gzip": ("gzip", lambda: repeated_gzip(b"\0" * MIB, 10 << 10)),
    "10 GiB of zeros, zstd": ("zstd", lambda: repeated_zstd(b"\0" * (64 * MIB), 160)),
    "2 GiB of empty lines": ("gzip", lambda: repeated_gzip(b"\n" * MIB, 2 << 10)),
    "2 GiB of brackets": ("gzip", lambda: repeated_gzip(b"[" * MIB, 2 << 10)),
}


@pytest.mark.parametrize("kind", [NDJSON, JSON, CSV])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_bounded_memory(node: LocalCluster, name: str, kind: str) -> None:
    """413, and the *peak* of memory while it was read is bounded, whatever the bomb would have meant."""
    encoding, make = BOMBS[name]
    process, body = Process(node), make()
    assert len(body) < 12 * MIB
    process.forget_peak()
    before = process.bytes_of("VmRSS")

    status, answer = post(node, body, kind, encoding)

    grown = process.bytes_of("VmHWM") - before
    assert status == 413, answer
    assert (answer["error"]["code"], answer["error"]["definite"]) == ("TOO_LARGE", True)
    assert grown < BOMB_GROWTH_BYTES, f"{grown >> 20} MiB for {len(body) >> 10} KiB"
    assert node.get("/health")["status"] == "ok"


class Wire:
    """One kept connection that speaks just enough HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    @classmethod
    async def open(cls, node: LocalCluster) -> "Wire":
        """A new connection to the node."""
        host, _, port = node.urls[0].removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def send(self, body: bytes, kind: str = JSON, length: int | None = None) -> None:
        """A request; `length` may promise more than is sent."""
        size = len(body) if length is None else length
        head = f"POST /logs HTTP/1.1\r\nHost: q\r\nContent-Type: {kind}\r\nContent-Length: {size}"
        self.writer.write(f"{head}\r\n\r\n".encode() + body)

    async def answer(self) -> tuple[int, bytes]:
        """(status, body) of the next answer."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        return int(head.split()[1]), await self._reader.readexactly(length)

    async def ended(self, seconds: float) -> bool:
        """Whether the node closes the connection in that time."""
        try:
            async with asyncio.timeout(seconds):
                while await self._reader.read(1 << 16):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True


def row(service: str, message: str) -> bytes:
    """A JSON array of one row."""
    return json.dumps([{"service": service, "message": message}]).encode()


async def test_twenty_thousand_tiny_requests_leave_nothing_behind(node: LocalCluster) -> None:
    """One row each over 64 connections: all are stored once; memory, tasks, files do not grow with them.

    The first quarter warms up; the bound on the rest is 2 KiB a row, indexes and hot data included.
    """
    process = Process(node)

    async def agent(wire: Wire, number: int, first: int, last: int) -> None:
        for n in range(first, last):
            wire.send(row("tiny", f"{number} {n}"))
            status, answer = await wire.answer()
            assert status == 200, answer

    async def all_agents(first: int, last: int) -> None:
        await asyncio.gather(*(agent(w, i, first, last) for i, w in enumerate(wires)))

    wires = [await Wire.open(node) for _ in range(64)]
    await all_agents(0, 78)
    warm = process.bytes_of("VmRSS"), process.descriptors()
    tasks_warm = await asyncio.to_thread(tasks, node)
    await all_agents(78, 313)
    grown = process.bytes_of("VmRSS") - warm[0]
    for wire in wires:
        wire.writer.close()

    assert grown < 15_000 * 2048, f"{grown >> 20} MiB"
    assert process.threads() <= THREADS_MAX
    assert process.descriptors() <= warm[1] + 5
    assert await asyncio.to_thread(tasks, node) <= tasks_warm + 3
    url = f"{node.urls[0]}/query?service=tiny&format=ndjson&fields=message"
    text = (await asyncio.to_thread(http, "GET", url))[1]
    found = [json.loads(line)["message"] for line in text.splitlines()]
    assert sorted(found) == sorted(f"{i} {n}" for i in range(64) for n in range(313))


async def test_silent_and_trickling_clients_do_not_keep_others_waiting(node: LocalCluster) -> None:
    """200 silent connections, 20 heads and 20 bodies byte by byte: appends go on, and they are ended."""
    process = Process(node)
    files_before = process.descriptors()
    silent = [await Wire.open(node) for _ in range(200)]
    heads = [await Wire.open(node) for _ in range(20)]
    bodies = [await Wire.open(node) for _ in range(20)]
    for wire in bodies:
        wire.send(b'[{"service":"slow', length=100_000)

    async def trickle() -> None:
        for byte in b"POST /logs HTTP/1.1\r\nHost: q\r\nX-Slow: " + b"x" * 1000:
            for wire in (*heads, *bodies):
                wire.writer.write(bytes((byte,)))
            await asyncio.sleep(0.1)

    async def append(n: int) -> None:
        wire = await Wire.open(node)
        wire.send(row("meanwhile", str(n)))
        async with asyncio.timeout(10):
            status, answer = await wire.answer()
        assert status == 200, answer
        wire.writer.close()

    trickling = asyncio.create_task(trickle())
    for n in range(50):
        await append(n)
    ended = await asyncio.gather(*(wire.ended(25) for wire in (*silent, *heads)))
    trickling.cancel()
    for wire in (*silent, *heads, *bodies):
        wire.writer.close()

    assert all(ended), (
        f"{ended.count(False)} of {len(ended)} connections without a request are kept"
    )
    found = node.get("/query?service=meanwhile&limit=100")
    assert {one["message"] for one in found["rows"]} == {str(n) for n in range(50)}
    await asyncio.to_thread(
        eventually, lambda: process.descriptors() <= files_before + 5 and tasks(node) < 60
    )


@pytest.mark.parametrize("kind", [NDJSON, JSON])
async def test_a_slow_upload_that_keeps_its_pace_is_stored(node: LocalCluster, kind: str) -> None:
    """4 s for the body, twice what a write may be held: the hold begins when rows are there."""
    service = "pace-lines" if kind == NDJSON else "pace-array"
    rows = [json.dumps({"service": service, "message": f"{n} {'x' * 200}"}) for n in range(100)]
    body = ("[" + ",".join(rows) + "]" if kind == JSON else "\n".join(rows) + "\n").encode()
    wire = await Wire.open(node)
    wire.send(b"", kind, length=len(body))

    for at in range(0, len(body), len(body) // 20 + 1):
        wire.writer.write(body[at : at + len(body) // 20 + 1])
        await asyncio.sleep(0.2)
    status, answer = await wire.answer()
    wire.writer.close()

    assert status == 200, answer
    assert json.loads(answer)["accepted"] == 100
    assert len(node.get(f"/query?service={service}&limit=1000")["rows"]) == 100
