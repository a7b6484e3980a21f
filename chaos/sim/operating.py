"""The operator of a simulated cluster: asks any node, by the real handlers, until he is told yes or no."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chaos.sim.clock import Dice
from chaos.sim.network import judge_end
from chaos.sim.node import SimNode
from cluster.consensus import CommandRefused, OutcomeUnknown
from records.errors import InvalidRequest, NotFound

#: Virtual seconds that he goes on asking; that one answer may take.
ASK_SECONDS, ANSWER_SECONDS = 8.0, 3.0
#: Refusals after which he asks again: another change runs, or somebody was faster.
_BUSY = ("CHANGE_RUNNING", "MOVE_RUNNING", "MISMATCH", "NEEDS_CHANGE")
Handler = Callable[[SimNode], Any]


@dataclass(slots=True)
class Operator:
    """One per run. What he was told goes into `bitten`; what is no answer, into `broken`."""

    nodes: dict[str, SimNode]
    dice: Dice
    bitten: Counter[str]
    broken: list[tuple[str, str]]

    async def ask(self, name: str, handler: Handler, body: dict[str, Any], **match: str) -> bool:
        """Whether it was accepted; False also if nobody could say."""
        loop = asyncio.get_running_loop()
        end = loop.time() + ASK_SECONDS
        while loop.time() < end:
            up = [one for one in self.nodes.values() if one.up]
            if up:
                node = self.dice.pick(up)
                work = node.spawn(node.asked(handler(node), body, **match))
                work.add_done_callback(self._ended)
                await asyncio.wait([work], timeout=ANSWER_SECONDS)
                error = _error_of(work)
                if error is None:
                    self.bitten[f"asked: {name}"] += 1
                    return True
                if not _again(error):
                    self.bitten[f"refused: {name}"] += 1
                    return False
            await asyncio.sleep(self.dice.uniform(0.1, 0.4))
        return False

    def _ended(self, work: "asyncio.Task[None]") -> None:
        """Also if he does not wait for it any more."""
        judge_end(work, "a request of the operator", self.broken)


def _error_of(work: "asyncio.Task[None]") -> BaseException | None:
    if not work.done():
        return OutcomeUnknown("no answer")
    if work.cancelled():
        return OutcomeUnknown("the node went away")
    return work.exception()


def _again(error: BaseException) -> bool:
    if isinstance(error, CommandRefused):
        return error.reason in _BUSY
    return not isinstance(error, InvalidRequest | NotFound)
