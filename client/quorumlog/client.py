"""`Client`: questions to the cluster, through whichever server answers.

Reading is harmless to repeat, so a server that fails is left for the next one, round and round with
pauses until `timeout_seconds` are over; then the last error is raised. What a server refuses for good
(a wrong query, missing rights) is raised at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import aiohttp
import tenacity

from .answers import error_from, read_json
from .arrowfeed import batches
from .backoff import is_transient, pause_after
from .errors import Incomplete, QuorumlogError
from .leaders import normalise
from .results import IngestResult, QueryResult, SqlResult, import_pyarrow
from .streams import pieces_of, require_complete, rows_of
from .times import start_of, time_text
from .wire import Reply, Wire, WireSettings

_NDJSON = "application/x-ndjson"
_ARROW = "application/vnd.apache.arrow.stream"

Time = datetime | int | float | str


class Client:
    """An async context manager. `servers` are tried in turn, the last good one first.

    Filters (all methods that take `**filters`): `service`, `level`, `search` (words or a phrase),
    `regex`, `trace_id`, `q` (an expression), `since` ("1h", "2d"), `from_` and `to` (datetime, RFC
    3339 text or Unix time), `consistency` ("one", "quorum", "all"), and any `field=value`. A list
    is joined by commas.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        token: str | None = None,
        tenant: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_seconds: float = 30.0,
        connect_timeout_seconds: float = 2.0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._servers = [normalise(server) for server in servers]
        if not self._servers:
            raise ValueError("at least one server is needed")
        self._settings = WireSettings(token, tenant, tls, connect_timeout_seconds, timeout_seconds)
        self._timeout_seconds = timeout_seconds
        self._clock_ns = clock_ns
        self._wire: Wire | None = None

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _open(self) -> Wire:
        if self._wire is None:
            self._wire = Wire(self._settings)
        return self._wire

    async def close(self) -> None:
        """Closes all connections."""
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close()

    # Rows.

    async def query(self, *, limit: int = 100, **filters: Any) -> QueryResult:
        """One page of rows, newest first (`order="asc"`: oldest first); `cursor` asks for the next."""
        return QueryResult.from_json(await self._get("/query", {"limit": limit, **filters}))

    async def pages(
        self, *, limit: int = 1000, **filters: Any
    ) -> AsyncGenerator[QueryResult, None]:
        """All pages, one request each. `since` is bound once, so pages don't drift."""
        params = self._params({"limit": limit, **filters})
        while True:
            page = QueryResult.from_json(await self._get("/query", params))
            yield page
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    async def rows(
        self, *, limit: int = 1000, partial: bool = False, **filters: Any
    ) -> AsyncGenerator[dict[str, Any], None]:
        """All rows, page by page of `limit`.

        Raises:
            Incomplete: a page is not complete, unless `partial`.
        """
        async with contextlib.aclosing(self.pages(limit=limit, **filters)) as pages:
            async for page in pages:
                if not (page.complete or partial):
                    raise Incomplete("not all shards could be read", missing=page.missing)
                for row in page.rows:
                    yield row

    async def stream(
        self, format: str = "ndjson", *, partial: bool = False, **filters: Any
    ) -> AsyncGenerator[Any, None]:
        """All rows over one snapshot, without a cap and in bounded memory.

        `ndjson` yields a dict a row, `arrow` a `pyarrow.RecordBatch` each. Not repeated once the
        first row was given.

        Raises:
            ConnectionLost: the stream ended in the middle.
            Incomplete: not all shards can be read: before the first row, unless `partial`, or when
                it shows in the middle.
        """
        kinds = {"ndjson": _NDJSON, "arrow": _ARROW}
        if format not in kinds:
            raise ValueError(f"format must be ndjson or arrow, got {format!r}")
        params = self._params(filters)
        async with contextlib.AsyncExitStack() as stack:
            answer = await self._retrying(
                lambda server: self._open_stream(stack, server, params, kinds[format])
            )
            if not partial:
                require_complete(answer.headers)
            source = rows_of(answer) if format == "ndjson" else batches(pieces_of(answer))
            async with contextlib.aclosing(source) as items:
                async for item in items:
                    yield item

    async def _open_stream(
        self,
        stack: contextlib.AsyncExitStack,
        server: str,
        params: Mapping[str, str],
        accept: str,
    ) -> aiohttp.ClientResponse:
        async with contextlib.AsyncExitStack() as trial:
            answer = await trial.enter_async_context(
                self._open().stream(f"{server}/query", params=params, headers={"Accept": accept})
            )
            if answer.status != 200:
                raise error_from(answer.status, answer.headers, await answer.read())
            stack.push_async_exit(trial.pop_all())
            return answer

    # Sums.

    async def stats(
        self,
        by: str | Sequence[str] | None = None,
        agg: str | Sequence[str] = "count",
        **filters: Any,
    ) -> dict[str, Any]:
        """Aggregates: `stats(by="level,service", agg=["count", "p95(duration_ms)"])`."""
        return await self._get("/query/stats", {"by": by, "agg": agg, **filters})

    async def histogram(
        self, step: str | None = None, by: str | Sequence[str] | None = None, **filters: Any
    ) -> dict[str, Any]:
        """Counts over time: `histogram(step="1m", by="service", since="1h")`."""
        return await self._get("/query/histogram", {"step": step, "by": by, **filters})

    async def fields(self, **filters: Any) -> dict[str, Any]:
        """The fields that rows have."""
        return await self._get("/query/fields", filters)

    async def values(self, field: str, **filters: Any) -> dict[str, Any]:
        """The values of one field, with counts."""
        return await self._get("/query/values", {"field": field, **filters})

    async def sql(self, statement: str, **filters: Any) -> SqlResult:
        """One SELECT (DuckDB's SQL) over the table `logs`, which the filters narrow; at most 10,000 rows.

        `await client.sql("SELECT service, count(*) AS n FROM logs GROUP BY 1", since="1h")`
        """
        params = self._params(filters)
        headers = {"Content-Type": "text/plain; charset=utf-8"}

        async def post(server: str) -> SqlResult:
            reply = await self._open().request(
                "POST", f"{server}/sql", params=params, headers=headers, data=statement.encode()
            )
            return SqlResult.from_json(read_json(reply.status, reply.headers, reply.body))

        return await self._retrying(post)

    # The cluster.

    async def cluster(self) -> dict[str, Any]:
        """Who is there, who leads, which settings hold."""
        return await self._get("/cluster", {})

    async def nodes(self) -> dict[str, Any]:
        """The members with roles and addresses."""
        return await self._get("/cluster/nodes", {})

    async def ring(self) -> dict[str, Any]:
        """Who owns what."""
        return await self._get("/cluster/ring", {})

    async def health(self) -> dict[str, Any]:
        """Whether the first server that answers is alive."""
        return await self._get("/health", {})

    # Lines in.

    async def ingest_lines(
        self, lines: bytes | str | Iterable[Mapping[str, Any]], *, service: str | None = None
    ) -> IngestResult:
        """Sends NDJSON (or dicts) without sequence numbers; exactly once within this call.

        All tries carry one `Idempotency-Key`. For rows that must survive a crash of this process
        use `Producer`.
        """
        if isinstance(lines, str):
            lines = lines.encode()
        elif not isinstance(lines, bytes):
            lines = b"".join(json.dumps(line, default=str).encode() + b"\n" for line in lines)
        return await self._ingest(lines, _NDJSON, service)

    async def ingest_table(self, table: Any, *, service: str | None = None) -> IngestResult:
        """Sends the rows of a `pyarrow.Table` (or record batch), at most 200,000; as `ingest_lines`.

        The server parses no text: about half the CPU of the same rows as lines. Columns are text,
        numbers, booleans, times or dictionaries of text; `timestamp` with its own unit. Needs
        pyarrow (`quorumlog[arrow]`).

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        arrow = import_pyarrow()
        sink = arrow.BufferOutputStream()
        with arrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write(table)
        return await self._ingest(sink.getvalue().to_pybytes(), _ARROW, service)

    async def _ingest(self, content: bytes, kind: str, service: str | None) -> IngestResult:
        headers = {"Content-Type": kind, "Idempotency-Key": uuid.uuid4().hex}
        params = {} if service is None else {"service": service}

        async def post(server: str) -> IngestResult:
            reply = await self._open().request(
                "POST", f"{server}/ingest", params=params, headers=headers, data=content
            )
            return IngestResult.from_json(read_json(reply.status, reply.headers, reply.body))

        return await self._retrying(post)

    # How.

    async def _get(self, path: str, filters: Mapping[str, Any]) -> dict[str, Any]:
        params = self._params(filters)

        async def get(server: str) -> dict[str, Any]:
            reply: Reply = await self._open().request("GET", server + path, params=params)
            return read_json(reply.status, reply.headers, reply.body)

        return await self._retrying(get)

    async def _retrying(self, call: Callable[[str], Any]) -> Any:
        """`call(server)` until it succeeds, fails for good, or the time is over."""
        failed_in_a_row = 0

        async def once() -> Any:
            nonlocal failed_in_a_row
            try:
                return await call(self._servers[0])
            except QuorumlogError as error:
                if is_transient(error):
                    failed_in_a_row += 1
                    self._servers.append(self._servers.pop(0))
                raise

        def pause(state: tenacity.RetryCallState) -> float:
            untried = failed_in_a_row < len(self._servers)
            return 0.0 if untried else pause_after(state)

        retrying = tenacity.AsyncRetrying(
            wait=pause,
            retry=tenacity.retry_if_exception(is_transient),
            stop=tenacity.stop_before_delay(self._timeout_seconds),
            sleep=asyncio.sleep,
            reraise=True,
        )
        return await retrying(once)

    def _params(self, filters: Mapping[str, Any]) -> dict[str, str]:
        """Filters as query parameters: `since` -> `from`, `from_` -> `from`, None left out."""
        given = {name: value for name, value in filters.items() if value is not None}
        since = given.pop("since", None)
        params: dict[str, str] = {}
        for name, value in given.items():
            name = "from" if name == "from_" else name
            params[name] = time_text(value) if name in ("from", "to") else _param(value)
        if since is not None:
            if "from" in params:
                raise ValueError("give `since` or `from_`, not both")
            params["from"] = start_of(since, self._clock_ns())
        return params


def _param(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(map(_param, value))
    return str(value)
