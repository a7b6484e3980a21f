"""Who is hinted: owners whose last try failed, of blocks that were acknowledged; nobody else."""

import asyncio
from collections.abc import Sequence

import pytest

from ingestor.write_settings import WriteSettings
from records.block import BlockHeader
from records.errors import ConnectionLost, QuorumUnavailable
from tests.support.fake_replica import FakeReplicas, Fault
from tests.support.write_path import body_batch, numbered_batch, rows, until, write_path

QUICK = WriteSettings(put_timeout_seconds=0.2)


class Missed:
    """What the write path told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[str], int]] = []
        self.headers: list[BlockHeader] = []

    def __call__(self, owner: str, header: BlockHeader, holders: Sequence[str]) -> None:
        self.headers.append(header)
        self.told.append((owner, sorted(holders), header.rows))


async def test_an_owner_that_is_down_is_hinted_once_with_who_holds_the_block() -> None:
    """One of three refuses connections; the two that stored are named as holders."""
    missed = Missed()
    async with write_path(missed=missed) as path:
        path.replicas["b"].down = True
        await path.write(body_batch(rows(3)))
        await until(lambda: path.writer.tasks_running == 0)

    assert missed.told == [("b", ["a", "c"], 3)]


async def test_an_owner_that_is_slow_is_waited_for_and_not_hinted() -> None:
    """Its answer comes after the ack: nothing was missed."""
    missed = Missed()
    async with write_path(missed=missed) as path:
        path.replicas["c"].gate = asyncio.Event()
        await path.write(body_batch(rows(3)))
        assert missed.told == []
        path.replicas["c"].gate.set()
        await until(lambda: path.writer.tasks_running == 0)

    assert missed.told == []
    assert path.replicas["c"].held


async def test_a_frozen_owner_is_hinted_when_its_try_has_timed_out() -> None:
    """Not before: until then it is merely slow."""
    missed = Missed()
    async with write_path(settings=QUICK, missed=missed) as path:
        path.replicas["c"].frozen = True
        await path.write(body_batch(rows(3)))
        assert missed.told == []
        await until(lambda: bool(missed.told))
        await until(lambda: path.writer.tasks_running == 0)

    assert missed.told == [("c", ["a", "b"], 3)]


async def test_an_owner_that_failed_and_then_stored_is_not_hinted() -> None:
    """Its reply was lost, the write was held for another's sake, and the second try went through."""
    missed = Missed()
    async with write_path(missed=missed) as path:
        path.replicas["a"].faults.append(Fault(error=ConnectionLost("lost")))
        path.replicas["b"].down = True
        await path.write(body_batch(rows(3)))
        await until(lambda: path.writer.tasks_running == 0)

    assert path.replicas["a"].held
    assert missed.told == [("b", ["a", "c"], 3)]


async def test_a_write_without_an_ack_leaves_no_hint() -> None:
    """Two of three are down: the sender is told that the outcome is unknown, and sends again."""
    missed = Missed()
    async with write_path(settings=QUICK, missed=missed) as path:
        path.replicas["a"].down = path.replicas["b"].down = True
        with pytest.raises(QuorumUnavailable):
            await path.write(body_batch(rows(3)), seconds=0.3)
        await until(lambda: path.writer.tasks_running == 0)

    assert missed.told == []


async def test_rows_that_owners_refused_are_not_hinted() -> None:
    """A repair asks neither fence nor conflict: a hint of refused rows would store them after all.

    What is hinted is the block that keeps them as rows in error, without a number: that was acknowledged.
    """
    missed = Missed()
    replicas = FakeReplicas("a", "b", "c")
    async with write_path(replicas, missed=missed) as path:
        await path.write(numbered_batch([1, 2, 3]))
        await until(lambda: path.writer.tasks_running == 0)
        path.replicas["c"].down = True
        result = await path.write(numbered_batch([2, 3], text="other"))
        await until(lambda: path.writer.tasks_running == 0)

    assert result.conflicts
    assert missed.told == [("c", ["a", "b"], 2)]
    assert not any(entry.sequenced for entry in missed.headers[0].entries)


async def test_rows_that_one_owner_refused_and_another_stored_are_not_hinted() -> None:
    """The refusal of one decides, though another stored them: the third must not get them later."""
    missed = Missed()
    async with write_path(missed=missed) as path:
        path.replicas["b"].down = True
        await path.write(numbered_batch([1, 2, 3]))
        await until(lambda: path.writer.tasks_running == 0)
        path.replicas["b"].down, path.replicas["c"].down = False, True
        result = await path.write(numbered_batch([1, 2, 3], text="other"))
        await until(lambda: path.writer.tasks_running == 0)

    assert result.conflicts
    late = [h for (owner, _, _), h in zip(missed.told, missed.headers, strict=True) if owner == "c"]
    assert late
    assert not any(entry.sequenced for header in late for entry in header.entries)
