"""A lost disk: a node comes back under its old id with nothing on it; the operator takes it out, and in.

It must be refused until then (S6): what it promised is gone. Once it was removed it registers by itself, as a
new incarnation, and is filled as any node that joins.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from chaos.sim.consensus import SimLog
from chaos.sim.moving import Mover
from chaos.sim.node import SimNode
from chaos.sim.plan import Fault
from chaos.sim.steering import MANAGERS
from cluster.state_types import ClusterState
from ring.serde import from_dict

#: Virtual seconds after the heal in which the node is whole again.
RETURN_SECONDS = 45.0
LOOK_SECONDS = 0.1


@dataclass(slots=True)
class Wiper:
    """One per run; one disk is lost in it at most."""

    nodes: dict[str, SimNode]
    log: SimLog
    mover: Mover
    broken: list[tuple[str, str]]
    crash: Callable[[SimNode, bool], None]
    revive: Callable[[], Awaitable[None]]
    #: Writes rows that one node lacks.
    thin: Callable[[str], Awaitable[None]]
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    async def inflict(self, node: SimNode, fault: Fault) -> None:
        """The disk of a node is lost, and it starts again."""
        if self._tasks or not node.up or not self._is_back(node, self.log.newest):
            return
        await self.thin(self.mover.operator.dice.pick([one for one in MANAGERS if one != node.id]))
        since = len(self.log.states) - 1
        self.crash(node, True)
        node.wipe()
        self.mover.operator.bitten["wipe"] += 1
        self._tasks.append(asyncio.create_task(self._watch(node, since)))
        await asyncio.sleep(fault.seconds / 2)
        await self.revive()
        self._tasks.append(asyncio.create_task(self._bring_back(node)))

    async def _watch(self, node: SimNode, since: int) -> None:
        """S6: its door is shut until the node of before is in the ring no more."""
        while all(node.id in _ring_of(state) for state in self.log.states[since:]):
            if node.up and node.door.is_open:
                self.broken.append(
                    ("S6", f"{node.id} lost its disk, and serves under its old name")
                )
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _bring_back(self, node: SimNode) -> None:
        """The operator removes it and adds it, whatever he is told, until it is in the ring again."""
        while not self._is_back(node, state := self.log.newest):
            member = state.members.get(node.id)
            if state.change is None and member is not None:
                mine = member.store == node.incarnation
                await self.mover.node("add" if mine else "remove", node.id)
            await asyncio.sleep(LOOK_SECONDS)

    @staticmethod
    def _is_back(node: SimNode, state: ClusterState) -> bool:
        member = state.members.get(node.id)
        known = member is not None and member.store == node.incarnation
        return known and node.id in _ring_of(state)

    async def ended(self) -> None:
        """After the heal: until the node is back."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks[1:], timeout=RETURN_SECONDS)
        if late:
            self.broken.append(
                ("L2", f"a node whose disk was lost is not back after {RETURN_SECONDS} s")
            )
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self.broken.append(("BUG", f"bringing a node back broke off: {error!r}"))


def _ring_of(state: ClusterState) -> set[str]:
    return {one.id for one in from_dict(state.ring).members}
