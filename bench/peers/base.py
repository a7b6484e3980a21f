"""What a store must do to take part: take batches, answer the questions, say what it cost.

A peer is driven by the same code, with the same batches and the same number of connections, as we are.
Its wire form is made before the clock starts (`encode`), as an agent would on its own machine.
"""

import http.client
import time
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlencode

from bench import load
from bench.corpus import Body
from bench.measure import family_cpu_seconds, family_memory_bytes
from bench.questions import Facts, Plain, Question


class Peer(Protocol):
    """A store. `note` says in a few words how safe an acknowledged row is there."""

    name: str
    note: str
    #: Quantiles are estimates, by design.
    estimates: bool

    def open(self, kind: str) -> None:
        """Makes an empty place for rows of `kind`."""
        ...

    def load(self, kind: str, bodies: Sequence[Body], connections: int) -> load.Load:
        """Sends the batches; returns when all are acknowledged and a reader sees them all."""
        ...

    def disk_bytes(self, kind: str) -> int | None:
        """Bytes of one copy of the rows of `kind`; None where it can't be known."""
        ...

    def cpu_seconds(self) -> float | None:
        """CPU of all its processes so far."""
        ...

    def memory_bytes(self) -> list[int] | None:
        """The most memory each of its processes has had."""
        ...

    def bind(self, kind: str, facts: Facts) -> None:
        """What the questions are about from now on."""
        ...

    def ask(self, question: Question) -> Plain | None:
        """The answer; None if it can't be asked of this store."""
        ...

    def close(self) -> None:
        """Gives back what `open` took."""
        ...


class Answered(RuntimeError):
    """A server answered with another status than success."""


def request(
    link: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    params: dict[str, Any] | None = None,
) -> bytes:
    """One request over an open connection; the body of its answer.

    Raises:
        Answered: the status is not 2xx; says which, and the beginning of the answer.
    """
    target = path + ("?" + urlencode(params) if params else "")
    link.request(method, target, body, headers or {})
    answer = link.getresponse()
    text = answer.read()
    if not 200 <= answer.status < 300:
        raise Answered(f"{method} {path}: {answer.status} {text[:400]!r}")
    return text


class HttpPeer:
    """The common part of a peer that is a server at an address that the user names.

    `pid`: its process, if it runs on this machine, for CPU and memory. `data`: its folder.
    """

    name = ""
    note = ""
    estimates = False

    def __init__(self, url: str, pid: int | None = None, data: str | None = None) -> None:
        self.url, self.pid, self.data = url.rstrip("/"), pid, data
        self.link = load.connect(self.url)
        self.held: dict[str, int] = {}
        self.facts: Facts | None = None

    # -- to be said by each

    def open(self, kind: str) -> None:
        """Makes an empty place for rows of `kind`."""
        raise NotImplementedError

    def disk_bytes(self, kind: str) -> int | None:
        """Bytes of the rows of `kind`."""
        raise NotImplementedError

    def ask(self, question: Question) -> Plain | None:
        """The answer."""
        raise NotImplementedError

    def encode(self, kind: str, body: Body) -> bytes:
        """The wire form of a batch."""
        raise NotImplementedError

    def post(self, link: http.client.HTTPConnection, kind: str, payload: bytes) -> None:
        """Sends one batch; returns when it is acknowledged."""
        raise NotImplementedError

    def count(self, kind: str) -> int:
        """Rows of `kind` that a reader sees."""
        raise NotImplementedError

    # -- the same for all

    def load(self, kind: str, bodies: Sequence[Body], connections: int) -> load.Load:
        """Sends the batches; the CPU is known if the server's process was named."""
        payloads = [self.encode(kind, body) for body in bodies]
        before, started = self.cpu_seconds(), time.perf_counter()
        taken = load.drive(
            payloads, [self.url], connections, lambda link, _, one: self.post(link, kind, one)
        )
        taken.rows = sum(body.rows for body in bodies)
        self.held[kind] = self.held.get(kind, 0) + taken.rows
        taken.overcounts = load.wait_for(lambda: self.count(kind), self.held[kind])
        taken.visible_seconds = time.perf_counter() - started
        after = self.cpu_seconds()
        if before is not None and after is not None:
            taken.cpu_seconds = after - before
        return taken

    def cpu_seconds(self) -> float | None:
        """CPU of the server so far, if its process was named."""
        return None if self.pid is None else family_cpu_seconds(self.pid)

    def memory_bytes(self) -> list[int] | None:
        """The most memory the server has had, if its process was named."""
        return None if self.pid is None else family_memory_bytes(self.pid)

    def bind(self, kind: str, facts: Facts) -> None:
        """What the questions are about."""
        self.facts = facts

    def close(self) -> None:
        """Ends the connection; what was stored stays until the next run."""
        self.link.close()
