"""Bulk clients against a store in memory: what they send, and what they note of what they read."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from aiohttp import web

from chaos import bulk
from chaos.bulk_corpus import BulkCorpus, arrow_stream
from chaos.checkers import HOLDS, check
from chaos.history import BULK, BULK_FINAL, BULK_READ, OK, UNKNOWN, History, load
from tests.unit.chaos.test_workload import Store, traffic, until

SERVICES = {"bulk-agent1": "chaos-a", "bulk-numbered1": "chaos-n"}


class BulkStore(Store):
    """Keeps what comes as Arrow or as JSON lines by (client, number); gives it as Arrow."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[str] = []
        self.held: dict[tuple[str, int], dict[str, Any]] = {}
        self.corpus: BulkCorpus | None = None
        self.cut = 0

    async def write(self, request: web.Request) -> web.StreamResponse:
        """POST /logs and /ingest."""
        if request.path == "/ingest/epoch":
            return web.json_response({"epoch": 3})
        body, kind = await request.read(), request.content_type
        self.kinds.append(kind)
        if self.script:
            return self.script.pop(0)
        envelope: dict[str, Any] = {}
        if kind == bulk.ARROW:
            table = pa.ipc.open_stream(body).read_all()
            rows = table.to_pylist()
            envelope = json.loads((table.schema.metadata or {}).get(b"quorumlog", b"{}"))
        else:
            rows = [json.loads(line) for line in body.split(b"\n") if line]
        for row in rows:
            self.held[row["chaos_client"], row["chaos_number"]] = row
        if not envelope:
            return web.json_response({"accepted": len(rows), "rejected": []})
        assert {row["seq"] for row in rows} == {row["chaos_number"] for row in rows}
        assert set(envelope) == {"service", "producer", "epoch"}
        held = {number for client, number in self.held if client == envelope["producer"]}
        till = next(n for n in range(len(held) + 1) if n + 1 not in held)
        gaps = np.setdiff1d(np.arange(till + 1, max(held)), list(held))
        ranges = [[int(gaps[0]), int(gaps[-1])]] if len(gaps) else []
        return web.json_response(
            {"ackTill": till, "missing": [], "missingRanges": ranges, "rejected": []}
        )

    async def query(self, request: web.Request) -> web.Response:
        """GET /query: a client's rows as Arrow, as the corpus has them; times are not looked at."""
        client = request.query["chaos_client"]
        numbers = sorted(number for whose, number in self.held if whose == client)
        assert self.corpus is not None
        table = self.corpus.table(client, np.array(numbers, np.int64), request.query["service"])
        if "from" in request.query or "to" in request.query:
            table = table.slice(0, 0) if "from" in request.query else table
        headers = {"X-Quorumlog-Complete": str(self.complete).lower()}
        headers |= {} if self.complete else {"X-Quorumlog-Missing": "4"}
        body = arrow_stream(table)
        return web.Response(body=body[: len(body) - self.cut], headers=headers)


@asynccontextmanager
async def made(store: BulkStore, folder: Path) -> AsyncIterator[bulk.Bulk]:
    """What bulk clients share, towards three servers over the store."""
    async with traffic(store, folder) as shared:
        shared.bulk_services = SERVICES
        one = bulk.Bulk(shared, BulkCorpus(1, shared.corpus.start_micros))
        store.corpus = one.corpus
        yield one


def judged(folder: Path) -> History:
    """The history, with a head that says what ran."""
    history = load(folder)
    head = replace(history.head, bulk=SERVICES, sequenced=("bulk-numbered1",))
    return replace(history, head=head)


async def test_what_bulk_clients_write_is_read_back_and_holds(tmp_path: Path, monkeypatch) -> None:
    """Both formats, numbered and not, a refusal, repeats, gaps and overlaps; nothing is objected to."""
    monkeypatch.setattr(bulk, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(bulk, "BATCH_ROWS", (20, 400))
    store = BulkStore()
    store.script = [web.json_response({"error": {"definite": False}}, status=503)]
    async with made(store, tmp_path) as one:
        tasks = [
            asyncio.create_task(bulk.bulk_agent(one, "bulk-agent1", 5, 0)),
            asyncio.create_task(bulk.bulk_numbered(one, "bulk-numbered1", 6, 1)),
        ]
        await until(lambda: len(store.kinds) > 120)
        one.traffic.stopping.set()
        await asyncio.gather(*tasks)
        await bulk.bulk_final_reads(one)

    history = judged(tmp_path)
    verdicts = {one.id: one for one in check(history)}
    assert [verdicts[id].status for id in ("I1", "I2", "I3", "I5", "I17")] == [HOLDS] * 5, verdicts
    writes = [op for op in history.ops if op.kind == BULK]
    assert {op.outcome for op in writes} == {OK, UNKNOWN}
    assert set(store.kinds) == {bulk.ARROW, "application/x-ndjson"}
    numbered = [op for op in writes if op.client == "bulk-numbered1"]
    assert any("missing" in op.resp for op in numbered), "no gap"
    ranges = [op.rows[0] for op in numbered]
    assert len(set(ranges)) < len(ranges), "no repeat"
    assert any(b[0] == a[1] + 1 - 777 for a, b in itertools.pairwise(ranges)), "no overlap"
    assert set(store.held) == {
        (client, n) for client, top in one.written.items() for n in range(1, top + 1)
    }
    assert sum(op.kind == BULK_FINAL for op in history.ops) == 6


async def test_readers_ask_for_ranges_of_time_and_note_spans(tmp_path: Path) -> None:
    """One group of one client; what is not complete names what is missing."""
    store = BulkStore()
    store.complete = False
    async with made(store, tmp_path) as one:
        one.written["bulk-agent1"] = 30
        store.held = {("bulk-agent1", n): {} for n in (1, 2, 3, 9)}
        task = asyncio.create_task(bulk.bulk_reader(one, "reader1", 3, 0))
        await asyncio.sleep(0.2)
        one.traffic.stopping.set()
        await task

    (op, *_) = [op for op in load(tmp_path).ops if op.kind == BULK_READ]
    assert op.rows == ((1, bulk.GROUP_ROWS),)
    assert not op.resp["complete"]
    assert op.resp["missing"] == ["4"]


async def test_an_answer_that_breaks_off_is_no_read(tmp_path: Path) -> None:
    """A stream without its end says nothing of what was there."""
    store = BulkStore()
    store.cut = 200
    async with made(store, tmp_path) as one:
        one.written["bulk-agent1"] = 30
        store.held = {("bulk-agent1", n): {} for n in range(1, 31)}
        await bulk.bulk_final_reads(one, tries=1)

    assert {op.outcome for op in load(tmp_path).ops} == {UNKNOWN}


async def test_a_sight_sees_doubled_altered_and_strange_rows(tmp_path: Path) -> None:
    """Also over two answers; a number never sent, another client's name, a number of no such type."""
    async with made(BulkStore(), tmp_path) as one:
        one.written["bulk-agent1"] = 30
        rows = one.table("bulk-agent1", 1, 20)
        other = rows.set_column(5, "chaos_number", pa.array(range(2, 22)))
        sight, strange = bulk.Sight(one, "bulk-agent1"), bulk.Sight(one, "bulk-agent1")

        sight.add(rows)
        sight.add(other.slice(9, 1))
        strange.add(one.table("bulk-agent1", 30, 31))
        strange.add(one.table("bulk-numbered1", 1, 3))
        strange.add(rows.set_column(5, "chaos_number", rows["chaos_number"].cast(pa.string())))

    assert sight.resp() | {"order": ""} == {
        "found": [[1, 20]], "doubled": [[11, 11]], "altered": [[11, 11]], "order": "",
    }  # fmt: skip
    assert strange.resp()["found"] == [[30, 30]]
    assert strange.resp()["strangers"][0] == 1 + 3 + 20
    assert sight.resp()["order"] != strange.resp()["order"]


def test_spans_are_runs_of_true_values() -> None:
    """Both ends in them; none, one, at both edges."""
    assert bulk.spans(np.array([False, True, True, False, True])) == [[1, 2], [4, 4]]
    assert bulk.spans(np.zeros(3, bool)) == []
    assert bulk.spans(np.ones(2, bool)) == [[0, 1]]
