"""`together` leaves nothing behind."""

import asyncio

import pytest

from query.together import together


async def test_results_keep_their_order() -> None:
    """Whoever is done first."""

    async def after(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    assert await together([after(0.02), after(0.0), after(0.01)]) == [0.02, 0.0, 0.01]


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_failure_or_a_cancellation_ends_all_others(cancel: bool) -> None:
    """When `together` is left, none of its tasks is running."""
    ended: list[int] = []

    async def slow(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    async def bad() -> None:
        await asyncio.sleep(60 if cancel else 0)
        raise ValueError("bad")

    task = asyncio.create_task(together([slow(1), slow(2), bad()]))
    await asyncio.sleep(0.01)
    if cancel:
        task.cancel()
    with pytest.raises(asyncio.CancelledError if cancel else ValueError):
        await task

    assert sorted(ended) == [1, 2]
    assert len(asyncio.all_tasks()) == 1
