"""Who leads the agreed log: one manager, another when it is away, and one that believes it leads still.

The log itself is right whoever leads (chaos.sim.consensus); leading decides where the product's loops run
that only a Raft leader may run: leases, the steps of a change of the ring, watermarks. A leader that is cut
off goes on for a while, as does one that was deposed without hearing of it; their proposals are refused, or
decided by compare-and-set.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

from chaos.sim.clock import Dice

#: Seconds between two looks at the leader; from a leader's end to the next one; of a leader that is cut off
#: until it knows.
LOOK_SECONDS, VOTE_SECONDS, BELIEF_SECONDS = 0.2, 0.6, 1.0


class Election:
    """One per run. `able(node)`: it is up and reaches the majority."""

    def __init__(self, dice: Dice, managers: tuple[str, ...], able: Callable[[str], bool]) -> None:
        self._dice, self._managers, self._able = dice, managers, able
        self.leader: str | None = None
        self.term = 0
        #: Who led before, and until when (seconds) each of those deposed believes that it leads.
        self.previous: str | None = None
        self._believes: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """For ever: another one leads when the leader is away."""
        while True:
            if self.leader is None or not self._able(self.leader):
                if self.leader is not None:
                    await asyncio.sleep(self._dice.uniform(0.2, VOTE_SECONDS))
                self.depose(self._dice.uniform(0.0, BELIEF_SECONDS))
            await asyncio.sleep(LOOK_SECONDS)

    def depose(self, seconds: float) -> None:
        """Another one leads, if one can; who led believes for `seconds` that it does."""
        able = [one for one in self._managers if one != self.leader and self._able(one)]
        if not able:
            return
        if self.leader is not None:
            self._believes[self.leader] = asyncio.get_running_loop().time() + seconds
            self.counts["another executor"] += 1
        self.previous, self.leader = self.leader, self._dice.pick(able)
        self.term += 1
        self._believes.pop(self.leader, None)

    def leads(self, node: str) -> bool:
        """Whether the node takes itself for the leader."""
        if node == self.leader:
            return True
        return asyncio.get_running_loop().time() < self._believes.get(node, 0.0)

    def hint(self, node: str) -> str | None:
        """Whom the node takes for the leader."""
        if self.leads(node):
            return node
        return self.leader if self._able(node) else None
