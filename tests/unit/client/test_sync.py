"""The synchronous twins: same calls, no event loop in sight."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from quorumlog import (
    Client,
    FlushTimeout,
    Producer,
    ProducerClosed,
    QueryResult,
    SyncClient,
    SyncProducer,
)
from quorumlog.sync import LoopThread
from tests.unit.client.fake_query import FakeQueryNode, fail_with
from tests.unit.client.fake_server import FakeNode, answer_with

T = TypeVar("T")


class Background:
    """Runs fake servers on a loop of their own, as servers in another process would."""

    def __init__(self) -> None:
        self.thread = LoopThread("fake-servers")
        self._nodes: list[Any] = []

    def start(self, node: T) -> T:
        self._nodes.append(node)
        return self.thread.call(node.__aenter__())  # type: ignore[attr-defined]

    def stop(self) -> None:
        for node in self._nodes:
            self.thread.call(node.__aexit__())
        self.thread.stop()


@pytest.fixture
def background() -> Iterator[Background]:
    found = Background()
    yield found
    found.stop()


def _public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}


def test_every_call_has_its_twin() -> None:
    """What the asynchronous classes can do, the synchronous ones can."""
    assert _public(Client) <= _public(SyncClient)
    assert _public(Producer) - {"stats"} <= _public(SyncProducer)


def test_the_producer_twin_sends_and_flushes(background: Background, tmp_path: Path) -> None:
    """From plain code, and from several threads."""
    node = background.start(FakeNode())
    with SyncProducer([node.url], "pay", tmp_path / "b") as producer:
        threads = [
            threading.Thread(target=lambda: [producer.send(message="m") for _ in range(100)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        producer.flush()

        assert producer.ack_till == 400
        assert (producer.waiting, producer.epoch, producer.failure) == (0, 1, None)
        assert producer.stats.rows_acked == 400
        assert producer.name
    assert len(node.store.all_rows("pay")) == 400
    assert "quorumlog-producer" not in {thread.name for thread in threading.enumerate()}


def test_the_producer_twin_raises_what_the_producer_raises(background: Background) -> None:
    """Timeouts, and use outside the context."""
    node = background.start(FakeNode())
    producer = SyncProducer([node.url], "pay")
    for call in (producer.flush, producer.close):
        with pytest.raises(ProducerClosed):
            call()
    with producer:
        node.gate = answer_with(503, {})
        producer.send(message="x")
        with pytest.raises(FlushTimeout):
            producer.flush(0.1)
        node.gate = None
        producer.close()
        producer.close()
        with pytest.raises(ProducerClosed):
            producer.send(message="x")
    with pytest.raises(ProducerClosed):
        producer.start()
    assert len(node.store.all_rows("pay")) == 1


def test_a_producer_that_cannot_start_leaves_no_thread(tmp_path: Path) -> None:
    """The error is the producer's."""
    (tmp_path / "b").write_bytes(b"nonsense")
    with pytest.raises(Exception, match="not a buffer"):
        SyncProducer(["h:1"], "pay", tmp_path / "b").start()
    assert "quorumlog-producer" not in {thread.name for thread in threading.enumerate()}


def test_the_client_twin_asks_and_iterates(background: Background) -> None:
    """Queries, pages, rows, both streams, sums and lines."""
    rows = [{"n": number} for number in range(25)]
    node = background.start(FakeQueryNode(rows))
    with SyncClient([node.url]) as client:
        page = client.query(limit=10)
        assert isinstance(page, QueryResult)
        assert page.to_arrow().num_rows == 10
        assert [len(page) for page in client.pages(limit=10)] == [10, 10, 5]
        assert list(client.rows(limit=10)) == rows
        assert list(client.stream()) == rows
        assert sum(batch.num_rows for batch in client.stream("arrow")) == 25
        early = client.stream()
        assert next(early) == {"n": 0}
        early.close()
        for call, path in (
            (client.stats, "/query/stats"),
            (client.histogram, "/query/histogram"),
            (client.fields, "/query/fields"),
            (client.cluster, "/cluster"),
            (client.nodes, "/cluster/nodes"),
            (client.ring, "/cluster/ring"),
            (client.health, "/health"),
        ):
            assert call()["path"] == path
        assert client.values("level")["query"] == {"field": "level"}
        background.thread.call(_later(node))
        assert client.ingest_lines(b'{"message":"x"}').accepted == 1
    client.close()


async def _later(node: FakeQueryNode) -> None:
    node.faults.append(fail_with(200, {"accepted": 1}))


async def test_the_twins_work_inside_a_running_loop() -> None:
    """A notebook has a loop in the same thread; the twin has its own."""
    async with FakeQueryNode([{"n": 1}]) as node:

        def ask() -> int:
            with SyncClient([node.url]) as client:
                return len(client.query())

        assert await asyncio.to_thread(ask) == 1
