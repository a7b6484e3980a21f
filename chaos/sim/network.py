"""Calls between nodes: delayed, dropped, doubled, reordered, corrupted, cut in one direction or both.

A message's fate is drawn from the seed when it is sent; delays differ, so messages overtake each other. A
lost request or answer shows to the caller as silence until its deadline, or as a reset: unknown either way.
Only a refused connection is definite. Heads pass through the real envelope, so types are those of the wire.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from chaos.sim.clock import Dice
from records import envelope
from records.errors import ConnectionLost, QuorumlogError, Unknown, error_from_dict
from runtime.deadline import Deadline

Answer = tuple[dict[str, Any], Any]
Serve = Callable[[str, dict[str, Any], memoryview, Deadline], Awaitable[Answer]]


@dataclass(slots=True)
class Weather:
    """How bad the network is. Probabilities of one message; delay in seconds."""

    loss: float = 0.0
    repeat: float = 0.0
    corrupt: float = 0.0
    delay_max: float = 0.002


class SimNetwork:
    """Who serves what, who is cut off from whom."""

    def __init__(self, dice: Dice, broken: list[tuple[str, str]]) -> None:
        """`broken`: gets (BUG, what happened)."""
        self.dice = dice
        self._broken = broken
        self.weather = Weather()
        self.cut: set[tuple[str, str]] = set()
        #: (source, target, operation) of requests that get lost.
        self.narrow: set[tuple[str, str, str]] = set()
        self.slow: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        self.spawn: dict[str, Callable[[Serve, tuple[Any, ...]], asyncio.Task[Answer]]] = {}
        self.serve: dict[str, Serve] = {}

    def delay(self, one: str, other: str) -> float:
        """Seconds of one message."""
        slow = max(self.slow.get(one, 0.0), self.slow.get(other, 0.0))
        return self.dice.uniform(0.0001, self.weather.delay_max) + slow

    def reaches_one(self, node: str, nodes: tuple[str, ...]) -> bool:
        """Whether some other of these nodes hears the node and is heard."""
        others = [one for one in nodes if one != node]
        return any(not {(node, one), (one, node)} & self.cut for one in others)

    async def lose(self, source: str, target: str, what: str, operation: str = "") -> None:
        """Does nothing, or lets a message vanish: silence for ever, or a reset."""
        gone = (source, target) in self.cut or (source, target, operation) in self.narrow
        if not gone and not self.dice.chance(self.weather.loss):
            return
        self.counts[what] += 1
        if self.dice.chance(0.5):
            await asyncio.Event().wait()
        raise ConnectionLost(f"{what} between {source} and {target}")

    async def call(
        self, source: str, target: str, operation: str, head: dict, payload: Any, deadline: Deadline
    ) -> Answer:
        """One request and its answer, as the weather allows. Ends by the deadline."""
        return await deadline.wait(self._call(source, target, operation, head, payload, deadline))

    async def _call(
        self, source: str, target: str, operation: str, head: dict, payload: Any, deadline: Deadline
    ) -> Answer:
        request = self._wire(head), self._corrupted(payload)
        await asyncio.sleep(self.delay(source, target))
        await self.lose(source, target, "request lost", operation)
        if target not in self.serve:
            raise ConnectionLost(f"{target} refused the connection", definite=True)
        args = (operation, *request, deadline)
        if self.dice.chance(self.weather.repeat):
            self.counts["request repeated"] += 1
            asyncio.get_running_loop().call_later(
                self.dice.uniform(0, 0.5), self._again, target, args
            )
        task = self.spawn[target](self.serve[target], args)
        task.add_done_callback(self._ended)
        await asyncio.wait([task])
        if task.cancelled():
            raise ConnectionLost(f"{target} went away")
        await self.lose(target, source, "answer lost")
        await asyncio.sleep(self.delay(target, source))
        error = task.exception()
        if isinstance(error, QuorumlogError):
            raise error_from_dict(error.to_dict())
        if error is not None:
            raise Unknown(f"an unexpected error: {error!r}")
        answer, data = task.result()
        return self._wire(answer), memoryview(data)

    def _again(self, target: str, args: tuple[Any, ...]) -> None:
        if target in self.serve:
            task = self.spawn[target](self.serve[target], args)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Answer]) -> None:
        """Also if nobody waits for it any more."""
        judge_end(task, "a call", self._broken)

    @staticmethod
    def _wire(head: dict[str, Any]) -> dict[str, Any]:
        return envelope.unpackb(envelope.packb(head))

    def _corrupted(self, payload: Any) -> memoryview:
        if not len(payload) or not self.dice.chance(self.weather.corrupt):
            return memoryview(payload)
        self.counts["payload corrupted"] += 1
        data = bytearray(payload)
        data[self.dice.number(0, len(data) - 1)] ^= 1 << self.dice.number(0, 7)
        return memoryview(bytes(data))


def judge_end(task: "asyncio.Task[Any]", what: str, broken: list[tuple[str, str]]) -> None:
    """A request ends with an answer, or with an error that has a name; all else is a bug.

    (The machine may go off in the middle: that is no Exception.)
    """
    error = None if task.cancelled() else task.exception()
    if isinstance(error, Exception) and not isinstance(error, QuorumlogError):
        broken.append(("BUG", f"{what} broke off: {error!r}"))


class SimTransport:
    """One node's way to the others: the Transport port."""

    def __init__(self, node: str, network: SimNetwork) -> None:
        self._node, self._network = node, network

    async def call(
        self, node: str, operation: str, head: dict, payload: Any, deadline: Deadline
    ) -> Answer:
        """See cluster.transport.Transport."""
        return await self._network.call(self._node, node, operation, head, payload, deadline)
