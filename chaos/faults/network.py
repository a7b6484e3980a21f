"""Cuts between nodes: what one sends to another is lost without a word, as by a pulled cable."""

import contextlib

from chaos.disks import DiskFailed
from chaos.faults.base import Kind, Proof, Site, Targets
from chaos.lab_net import LabNet
from chaos.processes import FaultDidNotBite


def _network(site: Site) -> LabNet:
    if site.network is None:
        raise FaultDidNotBite("this run has no network of its own")
    return site.network


class Partition(Kind):
    """The targets on one side, all others on the other; clients reach both."""

    name = "partition"

    def lost(self, site: Site, targets: Targets) -> list[tuple[str, str]]:
        """(sender, receiver) of what is to be lost."""
        pairs = _across(site, targets)
        return [*pairs, *((b, a) for a, b in pairs)]

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof: connections that were answered before the cut are not answered after it.

        Raises:
            FaultDidNotBite: one is still answered; or was not before, so that its silence shows nothing.
        """
        network, lost = _network(site), self.lost(site, targets)
        ports = {node: site.cluster.node(node).http_port for node in site.cluster.ids}
        for a, b in lost:
            if not network.reaches(a, b, ports[b]):
                raise FaultDidNotBite(f"{a} did not reach {b} before the cut")
        for a, b in lost:
            network.cut(a, b)
        seen = []
        for a, b in lost:
            if network.reaches(a, b, ports[b]):
                raise FaultDidNotBite(f"{a} still reaches {b}")
            seen.append(f"{a} does not reach {b}")
        return {"seen": seen}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """All cuts are gone."""
        _network(site).heal()
        return site.cluster.revive(*site.cluster.ids)

    def undo(self, site: Site, targets: Targets) -> None:
        """All cuts are gone."""
        if site.network is not None:
            with contextlib.suppress(DiskFailed):  # the next fault will say so
                site.network.heal()


class OneWay(Partition):
    """What the targets send to the others is lost; what those send arrives, unanswered."""

    name = "one-way"

    def lost(self, site: Site, targets: Targets) -> list[tuple[str, str]]:
        """As of a partition, one way."""
        return _across(site, targets)


class PartialCut(Partition):
    """Two nodes do not reach one another; both reach the rest."""

    name = "partial-cut"

    def lost(self, site: Site, targets: Targets) -> list[tuple[str, str]]:
        """Both ways between the two."""
        a, b = targets
        return [(a, b), (b, a)]


def _across(site: Site, targets: Targets) -> list[tuple[str, str]]:
    return [(a, b) for a in targets for b in site.cluster.ids if b not in targets]


KINDS: tuple[Kind, ...] = (Partition(), OneWay(), PartialCut())
