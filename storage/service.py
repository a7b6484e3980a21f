"""StorageService: one node's disk as the cluster sees it. A shell: it awaits, the engine decides.

Puts are storage.putting, scans storage.scanning, merges storage.compaction; here they are put together, and
here a damaged block is set aside.
"""

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from records.block import ProducerKey
from records.block_codec import EncodedBlock
from records.errors import BlockCorrupt, NotReady
from records.ids import EntryId
from records.messages import (
    EntriesReply,
    EntriesRequest,
    EpochSealed,
    ProducersRequest,
    ProducerState,
    ProducerStates,
    PutOptions,
    PutReply,
    RowName,
    RowPlace,
    ScanReply,
    ScanRequest,
    SealRequest,
)
from records.sync import TreeRequest
from records.timestamps import MAX_MICROS, MIN_MICROS
from runtime.clock import Clock
from runtime.failpoints import failpoint
from runtime.logs import get_logger
from runtime.metrics import Metrics
from runtime.tasks import Supervisor, Workers
from storage.block_files import BlockFiles
from storage.catalog import Checkpointer
from storage.compaction import Compactor, Host
from storage.compaction_gauges import CompactionGauges
from storage.disk_floor import DiskFloor
from storage.engine import Engine
from storage.export import Exported
from storage.exporting import Exports
from storage.fetch import fetch_blocks, places_of
from storage.flushing import CatalogFlusher
from storage.forgotten import states_of
from storage.gauges import Gauges
from storage.hinting import FLUSH_SECONDS, Hints
from storage.holes import Holes
from storage.home import Home, free_bytes
from storage.hot import HotSet, use_steady_memory
from storage.listing import INLINE_MAX, copied, references
from storage.locate import locate, read_place
from storage.moving import ShardMoves
from storage.opening import Opened
from storage.putting import PutHost, Puts
from storage.retention import Delete, Retention
from storage.retention_door import RetentionDoor
from storage.retiring import Retiring
from storage.retiring_gauges import RetiringGauges
from storage.scanning import Scans
from storage.scrub import Scrub, ScrubHost
from storage.segment_write import Step, failing_step
from storage.settings import StorageSettings
from storage.status import engine_figures
from storage.tree_reads import TreeReads
from storage.wal import LogHooks, Wal
from storage.warming import Warmer
from storage.write_door import WriteDoor

__all__ = ["Delete", "Retention", "StorageService", "StorageSettings"]
log = get_logger(__name__)
T = TypeVar("T")
FreeBytes = Callable[[Path], int]
#: Seconds that a scan waits for the replicated state that it names.
STATE_SECONDS = 1.0


class StorageService(RetentionDoor, WriteDoor):
    """put, scan, entries, fetch, seal: the replica's side of every protocol. Use on one event loop."""

    def __init__(
        self,
        directory: Path,
        node_id: str,
        settings: StorageSettings,
        clock: Clock,
        metrics: Metrics,
        *,
        hooks: LogHooks | None = None,
        free: FreeBytes = free_bytes,
        compact_step: Step = failing_step,
    ) -> None:
        self.directory, self.node_id, self.settings = directory, node_id, settings
        self._clock, self._metrics, self._hooks, self._free = clock, metrics, hooks, free
        self._gauges, self._compact_step = Gauges(metrics), compact_step
        self._home: Home | None = None
        self._engine = Engine()
        self._ready = self._reads_held = False
        self._disk = DiskFloor(settings.disk_floor_bytes, settings.disk_hysteresis_bytes)
        #: What absent owners missed; cluster.handoff fills and delivers it.
        self.hints = Hints(directory / "hints", settings, clock, metrics, self._spare_bytes)

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Opens the directory, replays what the catalog lacks, begins a new log file.

        Raises:
            InvalidSettings: another node's directory, or another process has it.
            StorageFailed: no log file can be opened.
        """
        use_steady_memory()
        self._workers = Workers(self.settings.workers, "storage-scan")
        self._chores = Workers(1, "storage-chore")
        self._home = Home(self.directory, self.node_id)
        try:
            opened = await self._chores.run(Opened, self._home)
            self._adopt(opened)
            self._wal.start(opened.end)
        except BaseException:
            self._home.close()
            self._workers.close()
            self._chores.close()
            raise
        self._look_at_disk()
        await self.hints.start()
        if self.settings.scrub_period_seconds:
            await self._scrub.start()
        self._supervisor = Supervisor("storage")
        self._every("disk", lambda: self.settings.disk_interval_seconds, self._watch_disk)
        self._every("catalog", lambda: self.settings.catalog_interval_seconds, self._flusher.flush)
        self._compactor.start(self._home.last_segment() + 1)
        self._every("compact", lambda: self._compactor.pause_seconds, self._tend_blocks)
        self._every("hints", lambda: FLUSH_SECONDS, self.hints.flush)
        if self.settings.scrub_period_seconds:
            self._every("scrub", lambda: self._scrub.pause_seconds, self._scrub.step)
        told = self._gauges.warmed.inc
        warmer = Warmer(self._engine, self._hot, self._chores, self._reading, told)
        self._supervisor.spawn("warm", warmer.run(self.settings.warm_cpu_share))
        self._ready = True
        log.info(
            "storage is open",
            node=self.node_id,
            blocks=len(self._engine.holdings.blocks),
            rows=self._engine.holdings.rows,
            replayed_blocks=opened.replayed_blocks,
            rebuilt=opened.rebuilt,
        )

    def _every(
        self, name: str, pause: Callable[[], float], step: Callable[[], Coroutine[Any, Any, Any]]
    ) -> None:
        self._supervisor.spawn(name, self._supervisor.forever(pause, step))

    def _adopt(self, opened: Opened) -> None:
        assert self._home is not None
        self._engine, self._catalog = opened.engine, opened.catalog
        # Of what was heard before the restart, the log has only what was stored: by now it is past.
        self._engine.holdings.vouch(self._clock.wall_micros())
        self._engine.holdings.holes.heard(self._engine.holdings.newest_vouched)
        self._checkpointer: Checkpointer = opened.checkpointer
        for note in self._checkpointer.notes:
            self._gauges.quarantined.labels(note.kind).inc()
        files = BlockFiles(self._home.log, self._home.segments)
        caches = self.settings.cache_bytes, self.settings.filter_bytes
        self._hot = HotSet(self._home.log, caches[0], self._metrics, files, filter_bytes=caches[1])
        self._scans = Scans(
            self._engine,
            self._hot,
            self._workers,
            self._reading,
            self.settings,
            self._clock,
            self._gauges,
        )
        self._trees = TreeReads(self._engine, self._workers)
        self._exports = Exports(
            self.directory / "export",
            self._engine,
            files,
            self._hot,
            self._workers,
            self._reading,
            self._spare_bytes,
        )
        self._wal = Wal(
            self._home.log,
            self.node_id,
            self._metrics,
            file_bytes=self.settings.log_file_bytes,
            waiting_bytes_max=self.settings.waiting_bytes_max,
            idle_seconds=self.settings.idle_seconds,
            hooks=self._hooks,
        )
        self._puts = Puts(
            self._engine,
            self._wal,
            self._hot,
            self._checkpointer,
            self._chores,
            self._clock,
            self._gauges,
            PutHost(self._reading, self._check_writable, self.settings.verify_puts),
        )
        self._flusher = CatalogFlusher(
            self._catalog, self._checkpointer, self._chores, self._gauges.catalog_failures.inc
        )
        self._compactor = self._make_compactor(files)
        self._retiring = Retiring(
            self._engine, self._compactor, self._clock, RetiringGauges(self._metrics)
        )
        #: What a shard that moves needs of the node it leaves, and of the one it goes to.
        checks = self._check_log, self._check_writable, self._check_readable
        self.moves = ShardMoves(self._engine, self._puts.append, self._compactor.thinned, *checks)
        self._files = files
        self._scrub = self._make_scrub(self.directory / "scrub.json", files)

    def _make_compactor(self, files: BlockFiles) -> Compactor:
        flush, append = self._flusher.flush_all, self._puts.append
        paused, ended = (lambda: self.read_only), (lambda: self._wal.failure is not None)
        return Compactor(
            self._engine,
            self._checkpointer,
            files,
            self._hot,
            self.settings,
            self._clock,
            Host(self._reading, flush, append, paused, ended),
            CompactionGauges(self._metrics),
            self._compact_step,
        )

    def _make_scrub(self, path: Path, files: BlockFiles) -> Scrub:
        host = ScrubHost(
            self._quarantine,
            self._puts.append,
            lambda: self._checkpointer.position,
            self._catalog.damage,
            self._flusher.remake,
        )
        return Scrub(path, self._engine, files, self.settings, self._clock, self._metrics, host)

    async def stop(self) -> None:
        """Writes what waits, flushes the catalog, gives the directory back."""
        if not self._ready:
            return
        self._ready = False
        await self._supervisor.stop()
        await self._scrub.stop()
        await self.hints.stop()
        await self._wal.stop()
        self._compactor.close()
        await self._flusher.flush_all()
        self._workers.close()
        self._chores.close()
        self._catalog.close()
        assert self._home is not None
        self._home.close()

    @property
    def incarnation(self) -> str:
        """Random, made with the directory."""
        assert self._home is not None
        return self._home.incarnation

    def _check_readable(self) -> None:
        self._check_ready()
        if self._reads_held:
            raise NotReady("it is not known yet what was deleted while this node was away")

    # -- put --------------------------------------------------------------------------------------

    async def put(self, block: EncodedBlock, options: PutOptions) -> PutReply:
        """Stores what is absent of `block` and returns once it is on disk (fdatasync has returned).

        Repeating it is safe at any age. Cost: one append of the bytes as they are, a share of one sync.

        Raises:
            StaleRingEpoch: a newer ring is known here (definite).
            DiskFull, Overloaded, NotReady: definite.
            BlockCorrupt: the bytes fail a check; nothing was stored.
            StorageFailed: writing or syncing failed (not definite: the block may exist).
        """
        self._check_writable()
        return await self._puts.run(block, options)

    # -- reading ----------------------------------------------------------------------------------

    async def _reading(self, pool: Workers, work: Callable[..., T], *args: Any) -> T:
        """Runs `work` on a worker; a block that turns out damaged is set aside before the error rises."""
        try:
            return await pool.run(work, *args)
        except BlockCorrupt as error:
            ordinal = error.details.get("ordinal")
            if ordinal is not None:
                await self._quarantine(int(ordinal), error.message)
            raise

    async def scan(self, request: ScanRequest) -> tuple[ScanReply, pa.Table]:
        """The plan's rows in order, or its partial aggregates, with digests of the same moment.

        Raises:
            InvalidRequest: a bad regular expression or aggregate.
            DeadlineExceeded: `deadline_ms` passed.
            NotReady: the asking node knows of newer deletes than this one.
        """
        self._check_readable()
        if request.hidden_index:
            await self._retiring.wait_for(request.hidden_index, STATE_SECONDS)
        return await self._scans.run(request)

    async def entries(self, request: EntriesRequest) -> EntriesReply:
        """The entries of a shard filed under the hours that start..end touches."""
        self._check_readable()
        holdings = self._engine.holdings
        found = copied(
            holdings, holdings.entries_in_hours(request.shard, request.start, request.end)
        )
        hole = bool(holdings.holes.within((request.shard,)))  # of the moment of the copy
        if len(found.rows) <= INLINE_MAX:
            return EntriesReply(references(found), hole)
        return EntriesReply(await self._workers.run(references, found), hole)

    async def tree(self, request: TreeRequest) -> list[bytes]:
        """Answers about the Merkle trees, in the order of the questions; fewer if they are many bytes.

        Raises:
            StaleRingEpoch: a newer ring is known here.
        """
        self._check_ready()
        return await self._trees.answer(request)

    def absent(self, entry_ids: Sequence[EntryId], whole_shard: int | None = None) -> list[EntryId]:
        """Those entries that lack here: not held, and not dropped below a watermark. About 2 µs each.

        Raises NotReady if damage took entries of `whole_shard`: what lacks may have been acknowledged.
        """
        self._check_ready()
        if whole_shard is not None:
            self.moves.check_whole(whole_shard)
        return self._trees.absent(entry_ids)

    @property
    def blocks_set_aside(self) -> int:
        """How many blocks turned out damaged so far."""
        return self._engine.holdings.quarantined

    @property
    def holes(self) -> Holes:
        """Shards that lost entries to damage and are not whole again."""
        return self._engine.holdings.holes

    async def fetch(self, entry_ids: tuple[EntryId, ...]) -> list[EncodedBlock]:
        """Blocks restricted to these entries, about 32 MiB of them; unknown ids are left out.

        A damaged block is set aside and its entries left out.
        """
        self._check_readable()
        while True:
            wanted = places_of(self._engine.holdings, entry_ids)
            try:
                return await self._reading(
                    self._workers, fetch_blocks, self._hot, wanted, self.settings.max_fetch_bytes
                )
            except BlockCorrupt as error:
                if "ordinal" not in error.details:
                    raise

    async def locate(self, name: RowName) -> RowPlace | None:
        """Where a row stands, None if it is not held here.

        Raises:
            BlockCorrupt: its block is damaged, and set aside.
        """
        self._check_readable()
        found = locate(self._engine.holdings, name)
        return found and await self._reading(self._workers, read_place, self._hot, found)

    async def export(self, tenant: str, shards: Sequence[int]) -> Exported:
        """A sealed snapshot of a tenant's visible rows as Parquet files; see `storage.export`.

        Raises:
            Overloaded: another export runs.
            DiskFull: what has to be copied does not fit.
        """
        self._check_readable()
        return await self._exports.run(tenant, shards)

    async def _quarantine(self, ordinal: int, reason: str) -> None:
        """Sets a damaged block aside: this replica is now missing its entries.

        The catalog says so when this returns: it would name the block again after a restart, and what came
        meanwhile to heal it would be taken for held.
        """
        place = self._engine.holdings.blocks[ordinal]
        if place is None:
            return
        numbers = self._engine.holdings.remove_block(ordinal)
        self._hot.forget(ordinal)
        self._gauges.quarantined.labels("block").inc()
        self._checkpointer.set_aside(place, reason)
        log.error(
            "a damaged block was set aside", ordinal=ordinal, entries=len(numbers), reason=reason
        )
        assert self._home is not None
        path = self._files.path(place)
        await self._flusher.flush_all()
        await self._chores.run(self._home.keep_damaged, path, place.offset, place.length)

    # -- fences and producers ---------------------------------------------------------------------

    async def seal(self, request: SealRequest) -> None:
        """Fences a shard; durable when it returns, and every put before it is applied.

        Raises:
            StaleShardEpoch: a newer epoch, or another leader at this one, is known (details: `epoch`).
        """
        self._check_writable()
        record = self._engine.seal(request)
        failpoint("seal.before")
        await self._puts.append([record])
        failpoint("seal.after")

    async def producer_states(self, shard: int, producer: ProducerKey) -> ProducerStates:
        """Every epoch known of a producer, ascending: what an acknowledgement may count."""
        self._check_ready()
        self._engine.holdings.vouch(self._clock.wall_micros())
        return states_of(self._engine.holdings, shard, producer)

    async def producers(self, request: ProducersRequest) -> list[tuple[int, ProducerState]]:
        """(shard, state) of producer epochs: those with gaps, or of one service."""
        self._check_ready()
        return self._engine.holdings.producers.listed(request)

    async def seal_producer_epoch(
        self, shard: int, producer: ProducerKey, epoch: int, ring_epoch: int
    ) -> EpochSealed:
        """Makes `epoch` the newest if it is greater; durable when it returns. Raises StaleRingEpoch."""
        self._check_writable()
        record, raised = self._engine.claim_producer(shard, producer, epoch, ring_epoch)
        await self._puts.append([record])
        failpoint("seal.producer")
        return EpochSealed(self._engine.holdings.producers.newest_epoch(shard, producer), raised)

    def observe_epochs(self, ring_epoch: int, shard_epochs: dict[int, int]) -> None:
        """Raises what this node knows, from the metadata snapshot."""
        self._engine.observe(ring_epoch, shard_epochs)

    # -- housekeeping -----------------------------------------------------------------------------

    async def _tend_blocks(self) -> None:
        """In turn: merges what is small, removes what is hidden. Both hold entry numbers while they wait."""
        failure: Exception | None = None
        try:
            await self._compactor.step()
        except Exception as error:  # noqa: BLE001 - raised below: what cannot be merged can still expire
            failure = error
        await self._retiring.step(writable=not self.read_only)
        self._compactor.pause_seconds = self._retiring.pause(self._compactor.pause_seconds)
        if failure is not None:
            raise failure

    async def _watch_disk(self) -> None:
        self._look_at_disk()
        if self._wal.failed_for_space and not self._disk.low:
            try:
                await self._chores.run(self._wal.resume)
            except OSError as error:
                log.warning("the log stays closed", error=error)

    def _look_at_disk(self) -> None:
        if self._disk.observe(self._free(self.directory)):
            event = "read-only" if self._disk.low else "writable again"
            log.warning(event, free_bytes=self._disk.free_bytes)
        self._gauges.show(self._disk.free_bytes, self.read_only, self._engine.holdings)

    # -- asking -----------------------------------------------------------------------------------

    def digest(self, shard: int) -> tuple[int, bytes]:
        """The root of a shard's Merkle tree: (entries, once for each hour they touch; sum of hashes)."""
        return self._engine.holdings.digest(shard, MIN_MICROS, MAX_MICROS)

    def status(self) -> dict[str, Any]:
        """What an operator sees."""
        self._check_ready()
        return {
            "node": self.node_id,
            "incarnation": self.incarnation,
            "disk_free_bytes": self._disk.free_bytes,
            "read_only": self.read_only,
            "waiting_bytes": self._wal.waiting_bytes,
            "cached_bytes": self._hot.cached_bytes,
            "hint_bytes": self.hints.sizes(),
            "scrub": self._scrub.status(),
            **engine_figures(self._engine),
        }
