"""HTTP ingest on the api port: the ACK protocol (`/ingest`), `/logs` and JSON lines; sections 1 and 2.

A shell: it reads the body within budgets, has it parsed on a thread, hands the batch to the `Writer` and
answers. JSON lines are written in pieces while the body arrives; the answer comes after the last. A
sequenced batch of a shard that another node leads is passed on to it once, unless the client asks for
the hint; while no leader answers, the request is held to its deadline, not refused.

The server must not decompress by itself, so that budgets hold: run it with `auto_decompress=False`
(RUNNER_OPTIONS).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from ingestor.batch import Batch, WriteResult
from ingestor.enrich import EnrichSettings
from ingestor.identity import body_digest, identity_of
from ingestor.intake import Intake, Source
from ingestor.limits import Limits
from ingestor.listeners.answers import (
    Tally,
    headers_of,
    ingest_body,
    ingest_error,
    ingest_status,
    logs_body,
    progress_of,
)
from ingestor.listeners.body import BodyReader
from ingestor.listeners.doubt import as_sure, surely, try_again
from ingestor.listeners.ports import Gate, ReplayAsks, Writer
from ingestor.listeners.proxy import LeaderProxy
from ingestor.listeners.request import Head, read_head
from ingestor.numbering import DEFAULT_PRODUCER
from ingestor.parsers.detect import Format, format_of
from ingestor.validate import check_identifier
from records.errors import (
    ConnectionLost,
    InvalidRequest,
    NotLeader,
    QuorumlogError,
    TooLarge,
)
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.metrics import Metrics
from runtime.tasks import Workers

T = TypeVar("T")

RUNNER_OPTIONS: dict[str, Any] = {"auto_decompress": False}
#: Decoded bytes that are parsed on the event loop: less than a millisecond's work.
INLINE_BYTES = 4 << 10
#: Pieces of one stream that may be under way to the owners while the next is read.
PIECES_IN_FLIGHT = 3
#: What a compressed body is taken to decode to, in times of its wire size, when it asks for admission.
EXPECTED_RATIO = 6
_LEAST_TICKET = 16 << 10
#: Seconds between two tries while a shard has no leader that answers, and between two looks meanwhile
#: whether another leads it by now. A view is read, no network.
RETRY_SECONDS, LOOK_SECONDS = 0.1, 0.02
_HEAD_BYTES = 64 << 10
#: What a line without a row consists of.
_BLANK = b" \t\r\n"


@dataclass(slots=True)
class _Reply:
    """What to answer once a body is written."""

    tally: Tally
    sequenced: bool = False
    passed_back: web.Response | None = None
    batch: Batch | None = None


class HttpIngest:
    """The handlers; `routes()` mounts them, `close()` ends the connections to other nodes."""

    def __init__(
        self,
        writer: Writer,
        gate: Gate,
        clock: Clock,
        metrics: Metrics,
        workers: Workers,
        limits: Limits,
        enrich: EnrichSettings,
    ) -> None:
        self._writer = writer
        self._gate = gate
        self._clock = clock
        self._workers = workers
        self._limits = limits
        self._intake = Intake(limits, enrich, self._count_rejected)
        self._proxy = LeaderProxy()
        #: Operators' side of `/logs/replay`; None: producers only.
        self.asks: ReplayAsks | None = None
        self._parse_seconds = metrics.histogram(
            "quorumlog_ingest_parse_seconds", "Time to make a batch from a body.", ["surface"]
        )
        self._bytes = metrics.counter(
            "quorumlog_ingest_bytes_total", "Bytes of bodies, as sent.", ["surface"]
        )
        self._rows = metrics.counter(
            "quorumlog_ingest_rows_total", "Good rows that came.", ["surface"]
        )
        self._rejected = metrics.counter(
            "quorumlog_rows_rejected_total", "Bad rows.", ["protocol", "code"]
        )
        self._proxied = metrics.counter(
            "quorumlog_ingest_proxied_total", "Requests passed on to a leader.", ["outcome"]
        )
        self._refused = metrics.counter(
            "quorumlog_ingest_refused_total", "Requests refused, by reason.", ["surface", "code"]
        )

    def routes(self) -> list[web.RouteDef]:
        """All handlers of this listener."""
        return [
            web.post("/ingest", self.ingest),
            web.post("/ingest/epoch", self.new_epoch),
            web.get("/logs/replay", self.progress),
            web.post("/logs/replay", self.replay),
            web.post("/logs", self.logs),
            web.post("/insert/jsonline", self.jsonline),
            web.get("/insert/ready", self.ready),
        ]

    async def close(self) -> None:
        """Closes the connections to leaders."""
        await self._proxy.close()

    # ---- handlers

    async def ingest(self, request: web.Request) -> web.Response:
        """POST /ingest, and rows at POST /logs/replay."""

        async def work() -> web.Response:
            head = read_head(request, self._limits, self._clock)
            reply = await self._take(request, head, None)
            if reply.passed_back is not None:
                return reply.passed_back
            status = ingest_status(reply.tally, reply.sequenced)
            return _json(ingest_body(reply.tally), status, headers_of(reply.tally))

        return await self._acked(request, work)

    async def replay(self, request: web.Request) -> web.Response:
        """POST /logs/replay: rows sent again; without a body, an operator asks for rows."""
        if self.asks is not None and not request.body_exists:
            return await self.asks.ask(request)
        return await self.ingest(request)

    async def logs(self, request: web.Request) -> web.Response:
        """POST /logs."""
        return await self._unnumbered(request, None, empty_answer=False)

    async def jsonline(self, request: web.Request) -> web.Response:
        """POST /insert/jsonline."""
        return await self._unnumbered(request, Format.LINES, empty_answer=True)

    async def ready(self, _: web.Request) -> web.Response:
        """GET /insert/ready."""
        return _json({"status": "ok"})

    async def new_epoch(self, request: web.Request) -> web.Response:
        """POST /ingest/epoch."""

        async def work() -> web.Response:
            head = read_head(request, self._limits, self._clock)
            reader = self._reader(request)
            body = await reader.whole(self._workers.run)
            service, producer = _producer_of(_object_of(body))

            async def ask(deadline: Deadline) -> web.Response:
                epoch = await self._writer.new_producer_epoch(
                    head.tenant, service, producer, deadline
                )
                return _json({"epoch": epoch})

            return await self._at_leader(request, head, b"".join(reader.wire), ask)

        return await self._acked(request, work)

    async def progress(self, request: web.Request) -> web.Response:
        """GET /logs/replay: what is still missing of a producer; else the requests there are."""
        if self.asks is not None and ("state" in request.query or "producer" not in request.query):
            return await self.asks.listing(request)

        async def work() -> web.Response:
            head = read_head(request, self._limits, self._clock)
            service, producer = _producer_of(request.query)
            text = request.query.get("epoch", "1")
            if not (text.isascii() and text.isdigit() and 0 < len(text) < 19 and int(text)):
                raise InvalidRequest("epoch is a whole number from 1", reason="bad_epoch")

            async def ask(deadline: Deadline) -> web.Response:
                epoch = int(text)
                result = await self._writer.producer_progress(
                    head.tenant, service, producer, epoch, deadline
                )
                body = {"service": service, "producer": producer, "epoch": epoch}
                seen = {"maxSeen": result.max_seen}
                return _json({**body, **seen, **progress_of(result)})

            return await self._at_leader(request, head, b"", ask)

        return await self._acked(request, work)

    async def _unnumbered(
        self, request: web.Request, form: Format | None, empty_answer: bool
    ) -> web.Response:
        head = read_head(request, self._limits, self._clock)
        try:
            reply = await self._take(request, head, form)
        except QuorumlogError as error:
            self._refused.labels(request.path, error.code).inc()
            raise
        if reply.passed_back is not None:
            return reply.passed_back
        tally = reply.tally
        if reply.batch is not None:
            return _json(_debug_body(reply.batch), headers={"X-Quorumlog-Dedupe": "none"})
        headers = headers_of(tally)
        if tally.all_bad:
            return _json(logs_body(tally), 400, headers)
        if empty_answer:
            return web.Response(status=200, headers=headers)
        return _json(logs_body(tally), 200, headers)

    async def _acked(
        self, request: web.Request, work: Callable[[], Awaitable[web.Response]]
    ) -> web.Response:
        """The answer of `work`, its errors in the flat form of the ACK protocol."""
        try:
            return await work()
        except QuorumlogError as error:
            self._refused.labels(request.path, error.code).inc()
            status, body, headers = ingest_error(error)
            return _json(body, status, headers)

    def _count_rejected(self, surface: str, codes: Mapping[str, int]) -> None:
        for code, count in codes.items():
            self._rejected.labels(surface, code).inc(count)

    # ---- from body to result

    def _reader(self, request: web.Request) -> BodyReader:
        encoding = request.headers.get("Content-Encoding", "")
        return BodyReader(
            request.content, request.content_length, encoding, self._limits, self._clock
        )

    async def _take(self, request: web.Request, head: Head, form: Format | None) -> _Reply:
        """Reads, parses and writes the body of `request`."""
        reader = self._reader(request)
        length = request.content_length
        encoded = request.headers.get("Content-Encoding", "identity") not in ("", "identity")
        expected = self._limits.piece_bytes if length is None else length
        ticket = max(_LEAST_TICKET, expected * (EXPECTED_RATIO if encoded else 1))
        content_type = request.headers.get("Content-Type", "")
        text_format = request.query.get("format", "")
        if form is None and _says_lines(content_type):
            form = Format.LINES
        async with self._gate.acquire(min(ticket, self._limits.decoded_bytes)):
            try:
                if form is Format.LINES:
                    return await self._take_lines(head, reader)
                body = await reader.whole(self._workers.run)
                form = format_of(content_type, text_format, body[:_HEAD_BYTES])
                return await self._take_whole(request, head, reader, body, form)
            finally:
                self._bytes.labels(head.surface).inc(reader.wire_bytes)

    async def _take_whole(
        self, request: web.Request, head: Head, reader: BodyReader, body: bytes, form: Format
    ) -> _Reply:
        if not body.strip():
            raise InvalidRequest("the body is empty", reason="bad_json")
        most = self._limits.document_bytes
        if len(body) > most:
            text = f"{len(body)} bytes in one document; at most {most}. JSON lines may be longer"
            raise TooLarge(text, limit=most)
        batch = await self._parse(head, body, form, None, b"")
        if head.options.debug:
            return _Reply(Tally(), batch=batch)
        reply = _Reply(Tally(), sequenced=batch.sequence is not None)

        async def write(deadline: Deadline) -> web.Response | None:
            result = await self._write(head, batch, deadline)
            reply.tally.add(batch, result, 0)
            return None

        if batch.sequence is None:
            await write(self._deadline(head))
        else:
            wire = b"".join(reader.wire)
            reply.passed_back = await self._at_leader(request, head, wire, write)
        return reply

    async def _take_lines(self, head: Head, reader: BodyReader) -> _Reply:
        """JSON lines in pieces. Each is durable by itself; the answer tells of all, or of the failure."""
        tally, before, number, written, ended = Tally(), 0, 0, 0, False
        stream = b""
        under_way: list[tuple[Batch, int, asyncio.Task[WriteResult | None]]] = []
        try:
            async for piece in reader.pieces(self._workers.run):
                if number == 0:
                    stream = body_digest(piece[:_HEAD_BYTES])
                elif not piece.strip(_BLANK):
                    number += 1
                    continue  # nothing but empty lines: a bomb of them should cost no more than this
                batch = await self._parse(head, piece, Format.LINES, number, stream)
                if head.options.debug:
                    return _Reply(tally, batch=batch)
                while len(under_way) >= PIECES_IN_FLIGHT:
                    await _settle_first(tally, under_way)
                task = asyncio.create_task(
                    self._write(head, batch, self._deadline(head)), name="piece"
                )
                under_way.append((batch, before, task))
                before += batch.table.num_rows + batch.rejected_count
                written += batch.table.num_rows + batch.rejected_count > 0
                number += 1
            ended = True
            while under_way:
                await _settle_first(tally, under_way)
        except QuorumlogError as error:
            if written > (1 if ended else 0):  # a piece other than the refused one may be stored
                error.doubt()
            raise
        finally:
            for _, _, task in under_way:
                task.cancel()
        if number == 0 and not head.surface.startswith("/insert/"):
            raise InvalidRequest("the body is empty", reason="bad_json")
        return _Reply(tally)

    async def _parse(
        self, head: Head, body: bytes, form: Format, piece: int | None, stream: bytes
    ) -> Batch:
        begun = self._clock.monotonic()
        if len(body) <= INLINE_BYTES:
            batch = self._make(head, body, form, piece, stream)
        else:
            batch = await self._workers.run(self._make, head, body, form, piece, stream)
        self._parse_seconds.labels(head.surface).observe(self._clock.monotonic() - begun)
        self._rows.labels(head.surface).inc(batch.table.num_rows)
        return batch

    def _make(
        self, head: Head, body: bytes, form: Format, piece: int | None, stream: bytes
    ) -> Batch:
        identity = identity_of(
            tenant=head.tenant,
            surface=head.surface,
            principal=head.principal,
            peer=head.peer,
            key=head.key,
            body=body,
            query=head.query,
            piece=piece,
            head=stream,
        )
        source = Source(head.tenant, head.surface, head.options, head.received_at)
        return self._intake.batch(body, form, source, identity)

    def _deadline(self, head: Head) -> Deadline:
        return Deadline.after(self._clock, head.hold_seconds)

    async def _write(self, head: Head, batch: Batch, deadline: Deadline) -> WriteResult | None:
        """None if there is nothing to write."""
        if not batch.table.num_rows and batch.failed is None and batch.sequence is None:
            return None
        return await self._writer.write(batch, ack=head.ack, deadline=deadline)

    # ---- the leader of a shard

    async def _at_leader(
        self,
        request: web.Request,
        head: Head,
        wire: bytes,
        here: Callable[[Deadline], Awaitable[T]],
    ) -> T | web.Response:
        """The result of `here`, or the leader's answer if another node leads the shard.

        Held while no leader answers. Raises NotLeader to a client that wants the hint, to a node
        that passed this request on, and at the deadline.
        """
        deadline = self._deadline(head)
        sure = True  # that no try before has stored anything
        while True:
            try:
                return await here(deadline)
            except QuorumlogError as error:
                sure = surely(error, sure)
                last = head.wants_hint or head.proxied or deadline.expired
                if last or not isinstance(error, NotLeader):
                    raise
                refusal: QuorumlogError = error
            leader = refusal.details.get("leader")
            if isinstance(leader, dict) and leader.get("http"):
                try:
                    answer = await self._proxy.pass_on(
                        request, leader, wire, deadline, lambda lead=leader: self._leads(lead)
                    )
                except ConnectionLost as lost:
                    self._proxied.labels("lost").inc()
                    refusal, sure = lost, False
                else:
                    answer, sure = as_sure(answer, sure)
                    if not try_again(answer):
                        self._proxied.labels("answered").inc()
                        return answer
                    self._proxied.labels("refused").inc()
            if deadline.remaining() <= RETRY_SECONDS:
                surely(refusal, sure)
                raise refusal
            await self._rest(leader)

    async def _rest(self, leader: Mapping[str, Any] | None) -> None:
        """A pause before the next try, at most until another leader is known than the one that was asked."""
        until = self._clock.monotonic() + RETRY_SECONDS
        while (left := until - self._clock.monotonic()) > 0:
            await self._clock.sleep(min(left, LOOK_SECONDS))
            if leader and not self._leads(leader):
                return

    def _leads(self, leader: Mapping[str, Any]) -> bool:
        return self._writer.still_leads(leader["shard"], leader["node"], leader["shard_epoch"])


async def _settle_first(
    tally: Tally, under_way: list[tuple[Batch, int, "asyncio.Task[WriteResult | None]"]]
) -> None:
    batch, before, task = under_way[0]
    result = await task
    del under_way[0]
    tally.add(batch, result, before)


def _says_lines(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return (
        "ndjson" in kind
        or "jsonl" in kind
        or "json-lines" in kind
        or kind == "application/stream+json"
    )


def _object_of(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("a JSON object is expected", reason="bad_json") from error
    if not isinstance(value, dict):
        raise InvalidRequest("a JSON object is expected", reason="bad_json")
    return value


def _producer_of(source: Any) -> tuple[str, str]:
    service = check_identifier(source.get("service"), "service")
    return service, check_identifier(source.get("producer") or DEFAULT_PRODUCER, "producer")


def _debug_body(batch: Batch) -> dict[str, Any]:
    rows = [
        {name: value for name, value in row.items() if value is not None}
        for row in batch.table.slice(0, 1000).to_pylist()
    ]
    return {
        "debug": True,
        "rows": rows,
        "rejectedCount": batch.rejected_count,
        "rejected": [row.to_dict() for row in batch.rejected],
    }


def _json(
    body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False, default=str)
    return web.Response(
        body=text.encode("utf-8", "replace"),
        status=status,
        headers=headers,
        content_type="application/json",
    )
