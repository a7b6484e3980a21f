"""`Producer` against fake servers on loopback: acks, doubt, leaders, crashes, lost identities."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from quorumlog import Fenced, FlushTimeout, Producer, Rejected, Unauthorized

from tests.unit.client.fake_server import (
    FakeNode,
    Store,
    answer_with,
    cut,
    hint_to,
    rows_of,
    store_then_cut,
)


async def test_flush_returns_when_every_row_is_acked(tmp_path: Path) -> None:
    """Rows arrive once, numbered from 1, with names as the wire spells them."""
    async with FakeNode() as node:
        async with Producer([node.url], "pay", tmp_path / "pay.wal") as producer:
            producer.send(level="error", message="card declined", trace_id="t1", amount=3)
            producer.send(level="info", message="paid", timestamp="2026-11-21T00:00:00Z")
            await producer.flush()

            assert producer.ack_till == 2
            assert producer.waiting == 0
            assert producer.epoch == 1

        first, second = node.store.all_rows("pay")
        assert (first["seq"], first["traceId"], first["amount"]) == (1, "t1", 3)
        assert first["timestamp"].endswith("Z")
        assert second["timestamp"] == "2026-11-21T00:00:00Z"
        assert "X-Quorumlog-Redirect" in node.headers[0]
