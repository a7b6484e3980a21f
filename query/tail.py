"""GET /query/tail: rows as they arrive, by Server-Sent Events or over a WebSocket.

Every `tail_seconds` all shards are read for rows received since the last look, by a quorum as ever. Clocks of
ingestors differ, so each look goes back a little (`OVERLAP_MICROS`) and leaves out what was shown. Only rows
whose own time lies within `window` (5 minutes) before now are looked for, which bounds what a look reads.

    data: {row}                        a row, oldest first
    event: dropped  data: {"rows": n}  more arrived than a look takes (ROWS_MAX): the newest are shown
    event: missing  data: {"missing"}  some shards could not be read; rows of that time may come late or never
    event: error    data: {"error"}    then the stream ends; over a WebSocket: `{"event": …, …}` likewise

A slow reader is looked for less often; nothing is queued for it.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from cluster.http_front import request_id
from query import encode
from query.coordinator import QueryAnswer, ReadCoordinator
from query.http import tenant_of
from query.merge import key_at
from query.plan import Pairs, Parameters, QueryPlan, plan_filters, projection, services_of
from query.times import duration_micros
from records.errors import InvalidRequest, Overloaded, QuorumlogError
from records.predicates import Aggregate, Fold, all_of
from records.timestamps import MAX_MICROS, MICROS_PER_HOUR, MICROS_PER_MINUTE, TimeRange
from runtime.logs import get_logger
from runtime.metrics import Metrics

log = get_logger(__name__)
#: Rows of one look at most; a person reads fewer, a program should use `/query`.
ROWS_MAX = 1_000
#: How far each look goes back, for ingestors whose clocks are behind, and writes that were under way.
OVERLAP_MICROS = 2_000_000
#: Rows remembered as shown: those of the overlap.
SHOWN_MAX = 20 * ROWS_MAX
WINDOW_MICROS, WINDOW_MAX = 5 * MICROS_PER_MINUTE, 24 * MICROS_PER_HOUR
#: Seconds of silence until a sign of life is sent.
ALIVE_SECONDS = 15.0
Event = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class TailPlan:
    """What is asked: filters, and how old the time of a row that arrives may be."""

    query: QueryPlan
    window_micros: int


def plan_tail(pairs: Pairs, now_micros: int, tenant: str) -> TailPlan:
    """The plan.

    Raises:
        InvalidRequest: names the parameter.
    """
    params = Parameters.of(pairs, "window")
    for name in ("from", "to", "since", "cursor", "order", "limit", "timeout"):
        if name in params.values:
            raise InvalidRequest(f"{name}: a tail begins now and has no end", parameter=name)
    window = params.one("window")
    micros = WINDOW_MICROS if window is None else duration_micros(window, "window")
    if micros > WINDOW_MAX:
        raise InvalidRequest("window: at most 24h", parameter="window")
    plan = plan_filters(params, now_micros, tenant)
    fields = params.many("fields") or None
    plan = replace(plan, scan=replace(plan.scan, fields=projection(fields)), fields=fields)
    return TailPlan(plan, micros)


class Tail:
    """One live tail: `look` gives what is new."""

    def __init__(self, coordinator: ReadCoordinator, plan: TailPlan) -> None:
        self._coordinator, self._plan = coordinator, plan
        self._shown: OrderedDict[tuple[bytes, int], None] = OrderedDict()
        self._since = coordinator.clock.wall_micros()

    async def look(self) -> list[Event]:
        """The rows received since the last look, oldest first, and what there is to say of them."""
        coordinator = self._coordinator
        now = coordinator.clock.wall_micros()
        low = self._since - OVERLAP_MICROS
        query = self._query(now, low)
        deadline = coordinator.deadline(query)
        answer = await coordinator.query(query, deadline)
        events: list[Event] = []
        if not answer.complete:
            events.append(("missing", {"missing": list(answer.missing)}))
        fresh = self._fresh(answer)
        if answer.next_cursor is not None:
            counted = self._query(now, self._since)
            fold = Fold((), (Aggregate("n", "count"),))
            counted = replace(counted, scan=replace(counted.scan, fold=fold, limit=0))
            arrived = (await coordinator.fold(counted, deadline)).table["n"][0].as_py()
            if arrived > len(fresh):
                events.append(("dropped", {"rows": arrived - len(fresh)}))
        table = await coordinator.in_worker(_texts, answer, fresh, self._plan.query.fields)
        self._since = now
        return events + [("row", text) for text in table]

    def _query(self, now: int, low: int) -> QueryPlan:
        """The newest ROWS_MAX rows received from `low` on."""
        scan = self._plan.query.scan
        tree = all_of(scan.filter, ("range", "received_at", low, None))
        time = TimeRange(now - self._plan.window_micros, MAX_MICROS)
        scan = replace(
            scan, filter=tree, time=time, limit=ROWS_MAX, services=services_of(tree) or ()
        )
        return replace(self._plan.query, scan=scan)

    def _fresh(self, answer: QueryAnswer) -> list[int]:
        """Places of the rows that were not shown yet, oldest first; notes them as shown."""
        places = []
        for place in range(answer.table.num_rows - 1, -1, -1):
            key = key_at(answer.table, place)
            name = (key.run, key.number)
            if name not in self._shown:
                places.append(place)
                self._shown[name] = None
        while len(self._shown) > SHOWN_MAX:
            self._shown.popitem(last=False)
        return places


def _texts(answer: QueryAnswer, places: list[int], fields: tuple[str, ...] | None) -> list[str]:
    if not places:
        return []
    return encode.json_rows(encode.presented(answer.table.take(places), fields)).to_list()


class TailApi:
    """The handler. At most `tail_max` at once."""

    def __init__(self, coordinator: ReadCoordinator, metrics: Metrics) -> None:
        self._coordinator = coordinator
        self._running = 0
        gauge = metrics.gauge("quorumlog_tail_running", "Live tails that run now.")
        gauge.set_function(lambda: self._running)
        self._rows = metrics.counter("quorumlog_tail_rows_total", "Rows sent to live tails.")
        self._dropped = metrics.counter(
            "quorumlog_tail_dropped_rows_total",
            "Rows that arrived faster than a live tail takes them.",
        )

    def routes(self) -> list[web.RouteDef]:
        """The route."""
        return [web.get("/query/tail", self.tail)]

    async def tail(self, request: web.Request) -> web.StreamResponse:
        """GET /query/tail"""
        now = self._coordinator.clock.wall_micros()
        plan = plan_tail(request.query.items(), now, tenant_of(request))
        most = self._coordinator.settings.tail_max
        if self._running >= most:
            raise Overloaded(f"{most} live tails are running", retry_after_seconds=10)
        self._running += 1
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._websocket(request, Tail(self._coordinator, plan))
            return await self._events(request, Tail(self._coordinator, plan))
        finally:
            self._running -= 1

    async def _events(self, request: web.Request, tail: Tail) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)

        async def send(events: list[Event]) -> None:
            await response.write("".join(map(_sse, events)).encode() or b": \n\n")

        await send([])
        await self._follow(request, tail, send)
        return response

    async def _websocket(self, request: web.Request, tail: Tail) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=ALIVE_SECONDS, max_msg_size=1024)
        await socket.prepare(request)

        async def send(events: list[Event]) -> None:
            for event in events:
                await socket.send_str(_message(event))

        async def listen() -> None:
            async for _ in socket:  # what a client says is not heard; that it leaves is
                pass

        following = asyncio.create_task(self._follow(request, tail, send), name="tail-follow")
        listening = asyncio.create_task(listen(), name="tail-listen")
        try:
            await asyncio.wait({following, listening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (following, listening):
                task.cancel()
            await asyncio.gather(following, listening, return_exceptions=True)
            await socket.close()
        return socket

    async def _follow(
        self, request: web.Request, tail: Tail, send: Callable[[list[Event]], Awaitable[None]]
    ) -> None:
        """Looks and sends until the client leaves; an error is told and ends the tail."""
        try:
            async for events in self._looks(request, tail):
                self._rows.inc(sum(kind == "row" for kind, _ in events))
                self._dropped.inc(sum(body["rows"] for kind, body in events if kind == "dropped"))
                await send(events)
        except ConnectionResetError:
            return
        except QuorumlogError as error:
            await send([("error", {"error": error.to_dict()})])
        except Exception as error:  # noqa: BLE001 - headers are sent; the client must see a failure
            log.error("tail failed", request_id=request_id(request), error=error)
            body = {"code": "INTERNAL", "message": "an unexpected error; see the node's log"}
            await send([("error", {"error": {**body, "definite": False}})])

    async def _looks(self, request: web.Request, tail: Tail) -> AsyncIterator[list[Event]]:
        pause, silent = self._coordinator.settings.tail_seconds, 0.0
        while request.transport is not None and not request.transport.is_closing():
            events = await tail.look()
            silent = 0.0 if events else silent + pause
            if events or silent >= ALIVE_SECONDS:
                yield events
                silent = 0.0
            await asyncio.sleep(pause)


def _sse(event: Event) -> str:
    kind, body = event
    if kind == "row":
        return f"data: {body}\n\n"
    return f"event: {kind}\ndata: {json.dumps(body)}\n\n"


def _message(event: Event) -> str:
    kind, body = event
    return body if kind == "row" else json.dumps({"event": kind, **body})
