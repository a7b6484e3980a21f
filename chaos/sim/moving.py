"""Changes of the ring in a simulated run: what the operator asks for, and what happens to who carries it out.

The operator asks any node, through the real handlers, again and again until he is told yes or no. What he
asks for is carried out by the product's executor on whoever leads the agreed log (chaos.sim.election). The
executor's node is killed, cut off, or deposed in a stage that the plan names: while copies run, while shards
are read from their new owners, or when nothing moves and the change has not ended.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chaos.sim.consensus import SimLog
from chaos.sim.election import Election
from chaos.sim.network import SimNetwork
from chaos.sim.node import SimNode
from chaos.sim.operating import Operator
from chaos.sim.plan import Fault
from chaos.sim.steering import MANAGERS
from cluster.state_types import COPYING, SETTLING, ClusterState

#: W and R that are asked for, of N=3; and with a fourth node.
QUORUMS = ({"w": 3, "r": 1}, {"w": 2, "r": 2}, {"w": 1, "r": 3}, {"n": 4, "w": 3, "r": 2})
#: Virtual seconds that a stage is waited for.
STAGE_SECONDS = 8.0
#: Virtual seconds after the heal in which a change must have ended.
CHANGE_SECONDS = 30.0


def stage_of(state: ClusterState) -> str:
    """Where the change under way is; empty if there is none, or it has not begun to move."""
    if state.change is None:
        return ""
    stages = {move.stage for move in state.moving.values()}
    if SETTLING in stages:
        return "settling"
    if COPYING in stages:
        return "copying"
    return "ending" if state.ring_epoch > state.change.id else ""


@dataclass(slots=True)
class Hands:
    """What the mover may do to the run. `crash(node, power)`; `revive()` starts all that are down."""

    crash: Callable[[SimNode, bool], None]
    revive: Callable[[], Any]
    arrive: Callable[[str], Any]


@dataclass(slots=True)
class Mover:
    """One per run. `dead`: nodes that stay down until the heal."""

    nodes: dict[str, SimNode]
    spares: tuple[str, ...]
    log: SimLog
    network: SimNetwork
    election: Election
    operator: Operator
    hands: Hands
    dead: set[str] = field(default_factory=set)
    _last: tuple[str, dict[str, Any], dict[str, str]] | None = None

    async def inflict(self, fault: Fault) -> None:
        """Carries out one of the plan's changes, or attacks the executor."""
        if fault.kind.startswith("executor "):
            _, action, stage = fault.kind.split()
            await self._attack(action, stage, fault.seconds)
            return
        who = MANAGERS[fault.who % len(MANAGERS)]
        spare = self.spares[0]
        if fault.kind in ("join", "join two", "replace", "replace dead") or (
            fault.kind == "quorum" and fault.who == 2 and self.operator.dice.chance(0.5)
        ):
            await self.hands.arrive(spare)
        match fault.kind:
            case "join":
                await self.node("add", spare)
            case "join two":
                await self.hands.arrive(self.spares[1])
                await self.node("add", spare)
                await self.node("add", self.spares[1])
            case "leave":
                await self.node("remove", spare)
            case "replace" | "replace dead":
                if fault.kind == "replace dead":
                    self.dead.add(who)
                    self.hands.crash(self.nodes[who], True)
                await self.node("replace", who, {"with": spare})
            case "drain" | "remove":
                await self.node(fault.kind, who)
            case "return":
                await self.node("add", who)
            case "quorum":
                more = self.nodes[spare].up and self.operator.dice.chance(0.5)
                wanted = QUORUMS[3 if more else fault.who % 3]
                await self._ask("quorum", wanted, {})
            case "even":
                await self._ask("rebalance", {}, {})
            case _:
                await self._abort(fault.seconds)

    async def replace(self, who: str) -> None:
        """A spare takes a node's place."""
        await self.hands.arrive(self.spares[0])
        await self.node("replace", who, {"with": self.spares[0]})

    async def node(self, action: str, id: str, body: dict[str, Any] | None = None) -> None:
        """Asks for a change of one node's place in the ring."""
        await self._ask("node", body or {}, {"id": id, "action": action})

    async def _abort(self, seconds: float) -> None:
        """Gives up what runs, and asks for the same again, or not."""
        last = self._last
        if await self._ask("abort", {}, {}) and last is not None and self.operator.dice.chance(0.5):
            await asyncio.sleep(seconds)
            await self._ask(*last)

    async def _ask(self, handler: str, body: dict[str, Any], match: dict[str, str]) -> bool:
        name = match.get("action", handler)
        done = await self.operator.ask(
            name, lambda node: getattr(node.moves, handler), body, **match
        )
        if done and handler != "abort":
            self._last = handler, body, match
        return done

    # -- the executor

    async def _attack(self, action: str, stage: str, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + STAGE_SECONDS
        while stage_of(self.log.newest) != stage:
            if loop.time() >= end:
                return
            await asyncio.sleep(0.01)
        await asyncio.sleep(self.operator.dice.uniform(0.0, 0.1))
        id = self.election.leader
        if id is None or not self.nodes[id].up:
            return
        self.operator.bitten[f"executor {action} {stage}"] += 1
        if action == "depose":
            self.election.depose(seconds)
        elif action == "cut":
            others = [one for one in self.nodes if one != id]
            links = {(id, one) for one in others} | {(one, id) for one in others}
            self.network.cut |= links
            await asyncio.sleep(seconds)
            self.network.cut -= links
        else:
            self.hands.crash(self.nodes[id], action == "power")
            await asyncio.sleep(seconds)
            await self.hands.revive()

    async def ended(self) -> str:
        """Waits for the change under way; what is left of it after CHANGE_SECONDS, empty if nothing."""
        loop = asyncio.get_running_loop()
        end = loop.time() + CHANGE_SECONDS
        while (state := self.log.newest).change is not None:
            if loop.time() >= end:
                moving = {shard: tuple(move) for shard, move in state.moving.items()}
                return f"{state.change.reason} has not ended, aborting {state.change.aborting}: {moving}"
            await asyncio.sleep(0.1)
        return ""
