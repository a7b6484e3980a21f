"""The invariants about nodes: each planted violation is found, and nothing else is."""

from dataclasses import replace
from typing import Any

import pytest

from chaos.checkers import check, worth
from chaos.history import FINAL, FaultRecord, History, NodeState
from chaos.verdicts import HOLDS, UNSEEN, VIOLATED, Verdict
from tests.unit.chaos.histories import (
    NODES,
    append,
    clean,
    everything,
    final,
    read,
    seen,
    with_faults,
)

DIGESTS = {"3": (12, "aa"), "17": (4, "bb")}


def verdicts(history: History) -> dict[str, Verdict]:
    """All verdicts by id."""
    return {one.id: one for one in check(history)}


def only(history: History, id: str) -> Verdict:
    """The one invariant that is violated."""
    found = {one.id: one for one in check(history) if one.status == VIOLATED}
    assert list(found) == [id], found
    return found[id]


def told(history: History, *states: NodeState) -> History:
    """The history with what nodes hold in the end."""
    return replace(history, states=states, head=replace(history.head, converges=True))


def states() -> list[NodeState]:
    """Three nodes that hold the same."""
    return [NodeState(node, 2000, dict(DIGESTS)) for node in NODES]


def test_owners_that_agree_have_converged() -> None:
    """I8 holds by the digests of all owners."""
    found = verdicts(told(clean(), *states()))["I8"]

    assert found.status == HOLDS
    assert "all 2 shards" in found.text


def test_an_owner_that_holds_something_else_is_caught() -> None:
    """I8: fewer entries, or as many and others; named by shard and node."""
    fewer, other = states(), states()
    fewer[1] = replace(fewer[1], shards=DIGESTS | {"3": (11, "ab")})
    other[2] = replace(other[2], shards=DIGESTS | {"17": (4, "cc")})

    assert "shard 3" in only(told(clean(), *fewer), "I8").examples[0]
    assert "node2 11" in only(told(clean(), *fewer), "I8").examples[0]
    assert "shard 17" in only(told(clean(), *other), "I8").examples[0]


def test_nodes_that_are_not_meant_to_agree_are_not_judged() -> None:
    """A build without anti-entropy promises nothing, and the verdict says so."""
    other = states()
    other[2] = replace(other[2], shards={})
    history = told(clean(), *other)

    found = verdicts(replace(history, head=replace(history.head, converges=False)))["I8"]

    assert found.status == UNSEEN


def test_an_owner_that_lacks_a_shard_or_says_nothing_is_caught() -> None:
    """I8: nothing held is something else than what the others hold; silence is no agreement."""
    lacking = states()
    lacking[0] = replace(lacking[0], shards={"3": (12, "aa")})

    assert "shard 17" in only(told(clean(), *lacking), "I8").examples[0]
    assert "node3 does not tell" in only(told(clean(), *states()[:2]), "I8").examples[0]


def test_where_not_every_node_owns_every_shard_nothing_is_claimed() -> None:
    """Five nodes, three owners: who should agree with whom cannot be told from outside."""
    history = told(clean(), *states())
    head = replace(history.head, nodes=(*NODES, "node4", "node5"))
    more = (NodeState("node4", 2000, {}), NodeState("node5", 2000, {}))

    found = verdicts(replace(history, head=head, states=(*history.states, *more)))["I8"]

    assert found.status == UNSEEN


def test_a_run_whose_nodes_never_told_what_they_hold_does_not_count() -> None:
    """I8 was to be judged and could not be: silence is no proof."""
    silent = told(clean())

    assert worth(told(clean(), *states()), 45).counts
    assert worth(silent, 45).reasons == ("no node told what it holds in the end",)


def test_a_row_that_was_seen_and_is_gone_is_caught() -> None:
    """I7: nobody had an answer for it, but it had been read."""
    doubt = append(12, "agent2", (11, 11), 250, "unknown")
    rows = seen("agent2", 1, 11)
    kept = clean(
        doubt, read(13, "agent2", rows, 300), read(14, "agent2", rows, 400),
        rows=everything() + seen("agent2", 11, 11),
    )  # fmt: skip
    lost = clean(doubt, read(13, "agent2", rows, 300), read(14, "agent2", rows[:10], 400))

    assert verdicts(kept)["I7"].status == HOLDS
    found = only(lost, "I7")
    assert "agent2:11" in found.examples[0]
    assert found.count == 1 + len(NODES)
    one = replace(lost, head=replace(lost.head, w=3, r=1))
    assert verdicts(one)["I7"].status == UNSEEN  # one owner is asked: it may be another one


CORRUPT = FaultRecord("corrupt", ("node3",), 200, 205, 300, 320, {"file": "log/00000001.qlog"})


def test_damage_that_is_found_where_it_was_done_is_contained() -> None:
    """I14 holds if the damaged node reports it and no other does."""
    reporting = states()
    reporting[2] = replace(reporting[2], damage=2)

    found = verdicts(told(with_faults(clean(), CORRUPT), *reporting))["I14"]

    assert found.status == HOLDS


def test_damage_on_a_node_that_nobody_damaged_has_spread() -> None:
    """I14: named with the node."""
    spread = states()
    spread[0] = replace(spread[0], damage=1)

    assert "node1" in only(told(with_faults(clean(), CORRUPT), *spread), "I14").examples[0]


def test_a_node_that_does_not_start_after_a_crash_is_caught() -> None:
    """I15, and L2 beside it: the service did not return either."""
    dead = FaultRecord("power-cut", ("node3",), 200, 205, 300, None, {}, "exit code 70")

    found = {one.id for one in check(with_faults(clean(), dead)) if one.status == VIOLATED}

    assert found == {"I15", "L2"}


def test_a_wiped_disk_under_its_old_name_is_caught() -> None:
    """S6: refused is right, started is not."""
    wiped = FaultRecord("wipe", ("node3",), 200, 205, 300, 320, {"refused": True, "exit_code": 1})
    taken = replace(wiped, proof={"refused": False, "exit_code": None})

    assert verdicts(with_faults(clean(), wiped))["S6"].status == HOLDS
    assert "node3" in only(with_faults(clean(), taken), "S6").examples[0]


CUT = FaultRecord(
    "partition", ("node1",), 500, 505, 700, 720, {"seen": ["node1 does not reach node2"]}
)


def test_an_answer_from_the_side_without_a_quorum_is_caught() -> None:
    """I9 and I6: the node cut off from both others acknowledges, or says complete, by itself alone."""
    acked = clean(append(12, "agent1", (1, 10), 600))
    lonely = replace(read(13, "agent1:0", seen("agent1", 1, 20), 600), node="node1")

    assert "node1 acknowledged" in only(with_faults(acked, CUT), "I9").examples[0]
    assert (
        "complete with node2, node3 away" in only(with_faults(clean(lonely), CUT), "I6").examples[0]
    )


def test_the_side_with_a_quorum_may_answer() -> None:
    """node2 and node3 are W and R; what the other side was asked and refused is the proof of the rule."""
    other = replace(append(12, "agent1", (1, 10), 600), node="node2")
    refused = append(13, "agent1", (1, 10), 620, "unknown")
    whole = read(14, "agent1:0", seen("agent1", 1, 20), 600)

    found = verdicts(with_faults(clean(other, refused, whole), CUT))

    assert not [one for one in found.values() if one.status == VIOLATED]
    assert found["I9"].status == HOLDS


def test_rows_that_come_in_another_order_through_another_node_are_caught() -> None:
    """I17: rows 3 and 4 change places through node3; a row that one of them lacks moves nothing."""
    history = clean()
    swapped = everything()
    swapped[2], swapped[3] = swapped[3], swapped[2]
    rest = tuple(op for op in history.ops if op.kind != FINAL or op.node != "node3")

    found = only(replace(history, ops=(*rest, final(30, "node3", swapped))), "I17")

    assert found.count == 2
    assert "agent1:4" in found.examples[0]
    assert verdicts(history)["I17"].status == HOLDS


def test_an_order_is_not_judged_by_one_read() -> None:
    """Nothing to compare it with."""
    history = clean()
    ops = tuple(op for op in history.ops if op.kind != FINAL)

    assert verdicts(replace(history, ops=ops))["I17"].status == UNSEEN


BROUGHT = {
    "way": "rejoin", "node": "node3", "came": "node3", "refused": True, "waits": "not its store",
    "incarnation": "a", "new_incarnation": "b", "owns": True, "held": {"3": 7}, "holds": {"3": 9},
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"refused": False}, "node3 started on an empty disk"),
        ({"waits": ""}, "node3 was admitted with another store"),
        ({"new_incarnation": "a"}, "under the same incarnation"),
        ({"owns": False}, "node3 owns nothing"),
        ({"holds": {"3": 6}}, "node3 holds 6 entries of shard 3, 7 were lost"),
    ],
)
def test_a_lost_disk_that_is_not_brought_in_as_documented_is_caught(
    wrong: dict[str, Any], text: str
) -> None:
    """S6: refused under its old name, kept waiting with the new store, an owner once it was filled."""
    lost = FaultRecord("lost-disk", ("rejoin",), 200, 205, 300, 320, BROUGHT)

    assert verdicts(with_faults(clean(), lost))["S6"].status == HOLDS
    bad = replace(lost, proof={**BROUGHT, **wrong})
    assert text in only(with_faults(clean(), bad), "S6").examples[0]
