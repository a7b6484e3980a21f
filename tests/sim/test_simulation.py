"""Whole clusters in virtual time: seeds hold all invariants, one seed is one run, planted bugs are caught.

The same seeds at each change; `quorumlog chaos sim` runs fresh ones.
"""

import inspect
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from chaos.mutants import MUTANTS, Mutant, hunt
from chaos.sim.clock import Dice
from chaos.sim.healing import PARTS
from chaos.sim.plan import (
    HIDES,
    HINTS_LOST,
    KINDS,
    MERGE_KINDS,
    MOVES,
    RIFTS,
    ROTS,
    SPLIT,
    WIPE,
    Fault,
    Plan,
    draw,
)
from chaos.sim.run import Outcome, shrink, simulate
from chaos.sim.twins import Place, replaced
from tests.support.source import ROOT

pytestmark = [pytest.mark.sim, pytest.mark.timeout(240)]
SEEDS = range(1000, 1008)
QUICK = [one for one in MUTANTS if one.quick]
TRIES = 15


def again(outcome: Outcome) -> str:
    """How to see a failure again."""
    return f"quorumlog chaos sim --seed {outcome.seed} --seeds 1"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_holds_all_invariants(seed: int) -> None:
    """Rows were acknowledged, reads were answered, something bit, nothing broke."""
    outcome = simulate(seed)

    assert outcome.broken == [], again(outcome)
    assert outcome.acked > 20
    assert outcome.reads >= 3
    assert outcome.bitten


def test_shards_move_while_clients_write_and_the_executor_dies() -> None:
    """A fourth node takes a third one's place; who moves shards is killed while they are read anew."""
    faults = (
        Fault(0.5, "executor kill settling", 0, 0.8),
        Fault(0.6, "replace", 2, 0.5),
    )

    outcome = simulate(7, Plan(faults=faults))

    assert outcome.broken == []
    assert outcome.bitten["asked: replace"] == 1
    assert outcome.bitten["executor kill settling"] == 1
    assert outcome.bitten["entries let go"] > 0


def test_rows_go_while_a_node_is_away() -> None:
    """Rules pass the rows of some clients, and a delete names others, while one node is down."""
    faults = (
        Fault(0.8, "power", 1, 3.0),
        *(Fault(at, "rule", 0, 0.5) for at in (1.0, 1.2, 1.4)),
        Fault(1.6, "delete", 0, 0.5),
        Fault(2.6, "delete", 0, 0.5),
    )

    outcome = simulate(11, Plan(faults=faults))

    assert outcome.broken == []
    assert outcome.bitten["rows hidden"] > 10
    assert outcome.bitten["entries expired"] > 0


def test_the_same_seed_gives_the_same_trace_under_any_hash_seed() -> None:
    """Twice in this process, once in others that order sets and dicts of texts otherwise."""
    code = "from chaos.sim.run import simulate; print(simulate(1003).trace)"
    traces = {simulate(1003).trace, simulate(1003).trace}
    for hash_seed in ("1", "77"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120,
            env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True,
        )  # fmt: skip
        traces.add(done.stdout.strip())

    assert len(traces) == 1
    assert simulate(1004).trace not in traces


def test_plans_differ_and_every_kind_of_fault_is_drawn() -> None:
    """Swarm: no seed has all kinds, all seeds together have each; what rots is on one node."""
    plans = [draw(Dice("plan", seed), 3) for seed in range(500)]

    kinds = [{fault.kind for fault in plan.faults} for plan in plans]
    at_rest = {*ROTS, *MERGE_KINDS, HINTS_LOST, *HIDES}
    assert set().union(*kinds) == {*KINDS, *at_rest, *MOVES, *RIFTS, WIPE, SPLIT}
    assert max(map(len, kinds)) < len(KINDS)
    assert {frozenset(plan.parts) for plan in plans} >= {frozenset(), frozenset(PARTS)}
    assert all(len({one.who for one in plan.faults if one.kind in ROTS}) < 2 for plan in plans)
    assert (
        {plan.has(MOVES) for plan in plans} == {plan.has(HIDES) for plan in plans} == {True, False}
    )
    assert {plan.loss > 0 for plan in plans} == {True, False}


def test_a_failing_seed_is_made_smaller() -> None:
    """A bug that needs no fault at all ends with a plan that has none."""
    mutant = next(one for one in MUTANTS if one.name == "ack before fdatasync")
    with mutant.planted():
        outcome = simulate(0, replace(draw(Dice("plan", 0), 3), loss=0.1))
        small = shrink(outcome)

    assert "I9" in outcome.invariants
    assert "I9" in small.invariants
    assert small.plan == Plan()


@pytest.mark.parametrize("mutant", QUICK, ids=lambda one: one.name.replace(" ", "-"))
def test_a_planted_bug_is_caught_by_its_invariant(mutant: Mutant) -> None:
    """A suite that cannot catch them proves nothing; the rest: `quorumlog chaos sim --mutants`."""
    caught = hunt(mutant, 0, TRIES)

    assert caught.by, f"{mutant.name} got away in {TRIES} seeds"


#: Names that the product has looked up in a run so far: the object that has them, and the name.
called: set[tuple[int, str]] = set()


def noting(of: Any, name: str) -> Place:
    """What stands there now, noted in `called` when it is called; it does what it did."""
    found = inspect.getattr_static(of, name)
    kind = type(found) if isinstance(found, staticmethod | classmethod) else None
    real = found.__func__ if kind else found

    def call(*args: Any, **more: Any) -> Any:
        called.add((id(of), name))
        return real(*args, **more)

    return of, name, kind(call) if kind else call


@pytest.mark.parametrize(
    "mutant",
    [one for one in MUTANTS if not one.quick or len(one.plant()) > 1],
    ids=lambda one: one.name.replace(" ", "-"),
)
def test_what_a_planted_bug_replaces_is_used(mutant: Mutant) -> None:
    """A name that the product looks up no more would be a bug that was never planted.

    One run looks for the names of all of them at once. A quick one that replaces a single name is shown to be
    used by its being caught.
    """
    places = {
        (id(of), name): (of, name)
        for one in MUTANTS
        for of, name, new in one.plant()
        if callable(new)
    }
    wanted = {(id(of), name) for of, name, new in mutant.plant() if callable(new)}
    for seed in range(20):
        if wanted <= called:
            break
        with replaced([noting(of, name) for of, name in places.values()]):
            simulate(seed, mutant.plan(seed))

    assert wanted <= called, [places[one] for one in wanted - called]


def test_there_are_enough_planted_bugs_and_none_stays_planted() -> None:
    """Each has a name and aims of its own; after the hunt the product is whole again."""
    assert len(MUTANTS) >= 25
    assert len({one.name for one in MUTANTS}) == len(MUTANTS)
    assert all(one.aims for one in MUTANTS)
    for mutant in MUTANTS:
        before = [getattr(place, name) for place, name, _ in mutant.plant()]
        with mutant.planted():
            pass
        assert [getattr(place, name) for place, name, _ in mutant.plant()] == before
