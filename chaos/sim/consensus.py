"""An agreed log in memory behind the Consensus port: correct, and slow, deaf and stale where the plan says.

Commands go through the product's `cluster.state.apply`. A proposal may be refused (no leader), delayed,
or have its answer lost after it was committed. Each node applies the log late, at its own pace, and not at
all while it is cut off from the majority: what it sees is old, never wrong.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from chaos.sim.clock import Dice
from chaos.sim.election import Election
from cluster.consensus import CommandRefused, NotCommitted, OutcomeUnknown
from cluster.state import apply, encode_command
from cluster.state_types import ClusterState


class SimLog:
    """The log and the states after each entry. `connected(node)`: whether it reaches the majority."""

    def __init__(self, dice: Dice, connected: Callable[[str], bool]) -> None:
        self.dice = dice
        self.connected = connected
        self.states = [ClusterState()]
        #: When each of them was committed, virtual seconds.
        self.times = [0.0]
        self.leaderless_until = 0.0
        self.lose_answers = 0.0
        self.delay_max = 0.02
        self.lag_max = 0.1
        #: Who leads; without it nobody does, and all is decided by the world.
        self.election: Election | None = None
        self._counters: dict[str, int] = {}
        self._followers: list[SimConsensus] = []

    @property
    def newest(self) -> ClusterState:
        """After the last entry."""
        return self.states[-1]

    @staticmethod
    def seconds() -> float:
        """Virtual seconds now."""
        return asyncio.get_running_loop().time()

    def commit(self, op: str, args: Mapping[str, Any], proposer: str) -> Any:
        """Appends a command and applies it.

        Raises:
            CommandRefused: its compare-and-set did not hold.
        """
        counter = self._counters[proposer] = self._counters.get(proposer, 0) + 1
        command = encode_command(op, args, (proposer, 1, counter), level=1)
        state, result = apply(self.newest, command, len(self.states))
        self.states.append(state)
        self.times.append(self.seconds())
        for one in self._followers:
            one.news()
        if result[0] == "err":
            raise CommandRefused(result[1], result[2])
        return result[1]

    def follow(self, one: "SimConsensus") -> None:
        """A node that applies the log."""
        self._followers.append(one)

    def unfollow(self, one: "SimConsensus") -> None:
        """The node is gone."""
        self._followers.remove(one)


class SimConsensus:
    """One node's end of the log. Its state when it starts is what it had applied when it went."""

    def __init__(self, node: str, log: SimLog, applied: int) -> None:
        self._node, self._log = node, log
        self.applied = applied
        self._changed = asyncio.Event()
        self._waiting = False
        log.follow(self)
        self.news()

    async def start(self) -> None:
        """It has started."""

    async def stop(self) -> None:
        """Applies no more."""
        self.close()

    def close(self) -> None:
        """Applies no more."""
        self._log.unfollow(self)

    def news(self) -> None:
        """There are entries to apply, some time."""
        if not self._waiting and self.applied < len(self._log.states) - 1:
            self._waiting = True
            loop = asyncio.get_running_loop()
            loop.call_later(self._log.dice.uniform(0.001, self._log.lag_max), self._apply)

    def _apply(self) -> None:
        self._waiting = False
        if self in self._log._followers:
            if self._log.connected(self._node):
                self.applied = len(self._log.states) - 1
                self._changed.set()
                self._changed = asyncio.Event()
            else:
                self._waiting = True
                asyncio.get_running_loop().call_later(0.1, self._apply)

    async def propose(self, op: str, args: Mapping[str, Any], timeout: float = 2.0) -> Any:
        """See cluster.consensus.Consensus."""
        log = self._log
        loop = asyncio.get_running_loop()
        await asyncio.sleep(log.dice.uniform(0.001, log.delay_max))
        if not log.connected(self._node) or loop.time() < log.leaderless_until:
            raise NotCommitted("no leader")
        value = log.commit(op, args, self._node)
        await asyncio.sleep(log.dice.uniform(0.001, log.delay_max))
        if log.dice.chance(log.lose_answers):
            raise OutcomeUnknown("the answer is lost")
        return value

    async def barrier(self, timeout: float = 2.0) -> ClusterState:
        """All that was committed before the call.

        Raises:
            OutcomeUnknown: no majority in time.
        """
        wanted = len(self._log.states) - 1
        try:
            async with asyncio.timeout(timeout):
                while self.applied < wanted:
                    await self._changed.wait()
        except TimeoutError as error:
            raise OutcomeUnknown("no majority") from error
        return self.snapshot()

    def snapshot(self) -> ClusterState:
        """What this node has applied."""
        return self._log.states[self.applied]

    async def watch(self, after: int = -1) -> AsyncIterator[ClusterState]:
        """Each newer state, as the node applies them."""
        while True:
            while self.applied <= after:
                await self._changed.wait()
            after = self.applied
            yield self.snapshot()

    async def changed(self, after_index: int, timeout: float) -> None:
        """Returns when a newer state than `after_index` is here, or after `timeout`."""
        try:
            async with asyncio.timeout(timeout):
                while self.applied <= after_index:
                    await self._changed.wait()
        except TimeoutError:
            return

    def is_leader_hint(self) -> bool:
        """Whether this node takes itself for the leader."""
        election = self._log.election
        return election is not None and election.leads(self._node)

    def leader_hint(self) -> str | None:
        """Whom this node takes for the leader."""
        election = self._log.election
        return None if election is None else election.hint(self._node)

    @property
    def term(self) -> int:
        """How often somebody was elected."""
        election = self._log.election
        return 0 if election is None else election.term

    def predecessor(self) -> str | None:
        """Who led before."""
        election = self._log.election
        return None if election is None else election.previous

    def status(self) -> dict[str, Any]:
        """The index."""
        return {"applied_index": self.applied}
