"""The nemesis: which fault comes when, to whom, for how long. Pure: the same seed, the same plan.

A plan names targets by role where the role is known only while it runs (`raft-leader`): who that is
then, stands in the history. Faults come one after the other, each healed before the next, unless a
scenario names several targets for one.

Source: Jepsen's nemesis; schedules from a seed as in FoundationDB's and TigerBeetle's simulators.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from runtime.entropy import SeededEntropy

T = TypeVar("T")
#: The last three are faults of the clients' links, not of the nodes.
What = Literal["kill", "pause", "lose-replies", "slow", "cut-answers"]
#: Stands for whoever leads the Raft group when the fault comes.
RAFT_LEADER = "raft-leader"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: after `wait` seconds of peace, `what` happens to `targets` for `hold` seconds."""

    what: What
    targets: tuple[str, ...]
    wait: float
    hold: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a scenario's faults are drawn from.

    `choices`: each a set of targets; `any-1`, `any-2` stand for so many nodes by lot, `all` for all.
    `holds`: seconds, each used before one is used again; a range (low, high) is drawn from. `recovery`
    is what a heal is reckoned to take (a node's start), for how many fit into the time.
    """

    what: What
    choices: tuple[str, ...]
    holds: tuple[float | tuple[float, float], ...]
    waits: tuple[float, float]
    recovery: float


def plan(recipe: Recipe, nodes: Sequence[str], seconds: float, seed: int) -> list[Fault]:
    """The faults that fit into `seconds`, but at least one. A hold that does not fit is left out."""
    entropy = SeededEntropy(seed)
    faults: list[Fault] = []
    deck: list[float | tuple[float, float]] = []
    spent = 0.0
    while True:
        wait = entropy.uniform(*recipe.waits)
        left = seconds - spent - wait
        deck = deck or _shuffled(list(recipe.holds), entropy)
        hold = _draw(deck.pop(), entropy)
        targets = _targets(_pick(recipe.choices, entropy), nodes, entropy)
        if hold + recipe.recovery > left:
            shorter = [one for one in map(_least, recipe.holds) if one + recipe.recovery <= left]
            if faults and not shorter:
                return faults
            hold = max(shorter, default=min(map(_least, recipe.holds)))
        faults.append(Fault(recipe.what, targets, round(wait, 3), round(hold, 3)))
        spent += wait + hold + recipe.recovery


def _least(hold: float | tuple[float, float]) -> float:
    return hold[0] if isinstance(hold, tuple) else hold


def _draw(hold: float | tuple[float, float], entropy: SeededEntropy) -> float:
    return entropy.uniform(*hold) if isinstance(hold, tuple) else hold


def _pick(things: Sequence[T], entropy: SeededEntropy) -> T:
    return things[min(int(entropy.uniform(0, len(things))), len(things) - 1)]


def _shuffled(things: list[T], entropy: SeededEntropy) -> list[T]:
    keyed = [(entropy.uniform(0, 1), index) for index in range(len(things))]
    return [things[index] for _, index in sorted(keyed)]


def _targets(choice: str, nodes: Sequence[str], entropy: SeededEntropy) -> tuple[str, ...]:
    if choice == "all":
        return tuple(nodes)
    if choice.startswith("any-"):
        return tuple(sorted(_shuffled(list(nodes), entropy)[: int(choice.removeprefix("any-"))]))
    return (choice,)
