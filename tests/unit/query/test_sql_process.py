"""The engine's process: its walls hold without the guard; memory, time and crashes stay in it."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from query.sql_process import Engine, EngineCaps, EngineDied, EnginePool

CAPS = EngineCaps(64 << 20, 16 << 20, 2)
MEBIBYTE = 1 << 20


@pytest.fixture
async def pool() -> AsyncIterator[EnginePool]:
    """A pool; its processes end with the test."""
    made = EnginePool(CAPS)
    yield made
    await made.close()


async def run(
    engine: Engine, sql: str, table: pa.Table | None = None, **more: Any
) -> dict[str, Any]:
    """The last answer to a query that no guard has looked at; with the rows under `rows`."""
    caps = {"input_bytes": MEBIBYTE, "result_rows": 1000, "result_bytes": MEBIBYTE}
    await engine.command(op="run", sql=sql, input=table is not None, **(caps | more))
    if table is not None:
        await engine.send(b"S", table.schema.serialize())
        for batch in table.to_batches(max_chunksize=1000):
            await engine.send(b"B", batch.serialize())
        await engine.send(b"E")
    result, answers = await engine.result()
    return answers[-1] if result is None else answers[-1] | {"rows": result.to_pylist()}


def of_process(engine: Engine, name: str) -> str:
    """What the kernel tells of the process."""
    return Path(f"/proc/{engine.pid}/{name}").read_text(encoding="ascii")


def memory_kib(engine: Engine) -> int:
    """The most memory that the process had."""
    return int(of_process(engine, "status").split("VmHWM:")[1].split()[0])


OUTSIDE = (
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM read_parquet('https://example.org/x.parquet')",
    "COPY (SELECT 1) TO '/tmp/quorumlog-sql-escape'",
    "ATTACH '/tmp/quorumlog-sql-escape.db'",
    "EXPORT DATABASE '/tmp/quorumlog-sql-escape'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '/tmp/evil.duckdb_extension'",
    "SET memory_limit = '9GB'",
    "SET enable_external_access = true",
    "SET disabled_filesystems = ''",
    "RESET disabled_filesystems",
    "PRAGMA memory_limit = '9GB'",
    "SET GLOBAL lock_configuration = false",
    "SELECT getenv('PATH')",
    "SELECT * FROM engine",
    "SELECT * FROM pipe",
)


async def test_nothing_outside_can_be_reached(pool: EnginePool) -> None:
    """Even if the guard let it through: DuckDB refuses, and no file appears."""
    async with pool.engine() as engine:
        for sql in OUTSIDE:
            answer = await run(engine, sql)

            assert answer.get("error", {}).get("kind") == "sql", (sql, answer)
    assert not [name for name in os.listdir("/tmp") if name.startswith("quorumlog-sql-escape")]


async def test_the_kernel_holds_as_well(pool: EnginePool) -> None:
    """No environment, no descriptor to spare, no byte to disk, a limit on memory, less priority."""
    async with pool.engine() as engine:
        assert (await run(engine, "SELECT 1 AS x"))["rows"] == [{"x": 1}]
        limits, environment = of_process(engine, "limits"), of_process(engine, "environ")
        open_files = len(os.listdir(f"/proc/{engine.pid}/fd"))
        nice = os.getpriority(os.PRIO_PROCESS, engine.pid)

    found = {line[:26].strip(): line[26:].split() for line in limits.splitlines()}
    assert environment == ""
    assert int(found["Max open files"][0]) <= open_files
    assert found["Max file size"][:2] == ["0", "0"]
    assert found["Max core file size"][:2] == ["0", "0"]
    assert int(found["Max data size"][0]) < 1 << 30
    assert nice == os.getpriority(os.PRIO_PROCESS, 0) + 5


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(range) FROM range(1000000000)",
        "SELECT string_agg(range::VARCHAR, 'x') FROM range(300000000)",
        "SELECT length(repeat(repeat('x', 1000000), 3000))",
        "SELECT map_from_entries(list({'k': range, 'v': repeat('a', 1000)})) FROM range(1000000)",
        "SELECT * FROM range(100000000) a, range(100000000) b ORDER BY random()",
    ],
)
async def test_memory_bombs_end_at_the_cap(pool: EnginePool, sql: str) -> None:
    """An answer that says so (or a dead process); it never took more than its limits together."""
    async with pool.engine() as engine:
        try:
            answer = await run(engine, sql)
        except EngineDied:
            return
        assert answer["error"]["kind"] == "memory", answer
        assert memory_kib(engine) < 500 * 1024
        assert not engine.settled
        pid = engine.pid

    async with pool.engine() as other:
        assert other.pid != pid
        assert (await run(other, "SELECT 2 AS x"))["rows"] == [{"x": 2}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(100000000000) a",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
        "SELECT sleep_ms(20000)",
    ],
)
async def test_whoever_leaves_leaves_a_dead_process(pool: EnginePool, sql: str) -> None:
    """A deadline in the middle: the process is gone, the next query has a new one."""
    engines: list[Engine] = []

    async def impatient() -> None:
        async with pool.engine() as engine:
            engines.append(engine)
            assert (await engine.ask(op="parse", sql="SELECT 1"))["tree"]
            async with asyncio.timeout(0.5):
                await run(engine, sql)

    with pytest.raises(TimeoutError):
        await impatient()
    (engine,) = engines
    await asyncio.wait_for(engine._process.wait(), 5)

    assert not engine.alive
    assert not pool.running


async def test_a_crash_is_an_answer(pool: EnginePool) -> None:
    """Killed from outside, as by the kernel: the query is told, the next one runs."""
    async with pool.engine() as engine:
        await engine.command(op="run", sql="SELECT sleep_ms(5000)", input=False)
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineDied, match="memory"):
            await engine.answer()

    async with pool.engine() as engine:
        assert (await run(engine, "SELECT 1 AS x"))["rows"] == [{"x": 1}]


async def test_one_process_serves_query_after_query(pool: EnginePool) -> None:
    """Also after errors; nothing of one query is seen by the next."""
    table = pa.table({"x": [1, 2, 3]})
    async with pool.engine() as engine:
        pid = engine.pid
        assert (await run(engine, "SELECT sum(x) AS s FROM logs", table))["rows"] == [{"s": 6}]
    async with pool.engine() as engine:
        wrong = await run(engine, "SELECT nope FROM logs", table)
        assert wrong["error"]["position"] == 7
        gone = await run(engine, "SELECT * FROM logs")
        assert "does not exist" in gone["error"]["message"]
        assert engine.pid == pid


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) AS n FROM logs a JOIN logs b USING (x)",
        "SELECT count(*) AS n FROM logs WHERE x IN (SELECT x FROM logs)",
    ],
)
async def test_a_table_read_twice_is_kept(pool: EnginePool, sql: str) -> None:
    """Within the cap of kept input; beyond it the answer names the reason."""
    small, large = pa.table({"x": range(5000)}), pa.table({"x": range(500_000)})
    async with pool.engine() as engine:
        assert (found := await run(engine, sql, small)).get("rows") == [{"n": 5000}], found
        assert (await run(engine, sql, large))["error"]["kind"] == "input"
        once = await run(engine, "SELECT count(*) AS n FROM logs", large)
        assert once["rows"] == [{"n": 500_000}]


async def test_a_limit_leaves_the_rest_of_the_input(pool: EnginePool) -> None:
    """More than the pipe and the waiting batches hold is left: nobody waits for it, the next query runs."""
    table = pa.table({"x": range(4_000_000)})
    async with pool.engine() as engine, asyncio.timeout(20):
        for _ in range(2):
            answer = await run(engine, "SELECT x FROM logs LIMIT 1", table)
            assert answer["rows"] == [{"x": 0}]
            assert answer["done"]["rows_read"] < 4_000_000


async def test_results_are_bounded(pool: EnginePool) -> None:
    """By rows and by bytes; at the bound all is well."""
    async with pool.engine() as engine:
        assert len((await run(engine, "SELECT * FROM range(1000)"))["rows"]) == 1000
        assert (await run(engine, "SELECT * FROM range(1001)"))["error"]["kind"] == "result"
        wide = await run(engine, "SELECT repeat('x', 9999) FROM range(500)")
        assert wide["error"]["kind"] == "result"


async def test_an_input_may_be_withdrawn(pool: EnginePool) -> None:
    """Then the query fails, and the process takes the next one."""
    table = pa.table({"x": range(10)})
    async with pool.engine() as engine:
        caps = {"input_bytes": 1, "result_rows": 1, "result_bytes": 1}
        await engine.command(op="run", sql="SELECT sum(x) FROM logs", input=True, **caps)
        await engine.send(b"S", table.schema.serialize())
        await engine.send(b"B", table.to_batches()[0].serialize())
        await engine.send(b"X")
        while "error" not in (body := await _json(engine)):
            pass
        assert "withdrawn" in body["error"]["message"]
        assert (await run(engine, "SELECT 1 AS x"))["rows"] == [{"x": 1}]


async def _json(engine: Engine) -> dict[str, Any]:
    kind, payload = await engine.receive()
    return json.loads(payload) if kind == b"J" else {}


async def test_time_stands_still_within_a_query(pool: EnginePool) -> None:
    """`now()` of the constants is that of the run."""
    async with pool.engine() as engine:
        tree = json.loads((await engine.ask(op="parse", sql="SELECT now() AS x"))["tree"])
        ((kind, micros),) = (await engine.ask(op="constants", trees=[tree]))["constants"]
        await asyncio.sleep(0.01)
        ran = await run(engine, "SELECT epoch_us(now()) AS x")

    assert kind == "TIMESTAMP WITH TIME ZONE"
    assert ran["rows"] == [{"x": micros}]
