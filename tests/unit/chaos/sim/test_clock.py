"""Virtual time: waiting costs nothing, a run that cannot end is told apart from one that waits."""

import asyncio
from typing import Any

import pytest

from chaos.sim.clock import TURN_SECONDS, Dice, SimClock, Stuck, VirtualLoop


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


class PlainLoop(asyncio.BaseEventLoop):
    """asyncio's own turns, with a selector that jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._clock_resolution = TURN_SECONDS
        self._selector = self

    def time(self) -> float:
        """Virtual seconds."""
        return self.now

    def select(self, timeout: float | None) -> list[Any]:
        """Jumps."""
        assert timeout is not None
        self.now += max(timeout, TURN_SECONDS)
        return []

    def _process_events(self, event_list: object) -> None:
        """There are none."""


def calls_of(loop: asyncio.AbstractEventLoop, seed: int) -> list[tuple[int, float]]:
    """What a loop called, and when: 600 timers, many at the same times, half of them cancelled meanwhile."""
    dice, called = Dice("timers", seed), list[tuple[int, float]]()
    timers = list[asyncio.Handle]()

    def call(number: int) -> None:
        called.append((number, loop.time()))
        for _ in range(dice.number(0, 3)):
            if len(timers) < 600:
                add()
        for _ in range(dice.number(0, 2)):
            dice.pick(timers).cancel()

    def add() -> None:
        number, wait = len(timers), dice.number(0, 9)
        timer = loop.call_later(wait / 8, call, number) if wait else loop.call_soon(call, number)
        timers.append(timer)

    for _ in range(300):
        add()
    loop.call_later(100, loop.stop)
    loop.run_forever()
    loop.close()
    return called


@pytest.mark.parametrize("seed", range(5))
def test_what_is_called_and_when_is_as_asyncio_would_have_it(seed: int) -> None:
    """The order of timers that are due together too, also after the cancelled ones were swept out."""
    called = calls_of(VirtualLoop(), seed)

    assert len(called) > 200
    assert called == calls_of(PlainLoop(), seed)
