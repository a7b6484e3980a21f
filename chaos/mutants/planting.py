"""Planted bugs: each a switch from outside on the product's real code, each caught by a named invariant.

A suite that cannot fail proves nothing (reliability.md 3.4). `hunt` runs seeds of the simulation with one bug
planted until an invariant that the bug breaks is named; a bug that no seed catches is a hole in the suite.
There are no hooks for this in the product: a mutant replaces a function while it runs, and puts it back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from chaos.sim.clock import Dice
from chaos.sim.plan import ROTS, SECONDS, Fault, Plan, draw
from chaos.sim.run import Outcome, simulate
from chaos.sim.twins import Place, replaced


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug. `aims`: invariants of which one must be named; `plant` says what is replaced."""

    name: str
    aims: tuple[str, ...]
    plant: Callable[[], Sequence[Place]]
    #: Part of the quick set that runs with the tests.
    quick: bool = False
    #: Weather and faults that each seed gets besides its own, as without them the bug seldom matters.
    weather: Mapping[str, float] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    #: The parts that heal in each seed; None: its own.
    parts: tuple[str, ...] | None = None
    #: Each seed leaves out its own troubles, which would be in the way of a rare order of events.
    calm: bool = False

    def plan(self, seed: int) -> Plan:
        """The plan of a seed, stressed."""
        plan = Plan() if self.calm else draw(Dice("plan", seed), 3)
        dice = Dice("stress", seed)
        more = [
            Fault(dice.uniform(0.3, SECONDS), kind, dice.number(0, 2), dice.uniform(0.2, 1.5))
            for kind in self.faults
        ]
        faults = sorted([*plan.faults, *more], key=lambda one: one.at)
        rotting = next((one.who for one in faults if one.kind in ROTS), 0)  # one node of a run
        faults = [replace(one, who=rotting) if one.kind in ROTS else one for one in faults]
        parts = plan.parts if self.parts is None else self.parts
        return replace(plan, **self.weather, faults=tuple(faults), parts=parts)  # pyright: ignore[reportArgumentType]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The bug is in while this is open."""
        with replaced(self.plant()):
            yield


@dataclass(frozen=True, slots=True)
class Caught:
    """What became of a mutant: by which invariants it was caught, at which seed; none: it got away."""

    mutant: Mutant
    seeds: int
    outcome: Outcome | None

    @property
    def by(self) -> tuple[str, ...]:
        """The aimed invariants that were named."""
        if self.outcome is None:
            return ()
        return tuple(sorted(self.outcome.invariants & set(self.mutant.aims)))


def hunt(mutant: Mutant, first: int, seeds: int) -> Caught:
    """Runs seeds from `first` on until one catches the mutant, `seeds` of them at most.

    It is caught only if the same seed under the same plan keeps the invariant without the bug.
    """
    for tried in range(seeds):
        seed, aims = first + tried, set(mutant.aims)
        with mutant.planted():
            outcome = simulate(seed, mutant.plan(seed))
        if outcome.invariants & aims and not simulate(seed, mutant.plan(seed)).invariants & aims:
            return Caught(mutant, tried + 1, outcome)
    return Caught(mutant, seeds, None)


MUTANTS: list[Mutant] = []


def mutant(
    name: str,
    *aims: str,
    quick: bool = False,
    faults: tuple[str, ...] = (),
    parts: tuple[str, ...] | None = None,
    calm: bool = False,
    **weather: float,
) -> Callable[[Callable[[], Sequence[Place]]], None]:
    def add(plant: Callable[[], Sequence[Place]]) -> None:
        MUTANTS.append(Mutant(name, aims, plant, quick, weather, faults, parts, calm))

    return add
