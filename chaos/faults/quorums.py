"""Trouble while N, W and R change. A target ends with the change: `kill:raft-leader:copying:3/2/2>3/3/1`.

Another W and R of the same N fill all owners up where they stand (shards "move" from nobody to nobody), if
rows acknowledged by the old ones would be missed by the new; else the change has no stages, and is struck
when it begins.
"""

from chaos.faults.base import Kind, Proof, Site, Targets
from chaos.faults.changes import (
    Change,
    owners,
    quorum_in_force,
    running_spare,
    without_trouble,
)
from chaos.faults.moves import Move

#: From here every other quorum can be reached in one step, and from every other one this.
HOME = (3, 2, 2)


class ChangeQuorum(Move):
    """Another N, W and R."""

    name = "quorum"

    def prepared(self, site: Site, wanted: str) -> Change:
        """The quorum that the change begins with is in force; for N=4 the spare owns shards."""
        begin, end = (_parsed(text) for text in wanted.split(">"))
        if max(begin[0], end[0]) > len(site.cluster.ids):
            spare = running_spare(site, 0)
            if spare not in owners(site):
                without_trouble(site, Change(f"/cluster/nodes/{spare}/add", {}))
        now = tuple(quorum_in_force(site))
        path = [] if now == begin else [begin] if HOME in (now, begin) else [HOME, begin]
        for step in path:
            without_trouble(site, _change(step))
        return _change(end)

    def heal(self, site: Site, targets: Targets) -> Proof:
        """As of any change; the quorum in force is what was asked for."""
        proof = super().heal(site, targets)
        return {**proof, "in_force": quorum_in_force(site)}


def _parsed(text: str) -> tuple[int, int, int]:
    n, w, r = (int(number) for number in text.split("/"))
    return n, w, r


def _change(quorum: tuple[int, int, int]) -> Change:
    return Change("/cluster/settings", dict(zip("nwr", quorum, strict=True)), quorum)


KINDS: tuple[Kind, ...] = (ChangeQuorum(),)
