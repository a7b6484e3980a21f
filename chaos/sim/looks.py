"""Looks at the nodes while they run: what a store holds only grows, hints stay below their cap.

I12: between two looks at a store nothing leaves it but what rotted there. I16: hints.
"""

from chaos.sim.checks import Broken, present, unexcused
from chaos.sim.consensus import SimLog
from chaos.sim.disk import SimDisk
from chaos.sim.healing import HINT_BYTES_MAX
from chaos.sim.node import SimNode
from chaos.sim.owning import may_lack

#: Virtual seconds between two looks.
LOOK_SECONDS = 0.4


class Looks:
    """What the last look at each node saw."""

    def __init__(self, log: SimLog, broken: Broken) -> None:
        self._log, self._broken = log, broken
        self._seen: dict[str, set[bytes]] = {}
        self._over: set[tuple[str, str]] = set()

    def look(self, node: SimNode) -> None:
        """Compares a node that is up with the last look at it."""
        held = present(node)
        lost = self._seen.get(node.id, set()) - held
        if lost:
            for entry in unexcused(node.disk, held):
                allowed = may_lack(self._log.newest, node.id, entry)
                if bytes(entry.entry_id) in lost and not allowed:
                    of = entry.producer or entry.service
                    self._broken.append(("I12", f"an entry of {of} has left {node.id}"))
        self._seen[node.id] = held
        self._look_at_hints(node)

    def _look_at_hints(self, node: SimNode) -> None:
        """Above the cap twice in a row: a look may come between a write and the trimming after it."""
        over = {
            (node.id, target)
            for target, size in hint_bytes(node.disk).items()
            if size > HINT_BYTES_MAX
        }
        for _, target in sorted(over & self._over):
            text = f"{node.id} keeps more than {HINT_BYTES_MAX} bytes of hints ({target})"
            self._broken.append(("I16", text))
        self._over = {one for one in self._over if one[0] != node.id} | over


def hint_bytes(disk: SimDisk) -> dict[str, int]:
    """Bytes of hints on a disk by the folder of their target."""
    found: dict[str, int] = {}
    for name, file in disk.names.items():
        if name.startswith("store/hints/"):
            target = name.split("/")[2]
            found[target] = found.get(target, 0) + len(file.cache)
    return found
