"""The transport against a real peer server on loopback: answers, errors, strangers, dead peers."""

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from cluster.http_transport import HttpTransport, cluster_token
from cluster.server import PeerServer
from records.errors import ConnectionLost, DeadlineExceeded, NotFound, StaleRingEpoch
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
async def transport(peer: Peer) -> AsyncIterator[HttpTransport]:
    """A transport that knows `peer`, and `dead` where nobody listens."""
    addresses = {"peer": f"127.0.0.1:{peer.port}", "dead": f"127.0.0.1:{free_port()}"}
    seen: list[tuple[str, bool]] = []
    one = HttpTransport("me", TOKEN, addresses.get, lambda node, ok: seen.append((node, ok)))
    one.seen = seen  # type: ignore[attr-defined]
    await one.start()
    yield one
    await one.stop()


def soon(seconds: float = 5.0) -> Deadline:
    """A deadline."""
    return Deadline.after(CLOCK, seconds)


async def test_head_and_payload_come_back_and_the_deadline_travels(
    transport: HttpTransport,
) -> None:
    """A megabyte of payload, verbatim; the peer knows how long it has."""
    payload = bytes(range(256)) * 4096

    head, body = await transport.call("peer", "echo", {"a": [1, b"x"]}, payload, soon(5))

    assert head["back"] == {"a": [1, b"x"]}
    assert 0 < head["left"] <= 5
    assert bytes(body) == payload
    assert transport.seen == [("peer", True)]  # type: ignore[attr-defined]


async def test_a_peers_error_arrives_as_what_it_was(transport: HttpTransport) -> None:
    """With its class, its details, and whether it is definite."""
    with pytest.raises(StaleRingEpoch) as caught:
        await transport.call("peer", "fail", {}, b"", soon())
    assert caught.value.details["epoch"] == 7
    assert caught.value.definite


async def test_a_dead_peer_is_a_definite_loss_and_an_unknown_one_is_not_found(
    transport: HttpTransport,
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
    peer: Peer, transport: HttpTransport
) -> None:
    """The caller gets an unknown outcome; the peer stops working for nobody."""
    with pytest.raises(DeadlineExceeded) as caught:
        await transport.call("peer", "hang", {}, b"", soon(0.2))
    assert not caught.value.definite
    await asyncio.wait_for(peer.cancelled.wait(), 5)


async def test_a_restarted_peer_is_reached_through_a_stale_connection(
    peer: Peer, transport: HttpTransport
) -> None:
    """The pooled connection broke in between; one repeat on a fresh one hides it."""
    await transport.call("peer", "echo", {}, b"", soon())
    await peer.server.stop()
    peer.server = PeerServer(TOKEN, CLOCK)
    peer.server.add({"echo": peer.echo})
    await peer.server.start("127.0.0.1", peer.port)

    head, _ = await transport.call("peer", "echo", {"n": 2}, b"", soon())

    assert head["back"] == {"n": 2}


async def test_a_stranger_is_refused_before_anything_is_read(peer: Peer) -> None:
    """No token, or a wrong one: 403, and the frame is not looked at."""
    async with aiohttp.ClientSession() as session:
        for headers in ({}, {"X-Quorumlog-Cluster": cluster_token(b"x" * 32)}):
            url = f"http://127.0.0.1:{peer.port}/rpc/echo"
            async with session.post(url, data=b"not a frame", headers=headers) as answer:
                assert answer.status == 403
