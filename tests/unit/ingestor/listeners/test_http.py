"""The HTTP listener with a fake writer: the examples of docs/protocol.md, answers, errors, limits."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
import zstandard
from aiohttp import web

from cluster.http_front import front_middleware
from ingestor.batch import Batch, RejectedRow, WriteResult
from ingestor.enrich import EnrichSettings
from ingestor.limits import Limits
from ingestor.listeners import http
from ingestor.listeners.http import RUNNER_OPTIONS, HttpIngest
from records.errors import DiskFull, Fenced, NotLeader, NotReady, Overloaded, QuorumUnavailable
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.metrics import Metrics
from runtime.tasks import Workers
from tests.support.fake_writer import FakeGate, FakeWriter

LIMITS = Limits(
    wire_bytes=1 << 20,
    decoded_bytes=4 << 20,
    piece_bytes=64 << 10,
    row_bytes=2 << 10,
    row_bytes_max=32 << 10,
    hold_seconds=1.0,
    idle_seconds=0.3,
    body_seconds=0.5,
)


@dataclass
class Answer:
    """A raw HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A node's api port with only the ingest listener, over a real socket."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.writer = FakeWriter()
        self.gate = FakeGate()
        self.metrics = Metrics()
        self.workers = Workers(2)
        self.port = 0

    async def start(self) -> "Server":
        clock = SystemClock()
        self.http = HttpIngest(
            self.writer,
            self.gate,
            clock,
            self.metrics,
            self.workers,
            self.limits,
            EnrichSettings(),
        )
        middleware = front_middleware(clock, SystemEntropy(), self.metrics)
        app = web.Application(middlewares=[middleware], client_max_size=0)
        app.router.add_routes(self.http.routes())
        self.runner = web.AppRunner(app, access_log=None, **RUNNER_OPTIONS)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = self.runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        await self.http.close()
        await self.runner.cleanup()
        self.workers.close()

    async def send(self, raw: bytes) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:] if line)
            body = await reader.readexactly(int(headers.get("Content-Length", 0)))
            return Answer(int(lines[0].split()[1]), headers, body)
        finally:
            writer.close()

    async def post(self, path: str, body: bytes, **headers: str) -> Answer:
        lines = [f"POST {path} HTTP/1.1", "Host: q", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def json(self, path: str, value: Any, **headers: str) -> Answer:
        return await self.post(
            path, json.dumps(value).encode(), Content_Type="application/json", **headers
        )

    async def get(self, path: str) -> Answer:
        return await self.send(f"GET {path} HTTP/1.1\r\nHost: q\r\n\r\n".encode())

    def rows(self) -> list[dict[str, Any]]:
        return [row for batch in self.writer.batches for row in batch.table.to_pylist()]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    one = await Server().start()
    yield one
    await one.stop()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


# ---- the examples of docs/protocol.md ---------------------------------------------------------------


async def test_the_tracehub_example(server: Server) -> None:
    """Section 1, first exchange: two rows of which seq 2 is missing between them."""
    body = (
        b'{"service":"pay","producer":"pay-7f","logs":[{"seq":1,"level":"info","message":"paid",'
        b'"requestId":"r-9","timestamp":"2026-11-21T00:00:00Z"},{"seq":3,"level":"error","message":'
        b'"declined","requestId":"r-9","timestamp":"2026-11-21T00:00:00.2Z"}]}'
    )
    assert len(body) == 243
    server.writer.results = [
        WriteResult("01JD4Z0K6Q0000000000000001", 2, 0, 2, 3, (), 1, 3, ((2, 2),))
    ]

    answer = await server.post("/ingest", body, Content_Type="application/json")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Quorumlog-Durable"] == "2/3"
    assert answer.body.replace(b'"missingRanges":[[2,2]],', b"") == (
        b'{"batchId":"01JD4Z0K6Q0000000000000001","ackTill":1,"missing":[2],"status":"partial",'
        b'"durable":"2/3","accepted":2,"duplicates":0,"rejectedCount":0,"rejected":[]}'
    )
    batch = server.writer.batches[0]
    assert batch.sequence is not None
    assert (batch.sequence.service, batch.sequence.producer) == ("pay", "pay-7f")
    assert (batch.sequence.epoch, batch.sequence.skips) == (1, ())
    assert server.rows() == [
        {
            "timestamp": at("2026-11-21T00:00:00+00:00"),
            "service": "pay",
            "level": "info",
            "message": "paid",
            "request_id": "r-9",
            "seq": 1,
        },
        {
            "timestamp": at("2026-11-21T00:00:00.200+00:00"),
            "service": "pay",
            "level": "error",
            "message": "declined",
            "request_id": "r-9",
            "seq": 3,
        },
    ]


async def test_the_replay_example(server: Server) -> None:
    """Section 1, second exchange: body and answer of /ingest under /logs/replay."""
    body = (
        b'{"service":"pay","producer":"pay-7f","logs":[{"seq":2,"level":"info","message":"retrying",'
        b'"requestId":"r-9","timestamp":"2026-11-21T00:00:00.1Z"}]}'
    )
    assert len(body) == 147
    server.writer.results = [WriteResult("01JD4Z0K6Q0000000000000002", 1, 0, 3, 3, (), 3, 3)]

    answer = await server.post("/logs/replay", body, Content_Type="application/json")

    assert answer.body.replace(b'"missingRanges":[],', b"") == (
        b'{"batchId":"01JD4Z0K6Q0000000000000002","ackTill":3,"missing":[],"status":"complete",'
        b'"durable":"3/3","accepted":1,"duplicates":0,"rejectedCount":0,"rejected":[]}'
    )
    assert answer.headers["X-Quorumlog-Durable"] == "3/3"


async def test_the_csv_example(server: Server) -> None:
    """Section 2, first exchange: a bad time costs its row alone; the raw line is the message."""
    body = b"timestamp,path,userAgent\n2026-11-21T00:00:00Z,/a,curl/8.5\nnot-a-time,/b,curl/8.5\n"
    assert len(body) == 81
    server.writer.results = [WriteResult("01JD4Z0K6Q0000000000000003", 1, 0, 2, 3)]

    answer = await server.post("/logs?service=web", body, Content_Type="text/csv")

    assert answer.status == 200
    assert answer.headers["Content-Length"] == "198"
    assert answer.body == (
        b'{"batchId":"01JD4Z0K6Q0000000000000003","accepted":1,"duplicates":0,"rejectedCount":1,'
        b'"rejected":[{"row":2,"code":"bad_timestamp","reason":"timestamp: cannot parse '
        b'\\"not-a-time\\""}],"durable":"2/3"}'
    )
    assert answer.headers["X-Quorumlog-Rejected"] == "1"
    [row] = server.rows()
    assert row["service"] == "web"
    assert row["message"] == "2026-11-21T00:00:00Z,/a,curl/8.5"
    assert (row["path"], row["userAgent"]) == ("/a", "curl/8.5")
    failed = server.writer.batches[0].failed
    assert failed is not None
    assert failed.column("message").to_pylist() == ["not-a-time,/b,curl/8.5"]
    assert failed.column("service").to_pylist() == ["_failed"]
    assert failed.column("source_service").to_pylist() == ["web"]


async def test_the_jsonline_example(server: Server) -> None:
    """Section 2, second exchange: fields named by parameters; 200 with an empty body."""
    body = (
        b'{"t":"2026-11-21T00:00:00Z","host":"a","m":"up"}\n'
        b'{"t":"2026-11-21T00:00:01Z","host":"a","m":"down"}\n'
    )
    assert len(body) == 100

    path = "/insert/jsonline?_time_field=t&_msg_field=m&_stream_fields=host"
    answer = await server.post(path, body)

    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == "0"
    assert answer.headers["X-Quorumlog-Durable"] == "2/3"
    assert "X-Quorumlog-Rejected" not in answer.headers
    assert [(row["timestamp"], row["message"], row["host"]) for row in server.rows()] == [
        (at("2026-11-21T00:00:00+00:00"), "up", "a"),
        (at("2026-11-21T00:00:01+00:00"), "down", "a"),
    ]
    assert server.rows()[0]["_stream"] == '{host="a"}'


# ---- shapes ----------------------------------------------------------------------------------------


async def test_ingest_takes_an_array_and_lines_without_numbers(server: Server) -> None:
    """Without seq: ackTill 0, missing [], identity by digest (grade 3)."""
    array = await server.json("/ingest", [{"message": "a"}, {"message": "b"}])
    lines = await server.post(
        "/ingest", b'{"message":"a"}\n{"message":"b"}', Content_Type="application/x-ndjson"
    )

    for answer in (array, lines):
        assert answer.status == 200
        assert (answer.json["ackTill"], answer.json["missing"]) == (0, [])
        assert answer.json["accepted"] == 2
        assert answer.headers["X-Quorumlog-Dedupe"] == "grade=3; duplicates=0"
        assert answer.headers["X-Quorumlog-Request-Id"]
    assert [row["message"] for row in server.rows()] == ["a", "b", "a", "b"]


async def test_an_idempotency_key_names_the_request_for_ever(server: Server) -> None:
    """Grade 1, whatever the bytes; without a key the bytes and the sender name it."""
    await server.json("/logs", [{"message": "a"}], Idempotency_Key="k1")
    await server.json("/logs", [{"message": "b"}], Idempotency_Key="k1")
    await server.json("/logs", [{"message": "a"}])
    await server.json("/logs", [{"message": "a"}])
    await server.json("/logs", [{"message": "a"}], X_Scope_OrgID="other")

    one, two, three, four, five = [batch.identity for batch in server.writer.batches]
    assert (one.grade, one.ages) == (1, False)
    assert (one.scope, one.content) == (two.scope, two.content)
    assert (three.grade, three.ages) == (3, True)
    assert three == four
    assert three.scope != five.scope
    assert one.content != three.content


async def test_a_compressed_body_is_the_same_request(server: Server) -> None:
    """The digest is taken after decompression; the client's level or tool does not matter."""
    body = b'{"message":"same"}\n' * 3
    for encoding, packed in (
        ("identity", body),
        ("gzip", gzip.compress(body, 1)),
        ("gzip", gzip.compress(body, 9)),
        ("zstd", zstandard.compress(body)),
    ):
        answer = await server.post(
            "/logs", packed, Content_Encoding=encoding, Content_Type="application/x-ndjson"
        )
        assert answer.status == 200

    assert len({batch.identity for batch in server.writer.batches}) == 1


async def test_ready_says_ok(server: Server) -> None:
    """GET /insert/ready."""
    answer = await server.get("/insert/ready")
    assert (answer.status, answer.body) == (200, b'{"status":"ok"}')


@pytest.mark.parametrize("path", ["/insert/jsonline", "/ingest"])
async def test_get_is_405(server: Server, path: str) -> None:
    """POST only."""
    answer = await server.get(path)
    assert answer.status == 405


async def test_all_rows_bad_is_400_in_the_same_shape_and_still_durable(server: Server) -> None:
    """Nothing is lost even then: the bytes go to `_failed`."""
    server.writer.results = [WriteResult("B", 0, 0, 2, 3)]
    answer = await server.post("/insert/jsonline", b"nope\n[1]\n")

    assert answer.status == 400
    assert answer.json["accepted"] == 0
    assert [row["code"] for row in answer.json["rejected"]] == ["bad_json", "not_an_object"]
    assert [row["row"] for row in answer.json["rejected"]] == [1, 2]
    failed = server.writer.batches[0].failed
    assert failed is not None
    assert failed.column("message").to_pylist() == ["nope", "[1]"]


async def test_at_most_100_rejects_are_listed_and_all_are_counted(server: Server) -> None:
    """`rejectedCount` is whole; the metric counts by code."""
    body = b"{}x\n" * 250 + b'{"message":"good"}\n'
    answer = await server.post("/logs", body, Content_Type="application/x-ndjson")

    assert answer.status == 200
    assert (answer.json["accepted"], answer.json["rejectedCount"]) == (1, 250)
    assert len(answer.json["rejected"]) == 100
    name = 'quorumlog_rows_rejected_total{code="bad_json",protocol="/logs"}'
    assert server.metrics.snapshot()[name] == 250


async def test_debug_answers_with_the_rows_and_stores_nothing(server: Server) -> None:
    """`debug=1` is VictoriaLogs' dry run."""
    answer = await server.post("/insert/jsonline?debug=1", b'{"_msg":"hi","_time":"2026-11-21"}')

    assert answer.json["rows"][0]["message"] == "hi"
    assert not server.writer.batches


async def test_tenants_come_from_headers(server: Server) -> None:
    """X-Scope-OrgID everywhere; AccountID and ProjectID on /insert/* alone."""
    line = b'{"_msg":"x"}'
    await server.post("/insert/jsonline", line)
    await server.post("/insert/jsonline", line, AccountID="7", ProjectID="2")
    await server.post("/insert/jsonline", line, AccountID="0")
    await server.post("/logs", line, AccountID="7", X_Scope_OrgID="acme")
    refused = await server.post("/insert/jsonline", line, AccountID="4294967296")
    evil = await server.post("/logs", line, X_Scope_OrgID="../x")

    assert [b.tenant for b in server.writer.batches] == ["default", "7:2", "default", "acme"]
    assert refused.status == 400
    assert evil.status == 400


async def test_w_is_passed_on_and_ack_too(server: Server) -> None:
    """Raised for one request; the writer refuses what cannot be met."""
    await server.json("/ingest", [{"m": 1}], X_Quorumlog_W="3")
    await server.json("/ingest?ack=all", [{"m": 1}])
    await server.json("/ingest", [{"m": 1}])
    bad = await server.json("/ingest", [{"m": 1}], X_Quorumlog_W="-1")

    assert server.writer.acks == ["3", "all", None]
    assert bad.status == 400


async def test_the_ticket_is_given_back(server: Server) -> None:
    """Admission sees the body's size and ends with the request, whatever came of it."""
    await server.json("/ingest", [{"m": "x" * 50_000}])
    await server.post("/ingest", b"{", Content_Type="application/json")

    assert server.gate.asked[0] > 50_000
    assert server.gate.held == 0


# ---- refusals --------------------------------------------------------------------------------------

NUMBERED = {"service": "pay", "logs": [{"seq": 1, "message": "a"}]}


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (QuorumUnavailable("1 of 3", durable="1/3", ack_till=1), 503, "not_enough_replicas"),
        (Overloaded("full", retry_after_seconds=1), 429, "overloaded"),
        (DiskFull("floor", retry_after_seconds=5), 507, "disk_full"),
    ],
)
async def test_a_refusal_says_when_to_come_back(
    server: Server, error: Any, status: int, name: str
) -> None:
    """Section 1: retryable, retryAfterMs, durable, ackTill; Retry-After in whole seconds."""
    server.writer.errors = [error]

    answer = await server.json("/ingest", NUMBERED)

    assert answer.status == status
    assert answer.json["error"] == name
    assert answer.json["retryable"] is True
    assert answer.json["retryAfterMs"] >= 1000
    assert int(answer.headers["Retry-After"]) >= 1
    if status == 503:
        assert answer.json["durable"] == "1/3"
        assert answer.json["ackTill"] == 1
        assert answer.json["definite"] is False


async def test_other_surfaces_tell_errors_nested(server: Server) -> None:
    """interface.md: `{"error":{"code","message","definite"}}` outside the ACK protocol."""
    server.writer.errors = [Overloaded("full", retry_after_seconds=1)]

    answer = await server.json("/logs", [{"m": 1}])

    assert answer.status == 429
    assert answer.json["error"]["code"] == "OVERLOADED"
    assert answer.headers["Retry-After"] == "1"


async def test_admission_refuses_before_the_body_is_parsed(server: Server) -> None:
    """429 with a time to come back."""
    server.gate.error = Overloaded("full", retry_after_seconds=1)
    answer = await server.json("/ingest", NUMBERED)
    assert answer.status == 429
    assert not server.writer.batches


async def test_an_older_epoch_is_fenced(server: Server) -> None:
    """409 `{"error":"fenced","epoch":2}`."""
    server.writer.errors = [Fenced("older", epoch=2)]
    answer = await server.json("/ingest", NUMBERED)
    assert answer.status == 409
    assert (answer.json["error"], answer.json["epoch"]) == ("fenced", 2)


async def test_a_conflict_is_an_ordinary_answer_with_409(server: Server) -> None:
    """The good rows are durable; the others are listed with code `conflict`."""
    conflict = RejectedRow(1, "conflict", "seq 1 is held with other bytes", 1)
    server.writer.results = [WriteResult("B", 1, 0, 2, 3, (conflict,), 2, 2)]

    answer = await server.json("/ingest", NUMBERED)

    assert answer.status == 409
    assert answer.json["error"] == "conflict"
    assert answer.json["ackTill"] == 2
    assert answer.json["rejected"] == [
        {"row": 1, "code": "conflict", "reason": "seq 1 is held with other bytes", "seq": 1}
    ]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"service": "pay", "logs": [{"seq": 1}, {"message": "x"}]}, "mixed_seq"),
        ({"logs": [{"seq": 1}]}, "bad_service"),
        ({"service": "", "logs": [{"seq": 1}]}, "bad_service"),
        ({"service": "x" * 129, "logs": []}, "bad_service"),
        ({"service": "..", "logs": []}, "bad_service"),
        ({"service": "a\u0000b", "logs": []}, "bad_service"),
        ({"service": 5, "logs": []}, "bad_service"),
        ({"service": "a", "producer": "b" * 200, "logs": []}, "bad_producer"),
        ({"service": "a", "epoch": 0, "logs": []}, "bad_epoch"),
        ({"service": "a", "logs": [], "skip": [{"from": 3, "to": 2}]}, "bad_skip"),
    ],
)
async def test_what_cannot_be_read_names_its_reason(server: Server, value: Any, name: str) -> None:
    """400 `{"error":…,"reason":…}`, nothing stored."""
    answer = await server.json("/ingest", value)
    assert (answer.status, answer.json["error"]) == (400, name)
    assert answer.json["reason"]
    assert not server.writer.batches


async def test_bad_json_is_named(server: Server) -> None:
    """With the place."""
    answer = await server.post(
        "/ingest", b'{"service":"a","logs":[{]}', Content_Type="application/json"
    )
    assert (answer.status, answer.json["error"]) == (400, "bad_json")
    assert "character" in answer.json["reason"]


async def test_bad_rows_of_a_numbered_batch_become_skips(server: Server) -> None:
    """The seq of a permanently bad row is skipped durably, so that ackTill passes it."""
    value = {
        "service": "pay",
        "epoch": 3,
        "logs": [{"seq": 9, "message": "late"}, {"seq": 7, "timestamp": "x"}, {"seq": 8}],
        "skip": [{"from": 1, "to": 6, "reason": "lost"}],
    }
    server.writer.results = [WriteResult("B", 2, 0, 2, 3, (), 9, 9)]

    answer = await server.json("/ingest", value)

    sequence = server.writer.batches[0].sequence
    assert sequence is not None
    assert (sequence.epoch, sequence.skips) == (3, ((1, 7),))
    assert [row["seq"] for row in server.rows()] == [8, 9]
    assert answer.json["rejected"][0] | {"reason": ""} == {
        "row": 2,
        "code": "bad_timestamp",
        "reason": "",
        "seq": 7,
    }


async def test_missing_is_cut_at_a_thousand_and_ranges_are_whole(server: Server) -> None:
    """`missingTruncated` says so."""
    server.writer.results = [WriteResult("B", 1, 0, 2, 3, (), 1, 5000, ((2, 3000), (3002, 3002)))]
    answer = await server.json("/ingest", NUMBERED)

    assert answer.json["missing"] == list(range(2, 1002))
    assert answer.json["missingTruncated"] is True
    assert answer.json["missingRanges"] == [[2, 3000], [3002, 3002]]
    assert answer.json["status"] == "partial"


# ---- epochs and progress ---------------------------------------------------------------------------


async def test_a_new_epoch_is_issued(server: Server) -> None:
    """`{service, producer}` -> `{"epoch":2}`."""
    answer = await server.json("/ingest/epoch", {"service": "pay", "producer": "pay-7f"})
    assert (answer.status, answer.body) == (200, b'{"epoch":2}')
    assert server.writer.asked == [("default", "pay", "pay-7f")]


async def test_progress_tells_what_the_server_lacks(server: Server) -> None:
    """GET /logs/replay."""
    server.writer.results = [WriteResult("", 0, 0, 3, 3, (), 4, 9, ((5, 6),))]
    answer = await server.get("/logs/replay?service=pay&producer=p&epoch=2")

    assert answer.json == {
        "service": "pay",
        "producer": "p",
        "epoch": 2,
        "maxSeen": 9,
        "ackTill": 4,
        "missing": [5, 6],
        "missingRanges": [[5, 6]],
        "status": "partial",
    }
    assert server.writer.asked == [("default", "pay", "p", 2)]


# ---- leaders ---------------------------------------------------------------------------------------


def not_leader(port: int | None) -> NotLeader:
    leader = {
        "node": "n2",
        "http": f"127.0.0.1:{port}",
        "shard": 4,
        "shard_epoch": 9,
        "ring_epoch": 1,
    }
    return NotLeader("n2 leads", leader=leader if port else None, retry_after_ms=100)


async def test_a_numbered_batch_is_passed_on_to_its_leader_once(server: Server) -> None:
    """The bytes as they came, compressed or not; the answer comes back as it is."""
    leader = await Server().start()
    server.writer.errors = [not_leader(leader.port)]
    leader.writer.results = [WriteResult("L", 1, 0, 2, 3, (), 1, 1)]
    body = gzip.compress(json.dumps(NUMBERED).encode())

    answer = await server.post(
        "/ingest?ack=all",
        body,
        Content_Type="application/json",
        Content_Encoding="gzip",
        X_Scope_OrgID="acme",
    )

    assert (answer.status, answer.json["batchId"]) == (200, "L")
    assert answer.headers["X-Quorumlog-Durable"] == "2/3"
    assert leader.writer.batches[0].tenant == "acme"
    assert leader.writer.acks == ["all"]
    assert leader.rows()[0]["seq"] == 1
    assert server.writer.batches == server.writer.batches[:1]
    await leader.stop()


async def test_the_client_that_wants_the_hint_gets_it(server: Server) -> None:
    """`X-Quorumlog-Redirect: hint`."""
    server.writer.errors = [not_leader(1)]
    answer = await server.json("/ingest", NUMBERED, X_Quorumlog_Redirect="hint")

    assert answer.status == 503
    assert answer.json["error"] == "not_leader"
    assert answer.json["leader"]["shard_epoch"] == 9
    assert answer.json["retryAfterMs"] == 100


async def test_a_request_is_never_passed_on_twice(server: Server) -> None:
    """A node that was wrongly asked says so; the first node tries again until the leader is found."""
    wrong = await Server().start()
    wrong.writer.errors = [not_leader(server.port)]
    server.writer.errors = [not_leader(wrong.port)]

    answer = await server.json("/ingest", NUMBERED)

    assert answer.status == 200
    assert len(server.writer.batches) == 2
    assert len(wrong.writer.batches) == 1
    passed = [
        k for k in wrong.metrics.snapshot() if k.startswith("quorumlog_ingest_proxied_total{")
    ]
    assert passed == []
    await wrong.stop()


async def test_a_dead_leader_is_waited_out(server: Server) -> None:
    """Held while nobody leads, then written here: no quick refusal."""
    dead = await Server().start()
    await dead.stop()
    server.writer.errors = [not_leader(dead.port), not_leader(None)]

    answer = await server.json("/ingest", NUMBERED)

    assert answer.status == 200
    assert len(server.writer.batches) == 3


async def test_a_leader_that_hangs_is_left_when_it_was_replaced(server: Server) -> None:
    """It takes the connection and says nothing, as a stopped process does; until then it is waited for.

    The rows are then written through the new leader, here this node itself, under the same seqs.
    """
    asked = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()  # until the one who asked hangs up
        writer.close()

    hung = await asyncio.start_server(hang, "127.0.0.1", 0)
    server.writer.errors = [not_leader(hung.sockets[0].getsockname()[1])]

    answering = asyncio.create_task(server.json("/ingest", NUMBERED))
    await asked.wait()
    await asyncio.sleep(0.3)
    assert not answering.done()
    server.writer.replaced = True
    answer = await answering

    assert answer.status == 200
    assert len(server.writer.batches) == 2
    hung.close()


async def test_the_pause_ends_when_another_leader_is_known(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tenth of a second of it is one in which the shard's rows are not taken."""
    pauses: list[float] = []
    sleep = SystemClock.sleep

    async def noted(self: SystemClock, seconds: float) -> None:
        pauses.append(seconds)
        server.writer.replaced = len(pauses) == 2
        await sleep(self, seconds)

    monkeypatch.setattr(SystemClock, "sleep", noted)
    dead = await Server().start()
    await dead.stop()
    server.writer.errors = [not_leader(dead.port)]

    answer = await server.json("/ingest", NUMBERED)

    assert answer.status == 200
    assert pauses == [http.LOOK_SECONDS] * 2


async def test_the_hold_ends_at_the_deadline(server: Server) -> None:
    """Then 503 with a time to come back."""
    server.writer.errors = [not_leader(None)] * 100
    answer = await server.json("/ingest", NUMBERED)
    assert answer.status == 503
    assert answer.json["error"] == "not_leader"
    assert 5 <= len(server.writer.batches) <= 12


# ---- streams ---------------------------------------------------------------------------------------


def chunked(path: str, parts: list[bytes], *headers: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: q", "Transfer-Encoding: chunked", *headers]
    body = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body + b"0\r\n\r\n"


LINES = b"".join(b'{"message":"row %d","n":%d}\n' % (i, i) for i in range(10_000))


async def test_a_long_stream_is_committed_in_pieces_and_counted_as_one(server: Server) -> None:
    """Each piece at most 64 KiB here; row numbers of rejects count over all of the stream."""
    body = LINES + b"broken\n" + LINES + b"{\n"
    parts = [body[i : i + 5000] for i in range(0, len(body), 5000)]

    answer = await server.send(chunked("/logs", parts, "Content-Type: application/jsonl"))

    assert answer.status == 200
    assert (answer.json["accepted"], answer.json["rejectedCount"]) == (20_000, 2)
    assert [row["row"] for row in answer.json["rejected"]] == [10_001, 20_002]
    assert len(server.writer.batches) >= len(body) // (64 << 10)
    assert [row["n"] for row in server.rows()] == [*range(10_000), *range(10_000)]
    assert len({batch.identity for batch in server.writer.batches}) == len(server.writer.batches)


async def test_a_resent_stream_has_the_same_identities_however_it_is_cut(server: Server) -> None:
    """The network's chunks, a length and compression mean nothing to the pieces."""
    header = "Content-Type: application/jsonl"
    for size in (1000, 70_000, len(LINES)):
        parts = [LINES[i : i + size] for i in range(0, len(LINES), size)]
        await server.send(chunked("/logs", parts, header))
    await server.post("/logs", LINES, Content_Type="application/jsonl")
    await server.post(
        "/logs", gzip.compress(LINES), Content_Type="application/jsonl", Content_Encoding="gzip"
    )

    identities = [batch.identity for batch in server.writer.batches]
    pieces = len(identities) // 5
    assert pieces > 3
    for time in range(1, 5):
        assert identities[time * pieces : (time + 1) * pieces] == identities[:pieces]


async def test_a_failure_in_a_stream_refuses_all_of_it(server: Server) -> None:
    """One answer never mixes: 503, and the resend finds the first pieces as duplicates."""
    server.writer.results = [WriteResult("B", 1, 0, 2, 3)]
    server.writer.errors = [QuorumUnavailable("1 of 3 owners")]

    answer = await server.post("/logs", LINES, Content_Type="application/jsonl")

    assert answer.status == 503
    assert answer.json["error"]["definite"] is False


# ---- bad input -------------------------------------------------------------------------------------


async def test_an_empty_body_is_said_to_be_empty(server: Server) -> None:
    """400 on our own surfaces; VictoriaLogs' answers 200 to nothing."""
    for path, kind in (
        ("/ingest", "application/json"),
        ("/logs", "application/json"),
        ("/logs", "application/x-ndjson"),
        ("/logs", "text/csv"),
        ("/logs", "text/plain"),
        ("/logs", ""),
    ):
        answer = await server.post(path, b"", Content_Type=kind)
        assert answer.status == 400, (path, kind)
        assert b"empty" in answer.body
    assert (await server.post("/insert/jsonline", b"")).status == 200
    assert not server.writer.batches


async def test_a_wrong_content_type_is_415_and_names_the_right_ones(server: Server) -> None:
    """Never guessed."""
    answer = await server.post("/logs", b"<x/>", Content_Type="application/xml")
    assert answer.status == 415
    assert "application/json" in answer.json["error"]["supported"]


async def test_an_unknown_encoding_is_415(server: Server) -> None:
    """Before the body is read."""
    answer = await server.json("/ingest", NUMBERED, Content_Encoding="br")
    assert answer.status == 415


async def test_a_truncated_gzip_body_is_400(server: Server) -> None:
    """Nothing of it is used."""
    body = gzip.compress(json.dumps([{"message": "x" * 1000}]).encode())[:-9]
    answer = await server.post(
        "/logs", body, Content_Type="application/json", Content_Encoding="gzip"
    )
    assert answer.status == 400
    assert "early" in answer.json["error"]["message"]
    assert not server.writer.batches


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
async def test_a_bomb_is_413(server: Server, kind: str) -> None:
    """64 MiB of blanks in 64 KiB, against a budget of 4 MiB."""
    body = gzip.compress(b" " * (64 << 20), 9)
    answer = await server.post("/logs", body, Content_Type=kind, Content_Encoding="gzip")
    assert answer.status == 413
    assert not server.writer.batches


async def test_a_body_over_the_limit_is_413_before_it_is_read(server: Server) -> None:
    """From its Content-Length alone."""
    head = "POST /logs HTTP/1.1\r\nHost: q\r\nContent-Type: text/csv\r\n"
    answer = await server.send(f"{head}Content-Length: 99999999\r\n\r\n".encode())
    assert answer.status == 413


async def test_a_slow_body_is_408(server: Server) -> None:
    """Silence within a body, and a trickle below the least rate, both end."""
    head = (
        b"POST /logs HTTP/1.1\r\nHost: q\r\nContent-Type: text/csv\r\nContent-Length: 900\r\n\r\n"
    )
    silent = await server.send(head + b"timestamp")
    assert silent.status == 408

    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head)

    async def trickle() -> None:
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.05)

    task = asyncio.create_task(trickle())
    line = await asyncio.wait_for(reader.readline(), 5)
    task.cancel()
    writer.close()
    assert b"408" in line
    assert server.gate.held == 0


async def test_a_line_over_the_row_limit_is_one_bad_row(server: Server) -> None:
    """Also when it is longer than a piece and never held whole; its neighbours are kept."""
    long = b'{"message":"' + b"x" * (300 << 10) + b'"}\n'
    body = b'{"message":"before"}\n' + long + b'{"message":"after"}\n'

    answer = await server.post("/logs", body, Content_Type="application/x-ndjson")

    assert answer.status == 200
    assert (answer.json["accepted"], answer.json["rejectedCount"]) == (2, 1)
    assert answer.json["rejected"][0]["code"] == "row_too_large"
    assert answer.json["rejected"][0]["row"] == 2
    assert [row["message"] for row in server.rows()] == ["before", "after"]


async def test_a_client_that_leaves_within_its_body_costs_nothing(server: Server) -> None:
    """No batch, no ticket left behind."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"POST /logs HTTP/1.1\r\nHost: q\r\nContent-Type: text/csv\r\nContent-Length: 900\r\n\r\na"
    )
    await asyncio.sleep(0.05)
    assert server.gate.held > 0
    writer.close()
    await asyncio.sleep(0.4)

    assert server.gate.held == 0
    assert not server.writer.batches
    assert reader is not None


async def test_many_tiny_requests_on_one_connection(server: Server) -> None:
    """500 one-row requests, pipelined: each its own batch, nothing left behind."""
    body = b'[{"message":"x"}]'
    request = (
        b"POST /logs HTTP/1.1\r\nHost: q\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for _ in range(5):
        writer.write(request * 100)
        for _ in range(100):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
    writer.close()

    assert len(server.writer.batches) == 500
    assert server.gate.held == 0


async def test_limits_are_settings() -> None:
    """More rows than a TraceHub batch may have: 413 that says how many."""
    one = await Server(replace(LIMITS, batch_rows=2)).start()
    value = {"service": "a", "logs": [{"seq": n} for n in (1, 2, 3)]}
    answer = await one.json("/ingest", value)
    assert answer.status == 413
    assert "at most 2" in answer.json["reason"]
    await one.stop()


# ---- what is sure after several tries ---------------------------------------------------------------


async def test_a_lost_leader_leaves_no_later_refusal_definite(server: Server) -> None:
    """The first hop's outcome is unknown, so NOT_LEADER at the deadline must not say "nothing stored"."""
    dead = await Server().start()
    await dead.stop()
    server.writer.errors = [not_leader(dead.port), *(not_leader(None) for _ in range(100))]

    answer = await server.json("/ingest", NUMBERED)

    assert (answer.status, answer.json["code"]) == (503, "NOT_LEADER")
    assert answer.json["definite"] is False


async def test_no_leader_at_all_is_definite(server: Server) -> None:
    """No try got further than "who leads?"."""
    server.writer.errors = [not_leader(None) for _ in range(100)]

    assert (await server.json("/ingest", NUMBERED)).json["definite"] is True


async def test_a_second_leaders_refusal_is_no_surer_than_the_first_hop(server: Server) -> None:
    """The first leader was lost; what the next one answers is passed back without its certainty."""
    dead, leader = await Server().start(), await Server().start()
    await dead.stop()
    server.writer.errors = [not_leader(dead.port), not_leader(leader.port)]
    leader.writer.errors = [Overloaded("full", retry_after_seconds=1)]

    answer = await server.json("/ingest", NUMBERED)
    await leader.stop()

    assert (answer.status, answer.json["code"]) == (429, "OVERLOADED")
    assert answer.json["definite"] is False
    assert answer.headers["Retry-After"] == "1"


async def test_a_try_here_that_put_something_is_remembered(server: Server) -> None:
    """This node was deposed with a put under way; that nobody leads afterwards does not undo it."""
    deposed = not_leader(None)
    deposed.doubt()
    server.writer.errors = [deposed, *(not_leader(None) for _ in range(100))]

    assert (await server.json("/ingest", NUMBERED)).json["definite"] is False


@pytest.mark.parametrize(("pieces", "definite"), [(1, True), (2, False)])
async def test_lines_of_which_a_piece_may_be_stored_are_not_surely_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, pieces: int, definite: bool
) -> None:
    """Each piece of a stream is durable by itself; the last is refused."""
    line = json.dumps({"message": "x" * 1000}).encode() + b"\n"
    write = server.writer.write

    async def refuse_the_last(batch: Batch, **options: Any) -> WriteResult:
        if len(server.writer.batches) == pieces - 1:
            server.writer.errors = [Overloaded("full", retry_after_seconds=1)]
        return await write(batch, **options)

    monkeypatch.setattr(server.writer, "write", refuse_the_last)
    body = line * (80 if pieces == 2 else 2)
    answer = await server.post("/logs", body, Content_Type="application/x-ndjson")

    assert len(server.writer.batches) == pieces
    assert answer.status == 429
    assert answer.json["error"]["definite"] is definite


async def test_what_the_leader_is_not_sure_of_is_not_made_sure_here(server: Server) -> None:
    """The leader put the rows and lost its reign; its NOT_READY ends the time, NOT_LEADER is the answer."""
    leader = await Server().start()
    unsure = NotReady("not recovered")
    unsure.doubt()
    leader.writer.errors = [unsure]
    server.writer.errors = [not_leader(leader.port), *(not_leader(None) for _ in range(100))]

    answer = await server.json("/ingest", NUMBERED)
    await leader.stop()

    assert len(leader.writer.batches) == 1
    assert (answer.status, answer.json["code"]) == (503, "NOT_LEADER")
    assert answer.json["definite"] is False
