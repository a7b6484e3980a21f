"""Looks at the nodes while they run: what a store holds only grows, hints stay below their cap.

I12: between two looks at a store nothing leaves it but what rotted there. I16: hints. After the heal: I8
without any read, and I14, that all damage is found and healed.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from chaos.sim.checks import Broken, equal_owners, unexcused
from chaos.sim.consensus import SimLog
from chaos.sim.disk import SimDisk
from chaos.sim.healing import HINT_BYTES_MAX
from chaos.sim.hiding import left_over
from chaos.sim.node import SimNode
from chaos.sim.owning import may_lack
from chaos.sim.rot import damaged_in_use
from cluster.state_types import ClusterState

T = TypeVar("T")
#: Virtual seconds between two looks.
LOOK_SECONDS = 0.4
#: Virtual seconds in which owners become equal, and all damage is found.
CONVERGE_SECONDS = 20.0


class Looks:
    """What the last look at each node saw."""

    def __init__(self, log: SimLog, broken: Broken) -> None:
        self._log, self._broken = log, broken
        self._seen: dict[str, set[bytes]] = {}
        self._over: set[tuple[str, str]] = set()

    async def run(self, nodes: Iterable[SimNode]) -> None:
        """Looks at all that are up, again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for node in nodes:
                if node.up:
                    self.look(node)

    def look(self, node: SimNode) -> None:
        """Compares a node that is up with the last look at it."""
        held = node.present()
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


def unequal(nodes: Sequence[SimNode], state: ClusterState) -> list[tuple[str, str]]:
    """I8, and I7 of what lies below the watermarks; what differs."""
    found = [("I8", text) for text in equal_owners(nodes, state)]
    return [*found, *left_over(nodes, state)]


async def check_equal_unread(nodes: Sequence[SimNode], log: SimLog, broken: Broken) -> None:
    """I8: owners become equal although nobody reads."""
    different = await _left(lambda: unequal(nodes, log.newest))
    broken += [(name, f"without any read, {text}") for name, text in different]


async def check_scrubbed(
    nodes: Sequence[SimNode], healing: bool, log: SimLog, broken: Broken
) -> None:
    """I14: the scrub finds all damage; with anti-entropy (`healing`) what it sets aside comes back."""
    up = [node for node in nodes if node.up]
    found = await _left(lambda: [one for node in up for one in damaged_in_use(node)])
    broken += [("I14", f"damage in {one} was not found by the scrub") for one in found]
    if healing:
        different = await _left(lambda: unequal(up, log.newest))
        broken += [("I14", f"what was set aside did not come back: {one}") for one in different]


async def _left(differences: Callable[[], list[T]]) -> list[T]:
    """Waits until there are none any more; those that are left after CONVERGE_SECONDS."""
    loop = asyncio.get_running_loop()
    until = loop.time() + CONVERGE_SECONDS
    while True:
        found = differences()
        if not found or loop.time() >= until:
            return found
        await asyncio.sleep(0.5)
