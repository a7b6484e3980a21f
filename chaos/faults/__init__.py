"""The kinds of faults, by the name that a recipe calls them by. A new one is a class and a line here.

base.py       what a kind must do: bite with a proof, heal, undo what did not bite
processes.py  kill, pause, restart, wipe, failpoint · links.py  the clients' links · disks.py  power cuts,
full, failing, slow and stalled disks · files.py  damage to files · clocks.py  clocks that jump
limits.py     too few file descriptors · memory.py  too little memory · network.py  cuts between nodes
changes.py    changes of the ring, and their stages · striking.py  who is struck amid one, and how
moves.py      trouble while a node joins, is drained or replaced · quorums.py  while N, W and R change
lost_disks.py a node with an empty disk is brought in again · retaining.py  rows hidden with a node away
"""

from chaos.faults import (
    clocks,
    disks,
    files,
    limits,
    links,
    lost_disks,
    memory,
    moves,
    network,
    processes,
    quorums,
    retaining,
)
from chaos.faults.base import Kind, Site

__all__ = ["KINDS", "Kind", "Site"]

_ALL: tuple[Kind, ...] = (
    *processes.KINDS, *links.KINDS, *disks.KINDS, *files.KINDS, *clocks.KINDS, *limits.KINDS,
    *memory.KINDS, *network.KINDS, *moves.KINDS, *quorums.KINDS, *lost_disks.KINDS,
    *retaining.KINDS,
)  # fmt: skip
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
