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
#: What an operator asks for, and what happens to who carries it out, by the stage of the change.
CHANGES = (
    "join", "join two", "leave", "replace", "replace dead", "drain", "remove", "return", "quorum", "abort",
    "even",
)  # fmt: skip
EXECUTOR = tuple(
    f"executor {action} {stage}"
    for action in ("kill", "power", "cut", "depose")
    for stage in ("copying", "settling", "ending")
)
MOVES = (*CHANGES, *EXECUTOR)
#: Rows go: by a rule in days, as the median clock passes them, or by a delete.
HIDES = ("rule", "delete")
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

    def has(self, kinds: tuple[str, ...]) -> bool:
        """Whether some fault is of these kinds."""
        return any(one.kind in kinds for one in self.faults)

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

    faults += [*_changes(dice.fork("moves"), nodes), *_hides(dice.fork("hides"), nodes)]

    def some(most: float) -> float:
        return dice.uniform(0, most) if dice.chance(0.4) else 0.0

    return Plan(
        some(0.3), some(0.5), some(0.02), 0.002 + some(0.1), some(0.5), some(3.0), 0.004 + some(0.1),
        tuple(sorted(faults, key=lambda one: one.at)),
    )  # fmt: skip


def _changes(dice: Dice, nodes: int) -> list[Fault]:
    """What an operator changes meanwhile, in some seeds, and what befalls the executor."""
    if not dice.chance(0.35):
        return []
    kinds = [kind for kind in CHANGES if dice.chance(0.5)] or ["join"]
    found = [_one(dice, dice.pick(kinds), nodes) for _ in range(dice.number(1, 3))]
    if dice.chance(0.5):
        found += [_one(dice, dice.pick(EXECUTOR), nodes) for _ in range(dice.number(1, 2))]
    return found


def _hides(dice: Dice, nodes: int) -> list[Fault]:
    """Which rows go, in some seeds."""
    if not dice.chance(0.3):
        return []
    return [_one(dice, dice.pick(HIDES), nodes) for _ in range(dice.number(1, 3))]


def _one(dice: Dice, kind: str, nodes: int) -> Fault:
    return Fault(dice.uniform(0.3, 3.5), kind, dice.number(0, nodes - 1), dice.uniform(0.2, 2.0))
