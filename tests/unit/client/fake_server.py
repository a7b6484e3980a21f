"""A stand-in for quorumlog's servers on loopback: the ACK protocol, and faults on request.

`Store` keeps what all fake nodes of a cluster share: each (service, producer, epoch) is a map from
seq to the row's exact bytes, so a test can ask that a resend had the same bytes. `FakeNode` is one
HTTP server; `faults` holds handlers that answer the next requests to `/ingest` instead of it.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Name = tuple[str, str, int]
Fault = Callable[["FakeNode", web.Request, bytes], Awaitable[web.StreamResponse | None]]


def rows_of(body: bytes) -> list[bytes]:
    """The exact bytes of each row in a request's `logs`."""
    text = body.decode()
    at = text.index('"logs":[') + len('"logs":[')
    rows: list[bytes] = []
    decoder = json.JSONDecoder()
    while text[at] != "]":
        if text[at] == ",":
            at += 1
        _, end = decoder.raw_decode(text, at)
        rows.append(text[at:end].encode())
        at = end
    return rows


@dataclass
class Store:
    """The cluster's memory."""

    rows: dict[Name, dict[int, bytes]] = field(default_factory=dict)
    skipped: dict[Name, dict[int, str]] = field(default_factory=dict)
    epochs: dict[tuple[str, str], int] = field(default_factory=dict)
    #: Every row ever received, in order, duplicates too: (name, seq, bytes).
    received: list[tuple[Name, int, bytes]] = field(default_factory=list)
    bad_words: set[str] = field(default_factory=set)
    #: What operators ask for: id -> seqs that are waited for; and what a producer said is gone.
    asked: dict[str, set[int]] = field(default_factory=dict)
    gone: dict[str, set[int]] = field(default_factory=dict)
    #: Whether answers to this epoch say that a new one would be written elsewhere.
    spreads: Callable[[int], bool] = lambda epoch: False

    def put(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """Stores a batch; returns status and answer as section 1 of the protocol says."""
        batch = json.loads(body)
        name = (batch["service"], batch["producer"], batch["epoch"])
        newest = self.epochs.get(name[:2], 1)
        if name[2] < newest:
            return 409, {"error": "fenced", "epoch": newest}
        held, skipped = self.rows.setdefault(name, {}), self.skipped.setdefault(name, {})
        accepted = duplicates = 0
        rejected: list[dict[str, Any]] = []
        for at, row in enumerate(rows_of(body), 1):
            seq = json.loads(row)["seq"]
            self.received.append((name, seq, row))
            for waiting in self.asked.values():
                waiting.discard(seq)
            if any(word.encode() in row for word in self.bad_words):
                skipped[seq] = "bad_row"
                rejected.append({"row": at, "seq": seq, "code": "bad_row", "reason": "bad word"})
            elif held.setdefault(seq, row) != row:
                rejected.append({"row": at, "seq": seq, "code": "conflict", "reason": "differs"})
            else:
                accepted += 1
        for skip in batch.get("skip", []):
            for seq in range(skip["from"], skip["to"] + 1):
                skipped[seq] = skip["reason"]
        answer = self.position(name) | {
            "batchId": "01JD4Z0K6Q0000000000000001",
            "durable": "2/3",
            "accepted": accepted,
            "duplicates": duplicates,
            "rejectedCount": len(rejected),
            "rejected": rejected[:100],
        }
        if self.spreads(name[2]):
            answer["newEpoch"] = True
        if any(item["code"] == "conflict" for item in rejected):
            return 409, answer | {"error": "conflict"}
        return 200, answer

    def position(self, name: Name) -> dict[str, Any]:
        """`ackTill` and what is missing."""
        known = self.rows.get(name, {}).keys() | self.skipped.get(name, {}).keys()
        till = 0
        while till + 1 in known:
            till += 1
        missing = [seq for seq in range(till + 1, max(known, default=0) + 1) if seq not in known]
        asked = [
            {"id": key, "ranges": [[seq, seq] for seq in sorted(waiting)]}
            for key, waiting in self.asked.items()
            if waiting
        ]
        return {
            "ackTill": till,
            "missing": missing[:1000],
            "missingRanges": [[seq, seq] for seq in missing],
            "status": "partial" if missing else "complete",
        } | ({"replay": asked} if asked else {})

    def all_rows(self, service: str) -> list[dict[str, Any]]:
        """What a reader would see of a service, over all producers and epochs."""
        return [
            json.loads(row)
            for name, held in sorted(self.rows.items())
            if name[0] == service
            for _, row in sorted(held.items())
        ]


class FakeNode:
    """One node. Use as an async context manager; `url` is its address."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store()
        self.faults: deque[Fault] = deque()
        #: Asked before each `/ingest`: None to serve it, an answer to give instead.
        self.gate: Fault | None = None
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.no_epochs = False
        self.questions = self.questions_answered = 0
        #: A question waits for this, and is then told that; each if it is set.
        self.question_gate: asyncio.Event | None = None
        self.told_instead: dict[str, Any] | None = None
        self.url = ""
        self.nodes: list[dict[str, Any]] = []
        self.app = web.Application(client_max_size=64 << 20)
        self.app.router.add_post("/ingest", self._ingest)
        self.app.router.add_post("/ingest/epoch", self._epoch)
        self.app.router.add_get("/cluster/nodes", self._nodes)
        self.app.router.add_get("/logs/replay", self._progress)
        self.app.router.add_post("/logs/replay/{id}/gone", self._gone)
        self._server = TestServer(self.app)

    async def __aenter__(self) -> FakeNode:
        await self._server.start_server()
        self.url = str(self._server.make_url("")).rstrip("/")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    async def _ingest(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        for fault in [self.faults.popleft() if self.faults else None, self.gate]:
            if fault is not None and (answer := await fault(self, request, body)) is not None:
                return answer
        status, answer = self.store.put(body)
        return web.json_response(answer, status=status)

    async def _epoch(self, request: web.Request) -> web.Response:
        if self.no_epochs:
            raise web.HTTPNotFound
        raw = await request.json()
        key = (raw["service"], raw["producer"])
        known = any(name[:2] == key for name in self.store.rows)
        epoch = self.store.epochs.get(key, 1 if known else 0) + 1
        self.store.epochs[key] = epoch
        return web.json_response({"epoch": epoch})

    async def _progress(self, request: web.Request) -> web.Response:
        query = request.query
        self.questions += 1
        name = (query["service"], query["producer"], int(query["epoch"]))
        if self.question_gate is not None:
            await self.question_gate.wait()
        self.questions_answered += 1
        return web.json_response(self.told_instead or self.store.position(name))

    async def _gone(self, request: web.Request) -> web.Response:
        ranges = (await request.json())["ranges"]
        found = {seq for first, last in ranges for seq in range(first, last + 1)}
        name = request.match_info["id"]
        self.store.gone.setdefault(name, set()).update(found)
        self.store.asked[name] -= found
        return web.json_response({"id": name})

    async def _nodes(self, _: web.Request) -> web.Response:
        return web.json_response({"nodes": self.nodes})


def answer_with(status: int, body: Any, headers: dict[str, str] | None = None) -> Fault:
    """A fault: this answer, nothing stored."""

    async def fault(_: FakeNode, __: web.Request, ___: bytes) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return fault


async def store_then_cut(node: FakeNode, request: web.Request, body: bytes) -> None:
    """A fault: the rows are stored, but the answer never arrives."""
    node.store.put(body)
    assert request.transport is not None
    request.transport.close()


async def cut(node: FakeNode, request: web.Request, body: bytes) -> None:
    """A fault: nothing is stored, the connection closes."""
    assert request.transport is not None
    request.transport.close()
    raise ConnectionResetError


def hint_to(node: FakeNode | None, shard_epoch: int = 1) -> Fault:
    """A fault: NOT_LEADER, with a hint to `node`."""
    leader = None
    if node is not None:
        leader = {"node": "n", "http": node.url, "shard": 3, "shard_epoch": shard_epoch}
        leader["ring_epoch"] = 1
    error = {
        "code": "NOT_LEADER",
        "message": "not the leader",
        "definite": True,
        "leader": leader,
        "retry_after_ms": 10,
    }
    return answer_with(409, {"error": error})
