"""RetentionKeeper: the loop on the Raft leader that moves watermarks on. A shell; cluster.retention decides.

The clock is the median of the managers' heartbeats, and without a majority of them nothing moves: one wrong
clock cannot hide a row. A node that leads no more may still propose; its command is compare-and-set on the
rules it read, and a watermark only rises, so what it proposes late does no harm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cluster.consensus import CommandRefused, Consensus, NotCommitted, OutcomeUnknown
from cluster.retention import due_marks, rules_of
from cluster.state_ops import below_watermarks
from records.errors import InvalidSettings
from records.timestamps import MICROS_PER_SECOND
from runtime.logs import get_logger
from runtime.metrics import Metrics

log = get_logger(__name__)
#: Seconds that one proposal may take.
PROPOSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How often watermarks move."""

    #: Seconds between two looks of the Raft leader at the retention rules.
    interval_seconds: float = 5.0
    #: Seconds by which a watermark moves at least; each move is a command of the replicated log. Whole
    #: minutes keep counts over the oldest hour answerable without reading rows.
    step_seconds: int = 60

    def __post_init__(self) -> None:
        if self.interval_seconds <= 0 or self.step_seconds < 1:
            raise InvalidSettings("retention: interval_seconds > 0 and step_seconds >= 1")


class RetentionKeeper:
    """One per manager; idle while another leads. `median_wall`: microseconds, None if not known."""

    def __init__(
        self,
        consensus: Consensus,
        median_wall: Callable[[], int | None],
        settings: RetentionSettings,
        metrics: Metrics,
    ) -> None:
        self._consensus, self._median_wall, self.settings = consensus, median_wall, settings
        self._moves = metrics.counter(
            "quorumlog_retention_moves_total", "Watermarks that this node, leading, moved on"
        )

    async def step(self) -> None:
        """Moves what is due, while this node leads; ends when commands do not come through.

        After one that is refused the tenant's others wait: its default must not pass a service that is
        kept longer. Other tenants do not wait.
        """
        if not self._consensus.is_leader_hint():
            return
        state = self._consensus.snapshot()
        version, rules = rules_of(state)
        now = self._median_wall()
        if now is None or not (rules or state.watermarks):
            return
        step = self.settings.step_seconds * MICROS_PER_SECOND
        refused: set[str] = set()
        try:
            for tenant, service, mark in due_marks(rules, state.watermarks, now, step):
                args = {"tenant": tenant, "service": service, "t": mark, "rules_version": version}
                if tenant in refused:
                    continue
                if await self._propose("SetWatermark", args):
                    self._moves.inc()
                else:
                    refused.add(tenant)
            for name, predicate in sorted(state.deletes.items()):
                if below_watermarks(state, predicate):
                    await self._propose("DropDelete", {"id": name, "proofs": []})
        except (CommandRefused, NotCommitted, OutcomeUnknown) as error:
            log.warning("retention waits for the next look", error=error)

    async def _propose(self, op: str, args: dict[str, Any]) -> bool:
        """Whether it was accepted; rises if not committed, or decided on a state that is past."""
        try:
            await self._consensus.propose(op, args, PROPOSE_SECONDS)
        except CommandRefused as error:
            if error.reason == "MISMATCH":  # the state is another one by now: look at it again
                raise
            log.warning("retention's proposal was refused", op=op, reason=error.reason, error=error)
            return False
        return True
