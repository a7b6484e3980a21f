"""The port to consensus: propose, read, subscribe, in plain types.

The adapter is `cluster.consensus_pysyncobj`; whoever needs agreement depends on this file only.

What it promises: a proposal that returns was committed by a majority, is durable there, and is
applied on this node. `snapshot` is a stale-tolerant local read; after `barrier` it holds everything
committed before the call. `is_leader_hint` is for routing, never a right: two nodes may believe it
at once, and only fencing on the storage nodes makes that harmless.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cluster.state import ClusterState
from records.errors import Refused, Unknown


class NotCommitted(Refused):
    """The command is surely not in the log: no leader, or the queue is full. May be retried."""

    code = "NOT_COMMITTED"


class CommandRefused(Refused):
    """The command was committed and its compare-and-set did not hold (details: `reason`)."""

    code = "COMMAND_REFUSED"
    http_status = 409

    def __init__(self, reason: str, text: str, **details: Any) -> None:
        super().__init__(text, reason=reason, **details)
        self.reason = reason


class OutcomeUnknown(Unknown):
    """The command may or may not be committed, now or later. Read after a barrier."""

    code = "OUTCOME_UNKNOWN"


class StartRefused(Refused):
    """This manager must not start; the process ends with `exit_code`. Never delete files to go on."""

    code = "START_REFUSED"
    http_status = 500

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text, exit_code=exit_code)
        self.exit_code = exit_code


@runtime_checkable
class Consensus(Protocol):
    """What the rest of the cluster knows of Raft."""

    async def start(self) -> None:
        """Joins the group. Raises StartRefused; returns before a leader is known."""
        ...

    async def stop(self) -> None:
        """Leaves the group in order; afterwards nothing may be proposed."""
        ...

    async def propose(self, op: str, args: Mapping[str, Any], timeout: float = 2.0) -> Any:
        """Commits one command and returns its value. Retried under one request id until `timeout`.

        Raises:
            NotCommitted: surely not in the log.
            OutcomeUnknown: it may be there, now or later.
            CommandRefused: committed, but its precondition did not hold.
        """
        ...

    async def barrier(self, timeout: float = 2.0) -> ClusterState:
        """A snapshot that holds all that was committed before the call; raises as `propose`."""
        ...

    def snapshot(self) -> ClusterState:
        """The newest applied state; any thread, no wait."""
        ...

    def watch(self, after: int = -1) -> AsyncIterator[ClusterState]:
        """Each newer snapshot with applied_index > `after`; a slow reader skips some."""
        ...

    def is_leader_hint(self) -> bool:
        """Whether this node believes that it leads the Raft group."""
        ...

    def leader_hint(self) -> str | None:
        """The node believed to lead the Raft group."""
        ...

    def status(self) -> dict[str, Any]:
        """Term, role, indexes and counters, as plain numbers and texts."""
        ...


@dataclass(frozen=True, slots=True)
class ConsensusSettings:
    """One manager of the static group. Times are seconds; from the kill tests of the design.

    A slower network multiplies all times together (`time_scale`), never one alone.
    """

    node_id: str
    cluster_id: str
    #: `host:port` that the others reach this manager at.
    raft_address: str
    #: All managers of the group with their addresses, this one included; 1, 3 or 5 of them.
    peers: Mapping[str, str]
    directory: Path
    #: Exactly 32 random bytes, the same on all managers; see consensus_secret.
    secret: bytes = field(repr=False)
    #: Allows an empty directory: the first start of a new cluster.
    bootstrap: bool = False
    #: Allows an empty directory: the start of a new id in place of a lost manager.
    replace: bool = False
    #: `ip:port` to listen on; default: the resolved `raft_address`. Private or loopback only.
    bind_address: str | None = None
    allow_public_bind: bool = False
    time_scale: float = 1.0
    append_period_seconds: float = 0.05
    election_min_seconds: float = 0.25
    election_max_seconds: float = 0.5
    #: A leader that hears no majority for this long steps down; below election_min, so that it
    #: does before another is elected.
    leader_fallback_seconds: float = 0.2
    tick_seconds: float = 0.02
    keepalive_seconds: float = 0.25
    connection_timeout_seconds: float = 1.5
    connection_retry_seconds: float = 0.25
    #: One attempt of a proposal; then it is sent again under the same request id.
    attempt_seconds: float = 0.75
    #: The process ends when the Raft thread stands still this long; the supervisor restarts it.
    watchdog_seconds: float = 2.0
    #: As watchdog_seconds, while an fsync is running: a slow disk is not a dead thread.
    fsync_stall_seconds: float = 10.0
    compaction_entries: int = 5000
    compaction_seconds: float = 300.0
