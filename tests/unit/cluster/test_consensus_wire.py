"""One connection over a socket pair: frames in pieces, limits before trust, the second look at idleness."""

import socket
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pysyncobj.pickle
import pytest
from cryptography.fernet import Fernet
from pysyncobj.poller import createPoller
from pysyncobj.tcp_connection import CONNECTION_STATE

from cluster.consensus_wire import (
    FRAME_BYTES_MAX,
    HELLO_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PeerNode,
    SafeConnection,
    WireCounters,
)

KEY = Fernet(Fernet.generate_key())


class Line:
    """A SafeConnection and the raw other end."""

    def __init__(self) -> None:
        self.poller = createPoller("poll")
        self.counters = WireCounters()
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.messages: list[Any] = []
        self.closed = 0
        self.connection = SafeConnection(self.poller, self.counters, KEY, 1.0, ours)
        self.connection.setOnMessageReceivedCallback(self.messages.append)
        self.connection.setOnDisconnectedCallback(self._on_closed)

    def _on_closed(self) -> None:
        self.closed += 1

    def write(self, data: bytes) -> None:
        """Sends and lets the connection read, without blocking either side."""
        self.theirs.setblocking(False)
        view = memoryview(data)
        while view and self.connection.state == CONNECTION_STATE.CONNECTED:
            try:
                view = view[self.theirs.send(view) :]
            except BlockingIOError:
                pass
            except OSError:
                return
            self.poll()
        self.poll()

    def poll(self) -> None:
        self.poller.poll(0.0)


def frame(message: Any, *, plain: bytes | None = None, stamp: int = 100) -> bytes:
    data = zlib.compress(pysyncobj.pickle.dumps(message) if plain is None else plain)
    token = KEY.encrypt_at_time(data, stamp)
    return struct.pack("i", len(token)) + token


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.connection.disconnect()
    made.theirs.close()


def test_frames_arrive_whole_however_they_are_cut(line: Line) -> None:
    """Byte by byte, and several in one."""
    data = frame({"n": 1}) + frame({"n": 2}) + frame(b"\xff" * 100)

    for byte in data[:50]:
        line.write(bytes([byte]))
    line.write(data[50:])

    assert line.messages == [{"n": 1}, {"n": 2}, b"\xff" * 100]


def test_what_is_sent_is_what_arrives(line: Line) -> None:
    """Both directions of the same format."""
    line.connection.send({"type": "keepalive"})
    line.poll()
    sent = line.theirs.recv(1 << 16)

    line.write(sent)

    assert line.messages == [{"type": "keepalive"}]


@pytest.mark.parametrize("length", [0, -1, HELLO_BYTES_MAX + 1, 1 << 30])
def test_a_stranger_may_say_little(line: Line, length: int) -> None:
    """M: refused by the length alone, before anything of it is kept."""
    line.write(struct.pack("i", length))

    assert line.closed == 1
    assert line.counters.oversized_frames == 1


def test_a_trusted_peer_may_say_more_but_not_anything(line: Line) -> None:
    """After one frame under the key the limit is 1 MiB."""
    line.write(frame("hello"))
    line.write(frame(bytes(range(256)) * 40))
    within = line.closed
    line.write(struct.pack("i", FRAME_BYTES_MAX + 1))

    assert within == 0
    assert len(line.messages) == 2
    assert line.closed == 1


@pytest.mark.parametrize(
    "bad",
    [
        struct.pack("i", 40) + b"x" * 40,
        frame(None, plain=b"not a pickle"),
        frame(None, plain=b"cposix\nsystem\n."),
        frame("older", stamp=99),
        frame(None, plain=bytes(MESSAGE_BYTES_MAX + 1)),
    ],
)
def test_a_bad_frame_ends_the_connection(line: Line, bad: bytes) -> None:
    """Not the key, not plain, replayed, or a bomb."""
    line.write(frame("hello"))

    line.write(bad)

    assert line.messages == ["hello"]
    assert (line.closed, line.counters.bad_frames) == (1, 1)


def test_a_flipped_bit_anywhere_ends_the_connection() -> None:
    """The frame is authenticated."""
    data = frame("hello")
    for place in range(4, len(data), 7):
        made = Line()
        flipped = bytearray(data)
        flipped[place] ^= 2
        made.write(bytes(flipped))
        assert (made.messages, made.closed) == ([], 1), place
        made.theirs.close()


def test_a_message_that_would_not_pass_is_not_sent(line: Line) -> None:
    """Our own limit, at the sender."""
    line.connection.send(b"".join(zlib.crc32(b"%d" % n).to_bytes(4, "big") for n in range(1 << 18)))

    assert line.closed == 1
    assert line.counters.overflowed_connections == 1


def test_a_peer_that_takes_nothing_is_dropped_not_buffered_for_ever(line: Line) -> None:
    """Raft sends again what it lacks."""
    noise = b"".join(zlib.crc32(b"%d" % n).to_bytes(4, "big") for n in range(1 << 16))
    for _ in range(200):
        line.connection.send(noise)
        if line.closed:
            break

    assert line.closed == 1


def test_an_idle_peer_is_dropped_on_the_second_look(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a pause of ours the peer's bytes may be waiting: they get a chance to be read."""
    now = time.monotonic()
    monkeypatch.setattr("cluster.consensus_wire.time.monotonic", lambda: now + 5.0)

    line.connection.check_idle()
    line.write(frame("still here"))
    line.connection.check_idle()
    spared = line.closed
    monkeypatch.setattr("cluster.consensus_wire.time.monotonic", lambda: now + 10.0)
    line.connection.check_idle()
    line.connection.check_idle()

    assert spared == 0
    assert (line.closed, line.counters.idle_connections) == (1, 1)


def test_a_callback_that_hangs_up_ends_the_reading(line: Line) -> None:
    """What is left in the buffer belongs to nobody."""
    line.connection.setOnMessageReceivedCallback(lambda _: line.connection.disconnect())

    line.write(frame("one") + frame("two"))

    assert line.closed == 1


def test_names_are_resolved_without_waiting() -> None:
    """The tick thread must not wait for DNS; literals need none."""
    assert PeerNode("127.0.0.1:1").ip == "127.0.0.1"
    assert PeerNode("[::1]:1").ip == "::1"
    node = PeerNode("localhost:1")
    for _ in range(200):
        if node.ip is not None:
            break
        time.sleep(0.01)
    assert node.ip == "127.0.0.1"
