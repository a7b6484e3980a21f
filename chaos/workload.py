"""The clients of a run: what they send can be regenerated, and what they see goes into the history.

agent      blind: posts JSON lines without numbers; on any doubt the same bytes again to another node,
           and now and then a repeat without any doubt. What most log shippers do.
numbered   numbers its rows itself on the ACK protocol: repeats, batches cut differently than before,
           the second half before the first (so that there is a gap for a while)
producer   the client library's `Producer` with its buffer on disk; `flush` returned means acknowledged
reader     groups of rows, counts by client, now and then everything of one client

A client goes on with a batch until it is answered, through faults and after them; only time ends it.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.corpus import Corpus, group_of, name_in, row_digest
from chaos.history import APPEND, COUNT, FAIL, FINAL, OK, READ, UNKNOWN, Range, Recorder
from quorumlog import Producer
from quorumlog.answers import Rejected, read_ingest
from quorumlog.errors import FlushTimeout, QuorumlogError
from quorumlog.wire import Reply, Wire, WireSettings
from runtime.clock import Clock
from runtime.entropy import SeededEntropy

#: Rows of one request, from 1 on.
BATCH_ROWS_MAX = 120
#: Seconds that a client waits for an answer: a node may hold a request for 10.
ANSWER_SECONDS = 12.0
#: Seconds of a last read of all rows.
FINAL_SECONDS = 60.0
#: One batch in so many is sent once more although it was acknowledged.
REPEAT_EVERY = 12
NDJSON = "application/x-ndjson"


@dataclass(slots=True)
class Traffic:
    """What the clients of a run share. `urls` by node id. `written`: highest number sent, by client.

    `bulk_services`: of the clients in `chaos.bulk`, whose rows are counted by the same requests.
    `keys`: agents name each batch (`Idempotency-Key`). Without, a repeat is known by its bytes, and only as
    long as the wall clocks of both nodes are within the window that docs/consistency.md tells.
    """

    urls: Mapping[str, str]
    corpus: Corpus
    recorder: Recorder
    clock: Clock
    services: Mapping[str, str]
    pause: float = 0.05
    keys: bool = False
    bulk_services: Mapping[str, str] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    give_up: asyncio.Event = field(default_factory=asyncio.Event)
    written: dict[str, int] = field(default_factory=dict)
    resends: int = 0
    repeats: int = 0
    acks: list[float] = field(default_factory=list)
    read_back_seconds: float = 0.0

    def node(self, turn: int) -> str:
        """The node whose turn it is."""
        nodes = list(self.urls)
        return nodes[turn % len(nodes)]

    def lines(self, client: str, first: int, last: int, with_seq: bool = False) -> list[dict]:
        """The rows of a batch, as they are sent; numbered rows bear no service of their own."""
        self.written[client] = max(self.written.get(client, 0), last)
        service = "" if with_seq else self.services[client]
        rows = [self.corpus.row(client, number, service) for number in range(first, last + 1)]
        if with_seq:
            rows = [{"seq": first + i, **row} for i, row in enumerate(rows)]
        return rows


class Client:
    """One client: its own connections, its own lot, its turn among the nodes."""

    def __init__(
        self, traffic: Traffic, name: str, seed: int, turn: int, wire: Wire | None = None
    ) -> None:
        """`wire`: instead of connections of its own."""
        self.traffic = traffic
        self.name = name
        self.entropy = SeededEntropy(seed)
        self.turn = turn
        self.wire = wire or Wire(WireSettings(request_timeout_seconds=ANSWER_SECONDS))

    def size(self) -> int:
        """Rows of the next batch: mostly few, sometimes many."""
        return 1 + int((BATCH_ROWS_MAX - 1) * self.entropy.uniform(0, 1) ** 2)

    def lot(self, one_in: int) -> bool:
        """True once in so many times."""
        return self.entropy.uniform(0, one_in) < 1

    async def post(
        self, op: int, node: str, path: str, body: bytes, kind: str, key: str = ""
    ) -> Reply | None:
        """One request; None (and an unknown outcome) if there was no answer."""
        url = self.traffic.urls[node] + path
        headers = {"Content-Type": kind, **({"Idempotency-Key": key} if key else {})}
        try:
            return await self.wire.request("POST", url, headers=headers, data=body)
        except QuorumlogError as error:
            self.traffic.recorder.returned(op, UNKNOWN, {"error": str(error)[:200]})
            await self.traffic.clock.sleep(0.02)
            return None

    def refused(self, op: int, reply: Reply) -> None:
        """Notes an answer that is no acknowledgement."""
        text = reply.body[:300].decode("utf-8", "replace")
        outcome = FAIL if says_definite(reply.body) else UNKNOWN
        self.traffic.recorder.returned(op, outcome, {"status": reply.status, "error": text})

    async def until_acked(self, ranges: list[Range], send: Any) -> bool:
        """Calls `send(node)` through one node after the other until it is True; False: given up."""
        started = self.traffic.clock.monotonic()
        while not await send(self.traffic.node(self.turn)):
            if self.traffic.give_up.is_set():
                rows = sum(last - first + 1 for first, last in ranges)
                self.traffic.recorder.gave_up(self.name, rows)
                return False
            self.turn += 1
            self.traffic.resends += 1
            await self.traffic.clock.sleep(0.05)
        self.traffic.acks.append(self.traffic.clock.monotonic() - started)
        return True


def says_definite(body: bytes) -> bool:
    """Whether an error says of itself that surely nothing was stored."""
    try:
        raw = json.loads(body)
    except ValueError:
        return False
    if not isinstance(raw, dict):
        return False
    detail = raw.get("error")
    fields = detail if isinstance(detail, dict) else raw
    return fields.get("definite") is True


async def agent(traffic: Traffic, name: str, seed: int, turn: int) -> None:
    """Writes unnumbered batches until told to stop; then until its last one is acknowledged."""
    client = Client(traffic, name, seed, turn)
    next_number = 1
    try:
        while not traffic.stopping.is_set():
            first, last = next_number, next_number + client.size() - 1
            next_number = last + 1
            rows = traffic.lines(name, first, last)
            body = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)

            async def send(node: str, body: bytes = body, batch: Range = (first, last)) -> bool:
                return await send_lines(client, node, body, batch)

            if not await client.until_acked([(first, last)], send):
                return
            if client.lot(REPEAT_EVERY):
                traffic.repeats += 1
                client.turn += 1
                await send(traffic.node(client.turn))
            await traffic.clock.sleep(traffic.pause)
    finally:
        await client.wire.close()


async def send_lines(client: Client, node: str, body: bytes, batch: Range) -> bool:
    """Sends unnumbered rows; whether they were acknowledged."""
    op = client.traffic.recorder.invoke(client.name, APPEND, node, [batch])
    key = f"{client.name}-{batch[0]}-{batch[1]}" if client.traffic.keys else ""
    return took_lines(client, op, await client.post(op, node, "/logs", body, NDJSON, key), batch)


def took_lines(client: Client, op: int, reply: Reply | None, batch: Range) -> bool:
    """Whether an answer to unnumbered rows acknowledges them; notes it, if there is one."""
    if reply is None:
        return False
    if reply.status != 200:
        client.refused(op, reply)
        return False
    rejected = [batch[0] + item["row"] - 1 for item in json.loads(reply.body).get("rejected", [])]
    client.traffic.recorder.returned(op, OK, {"rejected": rejected} if rejected else None)
    return True


async def numbered(traffic: Traffic, name: str, seed: int, turn: int) -> None:
    """Writes batches numbered by itself: in order, out of order, overlapping, twice."""
    client = Client(traffic, name, seed, turn)
    next_number = 1
    try:
        epoch = await ask_epoch(client, traffic.services[name])
        while epoch and not traffic.stopping.is_set():
            first, last = next_number, next_number + client.size() - 1
            next_number = last + 1
            parts: list[Range] = [(first, last)]
            middle = (first + last) // 2
            if last > first and client.lot(8):
                parts = [(middle + 1, last), (first, middle)]  # a gap, then what fills it
            elif first > 10 and client.lot(8):
                parts = [(first - 7, last)]  # cut differently than before
            elif client.lot(REPEAT_EVERY):
                parts = [(first, last), (first, last)]
                traffic.repeats += 1
            for part in parts:
                body = ack_body(traffic, name, epoch, part)

                async def send(node: str, body: bytes = body, part: Range = part) -> bool:
                    return await send_numbered(client, node, body, part, epoch)

                if not await client.until_acked([part], send):
                    return
            await traffic.clock.sleep(traffic.pause)
    finally:
        await client.wire.close()


def ack_body(traffic: Traffic, name: str, epoch: int, part: Range) -> bytes:
    """A request of the ACK protocol."""
    head = {"service": traffic.services[name], "producer": name, "epoch": epoch}
    rows = traffic.lines(name, *part, with_seq=True)
    return json.dumps({**head, "logs": rows}, ensure_ascii=False).encode()


async def ask_epoch(client: Client, service: str) -> int:
    """An epoch for the writer's numbers; 0 if it could not be had before the end."""
    traffic = client.traffic
    body = json.dumps({"service": service, "producer": client.name}).encode()
    while not traffic.stopping.is_set():
        url = traffic.urls[traffic.node(client.turn)] + "/ingest/epoch"
        headers = {"Content-Type": "application/json"}
        try:
            reply = await client.wire.request("POST", url, headers=headers, data=body)
            if reply.status == 200:
                return int(json.loads(reply.body)["epoch"])
        except QuorumlogError:
            traffic.resends += 1  # asked again below: an epoch that nobody uses is harmless
        client.turn += 1
        await traffic.clock.sleep(0.1)
    return 0


async def send_numbered(
    client: Client, node: str, body: bytes, part: Range, epoch: int
) -> bool:  # fmt: skip
    """Sends numbered rows; whether they were answered by the ACK protocol."""
    op = client.traffic.recorder.invoke(client.name, APPEND, node, [part])
    reply = await client.post(op, node, "/ingest", body, "application/json")
    return took_numbered(client, op, reply, part, epoch)


def took_numbered(client: Client, op: int, reply: Reply | None, part: Range, epoch: int) -> bool:
    """Whether an answer to numbered rows is one of the ACK protocol; notes it, if there is one."""
    if reply is None:
        return False
    try:
        answer = read_ingest(reply.status, reply.headers, reply.body)
    except QuorumlogError:
        client.refused(op, reply)
        return False
    resp: dict[str, Any] = {"ack_till": answer.ack_till, "epoch": epoch}
    if answer.missing:
        resp["missing"] = [list(one) for one in answer.missing]
    if answer.rejected:
        resp["rejected"] = [item.seq or part[0] + item.row - 1 for item in answer.rejected]
    if answer.conflict:
        resp["conflict"] = True
    client.traffic.recorder.returned(op, OK, resp)
    return True


async def producer(traffic: Traffic, name: str, seed: int, folder: Path) -> None:
    """Sends bursts through the client library; each ends with a flush."""
    entropy, recorder = SeededEntropy(seed), traffic.recorder
    rejected: list[Rejected] = []
    next_number, unflushed, op = 1, 0, 0
    source = Producer(
        list(traffic.urls.values()),
        service=traffic.services[name],
        buffer=folder / f"{name}.buffer",
        close_timeout_seconds=0.5,
        on_rejected=rejected.append,
    )
    async with source:
        while not traffic.stopping.is_set():
            first = next_number
            last = first + int((BATCH_ROWS_MAX - 1) * entropy.uniform(0, 1) ** 2)
            next_number = last + 1
            op = recorder.invoke(name, APPEND, "library", [(first, last)])
            for row in traffic.lines(name, first, last, with_seq=True):
                source.send(**{key: value for key, value in row.items() if key != "seq"})
            started = traffic.clock.monotonic()
            while True:
                try:
                    await source.flush(timeout=2.0)
                    break
                except FlushTimeout as error:
                    unflushed = error.waiting
                    if traffic.give_up.is_set():
                        recorder.returned(op, UNKNOWN, {"error": str(error)[:200]})
                        recorder.gave_up(name, unflushed)
                        return
            traffic.acks.append(traffic.clock.monotonic() - started)
            resp: dict[str, Any] = {"ack_till": source.ack_till, "epoch": source.epoch}
            if rejected:
                resp["rejected"] = [item.seq for item in rejected]
                rejected.clear()
            recorder.returned(op, OK, resp)
            await traffic.clock.sleep(traffic.pause)


async def reader(traffic: Traffic, name: str, seed: int, turn: int) -> None:
    """Reads through all nodes in turn until told to stop."""
    client = Client(traffic, name, seed, turn)
    try:
        while not traffic.stopping.is_set():
            client.turn += 1
            node = traffic.node(client.turn)
            written = sorted(traffic.written.items())
            if not written or client.lot(4):
                await count(client, node)
            else:
                whom, top = written[int(client.entropy.uniform(0, len(written))) % len(written)]
                some = 1 + int(client.entropy.uniform(0, top))
                await _read(client, node, whom if client.lot(15) else group_of(whom, some))
            await traffic.clock.sleep(traffic.pause * 2)
    finally:
        await client.wire.close()


async def _read(client: Client, node: str, covers: str) -> None:
    recorder = client.traffic.recorder
    op = recorder.invoke(client.name, READ, node, covers=covers)
    field = "chaos_group" if ":" in covers else "chaos_client"
    await read_rows(client.wire, client.traffic, op, node, {field: covers})


async def read_rows(
    wire: Wire, traffic: Traffic, op: int, node: str, params: dict[str, str]
) -> bool:  # fmt: skip
    """Reads a stream to its end and notes what was in it; whether it was complete."""
    resp = await _stream(wire, traffic, op, node, params)
    if resp is None:
        return False
    traffic.recorder.returned(op, OK, resp)
    return resp["complete"]


async def _stream(
    wire: Wire, traffic: Traffic, op: int, node: str, params: dict[str, str]
) -> dict[str, Any] | None:
    """What was in a stream; None (and an unknown outcome) if it did not come to its end."""
    url, headers = traffic.urls[node] + "/query", {"Accept": NDJSON}
    try:
        reply = await wire.request("GET", url, params=params, headers=headers)
    except QuorumlogError as error:
        traffic.recorder.returned(op, UNKNOWN, {"error": str(error)[:200]})
        return None
    rows = (
        [json.loads(line) for line in reply.body.split(b"\n") if line]
        if reply.status == 200
        else []
    )
    if reply.status != 200 or any("error" in row and "chaos_client" not in row for row in rows):
        text = reply.body[-300:].decode("utf-8", "replace")
        traffic.recorder.returned(op, UNKNOWN, {"status": reply.status, "error": text})
        return None
    missing = reply.headers.get("X-Quorumlog-Missing", "")
    return {
        "complete": reply.headers.get("X-Quorumlog-Complete") == "true",
        "missing": [missing] if missing else [],
        "rows": [[name_in(row), row_digest(row)] for row in rows],
    }


async def count(client: Client, node: str) -> bool:
    """Counts all rows by client; whether that was answered."""
    traffic = client.traffic
    op = traffic.recorder.invoke(client.name, COUNT, node)
    url, params = traffic.urls[node] + "/query/stats", {"by": "chaos_client", "agg": "count"}
    try:
        reply = await client.wire.request("GET", url, params=params)
    except QuorumlogError as error:
        traffic.recorder.returned(op, UNKNOWN, {"error": str(error)[:200]})
        return False
    if reply.status != 200:
        client.refused(op, reply)
        return False
    body = json.loads(reply.body)
    found = {str(row["chaos_client"]): row["count"] for row in body["rows"]}
    counts = {name: count for name, count in found.items() if name in traffic.services}
    bulk = {name: count for name, count in found.items() if name in traffic.bulk_services}
    resp = {"complete": body["complete"], "missing": body["missing"], "counts": counts}
    resp |= {"bulk": bulk} if traffic.bulk_services else {}
    traffic.recorder.returned(op, OK, resp)
    return True


async def final_reads(traffic: Traffic, tries: int = 5, by_client: bool = False) -> None:
    """Reads all rows through each node; again, if an answer was not complete.

    `by_client`: those of this run's clients, one after the other, where others have rows as well.
    """
    wire = Wire(WireSettings(request_timeout_seconds=FINAL_SECONDS))
    own = [{"service": of, "chaos_client": name} for name, of in traffic.services.items()]
    parts = own if by_client else [{}]
    try:
        for node in traffic.urls:
            for _ in range(tries):
                if await _final(wire, traffic, node, parts):
                    break
                await traffic.clock.sleep(1.0)
    finally:
        await wire.close()


async def _final(
    wire: Wire, traffic: Traffic, node: str, parts: list[dict[str, str]]
) -> bool:  # fmt: skip
    op = traffic.recorder.invoke("final", FINAL, node)
    whole: dict[str, Any] = {"complete": True, "missing": [], "rows": []}
    for params in parts:
        resp = await _stream(wire, traffic, op, node, params)
        if resp is None:
            return False
        whole["complete"] &= resp["complete"]
        whole["missing"] += resp["missing"]
        whole["rows"] += resp["rows"]
    traffic.recorder.returned(op, OK, whole)
    return whole["complete"]
