"""WriteCoordinator: one client's write from a parsed batch to its acknowledgement.

Unsequenced: route (rows to shards, entry ids), write all pieces, count. When an owner knows a newer ring
the whole write begins anew under it, with the same entry ids; what was stored before then answers
"duplicate", which is not counted as one. Sequenced batches go by way of the shard's leader: `sequenced`.

A write that cannot reach W owners is held until its deadline, then refused without saying that it did not
happen. A caller that leaves does not end its write.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.replica_client import Replicas
from cluster.view import ClusterView, ViewSource
from ingestor.batch import Batch, WriteResult
from ingestor.outcomes import EntryTally, Mine, Verdict
from ingestor.pipeline import Pipeline
from ingestor.producers import ProducerBook
from ingestor.shards import FAILED_SERVICE, Piece, unsequenced_pieces
from ingestor.write_metrics import WriteMetrics
from ingestor.write_settings import WriteSettings
from records.consistency import QuorumPolicy
from records.errors import (
    Conflict,
    InvalidRequest,
    NotReady,
    QuorumlogError,
    QuorumUnavailable,
    StaleRingEpoch,
)
from records.ids import EntryId, digest_id, ulid
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.entropy import Entropy
from runtime.metrics import Metrics
from runtime.tasks import Supervisor, Workers

T = TypeVar("T")
#: Rows up to which a batch is routed on the event loop: a thread would cost more than the work.
#: From: 0.4 ms at 1,000 rows.
INLINE_ROWS = 1_000


def acks_rule(policy: QuorumPolicy, ack: str | None) -> Callable[[int], int]:
    """Acks needed for a number of owners. `ack`: one, quorum, all or a number; it never lowers W.

    Raises:
        InvalidRequest: not one of these, or more than N.
    """
    if ack is not None and ack.isdecimal():
        wanted = int(ack)
        if wanted > policy.n:
            raise InvalidRequest(f"{wanted} acks are asked for, there are {policy.n} replicas")
        return lambda owners: max(policy.w, wanted)
    policy.acks_needed(ack, policy.n)
    return lambda owners: max(policy.w, policy.acks_needed(ack, owners))


def batch_id(entry_ids: list[EntryId]) -> str:
    """A ULID-shaped name of the entries of a batch; the same rows sent again get the same."""
    return ulid(digest_id(b"batch", *sorted(entry_ids)))


class WriteCoordinator:
    """Implements the listeners' port `Writer`."""

    def __init__(
        self,
        view: ViewSource,
        replicas: Replicas,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
        settings: WriteSettings,
        workers: Workers,
    ) -> None:
        self._views = view
        self._clock = clock
        self._settings = settings
        self._workers = workers
        self._metrics = WriteMetrics(metrics)
        self._tasks = Supervisor("write")
        self._stopped = False
        self._book = ProducerBook(settings.producers_remembered)
        self._pipeline = Pipeline(
            replicas,
            self._book,
            clock,
            entropy,
            self._metrics,
            settings,
            workers,
            self._tasks,
        )

    @property
    def pending_bytes(self) -> int:
        """Arrow bytes of rows that wait or are being written."""
        return self._pipeline.pending_bytes

    @property
    def tasks_running(self) -> int:
        """Background tasks of this node's writes: blocks under way and late replicas."""
        return len(self._tasks)

    async def start(self) -> None:
        """Begins to take over shards that this node is assigned."""

    async def stop(self) -> None:
        """Refuses new writes; what is under way is given up, its outcome unknown."""
        self._stopped = True
        self._pipeline.close()
        await self._tasks.stop()

    async def write(self, batch: Batch, *, ack: str | None, deadline: Deadline) -> WriteResult:
        """Writes one batch and returns once W owners (or as many as `ack` asks for) have synced it.

        Raises:
            QuorumUnavailable: not confirmed by the deadline; send the same again.
            NotLeader, Fenced: a sequenced batch that belongs elsewhere, or to an older epoch.
            Overloaded, DiskFull, NotReady, InvalidRequest, Conflict.
        """
        return await self._detached(lambda: self._write(batch, ack, deadline))

    async def _detached(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, which goes on when the caller is cancelled."""
        if self._stopped:
            raise NotReady("this node is shutting down", retry_after_seconds=1)

        async def guarded() -> T | QuorumlogError:
            try:
                return await work()
            except QuorumlogError as error:
                return error

        begun = self._clock.monotonic()
        task = self._tasks.spawn("one", guarded())
        await asyncio.wait([task])
        self._metrics.write.observe(self._clock.monotonic() - begun)
        if task.cancelled():
            raise QuorumUnavailable("this node stopped before the outcome was known")
        outcome = task.result()
        if isinstance(outcome, QuorumUnavailable):
            self._metrics.quorum_failures.inc()
        if isinstance(outcome, QuorumlogError):
            raise outcome
        return outcome

    async def _write(self, batch: Batch, ack: str | None, deadline: Deadline) -> WriteResult:
        return await self._write_unsequenced(batch, ack, deadline)

    async def _write_unsequenced(
        self, batch: Batch, ack: str | None, deadline: Deadline
    ) -> WriteResult:
        received_at = batch.received_at or self._clock.wall_micros()
        mine: Mine = set()
        view = await self.ready_view(deadline)
        while True:
            pieces = await self._route(batch, view, received_at)
            try:
                rule = acks_rule(view.quorum, ack)
                entries = await self._pipeline.run(pieces, rule, mine, deadline)
                return self._answer(entries, view)
            except StaleRingEpoch as stale:
                self._metrics.rerouted.inc()
                view = await self.newer_ring(view, stale, deadline)

    async def _route(self, batch: Batch, view: ClusterView, received_at: int) -> list[Piece]:
        settings = self._settings
        begun = self._clock.monotonic()
        args = (batch, view, received_at, settings.dedupe_window_micros, settings.block_max_rows)
        if batch.table.num_rows <= INLINE_ROWS:
            pieces = unsequenced_pieces(*args)
        else:
            pieces = await self._workers.run(unsequenced_pieces, *args)
        self._metrics.route.observe(self._clock.monotonic() - begun)
        return pieces

    def _answer(self, entries: list[EntryTally], view: ClusterView) -> WriteResult:
        rows = [one for one in entries if one.entry.service != FAILED_SERVICE]
        refused = [one for one in rows if one.verdict is Verdict.CONFLICT]
        if refused:
            count = sum(one.entry.row_count for one in refused)
            self._metrics.conflicts.inc(count)
            raise Conflict(
                f"{count} rows: this key is held with other bytes",
                definite=len(refused) == len(entries),
            )
        duplicates = sum(one.duplicates for one in rows)
        accepted = sum(one.entry.row_count for one in rows) - duplicates
        self._metrics.rows.inc(accepted)
        self._metrics.duplicates.inc(duplicates)
        owners = max((len(view.owners(one.entry.shard)) for one in entries), default=view.quorum.n)
        durable = min((one.tally.acks for one in entries), default=owners)
        name = batch_id([one.entry.entry_id for one in rows or entries])
        return WriteResult(name, accepted, duplicates, durable, owners)

    async def ready_view(self, deadline: Deadline) -> ClusterView:
        """The current view, once there is a ring.

        Raises:
            NotReady: there is none by the deadline.
        """
        view = self._views.current()
        while not view.ready:
            if deadline.expired:
                raise NotReady("the cluster has no ring yet", retry_after_seconds=1)
            view = await self._views.changed(view.index, deadline.clamp(0.5))
        return view

    async def newer_ring(
        self, view: ClusterView, stale: StaleRingEpoch, deadline: Deadline
    ) -> ClusterView:
        """The view with the ring epoch that `stale` tells of, waiting for it to arrive here.

        Raises:
            QuorumUnavailable: it has not arrived by the deadline.
        """
        wanted = int(stale.details.get("epoch", view.ring_epoch + 1))
        newest = self._views.current()
        while newest.ring_epoch < wanted:
            if deadline.expired:
                raise QuorumUnavailable(
                    f"owners know ring epoch {wanted}, this node {newest.ring_epoch}",
                    retry_after_seconds=1,
                )
            newest = await self._views.changed(newest.index, deadline.clamp(0.5))
        return newest
