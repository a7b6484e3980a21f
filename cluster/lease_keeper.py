"""LeaseKeeper: the loop on the Raft leader that keeps every shard led.

It does nothing until a no-op of its own reign is committed and applied here (its own barrier), so
that it decides on all that its predecessors decided. Then, each sweep: found the cluster if it is
new, hand orphaned shards on (one command for all of them), or move one shard for balance.

Decisions are cluster.lease_table's and cluster.lease_founding's. Each proposal is compare-and-set on
the shard's epoch: if it is refused, or its outcome is unknown, the next sweep looks again.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from cluster.consensus import CommandRefused, Consensus, NotCommitted, OutcomeUnknown
from cluster.lease_founding import BuildRing, FoundingSettings, first_ring, founding_step
from cluster.lease_table import Assignment, LeaseRules, LeaseTable, Plan
from runtime.clock import Clock
from runtime.logs import get_logger

__all__ = ["FoundingSettings", "LeadingConsensus", "LeaseKeeper", "LeaseRules"]

log = get_logger(__name__)
#: Assignments of one command; about 80 bytes each, of the 32 KiB that a command may have.
ASSIGNMENTS_PER_COMMAND = 256
#: Seconds that one proposal of the keeper may take.
PROPOSE_SECONDS = 1.0

Release = Callable[[str, int, int], Awaitable[None]]
"""(node, shard, epoch): asks a shard's leader to stop and flush, before a planned move."""


class LeadingConsensus(Consensus, Protocol):
    """Consensus on a voter, which can lead."""

    @property
    def term(self) -> int:
        """The Raft term."""
        ...

    def predecessor(self) -> str | None:
        """Who led before this node, as far as it saw."""
        ...


class LeaseKeeper:
    """One per manager; idle while another leads."""

    def __init__(
        self,
        node_id: str,
        consensus: LeadingConsensus,
        clock: Clock,
        founding: FoundingSettings,
        *,
        rules: LeaseRules | None = None,
        expected_ingestors: frozenset[str] = frozenset(),
        build_ring: BuildRing = first_ring,
        release: Release | None = None,
    ) -> None:
        self.table = LeaseTable(node_id, rules, expected_ingestors)
        self._node_id = node_id
        self._consensus = consensus
        self._clock = clock
        self._founding = founding
        self._build_ring = build_ring
        self._release = release
        self._reign: int | None = None
        self._counts = dict.fromkeys(
            (
                "reigns",
                "takeovers",
                "moves",
                "proposals_refused",
                "proposals_failed",
                "sweeps_failed",
            ),
            0,
        )

    def on_heartbeat(
        self, node: str, incarnation: int, ring_epoch: int, held: bytes, wall_micros: int
    ) -> None:
        """A node is alive. On a node that does not lead it is forgotten with the next reign."""
        self.table.heard(
            node,
            incarnation,
            self._clock.boottime(),
            ring_epoch=ring_epoch,
            held=held,
            wall=wall_micros,
        )

    def drain_only(self, nodes: frozenset[str]) -> None:
        """Moves the shards of these nodes, and of no others, away, one by one, while this manager leads."""
        self.table.drain_only(nodes)

    def median_wall_micros(self, at_least: int = 1) -> int | None:
        """The median of the live nodes' wall clocks; None if this node does not reign, or hears of fewer."""
        if self._reign is None:
            return None
        return self.table.median_wall(self._clock.boottime(), at_least)

    def status(self) -> dict[str, Any]:
        """Counters, and who is considered alive."""
        state = self._consensus.snapshot()
        return {
            "reigning": self._reign is not None,
            "live": self.table.live(state, self._clock.boottime()) if self._reign else [],
            "late_sweeps": self.table.late_sweeps,
            **self._counts,
        }

    async def run(self) -> None:
        """For ever; cancel to end."""
        while True:
            try:
                if await self._reigning():
                    await self.step()
            except Exception as error:  # noqa: BLE001 - a loop that must live: no shard would be led again
                self._counts["sweeps_failed"] += 1
                log.error("sweep failed", error=error)
            await self._clock.sleep(self.table.rules.sweep)

    async def _reigning(self) -> bool:
        """Whether this node leads and its own barrier is committed in this term."""
        consensus = self._consensus
        if not consensus.is_leader_hint():
            self._reign = None
            return False
        term = consensus.term
        if self._reign == term:
            return True
        self._reign = None
        try:
            state = await consensus.barrier(PROPOSE_SECONDS)
        except (NotCommitted, OutcomeUnknown) as error:
            self._counts["proposals_failed"] += 1
            log.debug("no barrier yet", term=term, error=error)
            return False
        if not consensus.is_leader_hint() or consensus.term != term:
            return False
        predecessor = consensus.predecessor()
        self.table.begin(state, self._clock.boottime(), predecessor)
        self._reign = term
        self._counts["reigns"] += 1
        log.info("lease keeper reigns", term=term, predecessor=predecessor)
        return True

    async def step(self) -> Plan:
        """One sweep and its proposals."""
        state = self._consensus.snapshot()
        founding = founding_step(state, self._founding, self._build_ring)
        if founding is not None:
            op, args = founding
            if await self._propose(op, args) is not None:
                log.info("cluster founded", step=op)
            if state.cluster_epoch == 0:
                return Plan()
        plan = self.table.sweep(self._consensus.snapshot(), self._clock.boottime())
        for chunk in _chunks(plan.takeovers):
            done = await self._assign(chunk)
            if done:
                self._counts["takeovers"] += done
                self.table.took_over(self._clock.boottime())
        if plan.move is not None:
            await self._move(plan.move)
        return plan

    async def _move(self, move: Assignment) -> None:
        shard, _, epoch = move
        leader = self._consensus.snapshot().leaders.get(shard)
        if self._release is not None and leader is not None:
            await self._release(leader.node, shard, epoch)
        self._counts["moves"] += await self._assign([move])
        self.table.moved(self._clock.boottime())

    async def _assign(self, assignments: list[Assignment]) -> int:
        """How many were done. A first sweep after a failure sees what is left."""
        rows = [list(row) for row in assignments]
        value = await self._propose("Assign", {"assignments": rows})
        if value is None:
            return 0
        done = len(value["assigned"]) if isinstance(value, dict) else len(rows)
        log.info("shards assigned", count=done, first=assignments[0][0], to=assignments[0][1])
        return done

    async def _propose(self, op: str, args: dict[str, Any]) -> Any:
        """The value, or None when it was refused or did not come through."""
        try:
            value = await self._consensus.propose(op, args, PROPOSE_SECONDS)
        except CommandRefused as error:
            self._counts["proposals_refused"] += 1
            log.warning("keeper's proposal refused", op=op, reason=error.reason)
            return None
        except (NotCommitted, OutcomeUnknown) as error:
            self._counts["proposals_failed"] += 1
            log.warning("keeper's proposal failed", op=op, error=error)
            return None
        return True if value is None else value


def _chunks(assignments: tuple[Assignment, ...]) -> list[list[Assignment]]:
    return [
        list(assignments[i : i + ASSIGNMENTS_PER_COMMAND])
        for i in range(0, len(assignments), ASSIGNMENTS_PER_COMMAND)
    ]
