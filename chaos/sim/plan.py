"""What goes wrong in a run, drawn from its seed before it begins: weather, and faults at their times. Pure.

Swarm testing: each seed has only some kinds of faults, each kind as bad as the seed says, so that one kind
does not always hide what another would show. A plan is data: shrinking drops parts of it.

Source: Groce et al., "Swarm Testing" (ISSTA 2012); the ranges are those of TigerBeetle's VOPR.
"""

from dataclasses import dataclass, field, replace

from chaos.sim.clock import Dice
from chaos.sim.healing import COMPACTION, HINTS, PARTS

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
#: What goes wrong at rest (always on the same node of a run), and in the middle of what heals.
ROTS = ("rot bit", "rot page", "rot file")
MERGE_KINDS = (
    "cut in rename",
    "cut in draft",
    "cut in unlink",
    "kill in rename",
    "kill in sync directory",
)
HINTS_LOST = "hints lost"
#: Rare orders of events (chaos.sim.rifts); some need a change of the ring, which they ask for themselves.
RIFTS_OF_MOVES = ("outpaced", "lone copy")
LOST = (
    "put", "seal", "scan", "entries", "fetch", "producer_states", "seal_producer_epoch", "tree", "absent",
    "hand_over", "entry_ids", "take_over", "raise_ring", "heartbeat",
)  # fmt: skip
RIFTS = (
    "torn reign", "short seal", "deaf start", "again", *RIFTS_OF_MOVES, *(f"lost {one}" for one in LOST)
)  # fmt: skip
WIPE, SPLIT = "wipe", "split"
#: What brings a change of the ring, or another leader, of its own.
ALONE = (*RIFTS_OF_MOVES, WIPE, "torn reign", "short seal")
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
    #: What heals the nodes (chaos.sim.healing).
    parts: tuple[str, ...] = ()

    def without(self, *indexes: int) -> "Plan":
        """The same with fewer faults."""
        kept = (one for index, one in enumerate(self.faults) if index not in indexes)
        return replace(self, faults=tuple(kept))

    def has(self, kinds: tuple[str, ...]) -> bool:
        """Whether some fault is of these kinds."""
        return any(one.kind in kinds for one in self.faults)

    @property
    def moves(self) -> bool:
        """Whether shards may get other owners."""
        return self.has((*MOVES, *RIFTS_OF_MOVES, WIPE))

    @property
    def steered(self) -> bool:
        """Whether the nodes keep leases, change the ring and move watermarks on."""
        return self.moves or self.has(HIDES)

    def less(self, part: str) -> "Plan":
        """The same without one of its parts."""
        return replace(self, parts=tuple(one for one in self.parts if one != part))

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

    weather = (
        some(0.3), some(0.5), some(0.02), 0.002 + some(0.1), some(0.5), some(3.0), 0.004 + some(0.1)
    )  # fmt: skip
    healing = dice.fork("healing")
    parts = tuple(name for name, share in PARTS.items() if healing.chance(share))
    faults += _at_rest(healing, nodes, parts)
    if changes := _changes(dice.fork("moves"), nodes):
        # A copy that rots on one node, while another owner leaves, may be the last one: N-W is spent twice.
        faults = [one for one in faults if one.kind not in ROTS]
    faults += [*changes, *_hides(dice.fork("hides"), nodes)]
    if rare := _rare(dice.fork("rare"), nodes, bool(changes)):
        alone = any(one.kind in ALONE for one in rare)
        faults = [one for one in faults if not (alone and one.kind in ROTS)]  # as above
    faults += [*rare, *_splits(dice.fork("splits"), nodes)]
    return Plan(*weather, tuple(sorted(faults, key=lambda one: one.at)), parts)


def _at_rest(dice: Dice, nodes: int, parts: tuple[str, ...]) -> list[Fault]:
    """Faults of what lies on disks, and of what works on it."""
    kinds: list[tuple[str, int]] = []
    if dice.chance(0.4):
        where = dice.number(0, nodes - 1)
        kinds += [(dice.pick(ROTS), where) for _ in range(dice.number(1, 4))]
    if HINTS in parts and dice.chance(0.3):
        kinds.append((HINTS_LOST, dice.number(0, nodes - 1)))
    if COMPACTION in parts and dice.chance(0.6):
        kinds += [(dice.pick(MERGE_KINDS), dice.number(0, nodes - 1)) for _ in range(2)]
    times = ((dice.uniform(1.0, SECONDS), dice.uniform(0.2, 1.5)) for _ in kinds)
    return [
        Fault(at, kind, who, for_) for (kind, who), (at, for_) in zip(kinds, times, strict=True)
    ]


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


def _rare(dice: Dice, nodes: int, moving: bool) -> list[Fault]:
    """Rare orders of events, or a lost disk, in some seeds."""
    if not dice.chance(0.3):
        return []
    if not moving and dice.chance(0.4):
        return [replace(_one(dice, dice.pick(ALONE), nodes), at=dice.uniform(0.3, 1.5))]
    kinds = [one for one in RIFTS if one not in ALONE]
    return [_one(dice, dice.pick(kinds), nodes) for _ in range(dice.number(1, 4))]


def _splits(dice: Dice, nodes: int) -> list[Fault]:
    """Services that are split, in some seeds."""
    if not dice.chance(0.2):
        return []
    return [_one(dice, SPLIT, nodes) for _ in range(dice.number(1, 3))]


def _one(dice: Dice, kind: str, nodes: int) -> Fault:
    return Fault(dice.uniform(0.3, 3.5), kind, dice.number(0, nodes - 1), dice.uniform(0.2, 2.0))
