"""Gate, memory budget, hedge delay."""

import asyncio

import pytest

from query.limits import Gate, Latencies, MemoryBudget, kind_of
from records.errors import Overloaded, TooLarge
from tests.unit.query.helpers import plan, soon


async def test_the_gate_lets_so_many_in_and_the_next_after_one_leaves() -> None:
    """Two may run; the third waits until one is done."""
    gate = Gate(2, 1.0)
    release = asyncio.Event()
    inside = 0

    async def work() -> None:
        nonlocal inside
        async with gate.slot(soon()):
            inside += 1
            await release.wait()

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    await asyncio.sleep(0.01)

    assert (inside, gate.running, gate.waiting) == (2, 2, 1)
    release.set()
    await asyncio.gather(*tasks)
    assert (inside, gate.running, gate.waiting) == (3, 0, 0)


async def test_the_gate_refuses_after_its_time_and_loses_no_place() -> None:
    """A waiter that gives up, or is cancelled, leaves the number of places as it was."""
    gate = Gate(1, 0.02)
    async with gate.slot(soon()):
        with pytest.raises(Overloaded) as caught:
            async with gate.slot(soon()):
                raise AssertionError("there is no place")
        waiter = asyncio.create_task(gate.slot(soon()).__aenter__())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait({waiter})

    assert caught.value.retry_after_seconds
    async with gate.slot(soon()):
        assert gate.running == 1


def test_memory_is_shared_and_given_back() -> None:
    """Two queries share 100 bytes; what one gives back the other may take."""
    budget = MemoryBudget(100)
    one, two = budget.holder(), budget.holder()
    one.take(70)
    with pytest.raises(Overloaded):
        two.take(40)

    one.release()
    two.take(40)

    assert budget.used_bytes == 40


def test_what_no_budget_could_hold_is_too_large() -> None:
    """Coming back later does not help: 413, whatever others hold, in one take or in two."""
    budget = MemoryBudget(100)
    one, two = budget.holder(), budget.holder()
    one.take(60)
    with pytest.raises(TooLarge):
        two.take(101)
    with pytest.raises(TooLarge):
        one.take(41)

    assert budget.used_bytes == 60


def test_the_hedge_delay_is_the_95th_percentile_of_its_kind() -> None:
    """Unknown kinds wait long; known ones as long as 95 of 100 took, but never below the minimum."""
    latencies = Latencies(0.05)
    quick, slow = ("quick",), ("slow",)
    for number in range(100):
        latencies.observe(quick, 0.001)
        latencies.observe(slow, (number + 1) / 100)

    assert latencies.hedge_seconds(("new",)) == Latencies.COLD_SECONDS
    assert latencies.hedge_seconds(quick) == 0.05
    assert latencies.hedge_seconds(slow) == 0.96


def test_hedges_are_bounded_by_what_scans_earn() -> None:
    """Five saved up; then one for every ten scans."""
    latencies = Latencies(0.05)

    assert [latencies.spend() for _ in range(6)] == [True] * 5 + [False]
    for _ in range(11):
        latencies.observe((), 0.01)
    assert [latencies.spend() for _ in range(2)] == [True, False]


def test_suspects_are_forgotten() -> None:
    """A node that failed is avoided for three seconds."""
    latencies = Latencies(0.05)
    latencies.suspect("n1", 10.0)

    assert latencies.suspects(12.9) == {"n1"}
    assert latencies.suspects(13.1) == frozenset()


def test_kinds_tell_heavy_plans_from_light_ones() -> None:
    """A regex is not a word, an hour not a year, ten rows not ten thousand."""
    kinds = [
        kind_of(plan(*pairs).scan)
        for pairs in (
            [("search", "a")],
            [("regex", "a")],
            [("search", "a"), ("from", "-1h"), ("to", "now")],
            [("search", "a"), ("from", "-365d"), ("to", "now")],
            [("search", "a"), ("limit", "10000")],
        )
    ]

    assert len(set(kinds)) == 5
    assert kind_of(plan(search="b").scan) == kinds[0]
