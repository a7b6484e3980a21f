"""Who is hinted: owners whose last try failed, of blocks that were acknowledged; nobody else."""

import asyncio
from collections.abc import Sequence

import pytest

from ingestor.block_put import BlockPut
from ingestor.encode import encode_pieces
from ingestor.outcomes import Submission
from ingestor.shards import unsequenced_pieces
from ingestor.write_settings import WriteSettings
from records.block import BlockHeader
from records.errors import ConnectionLost, DiskFull, QuorumUnavailable
from records.ids import block_id
from tests.support.fake_replica import FakeReplicas, FakeView, Fault
from tests.support.write_path import BASE, body_batch, numbered_batch, rows, until, write_path

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


async def test_full_disks_are_not_definite_while_a_retry_is_under_way() -> None:
    """c said full once, and is asked again, when a and b end the write: it stores the rows after all."""
    full = DiskFull("below the floor")
    async with write_path(settings=WriteSettings(disk_full_hold_seconds=0.2)) as path:
        path.replicas["a"].broken["put"] = path.replicas["b"].broken["put"] = full
        path.replicas["c"].faults += [Fault(error=full), Fault(delay=1.0)]

        with pytest.raises(DiskFull) as caught:
            await path.write(body_batch(rows(3)))
        await until(lambda: path.writer.tasks_running == 0)

        assert path.replicas["c"].held
        assert caught.value.to_dict()["definite"] is False


async def test_full_disks_are_not_definite_while_the_block_goes_on_for_another_request() -> None:
    """Two requests share a block. The first is out of time when all disks are full; for the second the
    block is sent again, with the rows of both, and is stored.
    """
    settings = WriteSettings(blocks_in_flight=1, disk_full_hold_seconds=30.0)
    async with write_path(settings=settings) as path:
        gate = path.replicas["b"].gate = path.replicas["c"].gate = asyncio.Event()
        before = asyncio.create_task(path.write(body_batch(rows(1))))
        await until(lambda: len(path.replicas["a"].blocks) == 1)
        for node in "abc":
            path.replicas[node].broken["put"] = DiskFull("below the floor")
        patient = asyncio.create_task(path.write(body_batch(rows(3, text="patient"))))
        hasty = path.write(body_batch(rows(3, text="hasty")), seconds=1.0)
        asyncio.get_running_loop().call_later(0.1, gate.set)

        with pytest.raises(DiskFull) as caught:
            await hasty
        for node in "abc":
            path.replicas[node].broken.clear()
        await asyncio.gather(before, patient)

        assert any("hasty" in row["message"] for row in path.replicas.visible())
        assert caught.value.to_dict()["definite"] is False


async def test_full_disks_are_definite_once_no_try_follows() -> None:
    """All three refused, the write is given up: nothing of it is stored when they have room again."""
    settings = WriteSettings(disk_full_hold_seconds=0.2)
    async with write_path(settings=settings) as path:
        for node in "abc":
            path.replicas[node].broken["put"] = DiskFull("below the floor")
        with pytest.raises(DiskFull) as caught:
            await path.write(body_batch(rows(3)))
        for node in "abc":
            path.replicas[node].broken.clear()
        await until(lambda: path.writer.tasks_running == 0)

        assert not any(path.replicas[node].held for node in "abc")
        assert caught.value.to_dict()["definite"] is True


async def test_giving_up_for_full_disks_ends_the_tries_at_once() -> None:
    """Before the futures' callbacks: a try that rests may wake in between, and store what was refused."""
    settings = WriteSettings(disk_full_hold_seconds=1e-9, filters="off")
    async with write_path(settings=settings) as path:
        parts = path.writer._pipeline._parts
        piece = unsequenced_pieces(body_batch(rows(3)), FakeView(), BASE, 3_600_000_000, 1 << 20)[0]
        done = asyncio.get_running_loop().create_future()
        one = Submission(piece, 2, 2, path.deadline(), set(), done)
        put = BlockPut(encode_pieces([piece], block_id(1, bytes(10)), "off"), [one], parts)
        for owner in "ab":
            assert not put._call.settled
            put._failure(owner, DiskFull("below the floor"))

        assert put._call.settled
        assert isinstance(done.exception(), DiskFull)
