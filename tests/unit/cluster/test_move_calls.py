"""Calls that only moving shards needs: to the store here once it is admitted, else over the wire."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.move_calls import MoveCalls
from records.errors import NotFound, NotReady
from records.handover import Handover
from records.messages import PutOptions
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from tests.unit.storage.samples import block_of, entry_id, plain, service_on


class Wire:
    """Peers that serve nothing; who was asked what."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def call(self, node: str, operation: str, *_: Any) -> Any:
        self.asked.append((node, operation))
        raise NotFound(f"this node does not serve {operation!r}")


def soon() -> Deadline:
    return Deadline.after(SystemClock(), 5.0)


async def test_a_store_that_is_not_admitted_answers_nobody_not_even_its_own_process() -> None:
    """An owner that lost its disk may lead the Raft group: its empty store must not count as a copy."""
    wire: Any = Wire()
    calls = MoveCalls("me", None, wire)

    for asking in (
        calls.hand_over("me", 0, 5, soon()),
        calls.entry_ids("me", 0, soon()),
        calls.raise_ring("me", 5, soon()),
        calls.take_over("me", Handover(0), 5, soon()),
    ):
        with pytest.raises(NotFound):
            await asking
    assert [node for node, _ in wire.asked] == ["me"] * 4
    for operation in calls.operations().values():
        with pytest.raises(NotReady):
            await operation(
                {"shard": 0, "ring_epoch": 5, **Handover(0).to_head()}, memoryview(b""), soon()
            )


async def test_an_admitted_store_is_asked_directly(tmp_path: Path) -> None:
    wire: Any = Wire()
    store = service_on(tmp_path)
    await store.start()
    entry = plain(1, 3)
    await store.put(block_of(1, entry), PutOptions(3))
    calls = MoveCalls("me", None, wire)

    calls.open_local(store)

    handed = await calls.hand_over("me", 0, 5, soon())
    await calls.take_over("me", handed, 5, soon())
    assert np.array_equal(
        await calls.entry_ids("me", 0, soon()), np.array([entry_id(entry)], "S16")
    )
    assert wire.asked == []
    await store.stop()
