"""The process in which SQL runs: DuckDB and nothing else. Started by `query.sql_process`, never imported.

What SQL could reach is taken away in layers, each of which would do: the parent lets only one SELECT over
`logs` through (`query.sql_guard`); DuckDB runs without external access, extensions, temporary files and
Python's variables, its configuration locked; the process has an empty environment, may open no further
file or socket (RLIMIT_NOFILE), write no byte to disk, and own only so much memory (RLIMIT_DATA), because
DuckDB's own limit does not count everything (`rpad('a', 2000000000, 'b')` takes 4 GB under a limit of 200
MB, and does not listen to an interrupt for a minute). It ends with its parent, which kills it to cancel.

Frames on stdin and stdout: kind (1 byte), length (4 bytes, big-endian), payload.
    to us    J a JSON command · S an Arrow schema · B a record batch · E the end of the input · X drop it
    from us  J a JSON answer · S, B the result; then J {"done": …} or {"error": …}
Commands: parse, constants, run; see `Session`.
"""

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import struct
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa

HEADER = struct.Struct(">cI")
FRAME_MAX = 1 << 28
#: Batches that wait between the pipe and the engine; one is about 1 MiB.
WAITING_MAX = 4
#: Rows of one batch of the result.
RESULT_ROWS = 8192
#: Put before a query to plan it; positions in its errors count from here.
EXPLAIN = "EXPLAIN (FORMAT json) "
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


class Refused(Exception):
    """The query cannot go on; `kind` says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Unplanned(Exception):
    """The query cannot be planned; holds what the parent is told."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told["message"])
        self.told = told


class Feed:
    """The batches of one input: filled by the reader thread, emptied by the engine."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._batches: deque[pa.RecordBatch | None] = deque()
        self._closed = self._dropped = False
        self.rows = 0
        self.bytes = 0

    def put(self, batch: pa.RecordBatch | None) -> None:
        """Waits for room; a closed feed swallows everything."""
        with self._ready:
            while len(self._batches) >= WAITING_MAX and not self._closed:
                self._ready.wait()
            if not self._closed:
                self._batches.append(batch)
                self._ready.notify_all()

    def close(self, dropped: bool = False) -> None:
        """Nobody reads any more; `dropped`: who still does gets an error."""
        with self._ready:
            self._closed, self._dropped = True, dropped
            self._batches.clear()
            self._ready.notify_all()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Until the end of the input."""
        while True:
            with self._ready:
                while not self._batches and not self._closed:
                    self._ready.wait()
                batch = None if self._closed else self._batches.popleft()
                self._ready.notify_all()
            if self._dropped:
                raise Refused("dropped", "the input was withdrawn")
            if batch is None:
                return
            self.rows += batch.num_rows
            self.bytes += batch.nbytes
            yield batch


class Pipe:
    """Frames in and out. One thread reads, so that an interrupted query does not block the pipe."""

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.buffer, sys.stdout.buffer
        self._commands: deque[dict[str, Any]] = deque()
        self._ready = threading.Semaphore(0)
        self.feed = Feed()
        self._schema: pa.Schema | None = None
        self._schema_ready = threading.Event()

    def start(self) -> None:
        """Begins to read."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while head := self._in.read(HEADER.size):
                kind, size = HEADER.unpack(head)
                if size > FRAME_MAX:
                    break
                self._take(kind, self._in.read(size))
        os._exit(0)  # the parent is gone

    def _take(self, kind: bytes, payload: bytes) -> None:
        if kind == b"J":
            command = json.loads(payload)
            self.feed = Feed()
            self._schema_ready.clear()
            self._commands.append(command)
            self._ready.release()
        elif kind == b"S":
            self._schema = pa.ipc.read_schema(pa.py_buffer(payload))
            self._schema_ready.set()
        elif kind == b"B":
            self.feed.put(pa.ipc.read_record_batch(pa.py_buffer(payload), self._schema))
        elif kind == b"E":
            self.feed.put(None)
        elif kind == b"X":
            self.feed.close(dropped=True)

    def command(self) -> dict[str, Any]:
        """The next command."""
        self._ready.acquire()
        return self._commands.popleft()

    def schema(self) -> pa.Schema:
        """The schema of the input, waited for."""
        self._schema_ready.wait()
        assert self._schema is not None
        return self._schema

    def send(self, kind: bytes, payload: Any) -> None:
        """One frame."""
        view = memoryview(payload)
        self._out.write(HEADER.pack(kind, view.nbytes))
        self._out.write(view)
        self._out.flush()

    def answer(self, **body: Any) -> None:
        """A JSON frame."""
        self.send(b"J", json.dumps(body).encode())


class Session:
    """One query: parse it, evaluate constants, run it; in one transaction, so that `now()` stands still."""

    def __init__(self, pipe: Pipe, database: duckdb.DuckDBPyConnection) -> None:
        self._pipe = pipe
        self.connection = database.cursor()
        self.connection.execute("BEGIN TRANSACTION").fetchall()

    def _one(self, sql: str, *values: Any) -> Any:
        return self.connection.execute(sql, list(values)).fetchall()[0]

    def parse(self, sql: str) -> None:
        """Answers the syntax tree, as DuckDB's own parser sees it."""
        tree = self._one(
            "SELECT json_serialize_sql(?::VARCHAR, skip_null := true, skip_empty := true)", sql
        )
        self._pipe.answer(tree=tree[0])

    def constants(self, trees: list[dict[str, Any]]) -> None:
        """Answers of each `SELECT <constant> AS x` its type, and its microseconds (null: it has none)."""
        found: list[tuple[str, int | None]] = []
        for tree in trees:
            with contextlib.suppress(duckdb.Error):
                text = self._one("SELECT json_deserialize_sql(?::JSON)", json.dumps(tree))[0]
                (kind,) = self._one("SELECT typeof(x) FROM (" + text + ")")  # noqa: S608 - checked
                value = "epoch(x) * 1000000" if kind == "INTERVAL" else "epoch_us(x::TIMESTAMPTZ)"
                sql = "SELECT TRY((" + value + ")::BIGINT) FROM (" + text + ")"  # noqa: S608 - checked
                (micros,) = self._one(sql)
                found.append((kind, micros))
                continue
            found.append(("", None))
        self._pipe.answer(constants=found)

    def run(self, command: dict[str, Any]) -> None:
        """Runs `sql` (or `tree`) over the input as `logs`.

        `like`: take names and types of the columns from this query over the empty table `like_schema`.
        """
        sql = command.get("sql") or self._text(command["tree"])
        names, types = None, None
        if command.get("like"):
            schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(command["like_schema"])))
            self.connection.register("logs", schema.empty_table())
            self._explain(command["like"])
            names, types = _shape(self.connection.sql(command["like"]))
            self.connection.unregister("logs")
        self._register(sql, command)
        relation = self.connection.sql(sql)
        if types is not None and types != _shape(relation)[1]:
            raise Refused("types", f"the partial sums have the types {_shape(relation)[1]}")
        self._result(relation, names, command)

    def _explain(self, sql: str) -> str:
        """The plan as JSON. Errors of this statement carry positions, those of `connection.sql` do not."""
        try:
            return self._one(EXPLAIN + sql)[1]
        except duckdb.Error as error:
            raise Unplanned(_error(error, len(EXPLAIN))) from error

    def _text(self, tree: dict[str, Any]) -> str:
        return self._one("SELECT json_deserialize_sql(?::JSON)", json.dumps(tree))[0]

    def _register(self, sql: str, command: dict[str, Any]) -> None:
        """The input as the table `logs`: read once as it comes, or kept if the plan needs it twice."""
        if not command["input"]:
            self._explain(sql)
            return
        schema, feed = self._pipe.schema(), self._pipe.feed
        reader = pa.RecordBatchReader.from_batches(schema, feed.batches())
        self.connection.register("logs", reader)
        if _scans_once(json.loads(self._explain(sql))):
            return
        self.connection.unregister("logs")
        kept = []
        for batch in feed.batches():
            kept.append(batch)
            if feed.bytes > command["input_bytes"]:
                raise Refused("input", "the query reads `logs` more than once")
        self.connection.register("logs", pa.Table.from_batches(kept, schema))

    def _result(self, relation: Any, names: list[str] | None, command: dict[str, Any]) -> None:
        described = _shape(relation)
        names, types = _distinct(names or described[0]), described[1]
        reader = relation.to_arrow_reader(RESULT_ROWS)
        kinds = [field.type for field in reader.schema]
        schema = pa.schema(list(zip(names, kinds, strict=True)))
        self._pipe.answer(columns=list(zip(names, types, strict=True)))
        self._pipe.send(b"S", schema.serialize())
        rows = size = 0
        for batch in reader:
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows > command["result_rows"] or size > command["result_bytes"]:
                raise Refused("result", "the result is too large")
            self._pipe.send(
                b"B", pa.RecordBatch.from_arrays(batch.columns, schema=schema).serialize()
            )
        feed = self._pipe.feed
        feed.close()  # a LIMIT may have left some of it
        self._pipe.answer(done={"rows": rows, "rows_read": feed.rows})


def _scans_once(plan: list[dict[str, Any]]) -> bool:
    """Whether a plan reads the input once: one scan, and nothing that runs parts of it again."""
    scans, waiting = 0, list(plan)
    while waiting:
        node = waiting.pop()
        name = str(node.get("name", "")).upper()
        scans += "ARROW_SCAN" in name
        if "REC" in name.split("_") or "RECURSIVE" in name:
            return False
        waiting += node.get("children", [])
    return scans <= 1


def _shape(relation: Any) -> tuple[list[str], list[str]]:
    return list(relation.columns), [str(kind) for kind in relation.types]


def _distinct(names: list[str]) -> list[str]:
    """Names that occur again get a number, as an object has each key once."""
    taken: dict[str, int] = {}
    result: list[str] = []
    for name in names:
        fresh = name
        while fresh in taken:
            taken[name] += 1
            fresh = f"{name}_{taken[name]}"
        taken[fresh] = 0
        result.append(fresh)
    return result


def connect(options: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    """An empty database in memory, with no way out of it."""
    config: dict[str, Any] = {
        "memory_limit": f"{options['memory_bytes']}B",
        "threads": str(options["threads"]),
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "allow_persistent_secrets": "false",
        "temp_directory": "",
        "max_temp_directory_size": "0B",
        "errors_as_json": "true",
    }
    connection = duckdb.connect(":memory:", config=config)
    for setting in ("TimeZone = 'UTC'", "python_enable_replacements = false"):
        connection.execute(f"SET GLOBAL {setting}").fetchall()
    connection.execute("SET GLOBAL disabled_filesystems = 'LocalFileSystem'").fetchall()
    connection.execute("SET GLOBAL lock_configuration = true").fetchall()
    return connection


def harden(extra_bytes: int) -> None:
    """Takes from this process what a query has no need of. Called when all modules are loaded."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.nice(5)  # queries yield to what must not wait: acknowledgements
    limits = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": _descriptors()}
    if used := _data_bytes():
        limits["RLIMIT_DATA"] = used + extra_bytes
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))


def _descriptors() -> int:
    """One more than the highest open descriptor: none is left to be opened."""
    probe = os.open(os.devnull, os.O_RDONLY)
    os.close(probe)
    return probe


def _data_bytes() -> int:
    """Bytes of data this process owns now; 0 where the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        found = re.search(r"VmData:\s+(\d+) kB", status.read())
        return int(found[1]) * 1024 if found else 0
    return 0


def _error(error: BaseException, before: int = 0) -> dict[str, Any]:
    """What the parent is told; `before`: bytes put before the query. DuckDB's errors carry JSON."""
    if isinstance(error, Unplanned):
        return error.told
    if isinstance(error, Refused):
        return {"kind": error.kind, "message": str(error)}
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException):
        return {"kind": "memory", "message": str(error)[:500]}
    if isinstance(error, duckdb.Error):
        found = re.search(r"\{.*\}", str(error), re.DOTALL)
        with contextlib.suppress(ValueError):
            body = json.loads(found[0]) if found else {}
            told = {"kind": "sql", "message": body.get("exception_message", str(error))}
            if str(body.get("position", "")).isdigit():
                told["position"] = max(0, int(body["position"]) - before)
            return told
        return {"kind": "sql", "message": str(error)}
    return {"kind": "internal", "message": repr(error)[:500]}


def serve(pipe: Pipe, database: duckdb.DuckDBPyConnection) -> None:
    """Commands, one after another. `parse` begins a new session; an error ends it."""
    session: Session | None = None
    while True:
        command = pipe.command()
        try:
            if command["op"] == "parse" or session is None:
                if session is not None:
                    session.connection.close()
                session = Session(pipe, database)
            if command["op"] == "parse":
                session.parse(command["sql"])
            elif command["op"] == "constants":
                session.constants(command["trees"])
            else:
                session.run(command)
        except Exception as error:  # noqa: BLE001 - every failure is the parent's to tell
            told, session = _error(error), None
            pipe.feed.close()
            pipe.answer(error=told)


def main() -> None:
    """Reads commands from stdin until it ends."""
    warnings.simplefilter("ignore")
    options = json.loads(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    database = connect(options)
    database.execute("SELECT epoch_us(now()), strftime(now(), '%Y'), '{}'::JSON").fetchall()
    pipe = Pipe()
    pipe.start()
    harden(options["data_bytes"])
    serve(pipe, database)


if __name__ == "__main__":
    main()
