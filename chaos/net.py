"""Links that can be slowed, throttled, cut and healed, through a server with Toxiproxy's HTTP API.

The one user of toxiproxy-python. A *link* is a proxy in front of one address; a client that dials the
link's address instead of the upstream's can be cut off from it, in either direction, while the node
itself knows nothing. `CHAOS_TOXIPROXY=host:port` names the server.

The library leaves things unsaid, and here they are said: a server error is not raised (so each toxic
is read back), requests have no time-out (so each call is bounded), a bind failure is a KeyError.

Direction: `upstream` is what the client sends, `downstream` what the server answers. A link cut
`downstream` loses replies alone: the write happens, and its sender never hears of it.
"""

import concurrent.futures
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from node.cli_errors import CliError

T = TypeVar("T")
Direction = Literal["upstream", "downstream"]
ENVIRONMENT = "CHAOS_TOXIPROXY"
#: Seconds for one call to the server.
CALL_SECONDS = 10.0


@contextmanager
def fault_server() -> Iterator[str]:
    """`host:port` of a fault server: the one that is named, else one of our own for so long."""
    named = os.environ.get(ENVIRONMENT, "")
    if named:
        yield named
        return
    words = [sys.executable, "-P", "-m", "chaos.toxid", "127.0.0.1:0", "--with-parent"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as child:
        assert child.stdin is not None, "made with a pipe"
        assert child.stdout is not None, "made with a pipe"
        try:
            yield child.stdout.readline().decode().strip()
        finally:
            child.stdin.close()  # upon which it ends
            try:
                child.wait(CALL_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()


class LinkFailed(Exception):
    """The fault server did not do what it was asked for: the fault is not in place."""


class Links:
    """The links of one run. All calls block; one instance a process (the library is global)."""

    def __init__(self, server: str) -> None:
        """Raises CliError if the library is not installed, or `server` is no `host:port`."""
        try:
            import toxiproxy
            from toxiproxy import exceptions
        except ImportError as error:
            raise CliError(
                "toxiproxy-python is not installed", "pip install 'quorumlog-server[chaos]'"
            ) from error
        host, separator, port = server.rpartition(":")
        if not separator or not host or not port.isdecimal():
            raise CliError(f"{ENVIRONMENT} is host:port, not {server!r}")
        self._host = host
        self._failures = (exceptions.NotFound, exceptions.ProxyExists, exceptions.InvalidToxic)
        self._failures += (OSError, KeyError, ValueError)
        self._server: Any = toxiproxy.Toxiproxy()
        self._server.update_api_consumer(host, int(port))
        self._proxies: dict[str, Any] = {}

    def link(self, name: str, upstream: str) -> str:
        """A new link to `upstream` (host:port); the address to dial.

        Raises:
            LinkFailed: as all calls.
        """
        listen = None if self._host in ("127.0.0.1", "localhost", "::1") else "0.0.0.0:0"
        proxy = self._call(lambda: self._server.create(upstream, name, listen=listen))
        self._proxies[name] = proxy
        return f"{self._host}:{proxy.listen.rpartition(':')[2]}"

    def slow(
        self, link: str, ms: int, jitter: int = 0, direction: Direction = "downstream"
    ) -> None:
        """Each piece of data arrives `ms` +- `jitter` milliseconds later; order is kept."""
        self._add(link, "latency", direction, {"latency": ms, "jitter": jitter})

    def throttle(self, link: str, kb_s: int, direction: Direction = "downstream") -> None:
        """At most `kb_s` thousand bytes a second (at least 1: 0 would mean something else)."""
        if kb_s < 1:
            raise ValueError(f"kb_s must be at least 1, got {kb_s}: use cut")
        self._add(link, "bandwidth", direction, {"rate": kb_s})

    def cut(self, link: str, direction: Direction | None = None) -> None:
        """Loses all data of one direction, silently; without one: closed, and new ones are refused."""
        if direction is None:
            self._call(self._proxies[link].disable)
        else:
            self._add(link, "timeout", direction, {"timeout": 0})

    def cut_after(self, link: str, bytes: int, direction: Direction = "downstream") -> None:
        """Each connection ends after exactly so many bytes of that direction."""
        self._add(link, "limit_data", direction, {"bytes": bytes})

    def slice(
        self,
        link: str,
        bytes: int,
        variation: int,
        micros: int,
        direction: Direction = "downstream",
    ) -> None:
        """Data come in pieces of `bytes` +- `variation`, with `micros` between them."""
        attributes = {"average_size": bytes, "size_variation": variation, "delay": micros}
        self._add(link, "slicer", direction, attributes)

    def reset(self, link: str, after_ms: int = 0, direction: Direction = "downstream") -> None:
        """Connections made from now on end by a reset, `after_ms` after their first data."""
        self._add(link, "reset_peer", direction, {"timeout": after_ms})

    def heal(self, link: str) -> None:
        """As if nothing had been."""
        proxy = self._proxies[link]
        for name in list(self._call(proxy.toxics)):
            self._call(lambda name=name: proxy.destroy_toxic(name))
        self._call(proxy.enable)
        left = self._call(proxy.toxics)
        if left:
            raise LinkFailed(f"{link} still has {', '.join(left)}")

    def close(self) -> None:
        """Removes the links of this run, and no others; one that cannot be removed keeps none of the rest."""
        failed = []
        for name, proxy in self._proxies.items():
            try:
                self._call(proxy.destroy)
            except LinkFailed as error:
                failed.append(f"{name}: {error}")
        self._proxies.clear()
        if failed:
            raise LinkFailed(f"links are left: {'; '.join(failed)}")

    def _add(self, link: str, kind: str, direction: Direction, attributes: dict[str, int]) -> None:
        proxy, name = self._proxies[link], f"{kind}_{direction}"
        self._call(
            lambda: proxy.add_toxic(type=kind, stream=direction, name=name, attributes=attributes)
        )
        if name not in self._call(proxy.toxics):
            raise LinkFailed(f"{link} has no {name}: the server did not take it")

    def _call(self, work: Callable[[], T]) -> T:
        """The result of `work`, on a thread that nobody waits for if the server never answers."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits below
                done.set_exception(error)

        threading.Thread(target=run, name="links", daemon=True).start()
        try:
            return done.result(CALL_SECONDS)
        except TimeoutError as error:
            raise LinkFailed(f"no answer in {CALL_SECONDS:.0f} s") from error
        except self._failures as error:
            raise LinkFailed(f"{type(error).__name__}: {error}") from error
