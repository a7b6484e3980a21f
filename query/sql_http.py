"""POST /sql: the statement is the body, as text or as JSON `{"query": "…"}`.

Parameters are those of /query (from, to, since, service, q, any field=value …): they narrow the table `logs`
before the statement sees it; `timeout`, `consistency` and `format` mean what they mean there.
"""

import json

from aiohttp import web

from query import sql_out
from query.coordinator import ReadCoordinator
from query.http import COMPLETE_HEADER, MISSING_HEADER, tenant_of, wanted_format, while_connected
from query.plan import MAX_LIMIT, Parameters, plan_filters
from query.sql import SqlAnswer, SqlRunner
from query.sql_guard import SQL_MAX_BYTES
from records.errors import InvalidRequest, TooLarge

#: JSON around the statement may be this much larger: each character escaped.
BODY_MAX_BYTES = 6 * SQL_MAX_BYTES + 1024
_REFUSED = ("limit", "cursor", "order", "fields")
_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8; header=present",
    "arrow": "application/vnd.apache.arrow.stream",
}


class SqlApi:
    """The handler."""

    def __init__(self, coordinator: ReadCoordinator, runner: SqlRunner) -> None:
        self._coordinator, self._runner = coordinator, runner

    def routes(self) -> list[web.RouteDef]:
        """The route."""
        return [web.post("/sql", self.sql)]

    async def sql(self, request: web.Request) -> web.StreamResponse:
        """POST /sql"""
        kind = wanted_format(request)
        text = statement_of(await _body(request), request.content_type)
        params = Parameters.of(request.query.items())
        for name in _REFUSED:
            if name in params.values:
                raise InvalidRequest(f"{name}: say it in SQL", parameter=name)
        plan = plan_filters(params, self._coordinator.clock.wall_micros(), tenant_of(request))
        rows = MAX_LIMIT if kind == "json" else None
        answer = await while_connected(request, self._runner.run(text, plan, rows))
        body = await self._coordinator.in_worker(_encoded, answer, kind)
        headers = {
            COMPLETE_HEADER: "true" if answer.complete else "false",
            "Content-Type": _TYPES[kind],
        }
        if not answer.complete:
            headers[MISSING_HEADER] = json.dumps(list(answer.missing))[:4000]
        return web.Response(body=body, headers=headers)


def _encoded(answer: SqlAnswer, kind: str) -> bytes:
    if kind == "json":
        return sql_out.json_text(answer).encode()
    return {"ndjson": sql_out.ndjson, "csv": sql_out.csv, "arrow": sql_out.arrow}[kind](answer)


async def _body(request: web.Request) -> bytes:
    parts, size = [], 0
    async for piece in request.content.iter_chunked(1 << 16):
        parts.append(piece)
        size += len(piece)
        if size > BODY_MAX_BYTES:
            raise TooLarge(f"sql: more than {SQL_MAX_BYTES >> 10} KiB of text", parameter="query")
    return b"".join(parts)


def statement_of(body: bytes, content_type: str) -> str:
    """The statement in a body.

    Raises:
        InvalidRequest: it is empty, not UTF-8, or JSON of another shape.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"sql: byte {error.start} is not UTF-8", parameter="query") from error
    if content_type == "application/json":
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"sql: the body is no JSON: {error}", parameter="query") from error
        text = given.get("query") if isinstance(given, dict) and set(given) == {"query"} else None
        if not isinstance(text, str):
            raise InvalidRequest('sql: JSON is {"query": "SELECT …"}', parameter="query")
    if not text.strip() or "\0" in text:
        raise InvalidRequest("sql: the body is a SELECT over the table `logs`", parameter="query")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest("sql: not valid UTF-8", parameter="query") from error
    return text
