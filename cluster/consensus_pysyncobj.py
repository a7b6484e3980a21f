"""Consensus on PySyncObj 0.3.17: the adapter between asyncio and the Raft thread.

It owns the start order, the threads, and the way back from the Raft thread to the loop; proposals
are consensus_proposals', the replicated object and the node consensus_raft's.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Any

import pysyncobj.syncobj
from pysyncobj import SyncObjConf
from pysyncobj.journal import MemoryJournal

from cluster import consensus_unpickler
from cluster.consensus import ConsensusSettings
from cluster.consensus_failstop import EXIT_CONFIG, FailStop, fail_stop, refuse
from cluster.consensus_journal import DurableJournal
from cluster.consensus_proposals import Proposer
from cluster.consensus_raft import (
    LEADER,
    ROLE_NAMES,
    DumpStore,
    MetaState,
    RaftCounters,
    RaftNode,
)
from cluster.consensus_start import DUMP_FILE, Prepared, prepare
from cluster.consensus_unpickler import Refusals
from cluster.consensus_watchdog import Watchdog, WatchdogRule
from cluster.state import ClusterState
from runtime.clock import Clock
from runtime.logs import get_logger

log = get_logger(__name__)
_BATCH_BYTES = 262_144
_QUEUE = 10_000
_BIND_SECONDS = 3.0
_TRANSFER_SECONDS = 0.5
_prepared: dict[str, DurableJournal] = {}
_install_lock = threading.Lock()


def _create_journal(path: str | None = None) -> Any:
    """Takes the place of PySyncObj's journal factory; journals are opened before it asks."""
    return MemoryJournal() if path is None else _prepared.pop(path)


def _install() -> None:
    with _install_lock:
        consensus_unpickler.install()
        pysyncobj.syncobj.createJournal = _create_journal  # pyright: ignore[reportPrivateImportUsage]


class PySyncObjConsensus:
    """The port `Consensus`. Create and start it in the thread that lives as long as the process."""

    def __init__(
        self, settings: ConsensusSettings, clock: Clock, *, stop_process: FailStop = fail_stop
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._stop_process = stop_process
        self._counters = RaftCounters()
        self._meta = MetaState(self._applied, self._counters, stop_process)
        self._names = {address: node for node, address in settings.peers.items()}
        self._proposer = Proposer(
            settings.node_id, self._meta, clock, settings.attempt_seconds * settings.time_scale
        )
        self._node: RaftNode | None = None
        self._prepared: Prepared | None = None
        self._watchdog: Watchdog | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._wake_pending = False
        self._stopped = False

    # -- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Takes the directory, opens journal and dump, binds the port and begins to tick.

        Blocks the loop for about 0.1 s: PySyncObj ends its thread with the thread that made it.

        Raises:
            StartRefused: see consensus_start; `exit_code` is the process's.
        """
        settings = self.settings
        self._loop = asyncio.get_running_loop()
        prepared = prepare(settings, self._stop_process)
        if prepared.dump is not None:  # the first tick would load the same
            self._meta.install(prepared.dump.state)
        try:
            node = self._build(prepared)
        except BaseException:
            prepared.journal.close_quietly()
            prepared.release()
            raise
        self._node, self._prepared = node, prepared
        self._proposer.node, self._proposer.incarnation = node, prepared.incarnation
        try:
            await self._wait_bound(node)
        except BaseException:
            await self.stop()
            raise
        period = settings.watchdog_seconds * settings.time_scale / 20
        rule = WatchdogRule(
            settings.watchdog_seconds * settings.time_scale, settings.fsync_stall_seconds, period
        )
        self._watchdog = Watchdog(node, rule, self._stop_process)
        self._watchdog.start()

    def _build(self, prepared: Prepared) -> RaftNode:
        settings = self.settings
        journal_path = str(prepared.journal.path)
        _install()
        _prepared[journal_path] = prepared.journal
        others = [a for node, a in sorted(settings.peers.items()) if node != settings.node_id]
        try:
            return RaftNode(
                settings.raft_address,
                others,
                self._conf(journal_path, prepared.bind_address),
                self._meta,
                prepared.journal,
                keepalive_seconds=settings.keepalive_seconds * settings.time_scale,
                stop=self._stop_process,
            )
        finally:
            _prepared.pop(journal_path, None)

    def _conf(self, journal_path: str, bind_address: str) -> SyncObjConf:
        s = self.settings
        scale = s.time_scale
        store = DumpStore(self._meta, self._stop_process)
        return SyncObjConf(
            appendEntriesPeriod=s.append_period_seconds * scale,
            raftMinTimeout=s.election_min_seconds * scale,
            raftMaxTimeout=s.election_max_seconds * scale,
            autoTickPeriod=s.tick_seconds,
            leaderFallbackTimeout=s.leader_fallback_seconds * scale,
            connectionTimeout=s.connection_timeout_seconds * scale,
            connectionRetryTime=s.connection_retry_seconds * scale,
            bindRetryTime=0.2,
            appendEntriesUseBatch=False,
            appendEntriesBatchSizeBytes=_BATCH_BYTES,
            commandsWaitLeader=False,
            commandsQueueSize=_QUEUE,
            useFork=False,
            dynamicMembershipChange=False,
            logCompactionMinEntries=s.compaction_entries,
            logCompactionMinTime=s.compaction_seconds,
            journalFile=journal_path,
            fullDumpFile=str(s.directory / DUMP_FILE),
            serializer=store.write,
            deserializer=store.read,
            password=s.secret,
            bindAddress=bind_address,
        )

    async def _wait_bound(self, node: RaftNode) -> None:
        for _ in range(int(_BIND_SECONDS / 0.02)):
            if node.transport.ready:
                return
            await self._clock.sleep(0.02)
        refuse(EXIT_CONFIG, f"cannot bind {node.conf.bindAddress}")

    async def stop(self) -> None:
        """Hands leadership on if it can, then ends the threads and closes journal and sockets."""
        if self._stopped:
            return
        self._stopped = True
        self._changed.set()
        node, self._node = self._node, None
        self._proposer.node = None
        if node is None:
            return
        if node.role == LEADER and node.otherNodes:
            node.transfer_wanted = True
            for _ in range(int(_TRANSFER_SECONDS / 0.02)):
                if node.role != LEADER:
                    break
                await self._clock.sleep(0.02)
        if self._watchdog is not None:
            await asyncio.to_thread(self._watchdog.stop)
        await asyncio.to_thread(node.destroy_synchronous)
        _close_pipe(node)
        if self._prepared is not None:
            self._prepared.release()

    async def __aenter__(self) -> "PySyncObjConsensus":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- reading -----------------------------------------------------------------------------

    def snapshot(self) -> ClusterState:
        """The newest applied state; any thread, no wait."""
        return self._meta.state

    async def watch(self, after: int = -1) -> AsyncIterator[ClusterState]:
        """Each newer snapshot with applied_index > `after`, the newest only; ends with `stop`."""
        while not self._stopped:
            changed = self._changed
            state = self.snapshot()
            if state.applied_index > after:
                after = state.applied_index
                yield state
            else:
                await changed.wait()

    def _applied(self) -> None:
        """On the tick thread, after each command; many of them wake the loop once."""
        if self._loop is not None and not self._wake_pending:
            self._wake_pending = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is watching
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._wake_pending = False
        self._changed.set()
        if not self._stopped:
            self._changed = asyncio.Event()

    # -- leadership --------------------------------------------------------------------------

    def is_leader_hint(self) -> bool:
        """Whether this node believes that it leads. Another may believe it too."""
        return self._node is not None and self._node.role == LEADER

    def leader_hint(self) -> str | None:
        """The node believed to lead, if any, and if it is connected."""
        leader = None if self._node is None else self._node.reachable_leader()
        return None if leader is None else self._names.get(leader)

    def predecessor(self) -> str | None:
        """Who led before this node became leader, as far as it saw."""
        address = None if self._node is None else self._node.predecessor
        return None if address is None else self._names.get(address)

    @property
    def term(self) -> int:
        """The Raft term; not an epoch of anything else."""
        return 0 if self._node is None else self._node.raftCurrentTerm

    @property
    def incarnation(self) -> int:
        """How often this manager's directory was started, this time included."""
        return 0 if self._prepared is None else self._prepared.incarnation

    @property
    def ready(self) -> bool:
        """Whether this node has caught up with a leader once since it started."""
        return self._node is not None and self._node.isReady()

    async def wait_ready(self, timeout: float = 10.0) -> None:
        """Returns when `ready`. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not self.ready:
                await self._clock.sleep(0.01)

    # -- proposing ---------------------------------------------------------------------------

    async def barrier(self, timeout: float = 2.0) -> ClusterState:
        """A snapshot that holds all that was committed before the call (a replicated no-op)."""
        await self.propose("Noop", {}, timeout)
        return self.snapshot()

    async def propose(self, op: str, args: Mapping[str, Any], timeout: float = 2.0) -> Any:
        """Commits one command; returns its value once it is applied on this node.

        Raises:
            NotCommitted, OutcomeUnknown, CommandRefused: see the port.
            InvalidRequest: no such operation, or a feature level that this binary does not know.
        """
        return await self._proposer.propose(op, args, timeout)

    # -- status ------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Plain numbers and texts; counters only rise."""
        state = self.snapshot()  # once: the tick thread puts newer ones there meanwhile
        base: dict[str, Any] = {
            "node_id": self.settings.node_id,
            "term": self.term,
            "leader": self.leader_hint(),
            "ready": self.ready,
            "incarnation": self.incarnation,
            "applied_index": state.applied_index,
            "state_hash": state.history.hex(),
            "checkpoint": state.checkpoint.number,
            "checkpoint_hash": state.checkpoint.digest.hex(),
            "proposals": dict(self._proposer.outcomes),
            "proposal_retries": self._proposer.retries,
            "late_results": self._proposer.late_results,
            "full_pipes": self._proposer.full_pipes,
            "foreign_globals": Refusals.count,
            **asdict(self._counters),
        }
        node = self._node
        if node is None:
            return {**base, "role": "stopped"}
        journal = node.journal
        return {
            **base,
            "role": ROLE_NAMES[node.role],
            "applied": node.raftLastApplied,
            "commit": node.raftCommitIndex,
            "log_length": len(journal),
            "connected": sum(node.isNodeConnected(n) for n in node.otherNodes),
            "has_quorum": node.hasQuorum,
            "fsyncs": journal.fsyncs,
            "fsync_seconds": journal.fsync_seconds,
            "fsync_seconds_max": journal.fsync_seconds_max,
            **asdict(node.transport.counters),
            **asdict(node.transport.wire),
        }


def _close_pipe(node: RaftNode) -> None:
    """PySyncObj never closes its notify pipe."""
    pipe = getattr(node, "_SyncObj__pipeNotifier", None)
    for name in ("_PipeNotifier__pipeR", "_PipeNotifier__pipeW"):
        handle = getattr(pipe, name, None)
        if handle is not None:
            os.close(handle)
