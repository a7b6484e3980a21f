"""What heals a simulated node: hints, anti-entropy, merging, scrub. The product's own, put on the twins.

A seed has some of these parts (swarm), so that what one mends does not hide that another does not.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from chaos.sim.clock import SimClock
from chaos.sim.network import SimTransport
from cluster.handoff import Handoff
from cluster.replica_client import ReplicaSet
from cluster.sync_loop import STEP_SECONDS, SyncLoop
from cluster.sync_settings import RepairSettings
from cluster.view import ViewSource
from records.block import BlockHeader
from runtime.tasks import Supervisor
from storage.service import StorageService
from storage.settings import StorageSettings

ANTI_ENTROPY, HINTS, COMPACTION, SCRUB = "anti-entropy", "hints", "compaction", "scrub"
#: How often a seed has each part.
PARTS = {ANTI_ENTROPY: 0.6, HINTS: 0.5, COMPACTION: 0.4, SCRUB: 0.4}
REPAIR = RepairSettings(
    interval_seconds=1.0, wait_seconds_max=3.0, settled_after_seconds=0.6, second_look_seconds=0.3
)
#: Bytes of hints for each target: a few hints, so that the cap is met.
HINT_BYTES_MAX = 512
#: Seconds of virtual time in which a scrub reads everything.
SCRUB_SECONDS = 2.0


#: What is told of a run, by metric.
HEALED = {
    "quorumlog_sync_entries_total stored": "entries healed by anti-entropy",
    "quorumlog_handoff_entries_total": "entries healed by hints",
    "quorumlog_hints_dropped_total": "hints dropped",
    "quorumlog_compaction_merges_total": "merges",
    "quorumlog_scrub_damaged_total": "damages found by scrub",
}


def healed(counts: Counter[str]) -> Counter[str]:
    """How often what healed, from a node's metrics."""
    found = Counter[str]()
    for metric, what in HEALED.items():
        found[what] = sum(n for name, n in counts.items() if f"{name} ".startswith(f"{metric} "))
    return +found


def storage_settings(base: StorageSettings, parts: Sequence[str]) -> StorageSettings:
    """Those of a node with these parts."""
    return replace(
        base,
        compact=COMPACTION in parts,
        hint_bytes_max=HINT_BYTES_MAX if HINTS in parts else 0,
        scrub_period_seconds=SCRUB_SECONDS if SCRUB in parts else 0.0,
    )


class Healing:
    """Hints and anti-entropy of one life of a node, put together as node.node does."""

    def __init__(
        self,
        node: str,
        parts: Sequence[str],
        storage: StorageService,
        views: ViewSource,
        replicas: ReplicaSet,
        transport: SimTransport,
        clock: SimClock,
        metrics: Any,
    ) -> None:
        self._parts = parts
        self._handoff = Handoff(node, storage, views, replicas, transport, clock, metrics)
        self.sync = SyncLoop(
            node, storage, views, replicas, clock, metrics, REPAIR, admit=storage.admits
        )

    def missed(self, owner: str, header: BlockHeader, holders: Sequence[str]) -> None:
        """An acknowledged block that an owner lacks."""
        if HINTS in self._parts:
            self._handoff.missed(owner, header, holders)

    def operations(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """What peers may ask."""
        return dict(self._handoff.operations()) if HINTS in self._parts else {}

    def start(self, spawn: Callable[[Coroutine[Any, Any, Any]], object]) -> None:
        """Begins the loops; they end with the life."""
        if HINTS in self._parts:
            spawn(self._handoff.run())
        if ANTI_ENTROPY in self._parts:
            spawn(Supervisor("sync").forever(lambda: STEP_SECONDS, self.sync.step))
