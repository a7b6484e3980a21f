"""What a kind of fault is: how it bites, by what it is proven, how it is healed.

`bite` returns when the fault is in place, with the proof, or raises FaultDidNotBite, DiskFailed or
LinkFailed: then `undo` removes what there is of it. `heal` returns when the targets are ready again. All
of them block; one fault at a time.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.disks import Disk
from chaos.lab_net import LabNet
from chaos.local_cluster import LocalCluster
from chaos.net import LinkFailed, Links
from runtime.entropy import Entropy, SeededEntropy

Targets = tuple[str, ...]
Proof = dict[str, Any]


@dataclass(slots=True)
class Site:
    """What can be broken in a run: nodes; where there are some, links, disks, a network of their own.

    `lot`: what a fault leaves to chance, from the run's seed. `quorums`: changes of N, W and R that the
    fault under way asked for (`chaos.blows`); they go into its record, bitten or not. `sweep`: sends
    requests of its own through a node, with the answer cut at every byte in turn (`chaos.sweeping`); what
    came of it. `notes`: what a heal must know of its bite.
    """

    cluster: LocalCluster
    links: Links | None = None
    addresses: dict[str, str] = field(default_factory=dict)
    disks: Mapping[str, Disk] = field(default_factory=dict)
    network: LabNet | None = None
    lot: Entropy = field(default_factory=lambda: SeededEntropy(0))
    quorums: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    sweep: Callable[[str, str], Proof] | None = None

    def needed_links(self) -> Links:
        """The links.

        Raises:
            LinkFailed: this run has none.
        """
        if self.links is None:
            raise LinkFailed("this run has no links")
        return self.links

    def pick(self, low: int, high: int) -> int:
        """A number by lot, both ends in it."""
        return min(high, low + int(self.lot.uniform(0, high - low + 1)))


class Kind(ABC):
    """A kind of fault. `at_rest`: from the bite to the heal its targets surely do nothing."""

    name = ""
    at_rest = False

    @abstractmethod
    def bite(self, site: Site, targets: Targets) -> Proof:
        """Breaks; the proof."""

    @abstractmethod
    def heal(self, site: Site, targets: Targets) -> Proof:
        """Heals, and waits until the targets are ready; what is to be added to the proof."""

    def undo(self, site: Site, targets: Targets) -> None:  # noqa: B027 - most leave nothing
        """After a bite that failed: removes what there is of it. Raises nothing."""


def wait_for(what: Any, seconds: float, step: float = 0.05) -> bool:
    """Whether `what()` became true in time."""
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(step)
    return True
