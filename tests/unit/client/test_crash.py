"""`kill -9` of a producer in the middle of its work, over and over."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from pathlib import Path

from quorumlog import Producer
from tests.unit.client.fake_server import FakeNode, store_then_cut

CHILD = Path(__file__).with_name("crash_child.py")


async def _run_and_kill(url: str, path: Path, first: int, lines: int) -> int:
    """Starts a child, lets it tell `lines` numbers, kills it; returns the last number told."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), url, str(path), str(first), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    told = first
    try:
        for _ in range(lines):
            told = int(await child.stdout.readline())
        return told
    finally:
        child.kill()
        await child.wait()


async def test_kill_9_loses_no_row_that_was_written_and_doubles_none(tmp_path: Path) -> None:
    """Three children are killed in mid-send, a fourth producer finishes their work.

    Answers get lost too, so rows are resent under doubt. Every seq ever written to the file reaches
    the server, each time with the same bytes, and no seq was given to two rows (the server would
    have answered with a conflict).
    """
    path = tmp_path / "pay.wal"
    async with FakeNode() as node:
        told = 0
        for lines in (30, 15, 45):
            node.faults.extend([store_then_cut] * 2)
            told = await _run_and_kill(node.url, path, told, lines)
        node.faults.clear()

        async with Producer([node.url], "pay", path, keep_acked_bytes=0) as producer:
            last = producer.send(message="end", n=-1)
            await producer.flush()
            assert producer.stats.conflicts == 0
            assert producer.epoch == 1

        bytes_of: dict[int, set[bytes]] = {}
        for name, seq, row in node.store.received:
            assert name[1:] == (producer.name, 1)
            bytes_of.setdefault(seq, set()).add(row)
    assert sorted(bytes_of) == list(range(1, last + 1))
    assert all(len(rows) == 1 for rows in bytes_of.values())
    numbers = [json.loads(next(iter(bytes_of[seq])))["n"] for seq in range(1, last)]
    runs = sum(b != a + 1 for a, b in itertools.pairwise(numbers))
    assert runs <= 2, "within one life of the producer no row is missing"
    assert len(numbers) > 1000
    assert path.stat().st_size < 400
