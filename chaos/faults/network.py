"""Cuts between nodes, as by a pulled cable, and packets lost by lot: both without a word to the sender."""

import contextlib

from chaos.disks import DiskFailed
from chaos.faults.base import Kind, Proof, Site, Targets, wait_for
from chaos.lab_net import LabNet
from chaos.processes import FaultDidNotBite

#: `packet-loss` drops one in so many: 20, 10 or 5 %.
LOST_ONE_IN = (5, 10, 20)
#: Seconds in which the first packet must be dropped.
LOSS_SECONDS = 10.0


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


class PacketLoss(Kind):
    """A share of all packets that arrive at the targets is lost, those of clients and of other nodes."""

    name = "packet-loss"

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof is the kernel's count of packets that it dropped.

        Raises:
            FaultDidNotBite: none was in time.
        """
        network = _network(site)
        one_in = LOST_ONE_IN[site.pick(0, len(LOST_ONE_IN) - 1)]
        for target in targets:
            network.lose(target, one_in)
        for target in targets:
            if not wait_for(lambda target=target: network.lost(target)[1], LOSS_SECONDS, 0.2):
                raise FaultDidNotBite(f"no packet to {target} was dropped")
        return {"one_in": one_in}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """All packets arrive again; how many there were, and how many were lost."""
        network = _network(site)
        counts = {target: network.lost(target) for target in targets}
        for target in targets:
            network.lose_nothing(target)
        seen = [
            f"{lost:,} of {met:,} packets to {node} lost" for node, (met, lost) in counts.items()
        ]
        return {"seen": seen, **site.cluster.revive(*site.cluster.ids)}

    def undo(self, site: Site, targets: Targets) -> None:
        """All packets arrive again."""
        for target in targets:
            with contextlib.suppress(DiskFailed):  # nothing was lost there
                _network(site).lose_nothing(target)


def _across(site: Site, targets: Targets) -> list[tuple[str, str]]:
    return [(a, b) for a in targets for b in site.cluster.ids if b not in targets]


KINDS: tuple[Kind, ...] = (Partition(), OneWay(), PartialCut(), PacketLoss())
