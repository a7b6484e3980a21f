"""Clients against servers that misbehave: what they send again, and what they note as known."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from chaos import workload
from chaos.corpus import Corpus
from chaos.history import COUNT, FAIL, FINAL, OK, READ, UNKNOWN, Head, History, Recorder, load
from chaos.workload import Traffic, says_definite
from runtime.clock import SystemClock

SERVICES = {"agent1": "svc", "numbered1": "num", "producer1": "pro"}


class Store:
    """Three addresses over one memory. `script`: answers before the good ones."""

    def __init__(self) -> None:
        self.script: list[web.Response] = []
        self.bodies: list[tuple[str, bytes]] = []
        self.rows: list[dict] = []
        self.kept: set[bytes] = set()
        self.seqs: set[int] = set()
        self.complete = True

    async def write(self, request: web.Request) -> web.StreamResponse:
        """POST /logs and /ingest: each body once, as the real ones."""
        body = await request.read()
        self.bodies.append((f"{request.host}{request.path}", body))
        if self.script:
            return self.script.pop(0)
        if request.path == "/ingest/epoch":
            return web.json_response({"epoch": 3})
        if request.path == "/ingest":
            return web.json_response(self._numbered(json.loads(body)))
        if body not in self.kept:
            self.kept.add(body)
            self.rows += [json.loads(line) for line in body.splitlines()]
        return web.json_response({"accepted": 1, "rejected": []})

    def _numbered(self, batch: dict) -> dict:
        for row in batch["logs"]:
            if row["seq"] not in self.seqs:
                self.seqs.add(row["seq"])
                self.rows.append({**row, "service": batch["service"]})
        till = 0
        while till + 1 in self.seqs:
            till += 1
        missing = [[n, n] for n in range(till + 1, max(self.seqs)) if n not in self.seqs]
        return {"ackTill": till, "missing": [], "missingRanges": missing, "rejected": []}

    async def query(self, request: web.Request) -> web.Response:
        """GET /query: everything, as lines."""
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        headers = {"X-Quorumlog-Complete": str(self.complete).lower()}
        if not self.complete:
            headers["X-Quorumlog-Missing"] = "4"
        return web.Response(text=text, headers=headers)

    async def stats(self, request: web.Request) -> web.Response:
        """GET /query/stats: by client."""
        names = [row["chaos_client"] for row in self.rows]
        rows = [{"chaos_client": name, "count": names.count(name)} for name in dict.fromkeys(names)]
        body = {"rows": rows, "complete": self.complete, "missing": [] if self.complete else [4]}
        return web.json_response(body)


@asynccontextmanager
async def traffic(store: Store, folder: Path) -> AsyncIterator[Traffic]:
    """Traffic towards three servers over the store."""
    servers = []
    for _ in range(3):
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/{path:.*}", store.write)
        app.router.add_get("/query", store.query)
        app.router.add_get("/query/stats", store.stats)
        servers.append(TestServer(app))
        await servers[-1].start_server()
    nodes = tuple(f"node{i}" for i in (1, 2, 3))
    head = Head("t", 1, 1_790_000_000_000_000, nodes, 3, 2, 2, SERVICES, ("numbered1",))
    recorder = Recorder(folder, head, SystemClock())
    urls = {
        node: str(one.make_url("")).rstrip("/") for node, one in zip(nodes, servers, strict=True)
    }
    corpus = Corpus(1, head.start_micros)
    made = Traffic(urls, corpus, recorder, SystemClock(), SERVICES, pause=0.001)
    try:
        yield made
    finally:
        recorder.close()
        for one in servers:
            await one.close()


async def until(done: Callable[[], bool]) -> None:
    """Returns when `done()`."""
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110 - the store under test has no event to wait for
            await asyncio.sleep(0.005)


async def run_agent(store: Store, folder: Path, batches: int) -> History:
    """An agent until the store has taken some batches."""
    async with traffic(store, folder) as made:
        task = asyncio.create_task(workload.agent(made, "agent1", 4, 0))
        await until(lambda: len(store.kept) >= batches)
        made.stopping.set()
        await task
    return load(folder)


def refusal(status: int, definite: bool) -> web.Response:
    """An error that says whether something may have been stored."""
    body = {"error": {"code": "X", "message": "no", "definite": definite}}
    return web.json_response(body, status=status)


async def test_an_agent_sends_the_same_bytes_to_another_node_on_doubt(tmp_path: Path) -> None:
    """Refused for sure, refused with doubt, then taken: three notes, one body, three addresses."""
    store = Store()
    store.script = [refusal(429, True), refusal(503, False)]

    history = await run_agent(store, tmp_path, 3)

    first = history.ops[:3]
    assert [op.outcome for op in first] == [FAIL, UNKNOWN, OK]
    assert len({op.rows for op in first}) == 1
    assert [op.node for op in first] == ["node1", "node2", "node3"]
    assert len({body for _, body in store.bodies[:3]}) == 1
    assert len({address for address, _ in store.bodies[:3]}) == 3


async def test_an_answer_that_never_comes_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has stored the batch and the client's patience ends: not a failure."""
    monkeypatch.setattr(workload, "ANSWER_SECONDS", 0.2)
    store = Store()
    slow = store.write

    async def write(request: web.Request) -> web.StreamResponse:
        answer = await slow(request)
        if len(store.bodies) == 1:
            await asyncio.sleep(1)
        return answer

    store.write = write  # type: ignore[method-assign]

    history = await run_agent(store, tmp_path, 2)

    assert [op.outcome for op in history.ops[:2]] == [UNKNOWN, OK]
    assert history.ops[0].rows == history.ops[1].rows


async def test_an_agent_that_is_never_answered_gives_up_only_when_told(tmp_path: Path) -> None:
    """And says how many rows it still had."""
    store = Store()
    store.script = [refusal(503, False) for _ in range(10_000)]
    async with traffic(store, tmp_path) as made:
        task = asyncio.create_task(workload.agent(made, "agent1", 4, 0))
        await until(lambda: len(store.bodies) > 3)
        made.stopping.set()
        await asyncio.sleep(0.1)
        assert not task.done()
        made.give_up.set()
        await task

    history = load(tmp_path)
    assert history.unfinished == {"agent1": len(list(history.ops[0].numbers()))}


async def test_the_numbered_writer_makes_gaps_overlaps_and_repeats(tmp_path: Path) -> None:
    """Its numbers are its seqs; answers are noted with ackTill, epoch and gaps."""
    store = Store()
    async with traffic(store, tmp_path) as made:
        task = asyncio.create_task(workload.numbered(made, "numbered1", 9, 0))
        await until(lambda: len(store.bodies) > 80)
        made.stopping.set()
        await task

    ops = load(tmp_path).ops
    assert {op.outcome for op in ops} == {OK}
    assert {op.resp["epoch"] for op in ops} == {3}
    ranges = [op.rows[0] for op in ops]
    assert len(ranges) > len(set(ranges)), "no repeat"
    assert any("missing" in op.resp for op in ops), "no gap"
    following = list(itertools.pairwise(ranges))
    assert any(b[0] < a[0] for a, b in following), "nothing out of order"
    assert any(a[0] < b[0] <= a[1] < b[1] for a, b in following), "no other cut"
    assert store.seqs == {number for op in ops for number in op.numbers()}


async def test_all_kinds_of_clients_leave_a_history_that_holds(tmp_path: Path) -> None:
    """Over a store that does right, no checker objects; rows are what the corpus says."""
    from chaos.checkers import HOLDS, check

    store = Store()
    async with traffic(store, tmp_path) as made:
        tasks = [
            asyncio.create_task(workload.agent(made, "agent1", 1, 0)),
            asyncio.create_task(workload.numbered(made, "numbered1", 2, 1)),
        ]
        await until(lambda: len(store.bodies) > 30)
        made.stopping.set()
        await asyncio.gather(*tasks)
        await workload.final_reads(made)

    history = load(tmp_path)
    statuses = {one.id: one.status for one in check(history)}
    assert [statuses[id] for id in ("I1", "I2", "I3", "I5")] == [HOLDS] * 4
    assert [op.node for op in history.ops if op.kind == FINAL] == ["node1", "node2", "node3"]


async def test_readers_note_what_they_saw(tmp_path: Path) -> None:
    """Reads with names and digests, counts by client, and what was missing."""
    store = Store()
    store.complete = False
    async with traffic(store, tmp_path) as made:
        store.rows = made.lines("agent1", 1, 7)
        task = asyncio.create_task(workload.reader(made, "reader1", 3, 0))
        await asyncio.sleep(0.3)
        made.stopping.set()
        await task

    ops = load(tmp_path).ops
    reads = [op for op in ops if op.kind == READ]
    counts = [op for op in ops if op.kind == COUNT]
    assert {op.covers for op in reads} <= {"agent1:0", "agent1"}
    assert [name for name, _ in reads[0].resp["rows"]] == [f"agent1:{n}" for n in range(1, 8)]
    assert counts[0].resp["counts"] == {"agent1": 7}
    assert all(op.resp["missing"] and not op.resp["complete"] for op in ops)


async def test_a_stream_that_breaks_off_loudly_is_no_read(tmp_path: Path) -> None:
    """A line `error` in the middle: nothing can be said of what was there."""
    store = Store()
    async with traffic(store, tmp_path) as made:
        store.rows = [*made.lines("agent1", 1, 3), {"error": {"code": "INCOMPLETE"}}]
        await workload.final_reads(made, tries=1)

    assert {op.outcome for op in load(tmp_path).ops} == {UNKNOWN}


@pytest.mark.parametrize(
    ("body", "definite"),
    [
        (b'{"error": {"code": "OVERLOADED", "definite": true}}', True),
        (b'{"error": {"code": "QUORUM_UNAVAILABLE", "definite": false}}', False),
        (b'{"error": "not_enough_replicas", "definite": true}', True),
        (b'{"error": "not_enough_replicas", "retryable": true}', False),
        (b'{"error": {"definite": "true"}}', False),
        (b"[true]", False),
        (b"<html>502</html>", False),
        (b"\xff", False),
        (b"", False),
    ],
)
def test_only_a_plain_word_makes_a_failure_certain(body: bytes, definite: bool) -> None:
    """Whatever else an error says, or a proxy in between, the outcome is unknown."""
    assert says_definite(body) is definite
