"""SyncLoop: a storage node fetches by itself what it lacks of the shards it owns, from their other owners.

One session at a time: whom to compare with is `sync_turns`, how is `sync_shards`. A node that comes back
begins at once, so nobody has to notice it. `start_pass` makes it compare everything now, with each peer
until nothing lacks (`quorumlog repair`). Nothing here decides what is true: entries are put if absent, and
only into a store that knows no newer ring.

Owners are those that are read. Where a shard moves, its new owner is filled by the copy (shard_copy), and
what is acknowledged meanwhile is on W of both sets; from the moment it is read it is compared as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from cluster.pace import Pace
from cluster.replica_client import Replicas
from cluster.sync_book import SyncBook
from cluster.sync_holes import HoleBook
from cluster.sync_pass import Pass
from cluster.sync_settings import RepairSettings
from cluster.sync_shards import Store, SyncLimits, SyncReport, admit_all, sync_shards
from cluster.sync_turns import PeerTurns
from cluster.view import ClusterView, ViewSource
from records.block import EntryHeader
from records.errors import DeadlineExceeded, NotReady, QuorumlogError, StaleRingEpoch
from records.timestamps import MAX_MICROS
from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.metrics import Metrics
from storage.holes import Holes

log = get_logger(__name__)
#: Seconds between two looks at who is due.
STEP_SECONDS = 0.25
#: By how much the time for an answer grows at most: 4 MiB in 8 minutes is 9 kB/s.
PATIENCE_MAX = 16
Shared = dict[int, tuple[str, ...]]


class OwnStore(Store, Protocol):
    """This node's store."""

    @property
    def blocks_set_aside(self) -> int: ...

    @property
    def holes(self) -> Holes: ...


class SyncLoop:
    """The anti-entropy of one node. A supervisor runs `step` again and again, STEP_SECONDS between."""

    def __init__(
        self,
        node_id: str,
        store: OwnStore,
        views: ViewSource,
        replicas: Replicas,
        clock: Clock,
        metrics: Metrics,
        settings: RepairSettings,
        admit: Callable[[EntryHeader], bool] = admit_all,
    ) -> None:
        """`admit` may refuse entries by their header; see sync_shards."""
        self._node_id, self._store, self._views, self._replicas = node_id, store, views, replicas
        self._clock, self._admit = clock, admit
        self._limits = SyncLimits(settings.settled_after_seconds, settings.second_look_seconds)
        self._turns = PeerTurns(settings.interval_seconds, settings.wait_seconds_max)
        self._pace = Pace(clock, settings.bytes_per_second)
        self._book = SyncBook()
        self._hole_book = HoleBook()
        self._pass: Pass | None = None
        #: A pass that was asked for while one ran.
        self._next: Pass | None = None
        self._passes = 0
        self._since = clock.wall_micros()
        self._set_aside = 0
        #: By peer: places that seemed to be in conflict in the last session.
        self._suspected: dict[str, set[bytes]] = {}
        #: By peer: how many times longer than usual it is given for an answer, after time-outs.
        self._patience: dict[str, int] = {}
        self._counters = _Counters(metrics)
        self._counters.lacking.set_function(self._book.lacking)
        self._counters.age.set_function(self._age_seconds)

    # -- the loop ---------------------------------------------------------------------------------

    async def step(self) -> None:
        """One session with the peer that is due, if any; or a whole pass, if one was asked for."""
        view = self._views.current()
        if not view.ready:
            return
        shared = self._shared(view)
        self._book.keep(shared)
        if self._pass is not None and self._pass.running:
            await self._run_pass(self._pass)
            self._pass, self._next = self._next or self._pass, None
            return
        alive = {peer: view.is_alive(peer) for peers in shared.values() for peer in peers}
        now = self._clock.monotonic()
        if (set_aside := self._store.blocks_set_aside) != self._set_aside:
            self._turns.at_once(alive, now)
            self._set_aside = set_aside
        peer = self._turns.due(alive, now)
        if peer is None:
            return
        report, error = await self._session(peer, _shards_with(shared, peer))
        self._take_turn(peer, report, error)

    def _take_turn(self, peer: str, report: SyncReport, error: Exception | None) -> None:
        """When the peer's turn comes again."""
        now = self._clock.monotonic()
        if isinstance(error, StaleRingEpoch):
            self._turns.soon(peer, now)
        elif error is not None:
            self._turns.fruitless(peer, now)
        elif report.stored or not (report.compared or _hopeless(report)):
            self._turns.soon(peer, now)
        elif report.complete and not _hopeless(report):
            self._turns.equal(peer, now)
        else:
            self._turns.fruitless(peer, now)

    def _shared(self, view: ClusterView) -> Shared:
        """The other owners of each shard that this node owns."""
        owners = {shard: view.owners(shard) for shard in range(view.shard_count)}
        me = self._node_id
        return {s: tuple(n for n in names if n != me) for s, names in owners.items() if me in names}

    def _limits_of(self, peer: str) -> SyncLimits:
        """Those of the settings, with more time for a peer behind a slow link: a block comes whole or not."""
        times = self._patience.get(peer, 1)
        return replace(
            self._limits,
            answer_seconds=self._limits.answer_seconds * times,
            fetch_seconds=self._limits.fetch_seconds * times,
        )

    def _both_own(self, shard: int, peer: str) -> bool:
        """Whether this node and the peer are owners, by the ring of now."""
        return {self._node_id, peer} <= set(self._views.current().owners(shard))

    async def _session(
        self, peer: str, shards: Sequence[int]
    ) -> tuple[SyncReport, Exception | None]:
        """One call of sync_shards; never raises but for being cancelled."""
        report, failure = SyncReport(), None
        until = self._clock.wall_micros() - int(self._limits.settled_after_seconds * 1_000_000)
        holes = self._store.holes.numbers(shards, until)
        try:
            await sync_shards(
                self._replicas.get(peer),
                self._store,
                shards,
                ring_epoch=lambda: self._views.current().ring_epoch,
                clock=self._clock,
                pace=self._pace,
                shares=lambda shard: self._both_own(shard, peer),
                limits=self._limits_of(peer),
                admit=self._admit,
                report=report,
            )
        except QuorumlogError as error:
            failure = error
            self._counters.failures.labels(error.code).inc()
            tell = log.debug if isinstance(error, StaleRingEpoch) else log.warning
            tell("comparing with an owner failed", target=peer, error=error)
        except Exception as error:  # noqa: BLE001 - a loop that must live; counted and logged
            failure = error
            self._counters.failures.labels("INTERNAL").inc()
            log.error("comparing with an owner failed", target=peer, error=error)
        self._learn_patience(peer, report, failure)
        self._counters.count(report)
        self._book.note(peer, shards, report, self._clock.wall_micros())
        if holes and report.complete:
            self._hole_book.note(peer, holes)
            self._close_holes()
        if report.stored:
            stored, size = report.stored, report.block_bytes
            log.info("repaired from an owner", target=peer, entries=stored, bytes=size)
        self._judge_conflicts(peer, report)
        return report, failure

    def _learn_patience(self, peer: str, report: SyncReport, failure: Exception | None) -> None:
        """Twice the time after a time-out, half of it after a session that needed no block.

        A link may be slow, or was so once: each lost answer holds up all other peers for as long.
        """
        times = self._patience.get(peer, 1)
        if isinstance(failure, DeadlineExceeded):
            self._patience[peer] = min(2 * times, PATIENCE_MAX)
        elif failure is None and not report.block_bytes:
            self._patience[peer] = max(1, times // 2)

    def _close_holes(self) -> None:
        """This node counts again for shards that it has compared with everybody since damage took rows."""
        shared = self._shared(self._views.current())
        closed = self._hole_book.closed(self._store.holes.numbers(shared, MAX_MICROS), shared)
        if not closed:
            return
        if entries := self._store.holes.lacking(closed):  # with W copies damaged: lost
            text = "entries that damage took are on no owner: hidden, never acknowledged, or lost"
            log.warning(text, entries=entries, shards=closed)
        self._store.holes.forget(closed)
        log.info("shards with damaged blocks are whole again", shards=len(closed))

    def accept_loss(self, shards: Sequence[int] | None = None) -> int:
        """An operator gives up what damage took here and no owner has: reads are complete without it.

        How many shards (of `shards`, or all that this node owns) had a hole.
        """
        wanted = self._shared(self._views.current()) if shards is None else shards
        accepted = self._store.holes.within(wanted)
        self._store.holes.forget(accepted)
        if accepted:
            log.warning("the loss of damaged rows was accepted", shards=len(accepted))
        return len(accepted)

    def _judge_conflicts(self, peer: str, report: SyncReport) -> None:
        """Tells of conflicts: those that a put has seen, and places found in two sessions after another."""
        suspected = self._suspected.get(peer, set())
        certain = report.conflicts + len(report.conflicting & suspected)
        if report.compared:
            self._suspected[peer] = report.conflicting
        if certain:
            self._counters.entries.labels("conflict").inc(certain)
            log.error("owners hold other contents under one id", target=peer, places=certain)

    # -- passes -----------------------------------------------------------------------------------

    def start_pass(self, shards: Sequence[int] | None = None) -> int:
        """Compares everything (or `shards`) with every peer, from now on; the number of the pass.

        While one runs, another is made after it: what that has compared already may differ since. Who asks
        while one waits gets that one, made larger if need be.

        Raises:
            NotReady: there is no ring yet.
        """
        if not self._views.current().ready:
            raise NotReady("there is no ring yet", retry_after_seconds=1.0)
        wanted = None if shards is None else tuple(sorted(set(shards)))
        running = self._pass is not None and self._pass.running
        waiting = self._next if running and self._pass and self._pass.begun else self._pass
        if waiting is not None and waiting.running:
            waiting.widen(wanted)
            return waiting.number
        self._passes += 1
        made = Pass(self._passes, wanted, self._clock.wall_micros())
        if running:
            self._next = made
        else:
            self._pass = made
        return made.number

    async def _run_pass(self, one: Pass) -> None:
        view = self._views.current()
        one.begun, one.started_at = True, self._clock.wall_micros()
        shared = {s: peers for s, peers in self._shared(view).items() if one.takes(s)}
        peers = sorted({peer for found in shared.values() for peer in found})
        one.peers_total = len(peers)
        for peer in peers:
            more = True
            while more:
                shared = self._shared(self._views.current())
                shards = [s for s in _shards_with(shared, peer) if one.takes(s)]
                report, error = await self._session(peer, shards)
                more = one.note(peer, report, None if error is None else _text_of(error))
        one.finished_at = self._clock.wall_micros()
        log.info("repair has ended", found=one.found, repaired=one.repaired, failures=one.failures)

    # -- asking -----------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What is known to lack here, since when, and the last pass. Times in microseconds."""
        view = self._views.current()
        return {
            "lacking": self._book.lacking(),
            "compared_at": self._book.compared_at(self._shared(view)),
            "pass": None if self._pass is None else self._pass.to_dict(),
            "next_pass": None if self._next is None else self._next.number,
            "shards": self._book.listed(),
            "damaged": list(self._store.holes.within(self._shared(view))),
        }

    def _age_seconds(self) -> float:
        shared = self._shared(self._views.current())
        if not any(shared.values()):  # nobody to compare with
            return 0.0
        oldest = self._book.compared_at(shared)
        since = self._since if oldest is None else oldest
        return max(0.0, (self._clock.wall_micros() - since) / 1e6)


def _hopeless(report: SyncReport) -> bool:
    """Whether there is a difference that copying from this peer does not mend."""
    return bool(report.conflicts or report.conflicting or report.surplus or report.refused)


def _text_of(error: Exception) -> str:
    return error.message if isinstance(error, QuorumlogError) else repr(error)


def _shards_with(shared: Shared, peer: str) -> list[int]:
    return [shard for shard, peers in shared.items() if peer in peers]


class _Counters:
    """The metrics of the loop."""

    def __init__(self, metrics: Metrics) -> None:
        self.sessions = metrics.counter(
            "quorumlog_sync_sessions_total", "Comparisons with an owner, by outcome.", ["outcome"]
        )
        self.entries = metrics.counter(
            "quorumlog_sync_entries_total",
            "Entries that differed from an owner's, by what became of them.",
            ["outcome"],
        )
        self.bytes = metrics.counter(
            "quorumlog_sync_bytes_total", "Bytes of anti-entropy: trees compared, blocks.", ["kind"]
        )
        self.failures = metrics.counter(
            "quorumlog_sync_failures_total", "Comparisons that failed, by error code.", ["code"]
        )
        self.lacking = metrics.gauge(
            "quorumlog_sync_lacking_entries", "Entries known to lack here that an owner has."
        )
        self.age = metrics.gauge(
            "quorumlog_sync_age_seconds",
            "Since when every shard has been compared with every other owner.",
        )

    def count(self, report: SyncReport) -> None:
        """Counts a session."""
        equal = "equal" if report.equal else "differs"
        self.sessions.labels(equal if report.compared else "unfinished").inc()
        for outcome in ("stored", "settled", "needless", "refused", "vanished"):
            self.entries.labels(outcome).inc(getattr(report, outcome))
        self.bytes.labels("trees").inc(report.tree_bytes)
        self.bytes.labels("blocks").inc(report.block_bytes)
