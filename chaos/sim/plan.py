"""What goes wrong in a run, drawn from its seed before it begins: weather, and faults at their times. Pure.

Swarm testing: each seed has only some kinds of faults, each kind as bad as the seed says, so that one kind
does not always hide what another would show. A plan is data: shrinking drops parts of it.

Source: Groce et al., "Swarm Testing" (ISSTA 2012); the ranges are those of TigerBeetle's VOPR.
"""

from dataclasses import dataclass, field, replace

from chaos.sim.clock import Dice

#: Seconds of virtual time in which faults begin.
SECONDS = 5.0
KINDS = (
    "kill", "power", "cut in sync", "cut after sync", "cut in write", "power all", "partition", "one way",
    "slow", "zombie", "leader", "ring", "leaderless", "eio", "eio silent", "enospc", "full", "newer producer",
)  # fmt: skip
#: Numbers of a plan that a shrinking may set to nothing.
WEATHER = ("loss", "repeat", "corrupt", "delay", "lose_answers", "skew", "sync")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: at `at` seconds, of `kind`, for `seconds`, of the node (or shard) number `who`."""

    at: float
    kind: str
    who: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} {self.who} at {self.at:.2f} for {self.seconds:.2f}"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run's troubles. Probabilities are of one message; `delay`, `skew`, `sync` are seconds."""

    loss: float = 0.0
    repeat: float = 0.0
    corrupt: float = 0.0
    delay: float = 0.002
    lose_answers: float = 0.0
    skew: float = 0.0
    sync: float = 0.004
    faults: tuple[Fault, ...] = field(default=())

    def without(self, *indexes: int) -> "Plan":
        """The same with fewer faults."""
        kept = (one for index, one in enumerate(self.faults) if index not in indexes)
        return replace(self, faults=tuple(kept))

    def calmer(self, name: str) -> "Plan":
        """The same without one kind of weather."""
        return replace(self, **{name: Plan.__dataclass_fields__[name].default})


def draw(dice: Dice, nodes: int) -> Plan:
    """The plan of a seed."""
    kinds = [kind for kind in KINDS if dice.chance(0.4)] or ["power"]
    faults = []
    for _ in range(dice.number(1, 9)):
        seconds = dice.uniform(0.05, 2.0) if dice.chance(0.8) else dice.uniform(2.0, 5.0)
        kind, who = dice.pick(kinds), dice.number(0, nodes - 1)
        faults.append(Fault(dice.uniform(0.1, SECONDS), kind, who, seconds))

    def some(most: float) -> float:
        return dice.uniform(0, most) if dice.chance(0.4) else 0.0

    return Plan(
        some(0.3), some(0.5), some(0.02), 0.002 + some(0.1), some(0.5), some(3.0), 0.004 + some(0.1),
        tuple(sorted(faults, key=lambda one: one.at)),
    )  # fmt: skip
