"""A producer whose service was spread over more shards takes a new epoch: nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from quorumlog import Producer
from quorumlog.buffer import Buffer, BufferLimits
from quorumlog.errors import LeaderHint
from quorumlog.leaders import Leaders
from tests.support.write_path import until
from tests.unit.client.fake_server import FakeNode, cut, rows_of, store_then_cut
from tests.unit.client.test_crash import _run_and_kill


def messages(node: FakeNode) -> list[str]:
    """Of all rows in the store, whatever their epoch."""
    return [row["message"] for row in node.store.all_rows("pay")]


async def send_for(producer: Producer, count: int) -> list[str]:
    """`count` rows, a few at a time, so that some come at each step of a move."""
    sent = [f"row {number}" for number in range(count)]
    for number, text in enumerate(sent):
        producer.send(message=text)
        if number % 5 == 0:
            await asyncio.sleep(0.001)
    return sent


@pytest.mark.parametrize("buffered", [True, False])
async def test_a_producer_moves_once_and_its_rows_are_there_once_in_order(
    tmp_path: Path, buffered: bool
) -> None:
    """Although the server says it again and again: each move costs a round trip."""
    async with FakeNode() as node:
        node.store.spreads = lambda _: True
        path = tmp_path / "pay.wal" if buffered else None
        async with Producer([node.url], "pay", path, linger_seconds=0.001) as producer:
            sent = await send_for(producer, 2000)
            await producer.flush()

            assert producer.epoch == 2
            assert producer.stats.epochs_issued == 1
        assert messages(node) == sent
        epochs = {name[2] for name in node.store.rows}
        assert epochs == {1, 2}


async def test_no_row_moves_whose_fate_is_not_known(tmp_path: Path) -> None:
    """An earlier life sent rows 21 to 30 and never heard; the first answer of the next one says "move"."""
    path = tmp_path / "pay.wal"
    async with FakeNode() as node:

        async def stores_the_third(at: FakeNode, request: Any, body: bytes) -> Any:
            third = any(json.loads(row)["seq"] == 21 for row in rows_of(body))
            return await (store_then_cut if third else cut)(at, request, body)

        node.gate = stores_the_third
        names = {"batch_rows": 10, "linger_seconds": 0.0}
        async with Producer(
            [node.url], "pay", path, max_in_flight=3, close_timeout_seconds=0.1, **names
        ) as producer:
            sent = [f"row {number}" for number in range(35)]
            for text in sent:
                producer.send(message=text)
            await until(lambda: bool(messages(node)))
        assert messages(node) == sent[20:30]

        node.gate = None
        node.store.spreads = lambda epoch: epoch == 1
        async with Producer([node.url], "pay", path, **names) as producer:
            producer.send(message="after")
            await producer.flush()
            assert (producer.epoch, producer.stats.epochs_issued) == (2, 1)
        assert messages(node) == [*sent, "after"]


async def test_rows_taken_while_the_buffer_begins_to_move_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They came after the sender said which rows to keep, and before the buffer heard of it."""
    real = Buffer.begin_move

    def late(buffer: Buffer, keep: Any) -> None:
        for number in range(3):
            buffer.append(b'{"message":"late %d"}' % number)
        real(buffer, keep)

    monkeypatch.setattr(Buffer, "begin_move", late)
    async with FakeNode() as node:
        node.store.spreads = lambda epoch: epoch == 1
        async with Producer([node.url], "pay", linger_seconds=0.0) as producer:
            producer.send(message="first")
            await producer.flush()
            await asyncio.sleep(0.05)
            await producer.flush()
            assert producer.epoch == 2
        assert messages(node) == ["first", "late 0", "late 1", "late 2"]


async def test_rows_taken_while_many_are_renumbered_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than make a group, without a file: they wait until the others have their new numbers."""
    monkeypatch.setattr("quorumlog.buffer.GROUP_ROWS_MAX", 4)
    found = Buffer(None, "pay", None, BufferLimits(), lambda: None)
    for number in range(3):
        found.append(b'{"message":"%d"}' % number)
    real = found._swap

    def late(*args: Any, **named: Any) -> None:
        for number in range(9):
            found.append(b'{"message":"late %d"}' % number)
        real(*args, **named)

    monkeypatch.setattr(found, "_swap", late)
    found.begin_move([(1, 1 << 62)])
    found.finish_move(2)
    rows = [json.loads(row) for row in found.rows(1, 100, 1 << 20)]
    assert [row["seq"] for row in rows] == list(range(1, 22))
    found.close()


async def test_a_source_that_goes_by_its_numbers_stays() -> None:
    """`spread=False`: the answer says so, and nothing happens."""
    async with FakeNode() as node:
        node.store.spreads = lambda _: True
        async with Producer([node.url], "pay", spread=False) as producer:
            await send_for(producer, 100)
            await producer.flush()
            assert (producer.epoch, producer.last_seq) == (1, 100)


async def test_kill_9_at_any_moment_of_a_move_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Each life is told to move; four are killed somewhere in it, a fifth finishes the work."""
    path = tmp_path / "pay.wal"
    async with FakeNode() as node:
        node.store.spreads = lambda _: True
        told = 0
        for lines in (2, 15, 40, 80):
            node.faults.extend([store_then_cut])
            told = await _run_and_kill(node.url, path, told, lines)
        node.faults.clear()
        async with Producer([node.url], "pay", path) as producer:
            producer.send(message="end", n=-1)
            await producer.flush()
            assert producer.stats.conflicts == 0
        rows = [
            (name[2], seq, json.loads(row))
            for name, held in node.store.rows.items()
            for seq, row in held.items()
        ]
    rows.sort(key=lambda one: one[:2])
    assert len({epoch for epoch, _, _ in rows}) > 1
    bodies = Counter((row["n"], row["timestamp"]) for _, _, row in rows)
    assert set(bodies.values()) == {1}
    numbers = [row["n"] for _, _, row in rows][:-1]
    jumps = [b for a, b in itertools.pairwise(numbers) if b != a + 1]
    assert len(jumps) <= 3, "within one life no row is missing"
    assert len(numbers) > 500


def test_a_hint_for_another_shard_is_followed() -> None:
    """Its shard epoch says nothing beside that of the shard before; an older ring's is not believed."""
    leaders = Leaders(["a:1", "b:1", "c:1"])
    leaders.on_hint("http://a:1", LeaderHint("b", "b:1", 3, shard_epoch=9, ring_epoch=2))
    assert leaders.on_hint("http://b:1", LeaderHint("c", "c:1", 4, shard_epoch=1, ring_epoch=2))
    assert leaders.target(0.0).url == "http://c:1"
    assert not leaders.on_hint("http://c:1", LeaderHint("b", "b:1", 3, shard_epoch=9, ring_epoch=1))
