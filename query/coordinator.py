"""ReadCoordinator: one read from start to answer: scatter, settle, merge; `complete`, or what is missing.

A read is complete when for each shard R owners spoke, and what one of them holds is in the answer; with
R + W > N that is every row acknowledged before the read began. Whatever falls short of it is named in
`missing`: the shard, the hours where the range is bounded, and why. The answer never waits for repair.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pyarrow as pa

from query.answer import QueryAnswer
from query.cursor import Cursor
from query.fold import is_final, merge_folds
from query.limits import Gate, Latencies, MemoryBudget, MemoryHolder, RoomShare, StreamRoom
from query.merge import key_at, merge_rows
from query.plan import QueryPlan
from query.read_repair import ReadRepair
from query.reading import Reading, ambiguous, joined, reading_of, unsettled
from query.scatter import Scatter, ScatterMetrics, merged
from query.settings import QuerySettings
from query.settle import BaseLost, ReadAgain, Settler
from query.spread import Spreader
from query.stream import RowStream
from query.together import together
from records.errors import DeadlineExceeded, NotReady, QuorumUnavailable
from records.predicates import Fold, ScanPlan
from records.timestamps import TimeRange
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.metrics import Metrics
from runtime.tasks import Workers

if TYPE_CHECKING:
    from cluster.replica_client import Replicas
    from cluster.view import ClusterView, ViewSource

P = ParamSpec("P")
T = TypeVar("T")
#: Reads of the same shards when data owners keep failing under our hands.
ATTEMPTS = 3
#: Seconds that a read waits for a ring which an owner knows already; it arrives here within milliseconds.
RING_SECONDS = 1.0
#: Groups that are merged and sorted on the event loop (about 0.2 ms): a worker costs as much to reach.
INLINE_ROWS = 1_000
#: A page whose rows are too wide for the replicas' caps is asked for again with fewer rows, to this.
SMALLEST_PAGE = 1


class ReadCoordinator:
    """Runs reads. Cost of the plain case: one request to each owner, the slowest decides."""

    def __init__(
        self,
        views: "ViewSource",
        replicas: "Replicas",
        clock: Clock,
        metrics: Metrics,
        settings: QuerySettings,
        workers: Workers,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self._views = views
        self._replicas = replicas
        self._workers = workers
        self._gate = Gate(settings.running_max, settings.queue_seconds)
        self._memory = MemoryBudget(settings.memory_bytes)
        self._room = StreamRoom(settings.memory_bytes // 2)
        self._latencies = Latencies(settings.hedge_min_seconds)
        self._scatter_metrics = ScatterMetrics(metrics)
        self._spreader = Spreader(replicas, settings, self._latencies)
        self._turn = 0
        self.repair = ReadRepair(views, replicas, clock, metrics, settings, workers)
        self._declare(metrics)

    def _declare(self, metrics: Metrics) -> None:
        self._seconds = metrics.histogram(
            "quorumlog_query_seconds", "Time to read and merge, by kind.", ["kind"]
        )
        self._incomplete = metrics.counter(
            "quorumlog_query_incomplete_total", "Reads that could not be complete."
        )
        self._supplemented = metrics.counter(
            "quorumlog_query_supplemented_entries_total",
            "Entries that the data owner lacked and another owner supplied.",
        )
        self._spread = metrics.counter(
            "quorumlog_query_spread_total",
            "Reads cut into slices that several owners read at once.",
        )
        running = metrics.gauge("quorumlog_query_running", "Queries that run now.")
        running.set_function(lambda: self._gate.running)
        waiting = metrics.gauge("quorumlog_query_waiting", "Queries that wait for their turn.")
        waiting.set_function(lambda: self._gate.waiting)
        held = metrics.gauge("quorumlog_query_memory_bytes", "Bytes of tables held by queries.")
        held.set_function(lambda: self._memory.used_bytes)

    @property
    def replicas(self) -> "Replicas":
        """How storage nodes are reached."""
        return self._replicas

    async def stop(self) -> None:
        """Ends background repairs."""
        await self.repair.stop()

    def deadline(self, plan: QueryPlan) -> Deadline:
        """The deadline that a plan asks for, or the default."""
        return Deadline.after(self.clock, plan.timeout_seconds or self.settings.timeout_seconds)

    async def query(
        self, plan: QueryPlan, deadline: Deadline, share: RoomShare | None = None
    ) -> QueryAnswer:
        """One page of rows.

        Args:
            share: of the room, which the page's bytes take as long as it takes to send them.

        Raises:
            InvalidRequest: a replica cannot evaluate the plan.
            Overloaded: no free place in time, or memory used up.
            TooLarge: more than an owner can send, or than all queries together may hold.
            QuorumUnavailable, DeadlineExceeded: no shard was answered at all.
        """
        started = self.clock.monotonic()
        holder = self._memory.holder()
        try:
            async with self._gate.slot(deadline):
                answer = await self.page(plan, plan.scan.limit, deadline, holder)
                if share:  # still in its place: what waits for slow clients holds up further reads
                    await share.enter(answer.table.nbytes, deadline)
        finally:
            holder.release()
        return self._finished("rows", answer, started)

    async def fold(self, plan: QueryPlan, deadline: Deadline) -> QueryAnswer:
        """The groups of `plan.scan.fold`, in no order. Raises as `query`."""
        fold = plan.scan.fold
        assert fold is not None
        started = self.clock.monotonic()
        holder = self._memory.holder()
        try:
            async with self._gate.slot(deadline):
                reading = await self._read(plan, plan.scan, deadline, holder)
                table = await self._merged(reading.tables, fold)
        finally:
            holder.release()
        if reading.truncated:
            reading.missing.append({"reason": "a replica cut its groups or values at its cap"})
        return self._finished("fold", self._answer(table, reading), started)

    async def _merged(self, tables: list[pa.Table], fold: Fold) -> pa.Table:
        """Merges partials; few that need no work are merged here, which spares the way to a worker."""
        if len(tables) == 1 and tables[0].num_rows <= INLINE_ROWS and is_final(fold):
            return merge_folds(tables, fold)
        return await self._workers.run(merge_folds, tables, fold)

    def stream(self, plan: QueryPlan) -> RowStream:
        """All rows in pages over one snapshot; `plan.scan.limit` 0 means no limit."""
        return RowStream(self, plan)

    def _finished(self, kind: str, answer: QueryAnswer, started: float) -> QueryAnswer:
        seconds = self.clock.monotonic() - started
        self._seconds.labels(kind).observe(seconds)
        answer.stats["elapsed_ms"] = round(seconds * 1000, 3)
        if not answer.complete:
            self._incomplete.inc()
        return answer

    # -- pages

    def slot(self, deadline: Deadline) -> AbstractAsyncContextManager[None]:
        """A place among the running queries."""
        return self._gate.slot(deadline)

    def holder(self) -> MemoryHolder:
        """An account of memory."""
        return self._memory.holder()

    @property
    def room(self) -> StreamRoom:
        """What streams hold while their clients read."""
        return self._room

    async def in_worker(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of CPU work, off the event loop."""
        return await self._workers.run(work, *args, **kwargs)

    async def page(
        self, plan: QueryPlan, limit: int, deadline: Deadline, holder: MemoryHolder
    ) -> QueryAnswer:
        """The first `limit` rows after the plan's key; fewer only at the end, or if rows are very wide."""
        while True:
            scan = replace(plan.scan, limit=limit + 1)
            reading = await self._read(plan, scan, deadline, holder)
            if not reading.truncated or limit <= SMALLEST_PAGE:
                break
            holder.release()
            # What fitted in the answer that was cut shortest fits again; it is to be one more than a page.
            limit = max(SMALLEST_PAGE, min(limit - limit // 8, reading.fitting - 1))
        if reading.truncated:
            reading.missing.append({"reason": "a replica cut its rows at its cap"})
        descending = plan.scan.descending
        rows = await self._merged_rows(reading.tables, descending, limit + 1)
        cursor = None
        if rows.num_rows > limit:
            rows = rows.slice(0, limit)
            snapshot = plan.scan.received_until
            if snapshot is None:
                snapshot = reading.received_max
                if reading.missing:  # too few owners may know of older receipts alone
                    snapshot = max(snapshot, self.clock.wall_micros())
            after = key_at(rows, -1)
            cursor = Cursor(plan.question, snapshot, plan.scan.time, after).encode()
        return self._answer(rows, reading, cursor)

    async def _merged_rows(self, tables: list[pa.Table], descending: bool, limit: int) -> pa.Table:
        """The merged rows; those of a single table, which need no work, without a way to a worker."""
        if len(tables) == 1 and tables[0].num_rows <= INLINE_ROWS:
            return merge_rows(tables, descending, limit)
        return await self._workers.run(merge_rows, tables, descending, limit)

    @staticmethod
    def _answer(table: pa.Table, reading: Reading, cursor: str | None = None) -> QueryAnswer:
        missing = tuple(reading.missing)
        return QueryAnswer(table, not missing, missing, reading.stats, cursor)

    # -- one read

    def shards(self, plan: QueryPlan, view: "ClusterView") -> tuple[int, ...]:
        """The shards that can hold what the plan asks."""
        if plan.shards is not None:
            return plan.shards
        if not plan.scan.services:
            return tuple(range(view.shard_count))
        tenant = plan.scan.tenant
        found = {s for name in plan.scan.services for s in view.shards_holding(tenant, name)}
        return tuple(sorted(found))

    def view(self) -> "ClusterView":
        """The newest view, once there is a ring.

        Raises:
            NotReady: nothing has a place yet.
        """
        view = self._views.current()
        if not view.ready:
            raise NotReady("the cluster has no ring yet", retry_after_seconds=1)
        return view

    def scatter(
        self,
        plan: QueryPlan,
        scan: ScanPlan,
        deadline: Deadline,
        slice_: int | None = None,
        compared: TimeRange | None = None,
    ) -> tuple[Scatter, dict]:
        """A scatter for this plan under the newest view, and how many owners each shard needs.

        `scan` may be the nth slice (`slice_`) of the range `compared`.
        """
        view = self.view()
        needed = {
            shard: view.quorum.answers_needed(plan.consistency, len(view.owners(shard)))
            for shard in self.shards(plan, view)
        }
        # Pages of one snapshot turn alike: they meet the same owners as long as these are alive.
        turn = scan.received_until if scan.received_until is not None else self._turn
        self._turn += 1
        scatter = Scatter(
            view,
            self._replicas,
            scan,
            needed,
            deadline.sooner(deadline.remaining() * 0.9),
            self._latencies,
            self._scatter_metrics,
            turn,
            self._latencies.suspects(self.clock.monotonic()),
            slice_,
            compared,
        )
        return scatter, needed

    async def _read(
        self, plan: QueryPlan, scan: ScanPlan, deadline: Deadline, holder: MemoryHolder
    ) -> Reading:
        """One read of all shards: in slices of time if that pays, else, or if these cannot be one, whole."""
        view = self.view()
        times = await self._spreader.slices(view, self.shards(plan, view), scan, deadline)
        if len(times) > 1:
            self._spread.inc()
            reading = await self._read_slices(plan, scan, times, deadline, holder)
            if reading is not None:
                return reading
        for _ in range(ATTEMPTS - 1):
            reading = await self._read_slices(plan, scan, (scan.time,), deadline, holder)
            if reading is not None:
                return reading
        reading = await self._read_slices(plan, scan, (scan.time,), deadline, holder, last=True)
        assert reading is not None
        return reading

    async def _read_slices(
        self,
        plan: QueryPlan,
        scan: ScanPlan,
        times: Sequence[TimeRange],
        deadline: Deadline,
        holder: MemoryHolder,
        last: bool = False,
    ) -> Reading | None:
        """Reads each slice from other owners, then settles all by the same lists; None: read again.

        Owners are compared over all of `scan.time`, so what was acknowledged is in one slice, once.
        """
        numbers = range(len(times)) if len(times) > 1 else (None,)
        scatters = [
            self.scatter(plan, replace(scan, time=time), deadline, number, scan.time)
            for number, time in zip(numbers, times, strict=True)
        ]
        needed = scatters[0][1]
        founds = await together(scatter.run(tuple(needed)) for scatter, _ in scatters)
        found, expired = merged(founds), scatters[0][0].deadline.expired
        known = min(scatter.ring_epoch for scatter, _ in scatters)
        if found.ring_epoch > known and not last and not deadline.expired:
            await self.catch_up(found.ring_epoch, deadline)
            return None
        settlers = [self._settler(scatter, needed) for scatter, _ in scatters]
        try:
            lists = await settlers[0].lists(found)
            settled = await together(
                one.run(part, lists) for one, part in zip(settlers, founds, strict=True)
            )
        except ReadAgain as again:
            if isinstance(again, BaseLost):
                self._latencies.suspect(again.node, self.clock.monotonic())
            if not last and not deadline.expired:
                return None
            settled = [unsettled(part, found.differing(), again) for part in founds]
        if ambiguous(settled):
            return None
        if found.ring_epoch > known:
            reason = f"an owner knows ring {found.ring_epoch}, this node {known}"
            settled[0].incomplete |= dict.fromkeys(needed, reason)
        self.repair.submit({s: o for one in settled for s, o in one.comparisons.items()}, scan.time)
        self._supplemented.inc(sum(one.supplemented for one in settled))
        reading = joined(
            [
                reading_of(part, one, needed, time)
                for part, one, time in zip(founds, settled, times, strict=True)
            ]
        )
        if needed and not found.parts:
            self._nothing(reading, expired)
        holder.take(sum(table.nbytes for table in reading.tables))
        return reading

    async def catch_up(self, ring_epoch: int, deadline: Deadline) -> None:
        """Waits for the ring that an owner knows, for a while: by an older one others may be asked."""
        limit = deadline.sooner(RING_SECONDS)
        while (view := self.view()).ring_epoch < ring_epoch and not limit.expired:
            await self._views.changed(view.index, limit.remaining())

    def _settler(self, scatter: Scatter, needed: dict[int, int]) -> Settler:
        return Settler(
            self.view(),
            self._replicas,
            scatter,
            needed,
            scatter.deadline,
            self.settings,
            self._workers,
        )

    @staticmethod
    def _nothing(reading: Reading, timed_out: bool) -> None:
        if timed_out:
            raise DeadlineExceeded("no owner answered before the deadline", missing=reading.missing)
        raise QuorumUnavailable(
            "no owner of any shard answered", missing=reading.missing, retry_after_seconds=1
        )
