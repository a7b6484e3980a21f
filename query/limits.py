"""What keeps queries from taking the node down: how many run, how much they hold, how long a peer may take.

All are loud: a full queue or memory is Overloaded (429) with a time to come back; what could never be
held is TooLarge (413).
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from records.errors import Overloaded, TooLarge
from records.predicates import Filter, ScanPlan
from records.timestamps import MICROS_PER_HOUR
from runtime.deadline import Deadline

#: A page of fewer bytes is sent in one go, and holds no room: the kernel takes it at once from most clients.
SMALL_PAGE_BYTES = 2 << 20


class Gate:
    """At most `running` at once; others wait in line, at most `wait_seconds`."""

    def __init__(self, running: int, wait_seconds: float) -> None:
        self._free = asyncio.Semaphore(running)
        self._wait_seconds = wait_seconds
        self.waiting = 0
        self.running = 0

    @asynccontextmanager
    async def slot(self, deadline: Deadline) -> AsyncIterator[None]:
        """Holds one of the places.

        Raises:
            Overloaded: none came free in time.
        """
        self.waiting += 1
        try:
            async with asyncio.timeout(deadline.clamp(self._wait_seconds)):
                await self._free.acquire()
        except TimeoutError as error:
            message = f"{self.running} queries are running, this one waited in vain"
            raise Overloaded(message, retry_after_seconds=2) from error
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()


class MemoryBudget:
    """Bytes of tables that queries hold at the coordinator."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def holder(self) -> "MemoryHolder":
        """The account of one query."""
        return MemoryHolder(self)


class MemoryHolder:
    """What one query holds; given back at its end."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.held_bytes = 0

    def take(self, count: int) -> None:
        """Accounts for `count` bytes.

        Raises:
            Overloaded: the node's budget for queries is used up.
            TooLarge: this query alone needs more than all of it: later it would be the same.
        """
        if self.held_bytes + count > self._budget.limit_bytes:
            raise TooLarge(
                f"this query needs {max(1, self.held_bytes + count >> 20)} MiB, all queries have "
                f"{self._budget.limit_bytes >> 20}; narrow it, or ask for fewer fields or distinct values"
            )
        if self._budget.used_bytes + count > self._budget.limit_bytes:
            raise Overloaded(
                f"queries hold {self._budget.used_bytes >> 20} MiB, this one needs "
                f"{max(1, count >> 20)} MiB more of {self._budget.limit_bytes >> 20}; "
                "narrow it, or ask for fewer fields",
                retry_after_seconds=2,
            )
        self._budget.used_bytes += count
        self.held_bytes += count

    def release(self) -> None:
        """Gives everything back."""
        self._budget.used_bytes -= self.held_bytes
        self.held_bytes = 0


class StreamRoom:
    """Bytes of pages that are held while their clients read, however slowly."""

    #: What a stream is taken for until it has given out its first page.
    GUESS_BYTES = 16 << 20

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._given = asyncio.Event()

    async def enter(self, count: int, deadline: Deadline) -> None:
        """Waits until `count` more bytes fit (a first one always does), and holds them.

        Raises:
            Overloaded: no room came free in time.
        """
        try:
            async with asyncio.timeout(deadline.remaining()):
                while self.held_bytes and self.held_bytes + count > self.limit_bytes:
                    self._given.clear()
                    await self._given.wait()
        except TimeoutError as error:
            held = self.held_bytes >> 20
            message = f"streams whose clients read slowly hold {held} MiB, this one waited in vain"
            raise Overloaded(message, retry_after_seconds=5) from error
        self.held_bytes += count

    def change(self, count: int) -> None:
        """Holds `count` more bytes; less if it is negative."""
        self.held_bytes += count
        if count < 0:
            self._given.set()

    @contextmanager
    def share(self) -> Iterator["RoomShare"]:
        """What one answer holds; given back at the end of the block, however that comes."""
        share = RoomShare(self)
        try:
            yield share
        finally:
            self.change(-share.held_bytes)


class RoomShare:
    """What one answer holds of the room."""

    def __init__(self, room: StreamRoom) -> None:
        self._room = room
        self.held_bytes = 0

    async def enter(self, count: int, deadline: Deadline) -> None:
        """See StreamRoom.enter; a small page waits for nobody."""
        if count > SMALL_PAGE_BYTES:
            await self._room.enter(count, deadline)
            self.held_bytes += count


Kind = tuple[Any, ...]


def kind_of(plan: ScanPlan) -> Kind:
    """Plans of one kind take about the same time: what is evaluated, over what span of time."""
    leaves: set[str] = set()
    _leaves(plan.filter, leaves)
    hours = (plan.time.end - plan.time.start) // MICROS_PER_HOUR
    span = hours.bit_length() if plan.time.bounded else -1
    fold = plan.fold
    folded = fold and (tuple(sorted(one.function for one in fold.aggregates)), len(fold.by))
    size = plan.limit.bit_length() // 4
    return (folded, tuple(sorted(leaves)), span, bool(plan.services), size)


def _leaves(tree: Filter, found: set[str]) -> None:
    kind, *operands = tree
    if kind in ("and", "or", "not"):
        for one in operands:
            _leaves(one, found)
    else:
        found.add(kind)


class Latencies:
    """Recent times of scans by kind of plan, and when a scan counts as slow: the hedge delay.

    Hedging what is merely large would double the load just when it is highest, so a budget bounds it:
    hedges earn a tenth of the scans. Source: Dean, Barroso, "The Tail at Scale" (CACM 2013).
    """

    #: Scans that the estimate rests on; more is steadier, fewer follows a change of load sooner.
    WINDOW = 100
    #: Fewer than these say nothing; until then `COLD_SECONDS` is used.
    ENOUGH = 10
    COLD_SECONDS = 0.5
    #: Kinds of plans remembered; the one not seen for longest goes first.
    KINDS = 256
    #: Hedges that may be saved up, and what each scan adds.
    MOST_CREDIT = 5.0
    CREDIT_PER_SCAN = 0.1
    #: Seconds more after which a scan is raced even without credit: its node may be gone.
    PATIENCE_SECONDS = 1.0
    #: Seconds for which a node that failed or was slow is asked last.
    SUSPECT_SECONDS = 3.0

    def __init__(self, min_seconds: float) -> None:
        self._min_seconds = min_seconds
        self._recent: OrderedDict[Kind, deque[float]] = OrderedDict()
        self._credit = self.MOST_CREDIT
        self._suspects: dict[str, float] = {}

    def suspect(self, node: str, now: float) -> None:
        """A node failed or was slow: others are preferred for a while."""
        self._suspects[node] = now + self.SUSPECT_SECONDS

    def suspects(self, now: float) -> frozenset[str]:
        """The nodes to ask last."""
        self._suspects = {node: until for node, until in self._suspects.items() if until > now}
        return frozenset(self._suspects)

    def observe(self, kind: Kind, seconds: float) -> None:
        """Notes the time of a scan that succeeded."""
        recent = self._recent.setdefault(kind, deque(maxlen=self.WINDOW))
        recent.append(seconds)
        self._recent.move_to_end(kind)
        if len(self._recent) > self.KINDS:
            self._recent.popitem(last=False)
        self._credit = min(self.MOST_CREDIT, self._credit + self.CREDIT_PER_SCAN)

    def hedge_seconds(self, kind: Kind) -> float:
        """The 95th percentile of recent times, at least the minimum."""
        recent = self._recent.get(kind, ())
        if len(recent) < self.ENOUGH:
            return max(self._min_seconds, self.COLD_SECONDS)
        ordered = sorted(recent)
        return max(self._min_seconds, ordered[int(len(ordered) * 0.95)])

    def spend(self) -> bool:
        """Takes a hedge from the budget, if there is one."""
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True
