"""SQL's engine in a process of its own: starting it, talking to it, ending it.

A process runs one query at a time and is kept for the next one; whoever leaves in the middle (a deadline,
a client that is gone, an answer that makes no sense) leaves it killed. So nothing that a query does, be it
a crash, can outlive it or touch the node.
"""

import asyncio
import contextlib
import json
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from records.errors import TooLarge
from runtime.logs import get_logger

log = get_logger(__name__)
_HEADER = struct.Struct(">cI")
_CHILD = Path(__file__).with_name("sql_child.py")
#: Seconds for which an idle process is kept: it costs about 90 MB, a new one 0.3 s of CPU.
IDLE_SECONDS = 60.0
#: Queries after which a process is replaced, so that no leak of a library can grow.
QUERIES_MAX = 200
#: Bytes that the engine and its libraries may take beyond DuckDB's limit and the kept input.
SLACK_BYTES = 192 << 20


@dataclass(frozen=True, slots=True)
class EngineCaps:
    """What one query may use: DuckDB's memory, the input it may keep, its threads."""

    memory_bytes: int
    input_bytes: int
    threads: int

    @property
    def text(self) -> str:
        """As the process takes it."""
        data = self.memory_bytes + self.input_bytes + SLACK_BYTES
        options = {"memory_bytes": self.memory_bytes, "threads": self.threads, "data_bytes": data}
        return json.dumps(options)


class EngineDied(TooLarge):
    """The engine's process ended in the middle: the kernel refused it memory, or it crashed."""


class Engine:
    """One process. Frames as `query.sql_child` says."""

    def __init__(self, process: asyncio.subprocess.Process, caps: EngineCaps) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._caps = process, caps
        self._in, self._out = process.stdin, process.stdout
        self.queries = 0
        #: Whether nothing of a query is left in it: it may be given to the next one.
        self.settled = True

    @classmethod
    async def start(cls, caps: EngineCaps) -> "Engine":
        """A new process, with nothing in its environment."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(_CHILD),
            caps.text,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=1 << 20,
            env={},
            cwd="/",
        )
        return cls(process, caps)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    async def send(self, kind: bytes, payload: Any = b"") -> None:
        """One frame; waits for the process to take what was sent before.

        Raises:
            EngineDied: it is gone.
        """
        view = memoryview(payload)
        try:
            self._in.write(_HEADER.pack(kind, view.nbytes))
            if view.nbytes:
                self._in.write(view)
            await self._in.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._died() from error

    async def command(self, **body: Any) -> None:
        """Sends a command; its last answer makes the engine settled again."""
        self.settled = False
        await self.send(b"J", json.dumps(body).encode())

    async def receive(self) -> tuple[bytes, bytes]:
        """The next frame: its kind and payload.

        Raises:
            EngineDied: it is gone.
        """
        try:
            kind, size = _HEADER.unpack(await self._out.readexactly(_HEADER.size))
            return kind, await self._out.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionResetError) as error:
            raise self._died() from error

    async def answer(self) -> dict[str, Any]:
        """The next frame, which is JSON."""
        kind, payload = await self.receive()
        assert kind == b"J", kind
        return self.read(payload)

    def read(self, payload: bytes) -> dict[str, Any]:
        """A JSON answer; notes whether it is the last one."""
        body = json.loads(payload)
        error = body.get("error", {}).get("kind")
        self.settled = "columns" not in body and error not in ("memory", "internal")
        return body

    async def result(self) -> tuple[pa.Table | None, list[dict[str, Any]]]:
        """What a query gives: its rows (None if it failed first), and its answers up to "done" or "error".

        Raises:
            EngineDied: it is gone.
        """
        schema: pa.Schema | None = None
        batches: list[pa.RecordBatch] = []
        answers: list[dict[str, Any]] = []
        while True:
            kind, payload = await self.receive()
            if kind == b"S":
                schema = pa.ipc.read_schema(pa.py_buffer(payload))
            elif kind == b"B":
                batches.append(pa.ipc.read_record_batch(pa.py_buffer(payload), schema))
            else:
                answers.append(self.read(payload))
                if "done" in answers[-1] or "error" in answers[-1]:
                    made = None if schema is None else pa.Table.from_batches(batches, schema)
                    return made, answers

    async def ask(self, **body: Any) -> dict[str, Any]:
        """A command and its answer."""
        await self.command(**body)
        return await self.answer()

    def _died(self) -> EngineDied:
        return EngineDied(
            f"the query was stopped: it took more memory than the {self._caps.memory_bytes >> 20} MiB "
            "that a query may use, or made the engine fail; filter more, select fewer columns, or "
            "aggregate",
            parameter="query",
        )

    async def kill(self) -> None:
        """Ends the process, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._in.close()
        await self._process.wait()


class EnginePool:
    """Processes that wait for queries; one that is not settled after its query is killed.

    How many run at once is for the caller to bound.
    """

    def __init__(self, caps: EngineCaps) -> None:
        self._caps = caps
        self._idle: list[Engine] = []
        self._timers: dict[Engine, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.running: set[Engine] = set()

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """A process for one query; killed unless the block ends well."""
        engine = self._take() or await Engine.start(self._caps)
        self.running.add(engine)
        try:
            yield engine
        finally:
            self.running.discard(engine)
            engine.queries += 1
            if engine.settled and engine.alive and engine.queries < QUERIES_MAX:
                self._keep(engine)
            else:
                self._end(engine)

    def _take(self) -> Engine | None:
        while self._idle:
            engine = self._idle.pop()
            self._timers.pop(engine).cancel()
            if engine.alive:
                return engine
            self._end(engine)
        return None

    def _keep(self, engine: Engine) -> None:
        self._idle.append(engine)
        loop = asyncio.get_running_loop()
        self._timers[engine] = loop.call_later(IDLE_SECONDS, self._retire, engine)

    def _retire(self, engine: Engine) -> None:
        self._timers.pop(engine)
        self._idle.remove(engine)
        self._end(engine)

    def _end(self, engine: Engine) -> None:
        task = asyncio.get_running_loop().create_task(engine.kill(), name="sql-engine-kill")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Ends all processes."""
        for engine in list(self._idle):
            self._timers[engine].cancel()
            self._retire(engine)
        for engine in list(self.running):
            self._end(engine)
        await asyncio.gather(*self._ending)
