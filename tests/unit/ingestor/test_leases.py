"""Which shards this node leads: sealed before use, sealed anew under a new ring, given up when lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from cluster.quorum_call import Caller, Pace
from ingestor.leases import ShardLeases
from ingestor.write_metrics import WriteMetrics
from records.consistency import QuorumPolicy
from records.errors import NotLeader, NotReady
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from runtime.entropy import SeededEntropy
from runtime.metrics import Metrics
from runtime.tasks import Supervisor
from tests.support.fake_replica import FakeReplicas, FakeView, FakeViews
from tests.support.write_path import until

ME, OTHER = ("a", 3), ("b", 4)
VIEW = FakeView("a", leaders=((5, ME), (6, OTHER)), everything_led_by=None)


def soon(seconds: float = 2.0) -> Deadline:
    """From now."""
    return Deadline.after(SystemClock(), seconds)


@asynccontextmanager
async def leasing(
    view: FakeView = VIEW,
) -> AsyncIterator[tuple[ShardLeases, FakeReplicas, FakeViews, Metrics]]:
    """Started leases of node a, which leads shard 5 by epoch 3; b leads 6."""
    replicas, views, metrics = FakeReplicas("a", "b", "c"), FakeViews(view), Metrics()
    async with Supervisor("t") as tasks:
        caller = Caller(tasks, SeededEntropy(1), Pace(0.5, 0.005, 0.02))
        leases = ShardLeases(views, replicas, caller, SystemClock(), WriteMetrics(metrics), tasks)
        leases.start()
        yield leases, replicas, views, metrics


async def test_a_shard_is_sealed_before_anybody_asks() -> None:
    """At start, and with N-W+1 owners at least; the shards of others are left alone."""
    async with leasing() as (leases, replicas, _, metrics):
        await until(lambda: leases.sealed_shards() == [5])

        sealed = [node for node in "abc" if replicas[node].shard_epochs == {5: 3}]
        assert len(sealed) >= 2
        assert metrics.snapshot()["quorumlog_shards_led"] == 1
        assert (await leases.hold(5, soon())).reign == (5, 3, 1)


async def test_a_shard_of_another_is_refused_at_once() -> None:
    """With the hint; no waiting."""
    async with leasing() as (leases, _, _, _):
        with pytest.raises(NotLeader) as caught:
            await leases.hold(6, soon(60))

        assert caught.value.details["leader"]["shard_epoch"] == 4


async def test_a_shard_that_moves_away_is_given_up() -> None:
    """The view names another: held no longer, also for a waiter."""
    async with leasing() as (leases, replicas, views, _):
        for node in "abc":
            replicas[node].frozen = True
        waiting = asyncio.create_task(leases.hold(5, soon(20)))
        await asyncio.sleep(0.02)
        views.put(replace(VIEW, index=2, leaders=((5, OTHER),)))

        with pytest.raises(NotLeader):
            await waiting
        assert leases.sealed_shards() == []


async def test_a_newer_seal_ends_the_takeover() -> None:
    """An owner knows epoch 9: this node waits for the view to say so, and does not accept."""
    async with leasing(replace(VIEW, leaders=())) as (leases, replicas, views, metrics):
        replicas["c"].shard_epochs[5] = 9
        for node in "ab":
            replicas[node].gate = asyncio.Event()
        views.put(replace(VIEW, index=2))

        with pytest.raises(NotReady):
            await leases.hold(5, soon(0.3))
        superseded = 'quorumlog_takeovers_total{outcome="superseded"}'
        assert metrics.snapshot()[superseded] == 1
        views.put(replace(VIEW, index=3, leaders=((5, ("a", 10)),)))
        for node in "ab":
            gate = replicas[node].gate
            assert gate is not None
            gate.set()
        assert (await leases.hold(5, soon())).epoch == 10


async def test_a_new_ring_is_sealed_anew_by_the_same_epoch() -> None:
    """Owners that are new to the shard know no fence yet."""
    async with leasing() as (leases, replicas, views, _):
        await leases.hold(5, soon())
        replicas.by_node["d"] = type(replicas["a"])("d")
        views.put(replace(VIEW, index=2, ring_epoch=2, nodes=("b", "c", "d")))

        led = await leases.hold(5, soon())

        assert (led.reign, led.owners) == ((5, 3, 2), ("b", "c", "d"))
        await until(lambda: replicas["d"].shard_epochs == {5: 3})


async def test_a_refused_reign_is_over_until_the_view_moves() -> None:
    """An owner said STALE: whatever this node's view says, it accepts nothing more under it."""
    async with leasing() as (leases, _, views, _):
        led = await leases.hold(5, soon())
        leases.refused(led)
        with pytest.raises(NotReady):
            await leases.hold(5, soon(0.1))

        views.put(replace(VIEW, index=2, leaders=((5, ("a", 4)),)))

        assert (await leases.hold(5, soon())).epoch == 4


async def test_sealing_goes_on_until_owners_are_back() -> None:
    """Two of three away: not sealed; one back: sealed without anyone asking again."""
    async with leasing(replace(VIEW, leaders=())) as (leases, replicas, views, _):
        replicas["a"].down = replicas["b"].down = True
        views.put(replace(VIEW, index=2))
        await asyncio.sleep(0.1)
        assert leases.sealed_shards() == []

        replicas["a"].down = False

        await until(lambda: leases.sealed_shards() == [5])


async def test_another_w_is_in_force_at_once_though_it_raises_no_epoch() -> None:
    """Neither the ring nor the shard's leader changes with it; rows must not be acknowledged by the old W."""
    async with leasing() as (leases, _, views, _):
        before = await leases.hold(5, soon())
        quorum = QuorumPolicy(3, 3, 2)

        views.put(replace(VIEW, index=2, quorum=quorum, w_floor=2))
        after = await leases.hold(5, soon())

        assert [one.needed for one in before.writers] == [2]
        assert [one.needed for one in after.writers] == [3]
        assert after.reign == before.reign


async def test_after_w_was_raised_so_many_are_sealed_as_meet_what_was_acked_by_the_one_before() -> (
    None
):
    """W=3 now, rows may be on two: one owner need not have them, nor the fence that stopped their leader."""
    view = replace(VIEW, quorum=QuorumPolicy(3, 3, 2), w_floor=2)
    async with leasing(replace(view, leaders=())) as (leases, replicas, views, _):
        replicas["b"].down = replicas["c"].down = True
        views.put(replace(view, index=2))

        with pytest.raises(NotReady):
            await leases.hold(5, soon(0.2))

        replicas["b"].down = False
        assert (await leases.hold(5, soon())).overlap[0].needed == 2
