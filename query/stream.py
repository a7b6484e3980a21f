"""RowStream: all rows of a plan, page by page, over one snapshot, in bounded memory.

The shards are dealt into groups, by their data owner. Each group is read on by its own key, so every row
crosses the wire once; a page is given out up to the *horizon*: the nearest last key among groups that have
more to tell. While the consumer works, the emptied group's next page is on its way: a group holds one page
and has one coming. The snapshot is the largest `received_at` that R owners of each shard know of at the
start; rows received later stay out.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import pyarrow as pa

from query.answer import QueryAnswer
from query.limits import MemoryHolder, StreamRoom
from query.merge import farther, key_at, merge_rows, rows_up_to
from query.plan import QueryPlan
from query.reading import unheard
from query.scatter import Scatter, assign
from query.settings import QuerySettings
from query.together import end
from records.errors import QuorumUnavailable
from records.predicates import RowKey, ScanPlan
from runtime.deadline import Deadline

if TYPE_CHECKING:
    from cluster.view import ClusterView

P = ParamSpec("P")
T = TypeVar("T")
#: Rows of a group's page at least, however many groups there are.
GROUP_ROWS_MIN = 1_024
#: Where rows turn out so wide that a page is cut, the next ones ask for as many as it had; below so many
#: bytes a page, for more again.
NARROW_BYTES = 4 << 20
ANY_ROWS = 1 << 32


class Reads(Protocol):
    """What a stream needs of the coordinator; see ReadCoordinator."""

    settings: QuerySettings

    def deadline(self, plan: QueryPlan) -> Deadline: ...

    def view(self) -> "ClusterView": ...

    def shards(self, plan: QueryPlan, view: "ClusterView") -> tuple[int, ...]: ...

    def slot(self, deadline: Deadline) -> AbstractAsyncContextManager[None]: ...

    def holder(self) -> MemoryHolder: ...

    @property
    def room(self) -> StreamRoom: ...

    def scatter(
        self, plan: QueryPlan, scan: ScanPlan, deadline: Deadline
    ) -> tuple[Scatter, dict]: ...

    async def catch_up(self, ring_epoch: int, deadline: Deadline) -> None: ...

    async def page(
        self, plan: QueryPlan, limit: int, deadline: Deadline, holder: MemoryHolder
    ) -> QueryAnswer: ...

    async def in_worker(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


@dataclass(slots=True, eq=False)
class _Group:
    """Some shards: what is buffered of them, where to read on, what is on its way."""

    plan: QueryPlan
    rows: pa.Table | None = None
    after: RowKey | None = None
    more: bool = True
    coming: asyncio.Task[QueryAnswer] | None = None
    #: Rows of a page that are not too wide, as far as is known.
    fitting: int = ANY_ROWS
    #: Bytes it holds of the room; those of them that are not in `rows` yet.
    held: int = 0
    arrived: int = 0


class RowStream:
    """An async iterator of tables in order. Use `aclosing`, or close it: it has reads on the way.

    `complete` and `missing` tell of what was given out so far; if they are to be known before the first
    row is sent, take the first table first.
    """

    def __init__(self, coordinator: Reads, plan: QueryPlan, page_rows: int = 0) -> None:
        """`page_rows`: rows of one page, all groups together; 0: as the settings say."""
        self._coordinator = coordinator
        self._rows_of_page = page_rows or coordinator.settings.page_rows
        self._plan = plan
        self._groups: list[_Group] = []
        self._left = plan.scan.limit or None
        self._pages = self._run()
        self._guessed = 0
        self.missing: dict[str, dict[str, Any]] = {}
        self.stats: dict[str, Any] = {}

    @property
    def complete(self) -> bool:
        """Whether all that was read so far is complete."""
        return not self.missing

    def __aiter__(self) -> "RowStream":
        return self

    async def __anext__(self) -> pa.Table:
        return await anext(self._pages)

    async def aclose(self) -> None:
        """Cancels what is on its way."""
        await self._pages.aclose()

    async def _run(self) -> AsyncGenerator[pa.Table, None]:
        try:
            await self._open()
            while self._groups and self._left != 0:
                await self._fill()
                table = await self._cut()
                if table.num_rows:
                    yield table
                del table
                self._give_back()
        finally:
            try:
                await end([group.coming for group in self._groups if group.coming])
            finally:
                self._coordinator.room.change(-self._guessed - sum(g.held for g in self._groups))

    async def _open(self) -> None:
        """Fixes the snapshot and deals the shards."""
        coordinator, plan = self._coordinator, self._plan
        deadline = coordinator.deadline(plan)
        await self._enter(deadline)
        until = plan.scan.received_until
        view = coordinator.view()
        shards = coordinator.shards(plan, view)
        # A given snapshot needs no look, unless a service was split, which this node has not heard of.
        if until is None or plan.scan.services:
            async with coordinator.slot(deadline):
                scatter, needed = coordinator.scatter(plan, plan.scan, deadline)
                found = await scatter.run(tuple(needed), with_data=False)
                if found.ring_epoch > scatter.ring_epoch:
                    # Once more: others may own the shards by now, or there may be more of them.
                    await coordinator.catch_up(found.ring_epoch, deadline)
                    view = coordinator.view()
                    shards = coordinator.shards(plan, view)
                    scatter, needed = coordinator.scatter(plan, plan.scan, deadline)
                    found = await scatter.run(tuple(needed), with_data=False)
            if needed and not found.digests:
                raise QuorumUnavailable("no owner of any shard answered", retry_after_seconds=1)
            # Of fewer than R owners the newest receipt may be older than what was acknowledged.
            self._lacks(unheard(found, needed, plan.scan.time))
            if found.ring_epoch > scatter.ring_epoch:
                reason = f"an owner knows ring {found.ring_epoch}, this node {scatter.ring_epoch}"
                self._lacks([{"shard": shard, "reason": reason} for shard in sorted(needed)])
            until = found.received_max if until is None else until
        dealt: dict[str, list[int]] = {}
        for shard, node in assign(view, shards, until, frozenset()).items():
            dealt.setdefault(node, []).append(shard)
        scan = replace(plan.scan, received_until=until)
        for group in dealt.values():
            self._groups.append(
                _Group(replace(plan, scan=scan, shards=tuple(group)), after=scan.after)
            )
        for group in self._groups:
            self._send(group)

    def _page_rows(self) -> int:
        page = self._rows_of_page
        if self._left is not None:
            page = min(page, self._left)
        return max(GROUP_ROWS_MIN, page // len(self._groups))

    def _send(self, group: _Group) -> None:
        scan = replace(group.plan.scan, after=group.after)
        plan = replace(group.plan, scan=scan)
        group.coming = asyncio.create_task(self._read(group, plan), name="query-stream-page")

    async def _read(self, group: _Group, plan: QueryPlan) -> QueryAnswer:
        coordinator = self._coordinator
        deadline = coordinator.deadline(plan)
        holder = coordinator.holder()
        rows = min(self._page_rows(), group.fitting)
        try:
            async with coordinator.slot(deadline):
                answer = await coordinator.page(plan, rows, deadline, holder)
        finally:
            holder.release()
        if answer.next_cursor is not None and answer.table.num_rows < rows:
            group.fitting = answer.table.num_rows
        elif answer.table.nbytes < NARROW_BYTES:
            group.fitting = min(4 * group.fitting, ANY_ROWS)
        group.arrived = answer.table.nbytes
        group.held += group.arrived
        coordinator.room.change(group.arrived)
        return answer

    async def _enter(self, deadline: Deadline) -> None:
        """Waits for room, once: a stream that has begun goes on, or its rows would wait for each other."""
        room = self._coordinator.room
        guess = min(room.GUESS_BYTES, room.limit_bytes)
        await room.enter(guess, deadline)
        self._guessed = guess

    def _give_back(self) -> None:
        """What was given out is held no more."""
        self._coordinator.room.change(-self._guessed)
        self._guessed = 0
        for group in self._groups:
            left = group.arrived + (group.rows.nbytes if group.rows is not None else 0)
            self._coordinator.room.change(left - group.held)
            group.held = left

    async def _fill(self) -> None:
        """Waits until every group that has more holds some rows."""
        for group in self._groups:
            while group.coming and (group.rows is None or not group.rows.num_rows):
                answer = await group.coming
                group.coming = None
                self._note(answer)
                group.rows = answer.table
                group.arrived = 0
                group.more = answer.next_cursor is not None
                if answer.table.num_rows:
                    group.after = key_at(answer.table, -1)
        kept = [g for g in self._groups if g.more or (g.rows and g.rows.num_rows)]
        self._coordinator.room.change(-sum(g.held for g in self._groups if g not in kept))
        self._groups = kept

    def _note(self, answer: QueryAnswer) -> None:
        self._lacks(answer.missing)
        for name, value in answer.stats.items():
            self.stats[name] = self.stats.get(name, 0) + value

    def _lacks(self, missing: Iterable[dict[str, Any]]) -> None:
        for one in missing:
            self.missing[str(one)] = one

    async def _cut(self) -> pa.Table:
        """What lies up to the horizon, from all groups; groups that run empty are read on."""
        descending = self._plan.scan.descending
        held = [(g, g.rows) for g in self._groups if g.rows is not None and g.rows.num_rows]
        open_ends = [key_at(rows, -1) for g, rows in held if g.more]
        pieces: list[pa.Table] = []
        horizon = farther(open_ends, descending) if open_ends else None
        for group, rows in held:
            count = rows.num_rows if horizon is None else rows_up_to(rows, horizon, descending)
            pieces.append(rows.slice(0, count))
            group.rows = rows.slice(count)
            if group.more and count == rows.num_rows:
                self._send(group)
        table = await self._coordinator.in_worker(merge_rows, pieces, descending, self._left or 0)
        if self._left is not None:
            self._left -= table.num_rows
        return table
