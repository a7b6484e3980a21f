"""Does a fault server behave like Toxiproxy? `python -m chaos.conformance [HOST:PORT]` asks one and prints.

The same checks for ours and for Shopify's, so that one can stand for the other: without an address
`chaos.toxid` is started. Only HTTP and sockets, no client library. The server must reach this machine's
loopback. Windows of time are tight below (a fault must not be weaker than asked) and wide above (a busy
machine). Exit code 1 if a check fails.
"""

import contextlib
import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from chaos.net import fault_server

EARLY, LATE = 0.02, 1.5
NAME = "conformance"


class Nonconforming(Exception):
    """What a check expected, and what it met."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A server under test, and the echo server behind its proxies."""

    server: str
    echo: str

    def call(self, method: str, path: str, body: Any = None, agent: str = "c") -> tuple[int, Any]:
        """(status, JSON) of a request; a body of bytes goes as it is."""
        connection = http.client.HTTPConnection(self.server, timeout=10)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {"User-Agent": agent, "Connection": "close"})
            answer = connection.getresponse()
            text = answer.read()
            with contextlib.suppress(ValueError):
                return answer.status, json.loads(text)
            return answer.status, None
        finally:
            connection.close()

    def expect(self, wanted: int, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a request that must have this status."""
        status, value = self.call(method, path, body)
        need(status == wanted, f"{method} {path}: {wanted} expected, got {status} {value}")
        return value

    def toxic(self, kind: str, stream: str = "downstream", **attributes: int) -> None:
        """Adds a toxic to the proxy under test."""
        body = {"type": kind, "stream": stream, "attributes": attributes}
        self.expect(200, "POST", f"/proxies/{NAME}/toxics", body)

    @contextlib.contextmanager
    def dialled(self) -> Iterator[socket.socket]:
        """A connection through the proxy under test."""
        port = self.expect(200, "GET", f"/proxies/{NAME}")["listen"].rpartition(":")[2]
        host = self.server.rpartition(":")[0]
        with socket.create_connection((host, int(port)), timeout=10) as one:
            yield one


def need(holds: bool, text: str) -> None:
    """Raises Nonconforming unless it holds."""
    if not holds:
        raise Nonconforming(text)


def took(started: float, wanted: float) -> None:
    """The time since `started` is what was asked for."""
    seconds = time.monotonic() - started
    need(wanted - EARLY <= seconds <= wanted + LATE, f"{wanted} s expected, took {seconds:.3f} s")


def receive(one: socket.socket, count: int) -> bytes:
    """`count` bytes, or fewer if the connection ends before."""
    data = b""
    while len(data) < count and (piece := one.recv(count - len(data))):
        data += piece
    return data


def check_api(probe: Probe) -> None:
    """Proxies: made, found, refused, removed."""
    need(bool(probe.expect(200, "GET", "/version")), "no version")
    probe.expect(409, "POST", "/proxies", {"name": NAME, "upstream": probe.echo})
    told = probe.expect(400, "POST", "/proxies", {"upstream": probe.echo})
    need(told["error"] == "missing required field: name", f"says {told}")
    told = probe.expect(400, "POST", "/proxies", {"name": "x"})
    need(told["error"] == "missing required field: upstream", f"says {told}")
    told = probe.expect(400, "POST", "/proxies", b"{")
    need(told["error"].startswith("bad request body"), f"says {told}")
    probe.expect(404, "GET", "/proxies/nobody")
    need(probe.call("GET", "/version", agent="Mozilla/5.0")[0] == 403, "serves a browser")


def check_toxics_api(probe: Probe) -> None:
    """Toxics: names, defaults, updates, refusals."""
    path = f"/proxies/{NAME}/toxics"
    made = probe.expect(200, "POST", path, {"type": "latency", "attributes": {"latency": 5}})
    need(made["name"] == "latency_downstream" and made["toxicity"] == 1, f"made {made}")
    need(made["attributes"] == {"latency": 5, "jitter": 0}, f"made {made}")
    probe.expect(409, "POST", path, {"type": "latency"})
    need(probe.expect(400, "POST", path, {"type": "x"})["error"] == "invalid toxic type", "type")
    probe.expect(400, "POST", path, {"type": "noop", "stream": "sideways"})
    told = probe.expect(400, "POST", path, {"type": "x", "stream": "sideways"})
    need(told["error"].startswith("stream was invalid"), f"says {told}")
    bad = {"type": "latency", "attributes": {"latency": "much"}}
    probe.expect(409, "POST", path, bad)  # what is wrong first is said first
    probe.expect(400, "POST", path, {**bad, "name": "other"})
    shouted = probe.expect(200, "POST", path, {"type": "noop", "stream": "UPSTREAM"})
    need(shouted["name"] == "noop_UPSTREAM", f"made {shouted}")
    changed = probe.expect(200, "POST", f"{path}/{made['name']}", {"attributes": {"jitter": 1}})
    need(changed["attributes"] == {"latency": 5, "jitter": 1}, f"changed to {changed}")
    for kind in ("bandwidth", "slow_close", "timeout", "reset_peer", "slicer", "limit_data"):
        probe.expect(200, "POST", path, {"type": kind, "name": kind, "stream": "upstream"})
    need(len(probe.expect(200, "GET", path)) == 8, "not all toxics are listed")
    probe.expect(204, "DELETE", f"{path}/{made['name']}")
    probe.expect(404, "DELETE", f"{path}/{made['name']}")


def check_latency(probe: Probe) -> None:
    """200 ms on a connection that is there already; gone when the toxic is."""
    with probe.dialled() as one:
        probe.toxic("latency", latency=200)
        started = time.monotonic()
        one.sendall(b"ping")
        need(receive(one, 4) == b"ping", "lost")
        took(started, 0.2)


def check_bandwidth(probe: Probe) -> None:
    """50 kB at 100 kB/s."""
    probe.toxic("bandwidth", "upstream", rate=100)
    with probe.dialled() as one:
        started = time.monotonic()
        one.sendall(b"x" * 50_000)
        need(len(receive(one, 50_000)) == 50_000, "lost")
        took(started, 0.4)


def check_slicer(probe: Probe) -> None:
    """1000 bytes arrive whole and in order, in several pieces, with pauses between."""
    probe.toxic("slicer", average_size=100, size_variation=20, delay=10_000)
    with probe.dialled() as one:
        data, got, pieces = bytes(range(250)) * 4, b"", 0
        started = time.monotonic()
        one.sendall(data)
        while len(got) < 1000:
            piece = one.recv(1000)
            need(bool(piece), "ended early")
            got, pieces = got + piece, pieces + 1
        need(got == data, "out of order")
        need(pieces >= 4, f"came in {pieces} pieces")
        took(started, 0.04)


def check_limit_data(probe: Probe) -> None:
    """100 bytes of 1000, then the end."""
    probe.toxic("limit_data", bytes=100)
    with probe.dialled() as one:
        one.sendall(b"y" * 1000)
        need(receive(one, 1000) == b"y" * 100, "not exactly 100 bytes")


def check_timeout(probe: Probe) -> None:
    """Nothing passes; the end comes after 150 ms without data."""
    probe.toxic("timeout", "upstream", timeout=150)
    with probe.dialled() as one:
        started = time.monotonic()
        one.sendall(b"z")
        need(receive(one, 1) == b"", "something passed")
        took(started, 0.15)


def check_reset_peer(probe: Probe) -> None:
    """A connection made under it ends by a reset."""
    probe.toxic("reset_peer", timeout=0)
    with probe.dialled() as one:
        try:
            one.sendall(b"ping")
            ended = receive(one, 4)
        except ConnectionResetError:
            return
        raise Nonconforming(f"no reset: {ended!r}")


def check_slow_close(probe: Probe) -> None:
    """Data pass; the end comes 400 ms after the client's."""
    probe.toxic("slow_close", "upstream", delay=400)
    with probe.dialled() as one:
        one.sendall(b"ping")
        need(receive(one, 4) == b"ping", "data did not pass")
        started = time.monotonic()
        one.shutdown(socket.SHUT_WR)
        need(receive(one, 1) == b"", "something came")
        took(started, 0.4)


def check_disable(probe: Probe) -> None:
    """Live connections end, new ones are refused, the same port works again."""
    with probe.dialled() as one:
        probe.expect(200, "POST", f"/proxies/{NAME}", {"enabled": False})
        with contextlib.suppress(ConnectionResetError):
            need(receive(one, 1) == b"", "still open")
    try:
        with probe.dialled():
            raise Nonconforming("a new connection was taken")
    except ConnectionRefusedError:
        pass
    probe.expect(200, "POST", f"/proxies/{NAME}", {"enabled": True})
    with probe.dialled() as one:
        one.sendall(b"ping")
        need(receive(one, 4) == b"ping", "does not work again")


def check_reset(probe: Probe) -> None:
    """All enabled, no toxics."""
    probe.toxic("noop")
    probe.expect(200, "POST", f"/proxies/{NAME}", {"enabled": False})
    probe.expect(204, "POST", "/reset")
    found = probe.expect(200, "GET", f"/proxies/{NAME}")
    need(found["enabled"] is True and found["toxics"] == [], f"after reset {found}")


CHECKS: tuple[Callable[[Probe], None], ...] = (
    check_api, check_toxics_api, check_latency, check_bandwidth, check_slicer, check_limit_data,
    check_timeout, check_reset_peer, check_slow_close, check_disable, check_reset,
)  # fmt: skip


@contextlib.contextmanager
def echo_server() -> Iterator[str]:
    """The address of a server on loopback that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(one: socket.socket) -> None:
        with one, contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                one.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = listener.accept()
                threading.Thread(target=serve, args=(one,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def failures(server: str, say: Callable[[str], None]) -> list[str]:
    """Runs all checks against a server, each on a fresh proxy; the names of those that failed."""
    failed = []
    with echo_server() as echo:
        probe = Probe(server, echo)
        for check in CHECKS:
            name = check.__name__.removeprefix("check_")
            body = {"name": NAME, "upstream": echo, "listen": "127.0.0.1:0"}
            try:
                probe.call("DELETE", f"/proxies/{NAME}")  # left by a run that broke off
                probe.expect(201, "POST", "/proxies", body)
                check(probe)
                say(f"ok      {name}")
            except (Nonconforming, OSError, KeyError, http.client.HTTPException) as error:
                failed.append(name)
                say(f"FAILED  {name}: {error}")
            finally:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    probe.call("DELETE", f"/proxies/{NAME}")
    return failed


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(bool(failures(sys.argv[1], print)))
    with fault_server() as address:
        sys.exit(bool(failures(address, print)))
