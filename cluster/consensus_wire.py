"""Framed, encrypted connections between managers, with limits that hold before anyone is trusted.

PySyncObj reads a frame of any length into memory before it checks the key, lets go of its listener
on the first odd accept, and drops an idle connection together with the vote request that would have
used it. These classes take the place of its TcpConnection and TcpServer, wire format unchanged:

    4 length (native int, of what follows) · Fernet token of zlib of pickle of the message

* A peer that has not yet sent one frame under the key may send HELLO_BYTES_MAX, then FRAME_BYTES_MAX.
* Decryption comes before decompression (bounded) and unpickling (allow-list).
* A handshake in both directions binds a connection's frames to two fresh random keys (no replay).

All methods run on the tick thread. Counters are plain ints in `WireCounters`.
"""

import contextlib
import errno
import ipaddress
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pysyncobj.pickle
from pysyncobj.node import TCPNode
from pysyncobj.poller import POLL_EVENT_TYPE
from pysyncobj.tcp_connection import CONNECTION_STATE

from cluster.consensus_unpickler import safe_loads

#: A frame of a whole batch of entries (256 KiB and one command, doubled by pickle, 4/3 by Fernet)
#: stays below this.
FRAME_BYTES_MAX = 1 << 20
#: The first frame is a 32-byte key: about 200 bytes.
HELLO_BYTES_MAX = 1 << 10
#: What one frame may unpack to.
MESSAGE_BYTES_MAX = 4 << 20
#: Bytes waiting for one slow peer; beyond it the connection is dropped (Raft sends them again).
SEND_BUFFER_BYTES_MAX = 16 << 20
#: Connections that have not said who they are.
PENDING_MAX = 32
_LENGTH = struct.Struct("i")
_RECV_BYTES = 1 << 16
_RECVS_PER_EVENT = 16
_RESOLVE_AGAIN_SECONDS = 5.0


@dataclass(slots=True)
class WireCounters:
    """What was refused on the wire, by reason."""

    oversized_frames: int = 0
    bad_frames: int = 0
    idle_connections: int = 0
    overflowed_connections: int = 0
    pending_refused: int = 0
    accept_errors: int = 0


class SafeConnection:
    """One connection; the interface that PySyncObj's TCPTransport uses, and `established`."""

    def __init__(
        self,
        poller: Any,
        counters: WireCounters,
        encryptor: Any,
        timeout: float,
        sock: socket.socket | None = None,
    ) -> None:
        self.encryptor = encryptor
        self.sendRandKey: bytes | None = None
        self.recvRandKey: bytes | None = None
        self.established = False
        self._poller = poller
        self._counters = counters
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._descr: int | None = None
        self._state = CONNECTION_STATE.DISCONNECTED
        self._reset()
        self._on_message: Callable[[Any], None] | None = None
        self._on_connected: Callable[[], None] | None = None
        self._on_disconnected: Callable[[], None] | None = None
        if sock is not None:
            self._adopt(sock, CONNECTION_STATE.CONNECTED)

    def _reset(self) -> None:
        self.sendRandKey = self.recvRandKey = None
        self.established = False
        self._trusted = False
        self._newest_stamp = 0
        self._read_buffer = bytearray()
        self._write_buffer = bytearray()
        self._last_read = time.monotonic()
        self._overdue = False

    def _adopt(self, sock: socket.socket, state: int) -> None:
        self._socket = sock
        self._descr = sock.fileno()
        self._state = state
        self._subscribe(write=True)

    def _subscribe(self, *, write: bool) -> None:
        events = POLL_EVENT_TYPE.READ | POLL_EVENT_TYPE.ERROR
        if write:
            events |= POLL_EVENT_TYPE.WRITE
        self._poller.subscribe(self._descr, self._on_event, events)

    # -- PySyncObj's interface ---------------------------------------------------------------

    @property
    def state(self) -> int:
        """A CONNECTION_STATE."""
        return self._state

    def setOnConnectedCallback(self, callback: Callable[[], None] | None) -> None:
        """Called once TCP is up, before the handshake."""
        self._on_connected = callback

    def setOnMessageReceivedCallback(self, callback: Callable[[Any], None] | None) -> None:
        """Called with each message."""
        self._on_message = callback

    def setOnDisconnectedCallback(self, callback: Callable[[], None] | None) -> None:
        """Called when the connection is gone, for whatever reason."""
        self._on_disconnected = callback

    def connect(self, host: str | None, port: int) -> bool:
        """Begins to connect; False if that failed at once (or the name is not resolved yet)."""
        if host is None:
            return False
        self._reset()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        _configure(sock)
        code = sock.connect_ex((host, port))
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            sock.close()
            return False
        self._adopt(sock, CONNECTION_STATE.CONNECTING)
        return True

    def send(self, message: Any) -> None:
        """Queues one message and writes what the socket takes."""
        if self._socket is None:
            return
        if self.sendRandKey:
            message = (self.sendRandKey, message)
        data = zlib.compress(pysyncobj.pickle.dumps(message), 3)
        data = self.encryptor.encrypt_at_time(data, int(time.monotonic()))
        if (
            len(data) > FRAME_BYTES_MAX
            or len(self._write_buffer) + len(data) > SEND_BUFFER_BYTES_MAX
        ):
            self._counters.overflowed_connections += 1
            self.disconnect()
            return
        self._write_buffer += _LENGTH.pack(len(data)) + data
        if self._state == CONNECTION_STATE.CONNECTED:
            self._flush()

    def disconnect(self) -> None:
        """Closes; the callback hears of it once."""
        was_up = self._state != CONNECTION_STATE.DISCONNECTED
        self._state = CONNECTION_STATE.DISCONNECTED
        if self._descr is not None:
            self._poller.unsubscribe(self._descr)
            self._descr = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._reset()
        if was_up and self._on_disconnected is not None:
            self._on_disconnected()

    def check_idle(self) -> None:
        """Drops a silent peer, on the second look: after a pause of ours its bytes may be waiting."""
        if self._state == CONNECTION_STATE.DISCONNECTED:
            return
        if time.monotonic() - self._last_read <= self._timeout:
            self._overdue = False
        elif self._overdue:
            self._counters.idle_connections += 1
            self.disconnect()
        else:
            self._overdue = True

    # -- events ------------------------------------------------------------------------------

    def _on_event(self, descr: int, event: int) -> None:
        if descr != self._descr or self._socket is None:
            return
        if event & POLL_EVENT_TYPE.ERROR or self._socket.getsockopt(
            socket.SOL_SOCKET, socket.SO_ERROR
        ):
            self.disconnect()
            return
        if self._state == CONNECTION_STATE.CONNECTING:
            self._state = CONNECTION_STATE.CONNECTED
            self._last_read = time.monotonic()
            if self._on_connected is not None:
                self._on_connected()
            return
        if event & POLL_EVENT_TYPE.WRITE:
            self._flush()
        if event & POLL_EVENT_TYPE.READ:
            self._read()

    def _flush(self) -> None:
        while self._write_buffer and self._socket is not None:
            try:
                sent = self._socket.send(self._write_buffer)
            except BlockingIOError:
                break
            except OSError:
                self.disconnect()
                return
            del self._write_buffer[:sent]
        if self._socket is not None:
            self._subscribe(write=bool(self._write_buffer))

    def _read(self) -> None:
        sock = self._socket
        for _ in range(_RECVS_PER_EVENT):
            if sock is None or self._socket is not sock:  # a message made us hang up
                return
            try:
                data = sock.recv(_RECV_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.disconnect()
                return
            self._last_read = time.monotonic()
            self._read_buffer += data
            self._deliver()

    def _deliver(self) -> None:
        """Hands on every whole frame in the buffer, which stays below one frame and one recv."""
        sock = self._socket
        while self._socket is sock and len(self._read_buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._read_buffer)
            limit = FRAME_BYTES_MAX if self._trusted else HELLO_BYTES_MAX
            if not 0 < length <= limit:
                self._counters.oversized_frames += 1
                self.disconnect()
                return
            end = _LENGTH.size + length
            if len(self._read_buffer) < end:
                return
            frame = bytes(self._read_buffer[_LENGTH.size : end])
            del self._read_buffer[:end]
            try:
                message = self._open(frame)
            except Exception:  # noqa: BLE001 - whatever is wrong with it, it is not from a manager
                self._counters.bad_frames += 1
                self.disconnect()
                return
            if self._on_message is not None:
                self._on_message(message)

    def _open(self, frame: bytes) -> Any:
        """The message in one frame, or any exception."""
        plain = self.encryptor.decrypt(frame)
        stamp = self.encryptor.extract_timestamp(frame)
        if stamp < self._newest_stamp:
            raise ValueError("an older frame of this connection")
        self._newest_stamp = stamp
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(plain, MESSAGE_BYTES_MAX)
        if not unpacker.eof:
            raise ValueError("unpacks to more than a message")
        message = safe_loads(data)
        if self.recvRandKey:
            key, message = message
            if key != self.recvRandKey:
                raise ValueError("a frame of another connection")
        self._trusted = True
        return message


def _configure(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class SafeServer:
    """The listener. An odd accept is counted; only unbind lets go of the port."""

    def __init__(
        self,
        poller: Any,
        host: str,
        port: int,
        counters: WireCounters,
        on_socket: Callable[[socket.socket], None],
    ) -> None:
        self._poller = poller
        self._address = (host, port)
        self._counters = counters
        self._on_socket = on_socket
        self._socket: socket.socket | None = None

    def bind(self) -> None:
        """Listens. Raises OSError."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setblocking(False)
            sock.bind(self._address)
            sock.listen(PENDING_MAX)
        except OSError:
            sock.close()
            raise
        self._socket = sock
        events = POLL_EVENT_TYPE.READ | POLL_EVENT_TYPE.ERROR
        self._poller.subscribe(sock.fileno(), self._on_event, events)

    def unbind(self) -> None:
        """Lets go of the port."""
        if self._socket is not None:
            self._poller.unsubscribe(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _on_event(self, descr: int, event: int) -> None:
        if self._socket is None:
            return
        try:
            sock, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError:
            self._counters.accept_errors += 1
            return
        try:
            _configure(sock)
        except OSError:
            self._counters.accept_errors += 1
            sock.close()
            return
        self._on_socket(sock)


class _Resolver:
    """Names to addresses on a thread of its own: the tick thread must not wait for DNS."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, str | None]] = {}
        self._asking: set[str] = set()

    def lookup(self, host: str) -> str | None:
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(host.strip("[]")))
        with self._lock:
            asked_at, address = self._known.get(host, (float("-inf"), None))
            stale = time.monotonic() - asked_at > _RESOLVE_AGAIN_SECONDS
            if stale and host not in self._asking:
                self._asking.add(host)
                threading.Thread(
                    target=self._ask, args=(host,), name=f"resolve {host}", daemon=True
                ).start()
            return address

    def _ask(self, host: str) -> None:
        address = None
        with contextlib.suppress(OSError):
            address = resolve_now(host)
        with self._lock:
            if address is None:
                address = self._known.get(host, (0.0, None))[1]
            self._known[host] = (time.monotonic(), address)
            self._asking.discard(host)


def resolve_now(host: str) -> str:
    """The first address of `host`, IPv4 first. Blocks; raises OSError."""
    found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    return str(min(found, key=lambda row: row[0] != socket.AF_INET)[4][0])


_RESOLVER = _Resolver()


class PeerNode(TCPNode):
    """A manager's address; `ip` never blocks, and is None until its name is resolved."""

    @property
    def ip(self) -> str | None:
        """The address to connect to."""
        return _RESOLVER.lookup(self.host)
