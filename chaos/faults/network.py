"""Cuts between nodes: what one sends to another is lost without a word, as by a pulled cable."""

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

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof: connections across are not answered, and each node answers its clients."""
        network = _network(site)
        others = [node for node in site.cluster.ids if node not in targets]
        pairs = [(a, b) for a in targets for b in others]
        for a, b in pairs:
            network.cut(a, b)
            network.cut(b, a)
        return {"seen": [_shown(site, network, a, b) for a, b in pairs]}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """All cuts are gone."""
        _network(site).heal()
        return site.cluster.revive(*site.cluster.ids)

    def undo(self, site: Site, targets: Targets) -> None:
        """All cuts are gone."""
        if site.network is not None:
            site.network.heal()


class OneWay(Partition):
    """What the targets send to the others is lost; what those send arrives, unanswered."""

    name = "one-way"

    def bite(self, site: Site, targets: Targets) -> Proof:
        """As of a partition."""
        network = _network(site)
        others = [node for node in site.cluster.ids if node not in targets]
        pairs = [(a, b) for a in targets for b in others]
        for a, b in pairs:
            network.cut(a, b)
        return {"seen": [_shown(site, network, a, b) for a, b in pairs]}


class PartialCut(Partition):
    """Two nodes do not reach one another; both reach the rest."""

    name = "partial-cut"

    def bite(self, site: Site, targets: Targets) -> Proof:
        """As of a partition."""
        network = _network(site)
        a, b = targets[0], targets[1]
        network.cut(a, b)
        network.cut(b, a)
        return {"seen": [_shown(site, network, a, b)]}


def _shown(site: Site, network: LabNet, a: str, b: str) -> str:
    if network.reaches(a, b, site.cluster.node(b).http_port):
        raise FaultDidNotBite(f"{a} still reaches {b}")
    return f"{a} does not reach {b}"


KINDS: tuple[Kind, ...] = (Partition(), OneWay(), PartialCut())
