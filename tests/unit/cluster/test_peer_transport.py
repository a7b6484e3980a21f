"""The transport against a real peer server on loopback: answers, errors, strangers, dead peers."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvloop

from cluster.peer_frames import SMALL_BYTES
from cluster.peer_server import PeerServer
from cluster.peer_transport import PeerTransport, cluster_token
from cluster.transport import MAX_FRAME_BYTES
from records import envelope
from records.errors import (
    ConnectionLost,
    DeadlineExceeded,
    EnvelopeCorrupt,
    Forbidden,
    NotFound,
    StaleRingEpoch,
    TooLarge,
    Unknown,
)
from runtime.clock import SystemClock
from runtime.deadline import Deadline

TOKEN = cluster_token(b"s" * 32)
CLOCK = SystemClock()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Peer:
    """A server with operations that answer, fail, hang."""

    def __init__(self) -> None:
        self.port = free_port()
        self.cancelled = asyncio.Event()
        self.server = PeerServer(TOKEN, CLOCK)
        self.server.add({"echo": self.echo, "fail": self.fail, "hang": self.hang})

    async def echo(self, head, payload, deadline):
        return {"back": head, "left": deadline.remaining()}, bytes(payload)

    async def fail(self, head, payload, deadline):
        raise StaleRingEpoch("newer ring", epoch=7)

    async def hang(self, head, payload, deadline):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return {}, b""


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A listening peer."""
    one = Peer()
    await one.server.start("127.0.0.1", one.port)
    yield one
    await one.server.stop()


@pytest.fixture
async def transport(peer: Peer) -> AsyncIterator[PeerTransport]:
    """A transport that knows `peer`, and `dead` where nobody listens."""
    addresses = {"peer": f"127.0.0.1:{peer.port}", "dead": f"127.0.0.1:{free_port()}"}
    seen: list[tuple[str, bool]] = []
    one = PeerTransport("me", TOKEN, addresses.get, lambda node, ok: seen.append((node, ok)))
    one.seen = seen  # type: ignore[attr-defined]
    await one.start()
    yield one
    await one.stop()


def soon(seconds: float = 5.0) -> Deadline:
    """A deadline."""
    return Deadline.after(CLOCK, seconds)


async def test_head_and_payload_come_back_and_the_deadline_travels(
    transport: PeerTransport,
) -> None:
    """A megabyte of payload, verbatim; the peer knows how long it has."""
    payload = bytes(range(256)) * 4096

    head, body = await transport.call("peer", "echo", {"a": [1, b"x"]}, payload, soon(5))

    assert head["back"] == {"a": [1, b"x"]}
    assert 0 < head["left"] <= 5
    assert bytes(body) == payload
    assert transport.seen == [("peer", True)]  # type: ignore[attr-defined]


async def test_a_peers_error_arrives_as_what_it_was(transport: PeerTransport) -> None:
    """With its class, its details, and whether it is definite."""
    with pytest.raises(StaleRingEpoch) as caught:
        await transport.call("peer", "fail", {}, b"", soon())
    assert caught.value.details["epoch"] == 7
    assert caught.value.definite


async def test_a_dead_peer_is_a_definite_loss_and_an_unknown_one_is_not_found(
    transport: PeerTransport,
) -> None:
    """Refused connection: the request surely did not arrive."""
    with pytest.raises(ConnectionLost) as caught:
        await transport.call("dead", "echo", {}, b"", soon())
    assert caught.value.details["definite"] is True
    with pytest.raises(NotFound):
        await transport.call("stranger", "echo", {}, b"", soon())
    with pytest.raises(NotFound):
        await transport.call("peer", "nothing", {}, b"", soon())


async def test_a_hanging_peer_ends_with_the_deadline_and_is_cancelled(
    peer: Peer, transport: PeerTransport
) -> None:
    """The caller gets an unknown outcome; the peer stops working for nobody."""
    with pytest.raises(DeadlineExceeded) as caught:
        await transport.call("peer", "hang", {}, b"", soon(0.2))
    assert not caught.value.definite
    await asyncio.wait_for(peer.cancelled.wait(), 5)


async def test_a_restarted_peer_is_reached_through_a_stale_connection(
    peer: Peer, transport: PeerTransport
) -> None:
    """The pooled connection broke in between; one repeat on a fresh one hides it."""
    await transport.call("peer", "echo", {}, b"", soon())
    await peer.server.stop()
    peer.server = PeerServer(TOKEN, CLOCK)
    peer.server.add({"echo": peer.echo})
    await peer.server.start("127.0.0.1", peer.port)

    head, _ = await transport.call("peer", "echo", {"n": 2}, b"", soon())

    assert head["back"] == {"n": 2}


async def said_to(peer: Peer, data: bytes) -> bytes:
    """What a stranger that sends `data` hears until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
    writer.write(data)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def hello(token: str, version: int = 1) -> bytes:
    """The first frame of a peer."""
    return envelope.encode({"version": version, "token": token, "node": "x"})


REQUEST = envelope.encode({"op": "echo", "ms": 1000, "head": {}})


@pytest.mark.parametrize(
    "first", [hello(cluster_token(b"x" * 32)), hello(TOKEN, 2), envelope.encode({})]
)
async def test_a_stranger_is_refused_and_its_request_is_not_read(peer: Peer, first: bytes) -> None:
    """A wrong token, another version, no token: one error, then the connection ends."""
    heard = await said_to(peer, first + REQUEST)

    assert envelope.decode(heard)[0]["error"]["code"] == Forbidden.code


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        hello(TOKEN)[:-1] + b"!",
        envelope.encode({"token": TOKEN, "version": 1, "pad": b"p" * 5000}),
        hello(TOKEN) + b"x" * 64,
        hello(TOKEN) + REQUEST * 40,
        hello(TOKEN) + envelope.encode_head({"op": "echo"}, MAX_FRAME_BYTES),
    ],
    ids=["http", "crc", "long hello", "garbage", "flood", "huge"],
)
async def test_what_is_not_the_protocol_ends_the_connection(peer: Peer, data: bytes) -> None:
    """Before more than a hello, or one frame, is kept of it."""
    heard = await said_to(peer, data)

    assert len(heard) < envelope.PREFIX_BYTES or "back" in envelope.decode(heard)[0]


async def test_a_stranger_that_says_nothing_is_not_waited_for(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HELLO_SECONDS, then the connection ends; what came of a hello does not help."""
    monkeypatch.setattr("cluster.peer_server.HELLO_SECONDS", 0.05)

    assert await said_to(peer, hello(TOKEN)[:30]) == b""


async def test_an_operation_that_breaks_is_told_at_once(
    peer: Peer, transport: PeerTransport
) -> None:
    """A bug at the peer must not cost its caller the whole deadline; the outcome is unknown."""

    async def broken(head, payload, deadline):
        raise ZeroDivisionError("bug")

    peer.server.add({"broken": broken})

    with pytest.raises(Unknown) as caught:
        await transport.call("peer", "broken", {}, b"", soon())
    assert not caught.value.definite


async def test_an_answer_too_long_for_a_frame_is_refused_as_such(
    peer: Peer, transport: PeerTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as overload: asked again, or of another node, it would be as long. The connection stays."""
    monkeypatch.setattr("cluster.peer_server.MAX_FRAME_BYTES", 13 << 20)

    with pytest.raises(TooLarge, match="an answer of 5 MiB, more than 4; narrow"):
        await transport.call("peer", "echo", {}, bytes(5 << 20), soon())
    head, _ = await transport.call("peer", "echo", {"n": 1}, b"", soon())
    assert head["back"] == {"n": 1}


async def test_a_cancelled_caller_cancels_the_work_and_spoils_no_connection(
    peer: Peer, transport: PeerTransport
) -> None:
    """Its connection is closed, not kept: the late answer must not meet the next request."""
    task = asyncio.create_task(transport.call("peer", "hang", {}, b"", soon()))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])

    await asyncio.wait_for(peer.cancelled.wait(), 5)
    head, _ = await transport.call("peer", "echo", {"n": 1}, b"", soon())
    assert head["back"] == {"n": 1}


async def test_many_calls_at_once_each_get_their_own_answer(transport: PeerTransport) -> None:
    """More calls than connections: they wait their turn. Small and large payloads mixed."""

    async def one(n: int) -> bool:
        payload = bytes([n % 256]) * (n * 1000)
        head, body = await transport.call("peer", "echo", {"n": n}, payload, soon(20))
        return head["back"] == {"n": n} and bytes(body) == payload

    assert all(await asyncio.gather(*(one(n) for n in range(150))))


async def test_an_answer_that_is_no_frame_is_an_error_and_the_connection_is_not_kept() -> None:
    """Whoever listens there, it is not one of us."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = PeerTransport("me", TOKEN, lambda _: f"127.0.0.1:{port}", lambda *_: None)
    await transport.start()

    with pytest.raises(EnvelopeCorrupt):
        await transport.call("peer", "echo", {}, b"", soon())

    await transport.stop()
    server.close()


def test_frames_of_all_sizes_pass_on_the_loop_that_nodes_run_on() -> None:
    """uvloop has transports and buffers of its own; below, at and above the small buffer's size."""
    sizes = [0, 1, 60_000, SMALL_BYTES - 60, SMALL_BYTES, SMALL_BYTES + 1, 3_000_000]

    async def lengths() -> list[int]:
        peer = Peer()
        await peer.server.start("127.0.0.1", peer.port)
        address = f"127.0.0.1:{peer.port}"
        transport = PeerTransport("me", TOKEN, lambda _: address, lambda *_: None)
        await transport.start()
        answers = [await transport.call("peer", "echo", {}, bytes(n), soon()) for n in sizes]
        await transport.stop()
        await peer.server.stop()
        return [len(body) for _, body in answers]

    assert uvloop.run(lengths()) == sizes


async def test_a_call_without_any_time_left_says_nothing_of_the_peer(
    transport: PeerTransport,
) -> None:
    """The caller was late: nothing is sent, and the peer is not taken for dead."""
    with pytest.raises(DeadlineExceeded) as caught:
        await transport.call("peer", "echo", {}, b"", soon(0.0))

    assert caught.value.details["definite"]
    assert transport.seen == []  # type: ignore[attr-defined]
