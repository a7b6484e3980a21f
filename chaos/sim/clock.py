"""Virtual time: an event loop that never waits, clocks that read it, dice that fall as the seed says.

When nothing is ready the loop jumps to the next timer, so an hour of waiting takes no time, and the order
in which things happen is a function of the program alone. There are no threads and no sockets: work given
to an executor runs at once. A run that would wait for ever, or spin, raises instead.

Source: trio's MockClock (autojump); FoundationDB's simulation ("one seed gives one run").
"""

import asyncio
import contextvars
import hashlib
import heapq
import random  # noqa: TID251 - seeded, the source of every draw of a simulation
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")
#: Turns of the loop in one run; a run takes some 3,000 to 10,000. A spin ends here.
TURNS_MAX = 60_000
#: What a turn takes at least: timers due within the loop's resolution fire now, and who then looks at the
#: clock must not find that it stands still.
TURN_SECONDS = 1e-9
#: When runs begin: seconds of the wall clock, two and a half seconds before a full hour (of receipt windows).
WALL_MICROS = 1_790_002_797_500_000


class Stuck(RuntimeError):
    """Nothing can happen any more, or the same happens for ever."""


class _Handle(asyncio.Handle):
    """A callback, made in half the time: nothing is asked for the loop's debug mode."""

    __slots__ = ()

    def __init__(
        self, callback: Any, args: Any, loop: "VirtualLoop", context: Context | None
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop, self._callback, self._args = loop, callback, args
        self._cancelled = False
        self._source_traceback = self._repr = None


class _Timer(asyncio.TimerHandle):
    """A callback at some time, made likewise."""

    __slots__ = ()

    def __init__(
        self, when: float, callback: Any, args: Any, loop: "VirtualLoop", context: Context | None
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop, self._callback, self._args = loop, callback, args
        self._cancelled = False
        self._source_traceback = self._repr = None
        self._when, self._scheduled = when, True


class VirtualLoop(asyncio.BaseEventLoop):
    """An asyncio loop in virtual time, from 0 on.

    A run takes thousands of turns in which little happens, so what a turn costs is written anew here; what
    it does is what asyncio does, timers that are due at the same time included.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._turns = 0
        #: A heap of (when, timer): tuples compare faster than timers, to the same end.
        self._scheduled: list[tuple[float, _Timer]] = []
        self._ready: deque[asyncio.Handle] = deque()
        self._timer_cancelled_count = 0
        self._stopping = False

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def begin_again(self) -> None:
        """Counts turns from zero."""
        self._turns = 0

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """In the next turn, after what was called before."""
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """When the loop's time is `when`."""
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, (when, timer))
        return timer

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """`delay` seconds from now."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """One turn: jumps to the next timer if nothing is ready, then calls all that is ready.

        Raises:
            Stuck: there is no timer, or there were too many turns.
        """
        self._drop_cancelled()
        timers, ready = self._scheduled, self._ready
        seconds = TURN_SECONDS
        self._turns += 1
        if not (ready or self._stopping):
            if not timers:
                raise Stuck("no timer and nothing to do")
            seconds = max(timers[0][0] - self._now, TURN_SECONDS)
        if self._turns > TURNS_MAX:
            raise Stuck(f"more than {TURNS_MAX} turns, {self._now:.3f} s on the clock")
        self._now += seconds
        end = self._now + TURN_SECONDS
        while timers and timers[0][0] < end:
            timer = heapq.heappop(timers)[1]
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _drop_cancelled(self) -> None:
        """Cancelled timers at the head of the heap; all, if they are most of a hundred."""
        timers = self._scheduled
        if len(timers) > 100 and 2 * self._timer_cancelled_count > len(timers):
            for _, timer in timers:
                timer._scheduled = not timer._cancelled
            timers[:] = [one for one in timers if one[1]._scheduled]
            heapq.heapify(timers)
            self._timer_cancelled_count = 0
        while timers and timers[0][1]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(timers)[1]._scheduled = False

    def call_soon_threadsafe(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """The only thread is this one."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Runs `func` now."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever awaits the future
            future.set_exception(error)
        return future


class SimClock:
    """A node's clocks: the loop's time; the wall clock is `skew` seconds off."""

    def __init__(self, loop: asyncio.AbstractEventLoop, skew: float = 0.0) -> None:
        self._loop = loop
        self.skew = skew

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    def boottime(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    def wall_micros(self) -> int:
        """Microseconds since 1970."""
        return WALL_MICROS + int((self._loop.time() + self.skew) * 1_000_000)

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds` of virtual time."""
        await asyncio.sleep(seconds)


class Dice:
    """Seeded draws. `fork(name)` gives an actor dice of its own, so that actors don't disturb each other."""

    def __init__(self, *seed: object) -> None:
        self._seed = seed
        name = "/".join(map(str, seed)).encode()
        digest = hashlib.blake2b(name, digest_size=8).digest()
        self._random = random.Random(int.from_bytes(digest))  # noqa: S311 - not for secrets

    def fork(self, *name: object) -> "Dice":
        """Dice whose falls depend on the seed and `name` alone."""
        return Dice(*self._seed, *name)

    def chance(self, probability: float) -> bool:
        """True that often."""
        return self._random.random() < probability

    def uniform(self, low: float, high: float) -> float:
        """A number in low..high."""
        return self._random.uniform(low, high)

    def number(self, low: int, high: int) -> int:
        """A whole number in low..high, both included."""
        return self._random.randint(low, high)

    def bytes(self, count: int) -> bytes:
        """`count` bytes."""
        return self._random.randbytes(count)

    def pick(self, items: Sequence[T]) -> T:
        """One of them."""
        return self._random.choice(items)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All of them in some order."""
        return self._random.sample(items, len(items))
