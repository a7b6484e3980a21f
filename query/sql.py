"""SQL over the table `logs`: parse, check, push down, feed, run. See docs/sql.md.

    engine parses -> guard checks the tree -> plan: time, filter, columns, limit
      -> partial aggregates fit?  fold at the storage nodes, DuckDB over the groups
      -> else                     a stream of the needed rows, DuckDB over the stream

The rows come by the same quorum read as every other query's, so the answer says `complete` or names what is
missing. The deadline ends everything: the reads by cancelling, the engine by killing its process.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from query.coordinator import ReadCoordinator
from query.limits import Gate
from query.plan import QueryPlan, services_of
from query.sql_feed import Shape, Wider
from query.sql_guard import SQL_MAX_BYTES, Statement, checked, refused
from query.sql_partial import Partial, partial, typed_sums, with_step
from query.sql_plan import (
    Constant,
    Pushdown,
    constant_tree,
    needed_fields,
    pushdown,
    pushed_limit,
    selects,
)
from query.sql_process import Engine, EngineCaps, EnginePool
from query.stream import RowStream
from query.together import end
from records.errors import DeadlineExceeded, QuorumlogError, TooLarge
from runtime.deadline import Deadline
from runtime.metrics import Metrics

#: Bytes of rows gathered before the schema is fixed.
GATHER_BYTES = 16 << 20
#: Times that a query's input is begun again because later rows have other fields or wider types.
AGAIN_MAX = 6
#: Rows of one page of the input, all shards together.
PAGE_ROWS = 131_072


@dataclass(frozen=True, slots=True)
class SqlAnswer:
    """The result, and how far it can be trusted. `columns`: name and SQL type. `notes`: worth knowing."""

    table: pa.Table
    columns: list[tuple[str, str]]
    complete: bool
    missing: tuple[dict[str, Any], ...]
    stats: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Run:
    """One query on its way."""

    engine: Engine
    plan: QueryPlan
    statement: Statement
    deadline: Deadline
    push: bool
    result_rows: int
    stats: dict[str, Any] = field(default_factory=dict)


class _Unfit(Exception):
    """Partial aggregates cannot answer after all: the rows must be read."""


class SqlRunner:
    """Runs SQL. `push_down` False reads all rows of the plan: the same answers, slower; for tests."""

    def __init__(
        self, coordinator: ReadCoordinator, metrics: Metrics, push_down: bool = True
    ) -> None:
        settings = coordinator.settings
        self._coordinator, self._push_down = coordinator, push_down
        caps = EngineCaps(settings.sql_memory_bytes, settings.sql_input_bytes, settings.sql_threads)
        self.pool = EnginePool(caps)
        self._gate = Gate(settings.sql_running_max, settings.queue_seconds)
        self._seconds = metrics.histogram(
            "quorumlog_sql_seconds", "Time of SQL queries, by how they were answered.", ["how"]
        )
        self._rows = metrics.counter("quorumlog_sql_rows_total", "Rows read for SQL queries.")
        running = metrics.gauge("quorumlog_sql_running", "SQL queries that run now.")
        running.set_function(lambda: self._gate.running)

    async def close(self) -> None:
        """Ends the engine's processes."""
        await self.pool.close()

    async def run(self, sql: str, plan: QueryPlan, result_rows: int | None = None) -> SqlAnswer:
        """The answer to one SELECT; `plan` narrows `logs` and tells tenant, consistency and deadline.

        Raises:
            InvalidRequest: not one SELECT that is allowed and makes sense; tells where.
            TooLarge: a cap was reached; tells which, and what to do.
            Overloaded, QuorumUnavailable, DeadlineExceeded: as any read.
        """
        if len(sql.encode()) > SQL_MAX_BYTES:
            raise TooLarge(f"sql: more than {SQL_MAX_BYTES >> 10} KiB of text", parameter="query")
        clock, deadline = self._coordinator.clock, self._coordinator.deadline(plan)
        started = clock.monotonic()
        rows = min(result_rows or 1 << 60, self._coordinator.settings.sql_result_rows)
        async with self._within(deadline), self._gate.slot(deadline), self.pool.engine() as engine:
            statement = await self._parsed(engine, sql)
            run = _Run(engine, plan, statement, deadline, self._push_down, rows)
            answer = await self._answer(run)
        seconds = clock.monotonic() - started
        answer.stats["elapsed_ms"] = round(seconds * 1000, 3)
        self._seconds.labels(answer.stats["how"]).observe(seconds)
        self._rows.inc(answer.stats["rows_read"])
        return answer

    @asynccontextmanager
    async def _within(self, deadline: Deadline) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(max(0.001, deadline.remaining())):
                yield
        except TimeoutError as error:
            raise DeadlineExceeded("sql: the query was not finished in time") from error

    async def _parsed(self, engine: Engine, sql: str) -> Statement:
        answer = await engine.ask(op="parse", sql=sql)
        if "error" in answer:
            raise refused(str(answer["error"]["message"])[:300], sql)
        return checked(sql, answer["tree"])

    async def _answer(self, run: _Run) -> SqlAnswer:
        statement = run.statement
        found = selects(statement) if run.push else None
        constants = await self._constants(
            run, [m.expression for s in found or [] for m in s.moments]
        )
        pushed = pushdown(found, constants)
        fold = partial(statement, found, pushed)
        if fold is not None and fold.bucket is not None:
            (constant,) = await self._constants(run, [fold.bucket])
            fold = with_step(fold, constant)
        if fold is not None:
            try:
                return await self._folded(run, fold, pushed)
            except _Unfit:
                pass
        limit, newest = pushed_limit(statement, found, pushed)
        return await self._streamed(run, pushed, limit, newest)

    async def _constants(self, run: _Run, expressions: list[Any]) -> list[Constant]:
        if not expressions:
            return []
        trees = [constant_tree(one) for one in expressions]
        answer = await run.engine.ask(op="constants", trees=trees)
        return [(kind, micros) for kind, micros in answer["constants"]]

    def _narrowed(self, run: _Run, pushed: Pushdown) -> QueryPlan:
        scan = pushed.narrowed(run.plan.scan)
        return replace(run.plan, scan=replace(scan, services=services_of(scan.filter) or ()))

    # -- partial aggregates

    async def _folded(self, run: _Run, fold: Partial, pushed: Pushdown) -> SqlAnswer:
        plan = self._narrowed(run, pushed)
        plan = replace(plan, scan=replace(plan.scan, fold=fold.fold, limit=0))
        answer = await self._coordinator.fold(plan, run.deadline)
        if any("shard" not in one for one in answer.missing):
            raise _Unfit  # a replica cut its groups
        shaped = fold.shaped(answer.table)
        if shaped is None:
            raise _Unfit
        table, schema = shaped
        types = {one.name: one.type for one in schema}
        command = self._command(run) | {
            "sql": None, "tree": typed_sums(fold.tree, types), "like": run.statement.sql,
            "like_schema": schema.serialize().to_pybytes().hex(), "input": True,
        }  # fmt: skip
        await run.engine.command(**command)
        await self._send(run.engine, table.schema, table.combine_chunks().to_batches())
        run.stats = {**answer.stats, "how": "partial aggregates", "rows_read": table.num_rows}
        return await self._result(run, answer.complete, answer.missing, [])

    @staticmethod
    async def _send(engine: Engine, schema: pa.Schema, batches: list[pa.RecordBatch]) -> None:
        await engine.send(b"S", schema.serialize())
        for batch in batches:
            await engine.send(b"B", batch.serialize())
        await engine.send(b"E")

    # -- rows

    async def _streamed(self, run: _Run, pushed: Pushdown, limit: int, newest: bool) -> SqlAnswer:
        statement = run.statement
        if not statement.scans:
            await run.engine.command(**self._command(run), input=False)
            run.stats = {"how": "no rows", "rows_read": 0}
            return await self._result(run, True, (), [])
        fields = needed_fields(statement)
        scan = replace(
            self._narrowed(run, pushed).scan,
            limit=limit,
            descending=newest,
            fields=None if statement.star else tuple(dict.fromkeys(("timestamp", *fields))),
        )
        plan = replace(run.plan, scan=replace(scan, services=services_of(scan.filter) or ()))
        shape = Shape(fields, statement.star, statement.defined, "_id" in statement.names)
        for _ in range(AGAIN_MAX):
            try:
                return await self._attempt(run, plan, shape)
            except Wider:
                shape.again()
        raise TooLarge(
            "sql: the rows keep bringing new fields; name the columns instead of *",
            parameter="query",
        )

    async def _attempt(self, run: _Run, plan: QueryPlan, shape: Shape) -> SqlAnswer:
        """One pass over the rows.

        Raises:
            Wider: the schema turned out too narrow in the middle; the engine was told.
        """
        pages = RowStream(self._coordinator, plan, PAGE_ROWS)
        async with aclosing(pages):
            gathered: list[pa.Table] = []
            size = 0
            more = True
            while more and size < GATHER_BYTES:
                page = await anext(pages, None)
                more = page is not None
                if page is not None:
                    gathered.append(shape.learn(page))
                    size += page.nbytes
            await run.engine.command(**self._command(run), input=True)
            result = asyncio.create_task(self._collect(run), name="sql-result")
            try:
                rows = await self._feed(run, shape, gathered, pages if more else None, result)
                table, columns, done = await result
            finally:
                await end([result])
        run.stats = {**pages.stats, "how": "rows", "rows_sent": rows}
        notes = [
            f"no row in range has the field {name!r}; it reads as null" for name in shape.absent
        ]
        return self._made(
            run, table, columns, done, pages.complete, tuple(pages.missing.values()), notes
        )

    async def _feed(
        self,
        run: _Run,
        shape: Shape,
        gathered: list[pa.Table],
        pages: RowStream | None,
        result: "asyncio.Task[Any]",
    ) -> int:
        """Sends pages until there are no more, or the result is there (a LIMIT was satisfied)."""
        engine, rows = run.engine, 0
        await engine.send(b"S", shape.schema.serialize())
        gathered.reverse()
        while not result.done():
            page = gathered.pop() if gathered else await anext(pages, None) if pages else None
            if page is None:
                break
            try:
                page = shape.learn(page)
            except Wider:
                await engine.send(b"X")
                await asyncio.wait({result})  # whatever it says
                raise
            for batch in await self._coordinator.in_worker(lambda p=page: list(shape.batches(p))):
                if result.done():
                    break
                await engine.send(b"B", batch.serialize())
                rows += batch.num_rows
        await engine.send(b"E")
        return rows

    # -- the engine

    def _command(self, run: _Run) -> dict[str, Any]:
        settings = self._coordinator.settings
        return {
            "op": "run", "sql": run.statement.sql, "input_bytes": settings.sql_input_bytes,
            "result_rows": run.result_rows, "result_bytes": settings.sql_result_bytes,
        }  # fmt: skip

    async def _result(
        self, run: _Run, complete: bool, missing: tuple[dict[str, Any], ...], notes: list[str]
    ) -> SqlAnswer:
        table, columns, done = await self._collect(run)
        return self._made(run, table, columns, done, complete, missing, notes)

    @staticmethod
    def _made(
        run: _Run, table: pa.Table, columns: list[tuple[str, str]], done: dict[str, Any],
        complete: bool, missing: tuple[dict[str, Any], ...], notes: list[str],
    ) -> SqlAnswer:  # fmt: skip
        stats = {**run.stats, "rows_read": run.stats.get("rows_read", done["rows_read"])}
        return SqlAnswer(table, columns, complete, missing, stats, notes)

    async def _collect(self, run: _Run) -> tuple[pa.Table, list[tuple[str, str]], dict[str, Any]]:
        """The result as the engine sends it: bounded there by rows and bytes."""
        table, answers = await run.engine.result()
        last = answers[-1]
        if "error" in last:
            raise self._failure(run, last["error"])
        assert table is not None
        columns = [(name, kind) for one in answers[:-1] for name, kind in one["columns"]]
        return table, columns, last["done"]

    def _failure(self, run: _Run, error: dict[str, Any]) -> Exception:
        settings, message = self._coordinator.settings, str(error["message"])
        kind = error["kind"]
        if kind == "types":
            return _Unfit()
        if kind == "memory":
            return TooLarge(
                f"sql: the query needs more than {settings.sql_memory_bytes >> 20} MiB; filter more, "
                "select fewer columns, group by less, or add LIMIT to ORDER BY",
                parameter="query",
            )
        if kind == "input":
            return TooLarge(
                f"sql: {message}, and its rows are more than {settings.sql_input_bytes >> 20} MiB; filter "
                "more, name fewer columns, or read `logs` once",
                parameter="query",
            )
        if kind == "result":
            return TooLarge(
                f"sql: the result has more than {run.result_rows} rows or "
                f"{settings.sql_result_bytes >> 20} MiB; add LIMIT or aggregate, ask for NDJSON, CSV or "
                "Arrow (JSON holds fewer rows), or use GET /query, which streams without a cap",
                parameter="query",
            )
        if kind == "sql":
            text = message.split("\n")[0].removeprefix("Binder Error: ")[:300]
            return refused(text, run.statement.sql, error.get("position"))
        return _EngineFailed(f"sql: the engine failed: {message[:200]}")


class _EngineFailed(QuorumlogError):
    """A fault of ours, or of the engine."""

    code = "SQL_FAILED"
    http_status = 500
    definite = True
