"""Retrying, bound to a deadline and to what an error says of its outcome; the home of tenacity.

Only idempotent work goes through here (everything in quorumlog is): an unknown outcome is repeated
under the same identity, a refusal that names another time or place is tried again, the rest rises.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.stop import stop_base
from tenacity.wait import wait_exponential_jitter

from runtime.deadline import Deadline

T = TypeVar("T")


class _StopAtDeadline(stop_base):
    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __call__(self, retry_state: RetryCallState) -> bool:
        return self._deadline.remaining() <= retry_state.upcoming_sleep


async def retrying(
    work: Callable[[], Awaitable[T]],
    deadline: Deadline,
    on: tuple[type[BaseException], ...],
    first_seconds: float = 0.05,
    max_seconds: float = 1.0,
) -> T:
    """The result of `work`, tried again on errors of the kinds `on` while the deadline allows.

    The last error rises as it is. Waits grow from `first_seconds`, doubled with jitter.
    """
    attempts = AsyncRetrying(
        retry=retry_if_exception_type(on),
        stop=_StopAtDeadline(deadline),
        wait=wait_exponential_jitter(
            multiplier=first_seconds, max=max_seconds, jitter=first_seconds
        ),
        sleep=deadline.clock.sleep,
        reraise=True,
    )
    return await attempts(work)
