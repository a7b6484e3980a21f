"""Virtual time: waiting costs nothing, a run that cannot end is told apart from one that waits."""

import asyncio

import pytest

from chaos.sim.clock import Dice, SimClock, Stuck, VirtualLoop


def test_an_hour_of_sleep_takes_no_time_and_timers_keep_their_order() -> None:
    """Three sleepers wake in the order of their times, each at its own."""
    loop, woken = VirtualLoop(), []

    async def sleep(seconds: float) -> None:
        await SimClock(loop).sleep(seconds)
        woken.append((seconds, loop.time()))

    async def all_of_them() -> None:
        await asyncio.gather(sleep(3600), sleep(1), sleep(60))

    loop.run_until_complete(all_of_them())
    loop.close()

    assert [seconds for seconds, _ in woken] == [1, 60, 3600]
    assert all(abs(seconds - at) < 1e-6 for seconds, at in woken)


def test_waiting_for_what_can_never_come_is_an_error() -> None:
    """No timer, nothing ready: a real loop would hang."""
    loop = VirtualLoop()

    with pytest.raises(Stuck, match="no timer"):
        loop.run_until_complete(asyncio.Event().wait())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_dice_fall_by_seed_and_name_alone() -> None:
    """What one actor draws does not depend on what others drew before."""
    one, other = Dice("run", 7), Dice("run", 7)
    one.uniform(0, 1)

    assert one.fork("a").bytes(8) == other.fork("a").bytes(8)
    assert other.fork("a").bytes(8) != other.fork("b").bytes(8)
