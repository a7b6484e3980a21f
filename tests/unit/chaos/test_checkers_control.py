"""Planted bugs in the control history: each is named as I10 (a second change as R1), and only then."""

from dataclasses import replace

import pytest

from chaos.checkers import HOLDS, VIOLATED, Verdict, check
from chaos.evidence import Lead, Look, ManagerLog, Step
from chaos.history import History
from tests.unit.chaos.histories import NODES, clean

#: Commands at these log indexes; those between are of Raft itself.
INDEXES = (2, 3, 5, 6, 9)


def step(index: int, *, history: str = "", ring: int = 0, ring_hash: str = "") -> Step:
    """The ring steps on with command 6."""
    epoch = ring or (2 if index >= 6 else 1)
    return Step(index, history or f"h{index}", epoch, ring_hash or f"r{epoch}")


def log(node: str, *steps: Step, last: int = 9) -> ManagerLog:
    """The one history up to an index, with some commands replaced."""
    changed = {one.index: one for one in steps}
    found = tuple(changed.get(index, step(index)) for index in INDEXES if index <= last)
    return ManagerLog(node, 1, found, ((3, 0, 1, "node1"), (5, 0, 2, "node2")), ((5, 4), (6, 0)))


def look(node: str, of: Step, t: int = 1200) -> Look:
    return Look(node, t, of.index, of.history, of.ring_epoch, of.ring_hash, 1, (3, 2, 2))


GOOD_LOOKS = tuple(look(node, step(9)) for node in NODES)


def run(
    *logs: ManagerLog, looks: tuple[Look, ...] = GOOD_LOOKS, leads: tuple[Lead, ...] = ()
) -> History:
    made = {one.node: one for one in (*(log(node) for node in NODES), *logs)}
    return replace(clean(), logs=tuple(made.values()), looks=looks, leads=leads)


def violated(history: History) -> dict[str, Verdict]:
    return {one.id: one for one in check(history) if one.status == VIOLATED}


def only(history: History, id: str = "I10") -> str:
    """The first example of the one invariant that is violated."""
    found = violated(history)
    assert list(found) == [id], found
    return found[id].examples[0]


def test_one_history_holds() -> None:
    """A manager that lags, looks at any moment, a look before the first command, one leader a term."""
    looks = (*GOOD_LOOKS, look("node3", step(5), 300), look("node3", step(0, history="0"), 10))
    leads = (Lead("node1", 1), Lead("node2", 2), Lead("node1", 3), Lead("node1", 3))

    history = run(log("node3", last=6), looks=looks, leads=leads)

    assert violated(history) == {}
    assert {one.id: one.status for one in check(history)}["I10"] == HOLDS


def test_two_leaders_of_a_term_are_caught() -> None:
    assert only(run(leads=(Lead("node1", 4), Lead("node3", 4)))) == (
        "term 4 was led by node1 and by node3"
    )


def test_a_manager_with_another_command_is_caught() -> None:
    """It had applied it; above what it had applied, a tail that nobody took is no violation."""
    other = log("node2", step(9, history="x9"))
    behind = (look("node1", step(9)), look("node2", step(6)), look("node3", step(9)))

    assert only(run(other)) == "node2 has another command 9 than node1"
    assert violated(run(other, looks=behind)) == {}


def test_a_node_that_believed_another_history_is_caught() -> None:
    """Also if it was killed a moment later, and its disk says nothing of it."""
    odd = look("node3", step(5, history="x5"), 300)

    assert only(run(looks=(*GOOD_LOOKS, odd))) == "node3 told another history at command 5"


def test_a_command_that_was_applied_and_is_on_no_disk_is_caught() -> None:
    """What was committed survives, a power cut of all nodes too."""
    lost = look("node2", step(12))

    assert only(run(looks=(*GOOD_LOOKS, lost))) == (
        "node2 had applied command 12; the log ends at 9"
    )


def test_a_ring_that_another_node_makes_otherwise_is_caught() -> None:
    """The same commands, and yet another ring: apply is not the same everywhere."""
    odd = look("node2", step(6, ring_hash="x2"), 300)

    assert violated(run(looks=(*GOOD_LOOKS, odd))).keys() == {"I10"}


@pytest.mark.parametrize(
    ("planted", "text"),
    [
        (step(9, ring=4), "ring epoch 2 became 4 by command 9"),
        (step(9, ring=1, ring_hash="r1"), "ring epoch 2 became 1 by command 9"),
        (step(9, ring_hash="x2"), "two rings of epoch 2, the other one by command 9"),
    ],
)
def test_a_ring_epoch_that_does_not_rise_by_one_is_caught(planted: Step, text: str) -> None:
    logs = [log(node, planted) for node in NODES]
    looks = tuple(look(node, planted) for node in NODES)

    assert only(run(*logs, looks=looks)) == text


def test_a_shard_epoch_that_does_not_rise_by_one_is_caught() -> None:
    """Skipped, and used twice."""
    for epoch in (1, 3):
        logs = [
            replace(log(node), assigned=((3, 7, 1, "node1"), (5, 7, epoch, "node2")))
            for node in NODES
        ]
        assert "shard 7: epoch 1 became" in only(run(*logs))


def test_a_manager_that_tells_nothing_in_the_end_is_caught() -> None:
    """It told something before the last heal (300), not after it."""
    looks = (*GOOD_LOOKS[:2], look("node3", step(9), 250))

    assert "node3 does not tell" in only(run(looks=looks))


def test_a_change_that_began_while_another_ran_is_caught() -> None:
    """R1, from the history itself: whatever those who asked were told."""
    logs = [replace(log(node), changes=((5, 4), (6, 8), (9, 0))) for node in NODES]

    assert only(run(*logs), "R1") == "change 8 began by command 6 while change 4 ran"
