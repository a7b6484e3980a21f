"""What a node brings to changes of the ring depends on whether its store is admitted."""

from pathlib import Path
from typing import Any

import pytest

from node.moving import Moving
from records.errors import NotReady
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from runtime.metrics import Metrics
from tests.unit.storage.samples import service_on


class Plain:
    """Settings of a node with an id and nothing else."""

    class node:
        id = "me"

    @staticmethod
    def table(_: str) -> dict[str, Any]:
        return {}


async def test_a_store_that_is_joining_hands_nothing_over_until_it_is_opened(
    tmp_path: Path,
) -> None:
    """Its rows may have been lost with the disk before."""
    nothing: Any = None
    settings: Any = Plain()
    clock = SystemClock()
    store = service_on(tmp_path)
    await store.start()
    moving = Moving(settings, nothing, store, nothing, nothing, nothing, None, clock, Metrics())
    asked = ({"shard": 0, "ring_epoch": 5}, memoryview(b""), Deadline.after(clock, 5.0))

    with pytest.raises(NotReady):
        await moving.operations()["hand_over"](*asked)
    moving.open_local(store)

    head, _ = await moving.operations()["hand_over"](*asked)
    assert head["shard"] == 0
    await store.stop()
