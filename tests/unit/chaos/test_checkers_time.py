"""L1 and L3: planted slowness is caught, and only that which is the cluster's own."""

from dataclasses import replace

import pytest

from chaos.checkers import HOLDS, UNSEEN, VIOLATED, Verdict, check
from chaos.history import FaultRecord, History, Op
from tests.unit.chaos.histories import append, clean, with_faults

SECOND = 10**9
BEGIN = 1_000 * SECOND
ONE_AWAY = FaultRecord("kill", ("node2",), BEGIN, BEGIN, BEGIN + 60 * SECOND, BEGIN + 61 * SECOND)
TWO_AWAY = replace(ONE_AWAY, targets=("node2", "node3"))
CUT_OFF = replace(ONE_AWAY, what="partition", targets=("node1",))


def writes(seconds: list[float], outcome: str = "unknown", node: str = "node1") -> list[Op]:
    """Appends during the fault, each taking so long. (`unknown`: they promise nothing, so I1 is at rest.)"""
    made = [append(100 + i, "agent1", (1, 10), BEGIN, outcome) for i in range(len(seconds))]
    return [
        replace(op, node=node, t_ret=BEGIN + int(took * SECOND))
        for op, took in zip(made, seconds, strict=True)
    ]


def judged(fault: FaultRecord, ops: list[Op]) -> dict[str, Verdict]:
    """The verdicts by id."""
    history: History = with_faults(clean(*ops), fault)
    return {one.id: one for one in check(history)}


def test_slow_appends_under_a_single_fault_are_caught() -> None:
    """Two of a hundred took 9 s: the p99 is beyond what a loaded machine explains."""
    slow = judged(ONE_AWAY, writes([0.01] * 98 + [9.0, 9.0], "ok"))["L1"]
    good = judged(ONE_AWAY, writes([0.01] * 99 + [9.0], "ok"))["L1"]

    assert slow.status == VIOLATED
    assert "p99 9.000 s" in slow.examples[0]
    assert good.status == HOLDS
    assert "the longest 9.000 s" in good.text


def test_appends_that_are_refused_under_a_single_fault_are_caught() -> None:
    """All of them, or nine of ten: that none is slow is no excuse. Half may be asked again."""
    none = judged(ONE_AWAY, writes([0.01] * 100))["L1"]
    few = judged(ONE_AWAY, [*writes([0.01] * 10, "ok"), *writes([0.01] * 90)])["L1"]
    half = judged(ONE_AWAY, [*writes([0.01] * 50, "ok"), *writes([0.01] * 50)])["L1"]

    assert {none.status, few.status} == {VIOLATED}
    assert few.text == "writes stop under a single fault"
    assert half.status == HOLDS


def test_faults_at_the_same_time_are_not_single_ones() -> None:
    """All nodes lost power, each by itself: no wonder that nothing is acknowledged. In turn it is one."""
    others = [replace(ONE_AWAY, targets=(node,)) for node in ("node1", "node3")]
    later = [
        replace(one, t_begin=2 * BEGIN, t_bitten=2 * BEGIN, t_heal=3 * BEGIN, t_healed=3 * BEGIN)
        for one in others[:1]
    ]
    ops = writes([0.01] * 100, node="node3")
    together = check(with_faults(clean(*ops), ONE_AWAY, *others))
    apart = check(with_faults(clean(*ops), ONE_AWAY, *later))

    assert {one.id: one.status for one in together}["L1"] == UNSEEN
    assert {one.id: one.status for one in apart}["L1"] == VIOLATED


@pytest.mark.parametrize(
    ("fault", "ops"),
    [
        (ONE_AWAY, writes([9.0] * 10, "ok")),
        (TWO_AWAY, writes([9.0] * 100)),
        (ONE_AWAY, writes([9.0] * 100, "ok", "node2")),
        (ONE_AWAY, writes([9.0] * 100, "ok", "library")),
        (replace(ONE_AWAY, t_bitten=None), writes([9.0] * 100, "ok")),
        (replace(ONE_AWAY, t_begin=1, t_bitten=1, t_heal=2, t_healed=3), writes([9.0] * 100, "ok")),
    ],
)
def test_what_shows_nothing_of_a_single_fault_is_unseen(fault: FaultRecord, ops: list[Op]) -> None:
    """Too few, no quorum, through the broken node, through whom one likes, no fault, at another time."""
    assert judged(fault, ops)["L1"].status == UNSEEN


@pytest.mark.parametrize(("fault", "node"), [(TWO_AWAY, "node1"), (CUT_OFF, "node1")])
def test_a_hang_without_a_quorum_is_caught(fault: FaultRecord, node: str) -> None:
    """Also through the node that is cut off, which runs. An answer within the bound is none."""
    hung = judged(fault, writes([0.1, 12.0], node=node))["L3"]
    prompt = judged(fault, writes([0.1, 3.0], node=node))["L3"]

    assert hung.status == VIOLATED
    assert hung.examples == ("node1 left append 101 for 12.0 s without an answer",)
    assert prompt.status == HOLDS
    assert "1 above the goal" in prompt.text


def test_a_dead_node_owes_no_answer() -> None:
    """Nor does anybody where W owners are left."""
    assert judged(TWO_AWAY, writes([12.0], node="node3"))["L3"].status == UNSEEN
    assert judged(ONE_AWAY, writes([12.0]))["L3"].status == UNSEEN
