"""Rebalancer: the loop on the Raft leader that carries out a change of the ring. A shell.

What is next is `rebalance_plan`'s to say, from the replicated state; here copies run, heartbeats are
looked at, commands are proposed. Each proposal is compare-and-set on the ring epoch, so two leaders, or
one twice, do no harm. A new leader goes on from the state: what had flipped stays, what was being copied
is compared again.

A step is proposed only when each live member has said that it knows the ring epoch before it, so that few
writes and reads begin anew. It is not what makes the last stage safe, as a member may be cut off: before a
shard finishes, N-R+1 of its old owners have durably raised their ring epoch. A writer by an older ring is
refused by them; a reader of any R old owners is told by one of them that there is a newer ring.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cluster.consensus import CommandRefused, Consensus, NotCommitted, OutcomeUnknown
from cluster.rebalance_plan import (
    Command,
    begin,
    drained,
    moves_left,
    next_command,
    ring_of_living,
)
from cluster.shard_copy import CopyReport, CopyTask
from cluster.state_moves import Row, raises_r, row_after, row_before
from cluster.state_types import COPYING, ClusterState, ShardMove
from records.errors import InvalidRequest, InvalidSettings, QuorumlogError
from ring.ring import Ring
from ring.serde import ring_of
from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.metrics import Metrics
from runtime.tasks import Supervisor

log = get_logger(__name__)
#: Seconds between two looks while a change runs, and while none does.
STEP_SECONDS, IDLE_SECONDS = 0.05, 0.5
#: Seconds of leading before the first step: everybody's heartbeats have come by then.
SETTLE_SECONDS = 1.0
#: Seconds of leading after which a member that was never heard holds up nothing any more.
UNHEARD_SECONDS = 5.0
#: Seconds before a copy that failed is made again, or a command that was refused is proposed again.
AGAIN_SECONDS = 1.0
PROPOSE_SECONDS = 2.0
#: Seconds of silence after which nothing is copied to a node. (A single call that failed is a silence, too,
#: until its next heartbeat.)
AWAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RebalanceSettings:
    """How shards move between nodes."""

    #: Shards that move at once. More ends sooner and takes more of each node meanwhile.
    parallel: int = 4
    #: Bytes per second of all copies together, 0 for no bound. A gigabyte takes 20 s at the default.
    bytes_per_second: int = 50_000_000
    #: Seconds that a storage node may be silent until others take its shards; 0: never by itself. Set it
    #: well above a restart or a reboot, as moving back costs as much again.
    replace_dead_after_seconds: float = 0.0
    #: Seconds after a change before copies that have no owner any more are removed from disk.
    let_go_after_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not 1 <= self.parallel <= 256:
            raise InvalidSettings(f"[rebalance] parallel must be in 1..256, got {self.parallel}")
        for name in ("bytes_per_second", "replace_dead_after_seconds", "let_go_after_seconds"):
            if getattr(self, name) < 0:
                raise InvalidSettings(f"[rebalance] {name} must not be negative")


class Copier(Protocol):
    """cluster.shard_copy.ShardCopier."""

    async def copy(self, task: CopyTask) -> CopyReport: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the loop asks of the node it runs in.

    `lagging(ring_epoch, unheard)`: live members that do not know the epoch; `heard(node)`: whether its
    heartbeats come; `raise_ring(node, epoch)`: whether its store knows the epoch, durably;
    `drain(nodes)`: these lead no shards from now on, all others may.
    """

    lagging: Callable[[int, bool], list[str]]
    heard: Callable[[str], bool]
    raise_ring: Callable[[str, int], Awaitable[bool]]
    drain: Callable[[frozenset[str]], None]


@dataclass(slots=True)
class _Copy:
    """A shard's copy on its way, made, or failed (`again_at`: when to try anew)."""

    move: ShardMove
    task: "asyncio.Task[None] | None" = None
    done: bool = False
    again_at: float = 0.0
    error: str = ""

    @property
    def idle(self) -> bool:
        return self.task is None or self.task.done()

    def put_off(self, again_at: float) -> None:
        """Ends it if it runs; it is made anew from that time on."""
        if self.task is not None and not self.task.done():
            self.task.cancel()
            self.again_at = again_at


@dataclass(slots=True)
class _Figures:
    """Of the change under way on this leader, for people."""

    change: int = 0
    copied_entries: int = 0
    copied_bytes: int = 0
    shards: dict[int, CopyReport] = field(default_factory=dict)


class Rebalancer:
    """One per manager; idle while another leads the Raft group."""

    def __init__(
        self,
        consensus: Consensus,
        copier: Copier,
        around: Surroundings,
        clock: Clock,
        metrics: Metrics,
        settings: RebalanceSettings,
    ) -> None:
        self._consensus, self._copier, self._around = consensus, copier, around
        self._clock, self._settings = clock, settings
        self._tasks = Supervisor("rebalance")
        self._copies: dict[int, _Copy] = {}
        self._leading_since: float | None = None
        self._propose_again_at = 0.0
        self._dead_since: dict[str, float] = {}
        #: Dead nodes that could not be replaced, so that it is said once.
        self._kept: set[str] = set()
        self._figures = _Figures()
        self._waiting: list[str] = []
        #: New owners whose heartbeats have stopped, and since when; those for AWAY_SECONDS are not copied to.
        self._quiet_since: dict[str, float] = {}
        self._away: set[str] = set()
        #: Owners that did not answer when last asked, so that it is said once.
        self._silent: list[str] = []
        self._steps = metrics.counter(
            "quorumlog_ring_steps_total",
            "Steps of ring changes that were committed, by command.",
            ["op"],
        )
        self._bytes = metrics.counter(
            "quorumlog_ring_copied_bytes_total", "Bytes of entries copied to new owners of shards."
        )
        self._failed = metrics.counter(
            "quorumlog_ring_copy_failures_total",
            "Copies of a shard that failed and are made again.",
        )

    async def run(self) -> None:
        """For ever; cancel to end."""
        await self._tasks.forever(self._pause, self.step)

    async def stop(self) -> None:
        """Ends the copies; another leader, or this one later, goes on."""
        await self._tasks.stop()

    def _pause(self) -> float:
        return STEP_SECONDS if self._consensus.snapshot().change is not None else IDLE_SECONDS

    async def step(self) -> None:
        """One look: copies begin, and one command is proposed if it is due."""
        now = self._clock.monotonic()
        if not self._consensus.is_leader_hint():
            self._leading_since = None
            self._dead_since.clear()
            self._cancel_copies(())
            return
        if self._leading_since is None:
            self._leading_since = now
        if now - self._leading_since < SETTLE_SECONDS:
            return
        state = self._consensus.snapshot()
        self._around.drain(drained(state))
        if state.change is None:
            self._cancel_copies(())
            await self._replace_the_dead(state, now)
            return
        self._match_copies(state, now)
        self._waiting = self._around.lagging(
            state.ring_epoch, now - self._leading_since < UNHEARD_SECONDS
        )
        if self._waiting:
            return
        if now < self._propose_again_at:
            return
        command = next_command(state, [s for s, one in self._copies.items() if one.done])
        if command is not None and await self._owners_know(state, command):
            await self._propose(command.op, command.args)

    async def _owners_know(self, state: ClusterState, command: Command) -> bool:
        """Whether no reader that was cut off can go by owners, or an R, that writes need not meet any more.

        N-R+1 owners must know the ring, R being what any reader goes by: the old ones of each shard that
        would finish; and those of each shard, if R was raised and the change would end.
        """
        assert state.ring is not None
        table, read_by = ring_of(state.ring).table, state.read_by
        finishing: list[int] = command.args.get("finish", [])
        old: dict[int, Row] = {s: row_before(state.moving[s], table[s]) for s in finishing}
        if command.op == "EndChange" and raises_r(state):
            old = dict(enumerate(table))
        nodes = sorted({node for owners in old.values() for node in owners})
        answers = await asyncio.gather(
            *(self._around.raise_ring(node, state.ring_epoch) for node in nodes)
        )
        know = {node for node, ok in zip(nodes, answers, strict=True) if ok}
        lacking = [
            s
            for s, owners in old.items()
            if len(know & set(owners)) < len(owners) - min(read_by, len(owners)) + 1
        ]
        self._waiting = sorted(set(nodes) - know) if lacking else []
        if self._waiting != self._silent and lacking:
            log.warning("owners do not answer", shards=lacking, nodes=self._waiting)
        self._silent = self._waiting
        return not lacking

    async def _propose(self, op: str, args: dict[str, Any]) -> None:
        try:
            await self._consensus.propose(op, args, PROPOSE_SECONDS)
        except CommandRefused as error:
            if error.reason == "MISMATCH":  # the next look sees what has changed
                return
            # A refusal is an entry of Raft's log, too.
            self._propose_again_at = self._clock.monotonic() + AGAIN_SECONDS
            if error.reason != "IN_USE":  # the shards it leads are on their way to others
                log.warning("ring step refused", op=op, reason=error.reason, error=error)
        except (NotCommitted, OutcomeUnknown) as error:
            log.debug("ring step not committed", op=op, error=error)
        else:
            self._steps.labels(op).inc()
            log.info("ring step", op=op, **{k: v for k, v in args.items() if k in _SHOWN})

    # -- copies ------------------------------------------------------------------------------------

    def _match_copies(self, state: ClusterState, now: float) -> None:
        """One copy for each shard in its first stage, none for others."""
        assert state.change is not None
        if self._figures.change != state.change.id:
            self._figures = _Figures(state.change.id)
            self._cancel_copies(())
        wanted = {s: m for s, m in state.moving.items() if m.stage == COPYING}
        self._cancel_copies([s for s, m in wanted.items() if self._is_of(s, m)])
        tasks = {shard: _task(state, shard) for shard in wanted}
        self._look_for_quiet({node for task in tasks.values() for node in task.targets}, now)
        for shard, move in wanted.items():
            one, task = self._copies.setdefault(shard, _Copy(move)), tasks[shard]
            if not one.done and self._away & set(task.targets):
                one.put_off(now + AGAIN_SECONDS)  # until its return, not for the deadline of a call
            elif not one.done and one.idle and now >= one.again_at:
                one.task = self._tasks.spawn(f"copy:{shard}", self._copy(one, task))

    def _look_for_quiet(self, targets: set[str], now: float) -> None:
        quiet = {node for node in targets if not self._around.heard(node)}
        self._quiet_since = {node: self._quiet_since.get(node, now) for node in quiet}
        self._away = {n for n, at in self._quiet_since.items() if now - at >= AWAY_SECONDS}

    def _is_of(self, shard: int, move: ShardMove) -> bool:
        return shard in self._copies and self._copies[shard].move == move

    def _cancel_copies(self, keep: Any) -> None:
        for shard in [one for one in self._copies if one not in keep]:
            task = self._copies.pop(shard).task
            if task is not None:
                task.cancel()

    async def _copy(self, one: _Copy, task: CopyTask) -> None:
        try:
            await self._copier.copy(task)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is made again, and told
            known = isinstance(error, QuorumlogError)
            self._failed.inc()
            one.error = f"{error.code}: {error.message}" if known else repr(error)
            one.again_at = self._clock.monotonic() + AGAIN_SECONDS
            (log.warning if known else log.error)(
                "copy of a shard failed", shard=task.shard, error=error
            )
        else:
            one.done, one.error = True, ""

    def told(self, report: CopyReport) -> None:
        """A copy's figures, as they grow."""
        known = self._figures.shards.get(report.shard)
        before = known.bytes if known is not None and known.bytes <= report.bytes else 0
        self._bytes.inc(report.bytes - before)
        self._figures.copied_bytes += report.bytes - before
        self._figures.shards[report.shard] = CopyReport(
            report.shard, report.listed, report.copied, report.bytes, report.rounds
        )

    # -- the dead ----------------------------------------------------------------------------------

    async def _replace_the_dead(self, state: ClusterState, now: float) -> None:
        """Begins a change without the nodes that are silent for long, if the others can hold their shards."""
        limit = self._settings.replace_dead_after_seconds
        if not limit or state.ring is None or now < self._propose_again_at:
            return
        silent = self._silent_members(ring_of(state.ring), now)
        if not silent or min(silent.values()) < limit:
            return  # who is silent for less may be back soon: until then it must not be given shards
        reason = ", ".join(f"{node} is silent for {since:.0f} s" for node, since in silent.items())
        try:
            command = begin(state, ring_of_living(state, silent), reason, **self.bounds())
        except InvalidRequest as error:
            if self._kept != set(silent):
                log.warning("dead nodes are not replaced", nodes=sorted(silent), error=error)
            self._kept = set(silent)
            return
        log.warning("dead nodes are replaced", reason=reason)
        await self._propose(command.op, command.args)

    def _silent_members(self, ring: Ring, now: float) -> dict[str, float]:
        """Members with shards that are not heard, and for how many seconds this leader has not."""
        silent = {
            one.id: now - self._dead_since.get(one.id, now)
            for one in ring.members
            if one.weight > 0 and not self._around.heard(one.id)
        }
        self._dead_since = {node: now - seconds for node, seconds in silent.items()}
        return silent

    def bounds(self) -> dict[str, int]:
        """How much a change may do at once, by the settings."""
        settings = self._settings
        return {"parallel": settings.parallel, "bytes_per_second": settings.bytes_per_second}

    # -- for people --------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Figures of the change under way; only the Raft leader has any."""
        state = self._consensus.snapshot()
        if state.change is None or self._figures.change != state.change.id:
            return {}
        return {
            "change": state.change.id,
            "copied_bytes": self._figures.copied_bytes,
            "waiting_for": sorted({*self._waiting, *self._away}),
            "errors": {str(s): one.error for s, one in self._copies.items() if one.error},
            "shards": {
                str(s): {"listed": one.listed, "copied": one.copied, "bytes": one.bytes}
                for s, one in sorted(self._figures.shards.items())
            },
        }


_SHOWN = ("start", "flip", "finish", "cancel", "reason")


def _task(state: ClusterState, shard: int) -> CopyTask:
    """Whose entries must get to whom before the shard is read from its new owners."""
    assert state.ring is not None
    assert state.change is not None
    owners = ring_of(state.ring).table[shard]
    move = state.moving[shard]
    targets = (move.target,) if move.target else row_after(move, owners)
    needed = max(1, len(owners) - state.acked_on + 1)
    return CopyTask(shard, tuple(owners), needed, targets, state.change.bytes_per_second)


def progress(state: ClusterState) -> dict[str, Any]:
    """The change under way as the replicated state has it; {} if there is none."""
    change = state.change
    if change is None:
        return {}
    target = ring_of(change.target)
    return {
        "id": change.id,
        "reason": change.reason,
        "aborting": change.aborting,
        "quorum_after": dict(zip(("n", "w", "r"), change.quorum, strict=True)),
        "moves_left": len(moves_left(state)),
        "shards_to_settle": state.shard_count - len(change.settled) if change.settle else 0,
        "moving": [
            {"shard": s, "from": m.source or None, "to": m.target or None, "stage": m.stage}
            for s, m in sorted(state.moving.items())
        ],
        "members_after": [one.id for one in target.members],
        "retires": change.retire or None,
        "parallel": change.parallel,
        "bytes_per_second": change.bytes_per_second,
    }
