"""Who is given a producer's next epoch: one caller, though two nodes believe that they lead its shard."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from ingestor.sequenced import AGAIN_SECONDS
from records.consistency import QuorumPolicy
from records.errors import DeadlineExceeded, NotReady, QuorumUnavailable, StaleRingEpoch
from records.messages import EpochSealed
from tests.support.fake_replica import FakeReplica, FakeReplicas, FakeView, FakeViews, Fault
from tests.support.write_path import Path, numbered_batch, write_path

KEY = ("default", "shop", "p1")
SHARD = FakeView().shard_of(*KEY, 1)
PAUSED = FakeView(everything_led_by=("a", 1))
NEXT = FakeView("b", everything_led_by=("b", 2))
SEAL = "seal_producer_epoch"


async def new_epoch(path: Path, seconds: float = 5.0) -> int:
    """The next epoch, as this node gives it."""
    return await path.writer.new_producer_epoch(*KEY, path.deadline(seconds))


def sealed(replicas: FakeReplicas) -> list[int]:
    """The newest epoch on a, b and c."""
    return [replicas[node].producer_epochs.get((SHARD, KEY), 0) for node in "abc"]


@asynccontextmanager
async def two_leaders(replicas: FakeReplicas) -> AsyncIterator[tuple[Path, Path]]:
    """A leader, and its successor of which it has not heard. Both know the producer."""
    async with write_path(replicas, FakeViews(PAUSED)) as paused:
        await paused.write(numbered_batch([1]), ack="all")
        async with write_path(replicas, FakeViews(NEXT), seed=2) as successor:
            await successor.write(numbered_batch([2]), ack="all")
            yield paused, successor


async def test_a_paused_leader_and_its_successor_give_different_epochs() -> None:
    """The paused one has not heard of the epoch that its successor gave."""
    replicas = FakeReplicas("a", "b", "c")
    async with two_leaders(replicas) as (paused, successor):
        assert await new_epoch(successor) == 2
        assert await new_epoch(paused) == 3


async def test_no_epoch_is_given_twice_however_calls_overlap() -> None:
    """Five calls through each node at once, with owners that answer at different times."""
    replicas = FakeReplicas("a", "b", "c")
    async with two_leaders(replicas) as (paused, successor):
        replicas["a"].delay, replicas["b"].delay = 0.01, 0.02

        calls = [new_epoch(path, 20.0) for path in (paused, successor) for _ in range(5)]
        given = await asyncio.gather(*calls)

        assert len(set(given)) == 10


async def test_an_epoch_whose_answers_were_lost_is_skipped() -> None:
    """Two owners raised it, and nobody heard: when asked again they cannot say for whom it was."""
    async with write_path() as path:
        await path.write(numbered_batch([1]), ack="all")
        for node in "ab":
            path.replicas[node].faults.append(Fault(lose_reply=True, call=SEAL))

        assert await new_epoch(path) == 3


async def test_one_owner_alone_decides_nothing_though_w_is_one() -> None:
    """Two callers would each have one."""
    view = replace(PAUSED, quorum=QuorumPolicy(3, 1, 3))
    async with write_path(views=FakeViews(view)) as path:
        await path.write(numbered_batch([1]), ack="all")
        path.replicas["b"].down = path.replicas["c"].down = True

        with pytest.raises(QuorumUnavailable):
            await new_epoch(path, 0.5)


async def test_an_owner_that_knows_a_newer_ring_raises_nothing_for_an_older_one() -> None:
    """The shard may have other owners now, of whom the paused leader asks none."""
    async with write_path() as path:
        await path.write(numbered_batch([1]), ack="all")
        for node in "bc":
            path.replicas[node].ring_epoch = 2

        with pytest.raises((StaleRingEpoch, NotReady, DeadlineExceeded, QuorumUnavailable)):
            await new_epoch(path, 0.5)

        assert sealed(path.replicas)[1:] == [1, 1]


async def test_no_number_is_given_where_owners_do_not_say_who_raised_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Older nodes do not. It ends by the deadline, and does not burn the numbers of a generation."""
    real = FakeReplica.seal_producer_epoch

    async def silent(self: FakeReplica, *args: Any) -> EpochSealed:
        return EpochSealed((await real(self, *args)).newest, raised=False)

    monkeypatch.setattr(FakeReplica, "seal_producer_epoch", silent)
    async with write_path() as path:
        await path.write(numbered_batch([1]), ack="all")
        with pytest.raises(NotReady, match="raised elsewhere"):
            await new_epoch(path, 0.5)

        assert max(sealed(path.replicas)) <= 2 + 0.5 / AGAIN_SECONDS
