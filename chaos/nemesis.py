"""The nemesis: which fault comes when, to whom, for how long. Pure: the same seed, the same plan.

A plan names targets by role where the role is known only while it runs (`raft-leader`): who that is
then, stands in the history. Faults come one after the other, each healed before the next, unless a
scenario names several targets for one.

Source: Jepsen's nemesis; schedules from a seed as in FoundationDB's and TigerBeetle's simulators.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from runtime.entropy import SeededEntropy

T = TypeVar("T")
#: Stands for whoever leads the Raft group when the fault comes.
RAFT_LEADER = "raft-leader"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: after `wait` seconds of peace, `what` happens to `targets` for `hold` seconds."""

    what: str
    targets: tuple[str, ...]
    wait: float
    hold: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a scenario's faults are drawn from. `what`: a kind of fault (`chaos.faults.KINDS`).

    `choices`: each a set of targets; `any-1`, `any-2` stand for so many nodes by lot, `all` for all,
    `same-1` for one by lot that stays the same for the whole run, `next-1` for each in turn.
    `holds`: seconds, each used before one is used again; a range (low, high) is drawn from. `recovery`
    is what a heal is reckoned to take (a node's start), for how many fit into the time. `also`: other
    recipes, one of which may be drawn each time; their `waits` and `recovery` are not looked at.
    """

    what: str
    choices: tuple[str, ...]
    holds: tuple[float | tuple[float, float], ...]
    waits: tuple[float, float]
    recovery: float
    also: tuple["Recipe", ...] = ()


def plan(recipe: Recipe, nodes: Sequence[str], seconds: float, seed: int) -> list[Fault]:
    """The faults that fit into `seconds`, but at least one. A hold that does not fit is left out."""
    entropy = SeededEntropy(seed)
    faults: list[Fault] = []
    decks: dict[int, list[float | tuple[float, float]]] = {}
    order = _shuffled(list(nodes), SeededEntropy(seed ^ 0x5EED))
    spent = 0.0
    while True:
        wait = entropy.uniform(*recipe.waits)
        left = seconds - spent - wait
        some = (recipe, *recipe.also)
        which = some.index(_pick(some, entropy)) if recipe.also else 0
        one = some[which]
        decks[which] = decks.get(which) or _shuffled(list(one.holds), entropy)
        hold = _draw(decks[which].pop(), entropy)
        choice = _pick(one.choices, entropy)
        if choice in ("same-1", "next-1"):
            targets = (order[len(faults) % len(order) if choice == "next-1" else 0],)
        else:
            targets = _targets(choice, nodes, entropy)
        if hold + recipe.recovery > left:
            shorter = [low for low in map(_least, one.holds) if low + recipe.recovery <= left]
            if faults and not shorter:
                return faults
            hold = max(shorter, default=min(map(_least, one.holds)))
        faults.append(Fault(one.what, targets, round(wait, 3), round(hold, 3)))
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
