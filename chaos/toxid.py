"""A fault proxy with Toxiproxy's HTTP API, for machines that do not have the real one.

    python -m chaos.toxid 127.0.0.1:8474

With `--with-parent` it ends when its standard input does.

Proxies are made, changed and removed over HTTP; data go through `toxid_links`. A change is answered
after it holds for all live connections. The toxics are the subset named in `toxics`; the rest of the
API is whole but for `/metrics`. Loopback only: it asks nobody who they are.

Source: Toxiproxy's README (the HTTP API, version 2).
"""

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Sequence
from typing import Any

from chaos.toxics import STREAMS, ApiError, Stream, Toxic, parse_toxic
from chaos.toxid_links import Connection
from runtime.entropy import Entropy, SystemEntropy

VERSION = "quorumlog-toxid-1"
BODY_BYTES_MAX = 1 << 20
#: Seconds for a request to arrive, and for the upstream to answer a connect.
PATIENCE_SECONDS = 10.0
_REASONS = {200: "OK", 201: "Created", 204: "No Content", 400: "Bad Request", 403: "Forbidden"}
_REASONS |= {404: "Not Found", 405: "Method Not Allowed", 409: "Conflict", 500: "Server Error"}


class Proxy:
    """One listener in front of one upstream, with its toxics and live connections."""

    def __init__(self, name: str, listen: str, upstream: str, entropy: Entropy) -> None:
        self.name, self.listen, self.upstream = name, listen, upstream
        self.toxics: list[Toxic] = []
        self._entropy = entropy
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], Connection | None] = {}

    @property
    def enabled(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    def as_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "name": self.name,
            "listen": self.listen,
            "upstream": self.upstream,
            "enabled": self.enabled,
            "toxics": self.toxics_json(),
        }

    def toxics_json(self) -> list[dict[str, Any]]:
        """Its toxics: upstream first, then downstream, each in the order of the chain."""
        return [one.as_json() for stream in STREAMS for one in self.chain(stream)]

    def chain(self, stream: Stream) -> Sequence[Toxic]:
        """The toxics of one direction."""
        return [one for one in self.toxics if one.stream == stream]

    async def start(self) -> None:
        """Listens; from then on `listen` has the real port.

        Raises:
            ApiError: 500, the address cannot be had.
        """
        host, port = split_address(self.listen)
        try:
            if host in ("", "::"):
                sock = _on_all_interfaces(port)
                self._server = await asyncio.start_server(self._accept, sock=sock)
            else:
                self._server = await asyncio.start_server(self._accept, host, port)
        except OSError as error:
            raise ApiError(500, f"listen tcp {self.listen}: {error.strerror}") from error
        real = self._server.sockets[0].getsockname()[1]
        shown = f"[{host or '::'}]" if ":" in host or not host else host
        self.listen = f"{shown}:{real}"

    async def stop(self) -> None:
        """Closes the listener and all connections."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    async def changed(self) -> None:
        """Tells all live connections that the toxics are others; returns when they know."""
        for connection in self._connections.values():
            if connection is not None:
                connection.on_change()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "start_server runs it in a task"
        self._connections[task] = None
        try:
            upstream = await self._dial()
            if upstream is None:
                writer.close()
                return
            connection = Connection((reader, writer), upstream, self.chain, self._entropy)
            self._connections[task] = connection
            await connection.run()
        except asyncio.CancelledError:
            writer.close()  # the proxy stops; nobody awaits this task's end but stop()
        finally:
            del self._connections[task]

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        host, port = split_address(self.upstream)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.open_connection(host or "127.0.0.1", port)
        except (OSError, TimeoutError):
            return None  # as the original: accepted, then closed


def _on_all_interfaces(port: int) -> socket.socket:
    """One listener for both families, so that there is one port; IPv4 alone where there is no IPv6."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of `host:port`; the host may be empty: all interfaces.

    Raises:
        ApiError: 400, no port.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65_535:
        raise ApiError(400, f"bad request body: address {address} has no port")
    return host.strip("[]"), int(port)


class Toxid:
    """The server: its proxies, and what requests do to them. Requests are served one at a time."""

    def __init__(self, entropy: Entropy | None = None) -> None:
        self._entropy = entropy or SystemEntropy()
        self._proxies: dict[str, Proxy] = {}
        self._lock = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[Any]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listens for the API; the real port."""
        self._server = await asyncio.start_server(self._client, host, port)
        return self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Ends everything."""
        if self._server is not None:
            self._server.close()
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        for proxy in self._proxies.values():
            await proxy.stop()
        self._proxies.clear()

    # -- HTTP

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "start_server runs it in a task"
        self._clients.add(task)
        try:
            gone = (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError)
            with contextlib.suppress(*gone):
                while await self._request(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # the server stops
        finally:
            self._clients.discard(task)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        length = int(headers.get("content-length") or 0)
        if not 0 <= length <= BODY_BYTES_MAX:
            raise ValueError("body too large")
        async with asyncio.timeout(PATIENCE_SECONDS):
            body = await reader.readexactly(length)
        if headers.get("user-agent", "").startswith("Mozilla/"):
            status, answer = 403, {"error": "browsers are not served", "status": 403}
        else:
            status, answer = await self.serve(method, target.partition("?")[0], body)
        text = b"" if answer is None else json.dumps(answer).encode() + b"\n"
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}", "Content-Type: application/json"]
        if status != 204:
            lines.append(f"Content-Length: {len(text)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + text)
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    # -- the API

    async def serve(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """The status and JSON of one request."""
        async with self._lock:
            try:
                return await self._route(method, path.strip("/").split("/"), body)
            except ApiError as error:
                return error.status, {"error": str(error), "status": error.status}

    async def _route(self, method: str, parts: list[str], body: bytes) -> tuple[int, Any]:
        change = method in ("POST", "PATCH")
        match (method, parts):
            case "GET", ["version"]:
                return 200, {"version": VERSION}
            case "POST", ["reset"]:
                await self._reset()
                return 204, None
            case "GET", ["proxies"]:
                return 200, {name: one.as_json() for name, one in self._proxies.items()}
            case "POST", ["proxies"]:
                proxy = await self._create(_object(body))
                return 201, proxy.as_json()
            case "POST", ["populate"]:
                return await self._populate(_decoded(body))
            case "GET", ["proxies", name]:
                return 200, self._proxy(name).as_json()
            case _, ["proxies", name] if change:
                return 200, (await self._update(self._proxy(name), _object(body))).as_json()
            case "DELETE", ["proxies", name]:
                await self._proxies.pop(self._proxy(name).name).stop()
                return 204, None
            case _, ["proxies", name, "toxics", *rest] if len(rest) < 2:
                return await self._toxics(method, self._proxy(name), rest, body)
            case _, ["version" | "reset" | "populate" | "proxies", *rest] if len(rest) < 2:
                raise ApiError(405, "method not allowed")
        raise ApiError(404, "not found")

    def _proxy(self, name: str) -> Proxy:
        if name not in self._proxies:
            raise ApiError(404, "proxy not found")
        return self._proxies[name]

    async def _create(self, body: dict[str, Any]) -> Proxy:
        for name in ("name", "upstream"):
            if not body.get(name):
                raise ApiError(400, f"missing required field: {name}")
        if body["name"] in self._proxies:
            raise ApiError(409, "proxy already exists")
        listen = body.get("listen") or ":0"
        split_address(body["upstream"])
        proxy = Proxy(body["name"], listen, body["upstream"], self._entropy)
        if body.get("enabled") is not False:
            await proxy.start()
        self._proxies[proxy.name] = proxy
        return proxy

    async def _update(self, proxy: Proxy, body: dict[str, Any]) -> Proxy:
        listen = body.get("listen") or proxy.listen
        upstream = body.get("upstream") or proxy.upstream
        enabled = proxy.enabled if body.get("enabled") is None else bool(body["enabled"])
        split_address(upstream)
        split_address(listen)
        moved = (listen, upstream) != (proxy.listen, proxy.upstream)
        if proxy.enabled and (moved or not enabled):
            await proxy.stop()
        proxy.listen, proxy.upstream = listen, upstream
        if enabled and not proxy.enabled:
            await proxy.start()
        return proxy

    async def _populate(self, entries: Any) -> tuple[int, Any]:
        if not isinstance(entries, list):
            raise ApiError(400, "bad request body: not a list")
        for number, one in enumerate(entries, 1):
            _check_types(one)
            for name in ("name", "upstream"):
                if not one.get(name):
                    raise ApiError(400, f"missing required field: {name} at proxy {number}")
        done: list[Any] = []
        for one in entries:
            old = self._proxies.get(one["name"])
            if old is not None and (old.listen, old.upstream) != (
                one.get("listen"),
                one["upstream"],
            ):
                await self._proxies.pop(old.name).stop()
                old = None
            try:
                done.append((old or await self._create(one)).as_json())
            except ApiError as error:
                return error.status, {"error": str(error), "status": error.status, "proxies": done}
        return 201, {"proxies": done}

    async def _reset(self) -> None:
        for proxy in self._proxies.values():
            proxy.toxics.clear()
            await proxy.changed()
            if not proxy.enabled:
                await proxy.start()

    async def _toxics(
        self, method: str, proxy: Proxy, rest: list[str], body: bytes
    ) -> tuple[int, Any]:
        if not rest:
            if method == "GET":
                return 200, proxy.toxics_json()
            if method != "POST":
                raise ApiError(405, "method not allowed")
            toxic = parse_toxic(_object(body), {one.name for one in proxy.toxics})
            proxy.toxics.append(toxic)
            await proxy.changed()
            return 200, toxic.as_json()
        toxic = next((one for one in proxy.toxics if one.name == rest[0]), None)
        if toxic is None:
            raise ApiError(404, "toxic not found")
        if method == "DELETE":
            proxy.toxics.remove(toxic)
            await proxy.changed()
            return 204, None
        if method in ("POST", "PATCH"):
            toxic.update(_object(body))
            await proxy.changed()
        elif method != "GET":
            raise ApiError(405, "method not allowed")
        return 200, toxic.as_json()


def _decoded(body: bytes) -> Any:
    try:
        return json.JSONDecoder().raw_decode(body.decode().lstrip())[0]
    except ValueError as error:
        raise ApiError(400, f"bad request body: {error}") from error


_TYPES = {"name": str, "listen": str, "upstream": str, "enabled": bool}


def _object(body: bytes) -> dict[str, Any]:
    value = _decoded(body)
    _check_types(value)
    return value


def _check_types(value: Any) -> None:
    """Raises ApiError unless it is an object whose known fields have their types."""
    if not isinstance(value, dict):
        raise ApiError(400, "bad request body: not an object")
    for name, kind in _TYPES.items():
        if value.get(name) is not None and not isinstance(value[name], kind):
            raise ApiError(400, f"bad request body: {name} is no {kind.__name__}")


async def _serve(address: str, with_parent: bool) -> None:
    toxid = Toxid()
    host, port = split_address(address)
    real = await toxid.start(host, port)
    print(f"{host}:{real}", flush=True)
    if with_parent:
        await asyncio.to_thread(sys.stdin.buffer.read)
    else:
        await asyncio.Event().wait()
    await toxid.stop()


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word != "--with-parent"]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(given[0] if given else "127.0.0.1:8474", given != sys.argv[1:]))
