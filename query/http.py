"""The query API over HTTP: /query (and /logs), /query/stats, histogram, values, fields.

Thin: parameters to a plan, the coordinator's answer to bytes. JSON answers are one page. NDJSON, CSV and
Arrow stream without a cap over one snapshot. A stream that fails half-way is never a silent cut: NDJSON
ends with an `error` line, and the chunked body of every format is left without its end, so that any HTTP
client reports it. `X-Quorumlog-Complete` tells what is known when the first row is sent; a stream that
began as complete and cannot stay so is cut in the same loud way.
"""

import asyncio
import json
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

import polars as pl
import pyarrow as pa
from aiohttp import web

from cluster.http_front import REQUEST_ID_HEADER, json_response, request_id
from query import encode, small_page
from query.answer import QueryAnswer
from query.coordinator import INLINE_ROWS, ReadCoordinator
from query.fields import plan_exact, plan_fields, sampled_fields
from query.fold import BUCKET
from query.groups_out import groups_json, object_json
from query.plan import Pairs, plan_rows
from query.rows_out import ENCODERS, Encoder
from query.stats import (
    FoldPlan,
    extent_step,
    filled,
    plan_histogram,
    plan_stats,
    plan_values,
    present,
    ranked,
    shown,
    step_text,
)
from query.stream import RowStream
from query.together import end
from records.errors import InvalidRequest, QuorumlogError, Unknown
from records.ids import DEFAULT_TENANT
from records.timestamps import MICROS_PER_HOUR
from runtime.logs import get_logger

log = get_logger(__name__)
T = TypeVar("T")
COMPLETE_HEADER = "X-Quorumlog-Complete"
MISSING_HEADER = "X-Quorumlog-Missing"
TENANT_HEADER = "X-Scope-OrgID"
#: Seconds between looks whether the client is still there.
WATCH_SECONDS = 0.25
#: Bytes handed to the socket at once; the consumer's pace is felt at each.
WRITE_BYTES = 1 << 18
#: Bytes of rows that are encoded at once: what a client that reads slowly makes us hold of its page twice.
PIECE_BYTES = 2 << 20
#: Seconds for which a client may take nothing of a stream.
STALL_SECONDS = 60.0
#: Rows of a histogram with its empty buckets filled in.
FILLED_MAX = 20_000
MEDIA = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/stream+json": "ndjson",
    "text/csv": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
}
FORMATS = {"json": "json", "ndjson": "ndjson", "jsonl": "ndjson", "csv": "csv", "arrow": "arrow"}


def routes(coordinator: ReadCoordinator) -> list[web.RouteDef]:
    """The routes of the read path."""
    api = QueryApi(coordinator)
    return [
        web.get("/query", api.query),
        web.get("/logs", api.query),
        web.get("/query/stats", api.stats),
        web.get("/query/histogram", api.histogram),
        web.get("/query/values", api.values),
        web.get("/query/fields", api.fields),
    ]


class Stalled(Exception):
    """A client that does not read."""


class StreamCut(Unknown):
    """A stream that began as complete met shards that cannot be read completely."""

    code = "INCOMPLETE"


def wanted_format(request: web.Request) -> str:
    """The format that `format` or `Accept` asks for; JSON by default."""
    asked = request.query.get("format")
    if asked:
        if asked.lower() not in FORMATS:
            raise InvalidRequest(
                f"format: one of json, ndjson, csv, arrow, not {asked[:40]!r}", parameter="format"
            )
        return FORMATS[asked.lower()]
    for part in request.headers.get("Accept", "").split(","):
        media = part.split(";")[0].strip().lower()
        if media in MEDIA:
            return MEDIA[media]
    return "json"


def tenant_of(request: web.Request) -> str:
    """The tenant whose rows are read."""
    name = request.headers.get(TENANT_HEADER, "").strip()
    if "|" in name:
        raise InvalidRequest(f"{TENANT_HEADER}: one tenant at a time", parameter=TENANT_HEADER)
    return name or DEFAULT_TENANT


async def while_connected(request: web.Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=WATCH_SECONDS)
            transport = request.transport
            if not task.done() and (transport is None or transport.is_closing()):
                raise ConnectionResetError("the client left")
        return task.result()
    finally:
        await end([task])


class QueryApi:
    """The handlers."""

    def __init__(self, coordinator: ReadCoordinator) -> None:
        self._coordinator = coordinator

    def _asked(self, request: web.Request) -> tuple[Pairs, int, str]:
        """(parameters, now, tenant)."""
        return (
            list(request.query.items()),
            self._coordinator.clock.wall_micros(),
            tenant_of(request),
        )

    # -- rows

    async def query(self, request: web.Request) -> web.StreamResponse:
        """GET /query and /logs."""
        kind = wanted_format(request)
        plan = plan_rows(*self._asked(request), stream=kind != "json")
        if kind != "json":
            async with aclosing(self._coordinator.stream(plan)) as stream:
                return await self._stream(request, stream, ENCODERS[kind](plan.fields))
        deadline = self._coordinator.deadline(plan)
        with self._coordinator.room.share() as share:
            answer = await while_connected(request, self._coordinator.query(plan, deadline, share))
            if share.held_bytes:
                return await self._wide_page(request, answer, plan.fields)
            rows = small_page.json_array(answer.table, plan.fields)
            if rows is None:
                rows = await self._coordinator.in_worker(_rows_text, answer.table, plan.fields)
            text = f'{{"rows":{rows},{_rest(answer)}'
            headers = {COMPLETE_HEADER: _truth(answer.complete)}
            return web.Response(text=text, content_type="application/json", headers=headers)

    async def _wide_page(
        self, request: web.Request, answer: QueryAnswer, fields: tuple[str, ...] | None
    ) -> web.StreamResponse:
        """A page of many bytes, written in pieces: its text is never there as a whole."""
        response = web.StreamResponse(
            headers={
                COMPLETE_HEADER: _truth(answer.complete),
                REQUEST_ID_HEADER: request_id(request),
                "Content-Type": "application/json; charset=utf-8",
            }
        )
        response.enable_chunked_encoding()
        await response.prepare(request)
        before = '{"rows":['
        try:
            for piece in _pieces(answer.table):
                rows = await self._coordinator.in_worker(_rows_text, piece, fields)
                await _write(response, (before + rows[1:-1]).encode())
                before = ","
            await _write(response, f"],{_rest(answer)}".encode())
            await response.write_eof()
        except (ConnectionResetError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - headers are sent; the client must see a failure
            log.warning("page cut", request_id=request_id(request), error=error)
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _stream(
        self, request: web.Request, stream: RowStream, encoder: Encoder
    ) -> web.StreamResponse:
        first = await while_connected(request, _next(stream))
        complete = stream.complete
        headers = {
            COMPLETE_HEADER: _truth(complete),
            REQUEST_ID_HEADER: request_id(request),
            "Content-Type": encoder.content_type,
        }
        if not complete:
            headers[MISSING_HEADER] = json.dumps(list(stream.missing.values()))[:4000]
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        head = await self._coordinator.in_worker(encoder.head, first)
        await response.prepare(request)
        try:
            await _write(response, head)
            pages = [first]
            del first  # what was sent is held no longer
            await self._pages(response, stream, encoder, pages, complete)
        except (ConnectionResetError, asyncio.CancelledError):
            raise
        except Stalled as error:
            log.warning("stream cut", request_id=request_id(request), error=error)
            if request.transport is not None:
                request.transport.abort()
        except QuorumlogError as error:
            await _cut(request, response, encoder, error)
        except Exception as error:  # noqa: BLE001 - headers are sent; the client must see a failure
            log.error("stream failed", request_id=request_id(request), error=error)
            await _cut(request, response, encoder, StreamCut("an unexpected error; see the log"))
        return response

    async def _pages(
        self,
        response: web.StreamResponse,
        stream: RowStream,
        encoder: Encoder,
        pages: list[pa.Table | None],
        complete: bool,
    ) -> None:
        while (table := pages.pop()) is not None:
            await self._page(response, encoder, table)
            del table
            pages.append(await _next(stream))
            if complete and not stream.complete:
                raise StreamCut(
                    "some shards could not be read completely", missing=[*stream.missing.values()]
                )
        await _write(response, encoder.tail())
        await response.write_eof()

    async def _page(self, response: web.StreamResponse, encoder: Encoder, table: pa.Table) -> None:
        for piece in _pieces(table):
            await _write(response, await self._coordinator.in_worker(encoder.page, piece))

    # -- folds

    async def stats(self, request: web.Request) -> web.StreamResponse:
        """GET /query/stats"""
        plan = plan_stats(*self._folded(request))
        answer = await self._fold(request, plan)
        table, cut = await self._ranked(answer.table, plan)
        body = {"by": plan.fold.by, "agg": [one.name for one in plan.fold.aggregates]}
        if plan.fold.step_micros:
            body["step"] = step_text(plan.fold.step_micros)
        return _fold_response(answer, body, table, cut)

    async def histogram(self, request: web.Request) -> web.StreamResponse:
        """GET /query/histogram"""
        plan = plan_histogram(*self._folded(request))
        answer = await self._fold(request, plan)
        if plan.auto:
            step = extent_step(answer.table)
            if step < MICROS_PER_HOUR or step % MICROS_PER_HOUR:
                plan = plan.with_step(step)
                answer = await self._fold(request, plan)
            elif step > MICROS_PER_HOUR:
                plan = plan.with_step(step)
                table = await self._coordinator.in_worker(_coarser, answer.table, plan)
                answer = _with_table(answer, table)
        table, was_filled = await self._coordinator.in_worker(
            filled, answer.table, plan, FILLED_MAX
        )
        table, cut = ranked(table, _unlimited(plan, FILLED_MAX))
        step = plan.fold.step_micros
        body = {
            "by": plan.fold.by,
            "step": step_text(step),
            "step_seconds": step / 1_000_000,
            "filled": was_filled,
        }
        return _fold_response(answer, body, table, cut)

    async def values(self, request: web.Request) -> web.StreamResponse:
        """GET /query/values"""
        plan = plan_values(*self._folded(request))
        answer = await self._fold(request, plan)
        name = plan.fold.by[0]
        known = present(answer.table, name)
        table, cut = await self._ranked(known, plan)
        table = table.rename_columns([{name: "value"}.get(c, c) for c in table.column_names])
        body = {"field": name, "distinct": known.num_rows}
        return _fold_response(answer, body, table, cut, "values")

    async def fields(self, request: web.Request) -> web.StreamResponse:
        """GET /query/fields"""
        coordinator = self._coordinator
        plan, exact = plan_fields(*self._asked(request))
        deadline = coordinator.deadline(plan)
        answer = await while_connected(request, coordinator.query(plan, deadline))
        found = await coordinator.in_worker(sampled_fields, answer.table)
        names = [one["name"] for one in found] if exact else []
        folded = await while_connected(request, coordinator.fold(plan_exact(plan, names), deadline))
        counts = folded.table.to_pylist()[0]
        for one in found:
            one["rows"] = counts.get(f"field:{one['name']}", one["rows"])
        body = {
            "fields": found,
            "sampled_rows": answer.table.num_rows,
            "rows_total": counts["rows"],
            "exact": exact or answer.next_cursor is None,
            "complete": answer.complete and folded.complete,
            "missing": [*answer.missing, *folded.missing],
            "stats": folded.stats,
        }
        return json_response(body, headers={COMPLETE_HEADER: _truth(body["complete"])})

    async def _ranked(self, table: pa.Table, plan: FoldPlan) -> tuple[pa.Table, bool]:
        if table.num_rows <= INLINE_ROWS:
            return ranked(table, plan)
        return await self._coordinator.in_worker(ranked, table, plan)

    def _folded(self, request: web.Request) -> tuple[Pairs, int, int, str]:
        pairs, now, tenant = self._asked(request)
        return pairs, now, self._coordinator.settings.groups_max, tenant

    async def _fold(self, request: web.Request, plan: FoldPlan) -> QueryAnswer:
        deadline = self._coordinator.deadline(plan.query)
        return await while_connected(request, self._coordinator.fold(plan.query, deadline))


def _truth(value: bool) -> str:
    return "true" if value else "false"


async def _next(stream: RowStream) -> pa.Table | None:
    return await anext(stream, None)


def _pieces(table: pa.Table) -> Iterator[pa.Table]:
    """Slices of about PIECE_BYTES; at least one."""
    step = max(1, table.num_rows * PIECE_BYTES // max(1, table.nbytes))
    for start in range(0, max(1, table.num_rows), step):
        yield table.slice(start, step)


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Sends as the client takes it.

    Raises:
        Stalled: it took nothing for STALL_SECONDS.
    """
    view = memoryview(data)
    for start in range(0, len(view), WRITE_BYTES):
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await response.write(view[start : start + WRITE_BYTES])
        except TimeoutError as error:
            raise Stalled(f"the client took nothing for {STALL_SECONDS:g} s") from error


async def _cut(
    request: web.Request, response: web.StreamResponse, encoder: Encoder, error: QuorumlogError
) -> None:
    """Ends a body so that nobody can take it for whole."""
    log.warning("stream cut", request_id=request_id(request), error=error)
    line = encoder.error({**error.to_dict(), "request_id": request_id(request)})
    try:
        await _write(response, line)
        await response.drain()
    finally:
        if request.transport is not None:
            request.transport.close()


def _rows_text(table: pa.Table, fields: tuple[str, ...] | None) -> str:
    """The JSON array of a page's rows, written by column."""
    return encode.json_array(encode.presented(table, fields))


def _rest(answer: QueryAnswer) -> str:
    """What follows the rows in the JSON of one page, without the brace that begins it."""
    rest = {
        "next_cursor": answer.next_cursor,
        "complete": answer.complete,
        "missing": answer.missing,
        "stats": answer.stats,
    }
    return json.dumps(rest, separators=(",", ":"))[1:]


def _fold_response(
    answer: QueryAnswer, body: dict[str, Any], table: pa.Table, cut: bool, name: str = "rows"
) -> web.Response:
    """The JSON of groups; a bounded number."""
    rest = {
        "cut": cut,
        "complete": answer.complete,
        "missing": answer.missing,
        "stats": answer.stats,
    }
    return web.Response(
        text=object_json(body, name, groups_json(shown(table)), rest),
        headers={COMPLETE_HEADER: _truth(answer.complete)},
        content_type="application/json",
        charset="utf-8",
    )


def _with_table(answer: QueryAnswer, table: pa.Table) -> QueryAnswer:
    return QueryAnswer(table, answer.complete, answer.missing, answer.stats)


def _unlimited(plan: FoldPlan, rows: int) -> FoldPlan:
    return FoldPlan(plan.query, max(plan.limit, rows))


def _coarser(table: pa.Table, plan: FoldPlan) -> pa.Table:
    """An hourly histogram in a step of several hours."""
    frame: Any = pl.from_arrow(table)
    step = plan.fold.step_micros
    grouped = frame.with_columns(pl.col(BUCKET) // step * step).group_by([BUCKET, *plan.fold.by])
    return grouped.agg(pl.col("count").sum()).to_arrow(compat_level=pl.CompatLevel.oldest())
