"""Runs of seeds: one seed is one run, the same each time; a failing one is made smaller where it can be."""

import asyncio
import gc
import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from chaos.facts import Facts
from chaos.sim.clock import Dice, Stuck, VirtualLoop
from chaos.sim.cluster import World
from chaos.sim.healing import COMPACTION, healed
from chaos.sim.judging import judge, line
from chaos.sim.plan import HIDES, WEATHER, Plan, draw
from chaos.sim.twins import installed

#: Runs that a shrinking may cost.
SHRINK_RUNS = 60


@dataclass(slots=True)
class Outcome:
    """What became of one seed. `broken`: (invariant, what happened)."""

    seed: int
    plan: Plan
    broken: list[tuple[str, str]]
    trace: str
    acked: int = 0
    reads: int = 0
    bitten: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def invariants(self) -> set[str]:
        """Names of those that were broken."""
        return {name for name, _ in self.broken}


def simulate(seed: int, plan: Plan | None = None) -> Outcome:
    """Runs one seed to its end, under its own plan or another."""
    plan = draw(Dice("plan", seed), 3) if plan is None else plan
    bugs: list[str] = []
    world = World(seed, plan)
    begun = time.process_time()
    merging = COMPACTION in plan.parts or plan.has(HIDES)
    with installed(bugs, merging=merging), _uncollected():
        loop = VirtualLoop()
        loop.set_exception_handler(lambda _, context: bugs.append(str(context.get("message"))))
        try:
            history = loop.run_until_complete(world.run())
        except Stuck as error:
            world.broken.append(("L2", f"stuck: {error}"))
            return Outcome(seed, plan, world.broken, "", seconds=time.process_time() - begun)
        finally:
            _drain(loop)
            loop.close()
    broken = [*world.broken, *judge(history, world.hidden), *(("BUG", text) for text in bugs)]
    facts = Facts(history)
    bitten = world.bitten + world.network.counts
    for node in world.nodes.values():
        bitten += node.disk.counts + healed(node.metrics.counts)
    text = "\n".join([*map(line, history.ops), str(sorted(bitten.items())), *map(str, broken)])
    trace = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return Outcome(
        seed, plan, broken, trace, facts.acked_count, len(facts.reads), bitten,
        time.process_time() - begun,
    )  # fmt: skip


@contextmanager
def _uncollected() -> Iterator[None]:
    """No collection of garbage: a run makes little, and looking for it takes a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _drain(loop: VirtualLoop) -> None:
    """Ends what a run left behind, also one that got stuck."""
    loop.begin_again()
    for _ in range(20):
        tasks = asyncio.all_tasks(loop)
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=0.1))


def shrink(outcome: Outcome) -> Outcome:
    """The smallest plan found under which the same seed breaks one of the same invariants."""
    left = SHRINK_RUNS
    best, aim = outcome, outcome.invariants

    def smaller(plan: Plan) -> bool:
        nonlocal best, left
        left -= 1
        found = simulate(outcome.seed, plan)
        if not found.invariants & aim:
            return False
        best = found
        return True

    for name in WEATHER:
        if left and getattr(best.plan, name) != getattr(Plan(), name):
            smaller(best.plan.calmer(name))
    for part in outcome.plan.parts:
        if left:
            smaller(best.plan.less(part))
    index = len(best.plan.faults) - 1
    while index >= 0 and left:
        smaller(best.plan.without(index))
        index -= 1
    return best
