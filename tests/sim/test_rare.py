"""Rare orders of events, lost disks and splits in whole simulated clusters: they bite, and nothing breaks."""

import pytest

from chaos.mutants import MUTANTS
from chaos.sim.plan import SPLIT, WIPE, Fault, Plan
from chaos.sim.run import simulate

pytestmark = [pytest.mark.sim, pytest.mark.timeout(240)]


@pytest.mark.parametrize(
    "kind", ["torn reign", "short seal", "outpaced", "lone copy", "again"], ids=lambda one: one
)
def test_a_rare_order_of_events_breaks_nothing(kind: str) -> None:
    """Each did happen: what it waited for came."""
    outcome = simulate(3, Plan(faults=(Fault(0.8, kind, 0, 1.0),)))

    assert outcome.broken == []
    assert outcome.bitten[kind] > 0


def test_a_lost_disk_is_refused_and_comes_back_empty() -> None:
    """The operator takes the node out and in again; it is filled from a quorum of the others."""
    outcome = simulate(3, Plan(faults=(Fault(0.8, WIPE, 0, 1.0),)))

    assert outcome.broken == []
    assert outcome.bitten[WIPE] == outcome.bitten["asked: remove"] == 1
    assert outcome.bitten["asked: add"] == 1


def test_a_lost_disk_that_is_let_in_is_told() -> None:
    """S6 at once, and I4: the rows that it and one other had are missing in complete reads."""
    mutant = next(one for one in MUTANTS if "wiped disk" in one.name)
    with mutant.planted():
        outcome = simulate(3, Plan(faults=(Fault(0.8, WIPE, 0, 1.0),)))

    assert {"S6", "I4"} <= outcome.invariants


def test_services_are_split_while_clients_write() -> None:
    """Wider and wider; producers get epochs of the newer generations while their old ones go on."""
    faults = (*(Fault(0.3 + n / 3, SPLIT, n, 0.5) for n in range(3)), Fault(1.0, "leader", 0, 0.5))

    outcome = simulate(4, Plan(faults=faults))

    assert outcome.broken == []
    assert outcome.bitten["asked: split"] > 1
    assert outcome.bitten["newer producer"] > 0
