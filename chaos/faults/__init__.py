"""The kinds of faults, by the name that a recipe calls them by. A new one is a class and a line here.

base.py       what a kind must do: bite with a proof, heal, undo what did not bite
processes.py  kill, pause, restart, wipe, failpoint · links.py  the clients' links · disks.py  power cuts,
full, failing, slow and stalled disks · files.py  damage to files · clocks.py  clocks that jump
limits.py     too few file descriptors · network.py  cuts between nodes
moves.py      trouble while a node joins, is drained or replaced · retaining.py  rows hidden with a node away
"""

from chaos.faults import clocks, disks, files, limits, links, moves, network, processes, retaining
from chaos.faults.base import Kind, Site

__all__ = ["KINDS", "Kind", "Site"]

_ALL: tuple[Kind, ...] = (
    *processes.KINDS, *links.KINDS, *disks.KINDS, *files.KINDS, *clocks.KINDS, *limits.KINDS,
    *network.KINDS, *moves.KINDS, *retaining.KINDS,
)  # fmt: skip
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
