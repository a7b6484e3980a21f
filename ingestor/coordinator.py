"""WriteCoordinator: one client's write from a parsed batch to its acknowledgement.

Unsequenced: route (rows to shards, entry ids), write all pieces, count. When an owner knows a newer ring
the whole write begins anew under it, with the same entry ids; what was stored before then answers
"duplicate", which is not counted as one. Rows of a split service go where `spreading` says. Sequenced batches
go by way of the shard's leader: `sequenced`.

A write that cannot reach W owners is held until its deadline, then refused without saying that it did not
happen. A caller that leaves does not end its write.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.replica_client import Replicas
from cluster.view import ClusterView, ViewSource
from ingestor.answers import ack_rule, counted
from ingestor.batch import Batch, WriteResult
from ingestor.block_put import Missed, no_hints
from ingestor.elsewhere import Elsewhere
from ingestor.leases import ShardLeases
from ingestor.outcomes import EntryTally, Mine, Verdict
from ingestor.pipeline import Pipeline
from ingestor.producers import ProducerBook
from ingestor.recovery import Recovery
from ingestor.replay_desk import ReplayDesk
from ingestor.replaying import Replays
from ingestor.sequenced import INLINE_ROWS, SequencedWriter
from ingestor.shards import Piece, unsequenced_pieces
from ingestor.spreading import PiecesOf, Spreading
from ingestor.waiting import newer_ring, ready_view
from ingestor.ways import Way
from ingestor.write_metrics import WriteMetrics
from ingestor.write_settings import WriteSettings
from records.errors import (
    Conflict,
    NotReady,
    QuorumlogError,
    QuorumUnavailable,
    Refused,
    StaleRingEpoch,
)
from records.visibility import REPEAT_MICROS
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.entropy import Entropy
from runtime.metrics import Metrics
from runtime.tasks import Supervisor, Workers

T = TypeVar("T")


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
        missed: Missed = no_hints,
    ) -> None:
        """`missed`: told of owners that lack what was acknowledged."""
        self._views = view
        self._clock = clock
        self._settings = settings
        self._workers = workers
        self._metrics = WriteMetrics(metrics)
        self._tasks = Supervisor("write")
        self._leading = Supervisor("lead")
        self._stopped = False
        self._book = ProducerBook(settings.producers_remembered)
        self._pipeline = Pipeline(
            replicas,
            self._book.calls,
            clock,
            entropy,
            self._metrics,
            settings,
            workers,
            self._tasks,
            missed,
        )
        caller = self._pipeline.caller
        self._leases = ShardLeases(view, replicas, caller, clock, self._metrics, self._leading)
        elsewhere = Elsewhere(replicas, caller)
        self._spreading = Spreading(view, elsewhere, workers, self._metrics)
        recovery = Recovery(replicas, self._book, caller, clock, self._metrics, settings)
        desk = ReplayDesk(clock, metrics, settings)
        self._sequenced = SequencedWriter(
            view,
            self._leases,
            recovery,
            self._pipeline,
            clock,
            self._metrics,
            settings,
            workers,
            desk,
            elsewhere,
        )
        #: What producers are asked to send again.
        self.replays = Replays(
            view,
            replicas,
            self._leases,
            self._sequenced,
            desk,
            clock,
            entropy,
            metrics,
            settings,
        )
        self._metrics.producers.set_function(lambda: len(self._book))

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
        self._leases.start()
        self.replays.start(self._leading)

    async def stop(self) -> None:
        """Refuses new writes; what is under way is given up, its outcome unknown."""
        self._stopped = True
        self._pipeline.close()
        await self._leading.stop()
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
            self._metrics.errors.labels(outcome.code).inc()
            raise outcome
        return outcome

    async def _write(self, batch: Batch, ack: str | None, deadline: Deadline) -> WriteResult:
        if batch.sequence is not None:
            return await self._sequenced.write(batch, ack, deadline)
        return await self._write_unsequenced(batch, ack, deadline)

    async def new_producer_epoch(
        self, tenant: str, service: str, producer: str, deadline: Deadline
    ) -> int:
        """The next epoch of a producer that lost its log, durable on W owners first.

        Raises:
            NotLeader: ask the shard's leader. QuorumUnavailable, NotReady: ask again.
        """
        return await self._detached(
            lambda: self._sequenced.new_epoch(tenant, service, producer, deadline)
        )

    async def producer_progress(
        self, tenant: str, service: str, producer: str, epoch: int, deadline: Deadline
    ) -> WriteResult:
        """`ack_till`, `max_seen` and `missing` of a producer, from what its owners hold now.

        Raises:
            NotLeader: ask the shard's leader. QuorumUnavailable, NotReady: ask again.
        """
        return await self._detached(
            lambda: self._sequenced.progress(tenant, service, producer, epoch, deadline)
        )

    def still_leads(self, shard: int, node: str, shard_epoch: int) -> bool:
        """Whether that node, at that epoch, is the shard's leader as far as is known here."""
        return self._views.current().leader(shard) == (node, shard_epoch)

    async def _write_unsequenced(
        self, batch: Batch, ack: str | None, deadline: Deadline
    ) -> WriteResult:
        received_at = batch.received_at or self._clock.wall_micros()
        mine: Mine = set()
        begun_before = False
        view = await ready_view(self._views, deadline)
        way: Way | None = None
        while True:
            try:
                pieces_of = self._router(batch, view, received_at)
                if way is None or not mine:  # what it has put somewhere binds it to that way
                    way = await self._spreading.way(batch, view, received_at, pieces_of, deadline)
                pieces = await self._route(batch, pieces_of, way)
                rule = ack_rule(view.quorum, ack)
                entries = await self._pipeline.run(pieces, rule, mine, deadline)
                return self._counted(entries, view)
            except StaleRingEpoch as stale:
                self._metrics.rerouted.inc()
                begun_before = True
                view = await newer_ring(self._views, view, stale, deadline)
            except Refused as error:
                if begun_before:
                    error.doubt()
                raise

    def _router(self, batch: Batch, view: ClusterView, received_at: int) -> PiecesOf:
        most = self._settings.block_max_rows
        return lambda way: unsequenced_pieces(batch, view, received_at, REPEAT_MICROS, most, way)

    async def _route(self, batch: Batch, pieces_of: PiecesOf, way: Way) -> list[Piece]:
        begun = self._clock.monotonic()
        if batch.table.num_rows <= INLINE_ROWS:
            pieces = pieces_of(way)
        else:
            pieces = await self._workers.run(pieces_of, way)
        self._metrics.route.observe(self._clock.monotonic() - begun)
        return pieces

    def _counted(self, entries: list[EntryTally], view: ClusterView) -> WriteResult:
        refused = [one for one in entries if one.verdict is Verdict.CONFLICT]
        if refused:
            count = sum(one.entry.row_count for one in refused)
            self._metrics.conflicts.inc(count)
            raise Conflict(
                f"{count} rows: this key is held with other bytes",
                definite=all(one.tally.refused_by_all for one in entries),
            )
        return counted(entries, view, self._metrics)
