"""PySyncObj in our hands: the replicated object and the node that ticks.

Everything here runs on PySyncObj's tick thread. The rules that keep one
bad command, or one bad callback, from stopping every manager:

* `MetaState` has ONE replicated method with one bytes argument (method ids come from sorted names:
  a second would renumber the first), and it returns errors instead of raising them.
* No callback of ours lets an exception into PySyncObj; it is counted.
* What need not be equal on all nodes (memory, disk) ends the process.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, SyncObjConsumer, replicated

from cluster.consensus_dump import (
    DumpDamaged,
    encode_dump,
    read_dump,
    sync_file_and_directory,
    write_dump,
)
from cluster.consensus_election import election_seconds
from cluster.consensus_failstop import EXIT_DUMP, EXIT_STATE, FailStop
from cluster.consensus_journal import DurableJournal
from cluster.consensus_transport import SafeTransport
from cluster.consensus_wire import PeerNode
from cluster.state import BinaryTooOld, ClusterState
from cluster.state import apply as apply_command
from runtime.entropy import SystemEntropy
from runtime.logs import get_logger

log = get_logger(__name__)
FOLLOWER, CANDIDATE, LEADER = 0, 1, 2
ROLE_NAMES = {FOLLOWER: "follower", CANDIDATE: "candidate", LEADER: "leader"}


@dataclass(slots=True)
class RaftCounters:
    """Events of one manager since it started."""

    applied_commands: int = 0
    refused_commands: int = 0
    internal_errors: int = 0
    callback_errors: int = 0
    tick_errors: int = 0
    elections: int = 0
    leaderships: int = 0
    dumps: int = 0
    dump_failures: int = 0
    dump_bytes: int = 0
    dump_seconds_max: float = 0.0
    dumps_loaded: int = 0
    state_hash_mismatches: int = 0
    tick_lag_seconds_max: float = 0.0


class MetaState(SyncObjConsumer):
    """The replicated object: holds the newest ClusterState and changes it by commands."""

    def __init__(
        self,
        on_applied: Callable[[], None],
        counters: RaftCounters,
        stop: FailStop,
    ) -> None:
        super().__init__()
        self.state = ClusterState()
        self.counters = counters
        self._on_applied = on_applied
        self._stop = stop

    @replicated
    def apply(self, data: bytes) -> list[Any]:
        """Applies one command; the new state is swapped in by one store. Never raises."""
        index = self._syncObj.raftLastApplied + 1  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        try:
            state, result = apply_command(self.state, data, index)
        except BinaryTooOld as error:
            self._stop(EXIT_STATE, f"this binary is too old for {error}")
        except (MemoryError, OSError, RecursionError) as error:
            self._stop(EXIT_STATE, f"apply at {index}: {type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - raising here would stop every manager
            self.counters.internal_errors += 1
            return ["err", "INTERNAL", type(error).__name__]
        self.state = state
        self.counters.applied_commands += 1
        self.counters.refused_commands += result[0] != "ok"
        self._tell()
        return result

    def install(self, state: ClusterState) -> None:
        """Takes over the state of a dump."""
        self.state = state
        self._tell()

    def _tell(self) -> None:
        try:
            self._on_applied()
        except Exception:  # noqa: BLE001 - see the module: no exception enters PySyncObj
            self.counters.callback_errors += 1


class DumpStore:
    """PySyncObj's serializer and deserializer for `MetaState`."""

    def __init__(self, meta: MetaState, stop: FailStop) -> None:
        self._meta = meta
        self._stop = stop

    def write(self, temporary: str, data: tuple[Any, Any, Any]) -> None:
        """Writes and fsyncs the temporary file; PySyncObj renames it.

        Raises:
            OSError: PySyncObj keeps the old dump and tries again later.
        """
        last, prev, _ = data
        counters = self._meta.counters
        started = time.monotonic()
        try:
            dump = encode_dump(last, prev, self._meta.state)
            write_dump(Path(temporary), dump)
        except Exception as error:
            counters.dump_failures += 1
            log.error("dump failed", error=error)
            raise
        counters.dumps += 1
        counters.dump_bytes = len(dump)
        took = time.monotonic() - started
        counters.dump_seconds_max = max(counters.dump_seconds_max, took)

    def read(self, path: str) -> tuple[Any, Any, set[Any]]:
        """Verifies the dump and takes its state over; a bad one ends the process here, since
        PySyncObj would swallow the exception and go on without a state."""
        try:
            sync_file_and_directory(Path(path))
            dump = read_dump(Path(path))
        except (DumpDamaged, OSError) as error:
            self._stop(EXIT_DUMP, f"{path}: {error}")
        if dump is None:
            self._stop(EXIT_DUMP, f"{path} is gone")
        self._meta.install(dump.state)
        self._meta.counters.dumps_loaded += 1
        return dump.last, dump.prev, set()


class RaftNode(SyncObj):
    """SyncObj with a durable journal, a safe transport, and a pulse for the watchdog."""

    def __init__(
        self,
        address: str,
        others: list[str],
        conf: SyncObjConf,
        meta: MetaState,
        journal: DurableJournal,
        *,
        keepalive_seconds: float,
        stop: FailStop,
    ) -> None:
        self.journal = journal
        self.keepalive_seconds = keepalive_seconds
        self.meta = meta
        self.counters = meta.counters
        self.beat = time.monotonic()
        self.predecessor: str | None = None
        self.transfer_wanted = False
        self._stop_process = stop
        self._seen_leader: str | None = None
        self._peer_checks: dict[str, tuple[int, bytes]] = {}
        self._own_address = address
        self._managers = sorted({address, *others})
        self._entropy = SystemEntropy()
        conf.onStateChanged = self._on_role
        super().__init__(
            address,
            others,
            conf,
            consumers=[meta],
            nodeClass=PeerNode,
            transportClass=SafeTransport,
        )
        journal.applied = lambda: self.raftLastApplied

    @property
    def transport(self) -> SafeTransport:
        """The transport that filters."""
        return self._SyncObj__transport  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def role(self) -> int:
        """FOLLOWER, CANDIDATE or LEADER, as this node believes."""
        return self._SyncObj__raftState  # pyright: ignore[reportAttributeAccessIssue]

    def _SyncObj__generateRaftTimeout(self) -> float:
        """The time of one wait for the leader; see `consensus_election`."""
        conf, managers = self.conf, self._managers
        rank, lot = managers.index(self._own_address), self._entropy.uniform(0, 1)
        low, high = conf.raftMinTimeout, conf.raftMaxTimeout
        return election_seconds(low, high, rank, len(managers), self.raftCurrentTerm, lot)

    def _onTick(self, timeToWait: float = 0.0) -> None:
        """One tick: what was added is durable before this node may count itself."""
        now = time.monotonic()
        lag = now - self.beat - timeToWait
        self.counters.tick_lag_seconds_max = max(self.counters.tick_lag_seconds_max, lag)
        self.beat = now
        self.journal.sync()
        try:
            super()._onTick(timeToWait)
            self._observe_leader()
        except Exception:
            self.counters.tick_errors += 1
            raise  # PySyncObj logs it and ticks on

    def addOnTickCallback(self, callback: Callable[[], None]) -> None:
        """Adds a callback that may raise: unguarded, it would keep every tick from its end."""

        def guarded() -> None:
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - see the module
                self.counters.callback_errors += 1
                if self.counters.callback_errors == 1:
                    log.error("tick callback failed", error=error)

        super().addOnTickCallback(guarded)

    def _checkCommandsToApply(self) -> None:
        """A lone manager has nobody whose ack would end the poll: it wakes itself to commit."""
        super()._checkCommandsToApply()
        if self.journal.pending and not self.otherNodes:
            with contextlib.suppress(BlockingIOError):  # a full pipe wakes it as well
                self._SyncObj__pipeNotifier.notify()  # pyright: ignore[reportAttributeAccessIssue]

    def reachable_leader(self) -> str | None:
        """The leader's address. PySyncObj remembers one that is gone, and would forward to it."""
        leader = self._getLeader()
        if leader is None or (self.role != LEADER and not self.isNodeConnected(leader)):
            return None
        return leader.id

    def _observe_leader(self) -> None:
        leader = self._getLeader()
        if leader is not None and self.role != LEADER:
            self._seen_leader = leader.id
        if self.transfer_wanted:
            self.transfer_wanted = False
            self.transferLeadership()

    def _on_role(self, old: int, new: int) -> None:
        """Runs inside PySyncObj's tick; must not raise."""
        try:
            if new == CANDIDATE:
                self.counters.elections += 1
            if new == LEADER:
                self.counters.leaderships += 1
                seen = self._seen_leader
                self.predecessor = None if seen == self._own_address else seen
                self._seen_leader = self._own_address
            if LEADER in (old, new):
                log.info("raft role", role=ROLE_NAMES[new], term=self.raftCurrentTerm)
        except Exception:  # noqa: BLE001 - see the module
            self.counters.callback_errors += 1

    # -- state hash, compared between managers ---------------------------------------------------

    def checkpoint(self) -> tuple[int, bytes]:
        """(number, digest) of the newest checkpoint; travels in keepalives."""
        number, digest = self.meta.state.checkpoint
        return number, digest

    def on_peer_checkpoint(self, peer: str, number: int, digest: bytes) -> None:
        """A peer's checkpoint. If a majority agrees on another one than ours, ours is wrong."""
        own_number, own = self.checkpoint()
        if number != own_number or not number or self._peer_checks.get(peer) == (number, digest):
            return
        self._peer_checks[peer] = (number, digest)
        if digest == own:
            return
        self.counters.state_hash_mismatches += 1
        log.error("state differs", peer=peer, checkpoint=number)
        others = Counter(d for n, d in self._peer_checks.values() if n == number and d != own)
        group = len(self.otherNodes) + 1
        if others.most_common(1)[0][1] > group / 2:
            self._stop_process(EXIT_STATE, f"the state differs from the majority's at {number}")
