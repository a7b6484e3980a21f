"""`together`: gather that leaves nothing running when one fails or the caller is cancelled."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order; the first exception rises after all others have been cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await end(tasks)


async def end(tasks: Iterable["asyncio.Future[Any]"]) -> None:
    """Cancels what still runs and waits until it has ended; their exceptions are theirs alone."""
    listed = list(tasks)
    for task in listed:
        task.cancel()
    await asyncio.gather(*listed, return_exceptions=True)
