"""`/logs/replay` for operators: list, ask, look at, cancel; and a producer's word of what is gone.

Each request is kept by the ingestor that leads its producer's shard. Any node answers: it asks the other
ingestors over the peers' port, and says which of them did not answer.
"""

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyarrow as pa
from aiohttp import web

from cluster.http_front import json_response
from cluster.server import Answer, Operation
from cluster.transport import Transport
from cluster.view import ViewSource
from ingestor.leases import not_leader
from ingestor.limits import Limits
from ingestor.listeners.request import read_head
from ingestor.numbering import MAX_SEQ
from ingestor.replay_book import ReplayRequest, State
from ingestor.replaying import Ask, Note, Replays
from ingestor.timestamps import read_times
from ingestor.validate import check_identifier
from records.block import Spans
from records.errors import InvalidRequest, NotFound, NotReady, QuorumlogError, TooLarge
from records.intervals import SeqIntervals
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.logs import get_logger

log = get_logger(__name__)

#: Seconds for all that one request asks of other nodes.
ANSWER_SECONDS = 5.0
#: Requests in one list: by default, and at most.
LISTED, LISTED_MAX = 100, 1_000
#: Spans in one request, and bytes of a body that names some.
SPANS_MAX, BODY_MAX = 1_000, 64 << 10
REASON_MAX = 200
_SPAN = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19}))?", re.ASCII)


class ReplayApi:
    """The handlers, and the peers' operations behind them."""

    def __init__(
        self,
        node_id: str,
        replays: Replays,
        views: ViewSource,
        transport: Transport,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._node_id = node_id
        self._replays = replays
        self._views = views
        self._transport = transport
        self._clock = clock
        self._limits = limits
        replays.on_ended = self._tell_ended

    def routes(self) -> list[web.RouteDef]:
        """The routes of this module; `/logs/replay` itself is `HttpIngest`'s, which calls it."""
        return [
            web.get("/logs/replay/{id}", self.show),
            web.delete("/logs/replay/{id}", self.cancel),
            web.post("/logs/replay/{id}/gone", self.gone),
            web.get("/metrics/replay", self.figures),
        ]

    def operations(self) -> dict[str, Operation]:
        """What other ingestors ask of this one."""
        return {
            "replay_list": self._op_list,
            "replay_ask": self._op_ask,
            "replay_change": self._op_change,
            "replay_note": self._op_note,
        }

    # -- handlers ----------------------------------------------------------------------------------

    async def listing(self, request: web.Request) -> web.Response:
        """GET /logs/replay without a producer, or with `state`."""
        tenant = read_head(request, self._limits, self._clock).tenant
        query = request.query
        states = [one for one in query.get("state", "").split(",") if one not in ("", "all")]
        unknown = set(states) - set(State)
        if unknown:
            raise InvalidRequest(f"state: one of {', '.join(State)} is expected")
        text = query.get("limit", str(LISTED))
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LISTED_MAX):
            raise InvalidRequest(f"limit: 1 to {LISTED_MAX} is expected")
        head = {
            "tenant": tenant,
            "service": query.get("service", ""),
            "producer": query.get("producer", ""),
            "states": states,
            "name": "",
            "limit": int(text) + 1,
        }
        found, missing = await self._gather(head)
        body = {"requests": found[: int(text)], "complete": not missing, "missing": missing}
        if len(found) > int(text):
            body["truncated"] = True
        return json_response(body)

    async def show(self, request: web.Request) -> web.Response:
        """GET /logs/replay/{id}."""
        return json_response(await self._one(request))

    async def _one(self, request: web.Request) -> dict[str, Any]:
        tenant = read_head(request, self._limits, self._clock).tenant
        name = request.match_info["id"]
        head = {"tenant": tenant, "service": "", "producer": "", "states": [], "limit": 2}
        found, missing = await self._gather({**head, "name": name})
        if not found and missing:  # it may be known to whoever is silent
            text = f"replay request {name!r} was not found; no answer from {', '.join(missing)}"
            raise NotReady(text, retry_after_seconds=1)
        if not found:
            raise NotFound(f"no replay request {name!r} is known")
        return found[0]

    async def ask(self, request: web.Request) -> web.Response:
        """POST /logs/replay without a body: an operator asks producers for rows again."""
        tenant = read_head(request, self._limits, self._clock).tenant
        ask = _ask_of(request, tenant)
        view = self._views.current()
        deadline = Deadline.after(self._clock, ANSWER_SECONDS)
        if ask.producer:
            epoch = ask.epoch or await self._replays.newest_epoch(ask, ask.producer, deadline)
            ask = replace(ask, epoch=epoch)
            shards: Iterable[int] = [view.shard_of(tenant, ask.service, ask.producer, ask.epoch)]
        else:
            shards = view.shards_holding(tenant, ask.service)
        opened: list[dict[str, Any]] = []
        noted: list[int] = []
        for shard in shards:
            leader = view.leader(shard)
            if leader is None:
                raise not_leader(view, shard)
            head = {"shard": shard, "ask": ask.to_head()}
            answer = await self._call(leader[0], "replay_ask", head, deadline)
            opened += answer["requests"]
            if answer["notes"]:  # at once: the next shard may fail, these requests are open
                noted.append(await self._tell({"notes": answer["notes"], "ended": []}, deadline))
        if not opened:
            raise NotFound(f"no rows of {ask.service} with producer and sequence are there")
        return json_response({"requests": opened, "noted": min(noted)}, 202)

    async def cancel(self, request: web.Request) -> web.Response:
        """DELETE /logs/replay/{id}."""
        return json_response(await self._change(request, cancel=True, spans=()))

    async def gone(self, request: web.Request) -> web.Response:
        """POST /logs/replay/{id}/gone: the producer no longer has `{"ranges": [[a, b], …]}`."""
        body = await _small_body(request)
        return json_response(await self._change(request, cancel=False, spans=_ranges_of(body)))

    async def _change(self, request: web.Request, cancel: bool, spans: Spans) -> dict[str, Any]:
        one = await self._one(request)
        tenant = read_head(request, self._limits, self._clock).tenant
        view = self._views.current()
        shard = view.shard_of(tenant, one["service"], one["producer"], one["epoch"])
        leader = view.leader(shard)
        if leader is None:
            raise not_leader(view, shard)
        head = {"tenant": tenant, "name": one["id"], "cancel": cancel, "spans": spans}
        deadline = Deadline.after(self._clock, ANSWER_SECONDS)
        return (await self._call(leader[0], "replay_change", head, deadline))["request"]

    async def figures(self, request: web.Request) -> web.Response:
        """GET /metrics/replay: requests by state and rows by service, of the shards led here."""
        tenant = read_head(request, self._limits, self._clock).tenant
        return json_response({"node": self._node_id, **self._replays.desk.figures(tenant)})

    # -- the other ingestors -----------------------------------------------------------------------

    async def _gather(self, head: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        """(requests of all ingestors, the newest first; the nodes that did not answer)."""
        deadline = Deadline.after(self._clock, ANSWER_SECONDS)
        nodes = self._ingestors()

        async def one(node: str) -> list[dict[str, Any]] | None:
            try:
                return (await self._call(node, "replay_list", head, deadline))["requests"]
            except QuorumlogError as error:
                log.warning("replay requests not listed", node=node, error=error)
                return None

        answers = await asyncio.gather(*(one(node) for node in nodes))
        missing = [node for node, answer in zip(nodes, answers, strict=True) if answer is None]
        # A node may remember how a request ended that has been opened again by the next leader.
        newest: dict[str, dict[str, Any]] = {}
        for request in (one for answer in answers for one in answer or ()):
            known = newest.get(request["id"])
            if known is None or known["createdMicros"] < request["createdMicros"]:
                newest[request["id"]] = request
        found = list(newest.values())
        found.sort(key=lambda one: (one["createdMicros"], one["id"]), reverse=True)
        return found, missing

    def _ingestors(self) -> list[str]:
        """Those that are believed alive; requests of the others move on with their shards."""
        view = self._views.current()
        members = [one.id for one in view.state.with_role("ingestor")]
        return [one for one in members if one == self._node_id or view.is_alive(one)]

    async def _call(
        self, node: str, operation: str, head: dict[str, Any], deadline: Deadline
    ) -> dict[str, Any]:
        if node == self._node_id:
            return (await self.operations()[operation](head, memoryview(b""), deadline))[0]
        return (await self._transport.call(node, operation, head, b"", deadline))[0]

    async def _tell(self, head: dict[str, Any], deadline: Deadline) -> int:
        """Tells the other ingestors; how many have heard it."""

        async def one(node: str) -> bool:
            try:
                await self._call(node, "replay_note", head, deadline)
            except QuorumlogError as error:
                log.warning("replay requests not noted", node=node, error=error)
                return False
            return True

        others = [node for node in self._ingestors() if node != self._node_id]
        # Here too: this node need not be the leader that keeps them.
        await self._call(self._node_id, "replay_note", head, deadline)
        return 1 + sum(await asyncio.gather(*(one(node) for node in others)))

    async def _tell_ended(self, names: list[str]) -> None:
        deadline = Deadline.after(self._clock, ANSWER_SECONDS)
        await self._tell({"notes": [], "ended": names}, deadline)

    # -- operations --------------------------------------------------------------------------------

    async def _op_list(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        found = self._replays.desk.book.listed(
            str(head["tenant"]),
            str(head["service"]),
            str(head["producer"]),
            [str(one) for one in head["states"]],
            str(head["name"]),
        )
        return {"requests": [one.to_dict() for one in found[: int(head["limit"])]]}, b""

    async def _op_ask(self, head: dict[str, Any], _: memoryview, deadline: Deadline) -> Answer:
        ask = Ask.from_head(head["ask"])
        opened = await self._replays.ask(int(head["shard"]), ask, deadline)
        notes = [Note(one.id, one.key, one.waiting, one.reason).to_list() for one in opened]
        return {"requests": [one.to_dict() for one in opened], "notes": notes}, b""

    async def _op_change(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        desk, name = self._replays.desk, str(head["name"])
        if not desk.book.listed(str(head["tenant"]), name=name):
            raise NotFound(f"no replay request {name!r} is known")
        changed: ReplayRequest | None
        if head["cancel"]:
            changed = desk.cancel(name)
        else:
            changed = desk.gone(name, tuple((int(a), int(b)) for a, b in head["spans"]))
        if changed is None:
            raise NotFound(f"no replay request {name!r} is known")
        return {"request": changed.to_dict()}, b""

    async def _op_note(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        notes = [Note.from_list(one) for one in head["notes"]]
        self._replays.remember(one for one in notes if not self._replays.leads(one.key))
        self._replays.forget(str(one) for one in head["ended"])
        return {}, b""


def _ask_of(request: web.Request, tenant: str) -> Ask:
    """What an operator wants, from the query string."""
    query = request.query
    service = check_identifier(query.get("service"), "service")
    producer = query.get("producer", "")
    if producer:
        check_identifier(producer, "producer")
    epoch = query.get("epoch", "0")
    if not (epoch.isascii() and epoch.isdigit() and len(epoch) < 19):
        raise InvalidRequest("epoch is a whole number from 1", reason="bad_epoch")
    reason = "".join(c for c in query.get("reason", "")[:REASON_MAX] if c.isprintable())
    spans = _spans_in(query["seqs"]) if "seqs" in query else ()
    start = end = 0
    if not spans:
        if "from" not in query:
            raise InvalidRequest("say which rows: seqs=100-200,300, or from= and to=")
        start = _time(query["from"], "from")
        end = _time(query["to"], "to") if "to" in query else 1 << 62
    elif "from" in query or "to" in query:
        raise InvalidRequest("seqs, or from and to, not both")
    return Ask(tenant, service, producer, int(epoch), spans, start, end, reason)


def _time(text: str, name: str) -> int:
    """Microseconds; the formats that a row's timestamp may have."""
    found = read_times(pa.array([text.strip()]), 0)
    if found.bad[0] or text.strip() in ("", "0", "-"):
        raise InvalidRequest(
            f"{name}: a time as 2026-11-20T13:00:00Z is expected", reason="bad_time"
        )
    return int(found.micros[0])


def _spans_in(text: str) -> Spans:
    """`100-200,300` as spans."""
    spans = SeqIntervals()
    parts = text.split(",")
    for part in parts:
        match = _SPAN.fullmatch(part.strip())
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else 0
        if not 1 <= first <= last <= MAX_SEQ or len(parts) > SPANS_MAX:
            raise InvalidRequest(
                f"seqs: at most {SPANS_MAX} numbers or ranges from 1, as 100-200,300, are expected"
            )
        spans.add(first, last)
    return tuple(spans)


def _ranges_of(body: Any) -> Spans:
    ranges = body.get("ranges") if isinstance(body, dict) else None
    spans = SeqIntervals()
    if not isinstance(ranges, list) or len(ranges) > SPANS_MAX:
        raise InvalidRequest(f'{{"ranges": [[first, last], …]}}, at most {SPANS_MAX}, is expected')
    for item in ranges:
        good = isinstance(item, list) and len(item) == 2 and all(type(n) is int for n in item)
        if not good or not 1 <= item[0] <= item[1] <= MAX_SEQ:
            raise InvalidRequest("ranges: [first, last] with 1 <= first <= last is expected")
        spans.add(item[0], item[1])
    return tuple(spans)


async def _small_body(request: web.Request) -> Any:
    data = b""
    async for piece in request.content.iter_any():
        data += piece
        if len(data) > BODY_MAX:
            raise TooLarge(f"a body of at most {BODY_MAX} bytes is expected", limit=BODY_MAX)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("a JSON object is expected") from error
