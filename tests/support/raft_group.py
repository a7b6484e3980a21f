"""A Raft group of real processes on loopback, for tests: start, ask, kill, pause, start again."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cluster.consensus_start import create_secret

ROOT = Path(__file__).resolve().parents[2]
MODULE = "tests.support.raft_process"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


class CallFailed(Exception):
    """A call was answered with an error; `code` is the error's code, `reason` a refusal's."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class ManagerProcess:
    """One manager's process."""

    def __init__(self, group: "RaftGroup", node: str) -> None:
        self.node = node
        self.extra: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self._group = group
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader: asyncio.Task[None] | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.stderr = b""

    async def start(self, *, flags: tuple[str, ...] = (), bootstrap: bool = False) -> None:
        """Starts and waits until it ticks."""
        group = self._group
        settings = {
            "node_id": self.node,
            "cluster_id": "test",
            "raft_address": group.peers[self.node],
            "peers": group.peers,
            "directory": str(group.root / self.node),
            "bootstrap": bootstrap,
            **group.settings,
            **self.settings,
        }
        config = {"settings": settings, "secret_file": str(group.secret_file), **self.extra}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *flags,
            "-m",
            MODULE,
            json.dumps(config),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            limit=1 << 24,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        first = await asyncio.wait_for(self.process.stdout.readline(), 20)
        if not first:
            return
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            answer = json.loads(line)
            future = self._waiting.pop(answer["id"], None)
            if future is None or future.done():
                continue
            if "error" in answer:
                future.set_exception(CallFailed(answer["error"], answer["reason"]))
            else:
                future.set_result(answer["value"])
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(CallFailed("GONE", ""))

    async def call(self, method: str, *, wait: float = 20.0, **args: Any) -> Any:
        """Calls `do_<method>` in the process."""
        assert self.process is not None
        assert self.process.stdin is not None
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "call": method, "args": args}) + "\n"
        self.process.stdin.write(line.encode())
        return await asyncio.wait_for(future, wait)

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.returncode is None

    async def kill(self) -> None:
        """kill -9."""
        if self.running:
            assert self.process is not None
            self.process.kill()
        await self.exit_code()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def exit_code(self, timeout: float = 20.0) -> int:
        """Waits for its end."""
        assert self.process is not None
        code = await asyncio.wait_for(self.process.wait(), timeout)
        if self._reader is not None:
            await asyncio.wait_for(self._reader, timeout)
        assert self.process.stderr is not None
        self.stderr += await self.process.stderr.read()
        return code

    async def stop(self) -> int:
        """An orderly end."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(b'{"call": "stop"}\n')
        return await self.exit_code()


class RaftGroup:
    """`size` managers n0, n1, …; an async context manager that leaves no process behind."""

    def __init__(self, root: Path, size: int = 3, **settings: Any) -> None:
        self.root = root
        self.settings = settings
        ports = free_ports(size)
        self.peers = {f"n{i}": f"127.0.0.1:{port}" for i, port in enumerate(ports)}
        self.secret_file = root / "secret"
        create_secret(self.secret_file)
        self.managers = {node: ManagerProcess(self, node) for node in self.peers}

    def __getitem__(self, node: str) -> ManagerProcess:
        return self.managers[node]

    async def __aenter__(self) -> "RaftGroup":
        await asyncio.gather(*(m.start(bootstrap=True) for m in self.managers.values()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for manager in self.managers.values():
            if manager.running:
                manager.signal(signal.SIGCONT)
                with contextlib.suppress(ProcessLookupError):
                    await manager.kill()

    @property
    def running(self) -> list[ManagerProcess]:
        """Managers whose process lives."""
        return [m for m in self.managers.values() if m.running]

    async def leader(self, timeout: float = 15.0) -> ManagerProcess:
        """The manager that a majority's newest term names and that believes it itself."""

        async def look() -> ManagerProcess | None:
            seen = [(await m.call("status"), m) for m in self.running]
            leaders = [(s["term"], m) for s, m in seen if s["role"] == "leader"]
            return max(leaders, key=lambda row: row[0])[1] if leaders else None

        return await until(look, timeout)

    async def propose(self, op: str, args: dict[str, Any], timeout: float = 10.0) -> Any:
        """Through any running manager."""
        return await self.running[0].call("propose", op=op, args=args, timeout=timeout)

    async def states_agree(self, timeout: float = 15.0) -> dict[str, Any]:
        """Waits until all running managers have the same state, and returns it."""

        async def look() -> dict[str, Any] | None:
            states = [await m.call("state") for m in self.running]
            return states[0] if all(s == states[0] for s in states) else None

        return await until(look, timeout)


async def until(look: Callable[[], Awaitable[Any]], timeout: float = 15.0) -> Any:
    """Polls `look` until it gives something."""
    async with asyncio.timeout(timeout):
        while not (found := await look()):  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.03)
        return found


def put_schema(name: str, expected: int = 0) -> dict[str, Any]:
    """Arguments of a PutSchema whose second application would be refused."""
    return {"name": name, "expected_version": expected, "body": "x"}
