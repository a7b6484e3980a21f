"""Planted bugs of hiding and moving: each checker catches its violation, and only then."""

from dataclasses import replace
from typing import Any

import pytest

from chaos.checkers import HOLDS, UNSEEN, VIOLATED, check
from chaos.corpus import moment_micros
from chaos.hides import GRACE_SECONDS
from chaos.history import FaultRecord, History, NodeState, Op
from tests.unit.chaos.histories import (
    CORPUS,
    HEAD,
    KILL,
    NODES,
    append,
    clean,
    count,
    everything,
    final,
    read,
    seen,
    with_faults,
    without,
)

#: Times of the histories are small integers, so the grace is over long after them.
LATER = 300 + int(GRACE_SECONDS * 1e9)


def verdicts(history: History) -> dict[str, str]:
    return {one.id: one.status for one in check(history)}


def hide(**more: Any) -> FaultRecord:
    """Rows 1 to 5 of agent1, acknowledged at 110, are deleted from 290 to 300 with node3 away."""
    one = {"how": "delete", "client": "agent1", "first": 1, "last": 5, "t_inv": 290, "t_ret": 300}
    proof = {"struck": "node3", "hidden_at": LATER, "hides": [{**one, **more}]}
    return FaultRecord("hide", ("kill:delete",), 285, 289, 310, 320, proof)


def ended(rows: list[list[str]], *more: Op, fault: FaultRecord | None = None) -> History:
    """The clean run, its last reads with other rows and after the grace, and a hide."""
    history = without(clean(*more), 20, 21, 22)
    finals = [
        replace(final(20 + k, node, rows), t_inv=LATER + 10, t_ret=LATER + 20)
        for k, node in enumerate(NODES)
    ]
    return with_faults(
        replace(history, ops=(*history.ops, *finals)), KILL, hide() if fault is None else fault
    )


def left(*gone: str) -> list[list[str]]:
    """All rows but some."""
    return [row for row in everything() if row[0] not in gone]


DELETED = tuple(f"agent1:{number}" for number in range(1, 6))


def test_rows_that_were_deleted_are_missed_by_nobody() -> None:
    """Not by the last reads, nor by a read and a count during and after the delete."""
    during = read(30, "agent1:0", seen("agent1", 6, 20), 295)
    counted = count(31, {"agent1": 15, "agent2": 10, "numbered1": 15}, 305)

    found = verdicts(ended(left(*DELETED), during, counted))

    assert VIOLATED not in found.values()
    assert (found["I7r"], found["I13"]) == (HOLDS, HOLDS)


def test_a_row_that_shows_again_is_caught() -> None:
    """Planted: node3 comes back and one of the rows is read."""
    rows = left(*DELETED[1:])

    found = {one.id: one for one in check(ended(rows)) if one.status == VIOLATED}

    assert list(found) == ["I7r"]
    assert "agent1:1" in found["I7r"].examples[0]


@pytest.mark.parametrize(
    ("node", "since", "bad"),
    [
        ("node2", 310, False),  # it may not have heard yet
        ("node2", LATER, True),
        ("node3", LATER - 1, False),  # it was away
        ("node3", LATER, True),
    ],
)
def test_a_read_must_hide_from_when_its_node_surely_knows(node: str, since: int, bad: bool) -> None:
    early = replace(read(30, "agent1:0", seen("agent1", 1, 20), since), node=node)

    found = verdicts(ended(left(*DELETED), early))

    assert (found["I7r"] == VIOLATED) is bad


def test_a_delete_without_an_answer_may_have_come_out_either_way() -> None:
    fault = hide(t_ret=None)
    fault = replace(fault, proof={**fault.proof, "hidden_at": None})

    for rows in (left(*DELETED), everything()):
        found = verdicts(ended(rows, fault=fault))
        assert VIOLATED not in found.values()
        assert found["I7r"] == UNSEEN


def test_a_row_that_goes_beside_the_deleted_ones_is_caught() -> None:
    """Planted: the delete took one row more, of the same client."""
    found = verdicts(ended(left(*DELETED, "agent1:6")))

    assert {id for id, status in found.items() if status == VIOLATED} == {"I1", "I13"}


def test_a_row_of_a_group_that_was_sent_after_the_delete_may_show() -> None:
    """It was not acknowledged before: 12 to 14 are, and 15 is not asked for by then."""
    late = append(12, "agent1", (21, 22), 400)
    fault = hide(first=1, last=100)

    found = verdicts(ended(seen("agent1", 21, 22) + left(*NUMBERED1_TO_20), late, fault=fault))

    assert found["I7r"] == HOLDS


NUMBERED1_TO_20 = tuple(f"agent1:{number}" for number in range(1, 21))


def test_below_a_watermark_nothing_shows_and_above_it_all_does() -> None:
    """By the times that rows bear; planted: one below shows again, one above is gone."""
    times = {n: moment_micros(CORPUS, "agent1", n) for n in range(1, 21)}
    run = 30 * 60 * 1_000_000
    before = HEAD.start_micros - 2 * 3_600_000_000
    under = [n for n, at in times.items() if at < before]
    above = [n for n, at in times.items() if at >= before + run]
    assert under
    assert above
    fault = hide(how="watermark", first=1, last=1, before=before)
    gone = {f"agent1:{n}" for n, at in times.items() if at < before + run}

    assert VIOLATED not in verdicts(ended(left(*gone), fault=fault)).values()

    again = verdicts(ended(left(*(gone - {f"agent1:{under[0]}"})), fault=fault))
    lost = verdicts(ended(left(*gone, f"agent1:{above[0]}"), fault=fault))
    assert [id for id, status in again.items() if status == VIOLATED] == ["I7r"]
    assert {id for id, status in lost.items() if status == VIOLATED} == {"I1", "I13"}


# -- changes of the ring --------------------------------------------------------------------------


def joined(second: str = "409 CHANGE_RUNNING", healed: int | None = 320) -> FaultRecord:
    told = {"/cluster/rebalance": second}
    proof = {"change": 7, "second": told, "stage": "copying", "struck": "node4", "crashed": True}
    return FaultRecord("join", ("kill:new-node:copying",), 200, 205, 300, healed, proof)


def test_changes_that_refuse_a_second_one_and_end_hold() -> None:
    found = verdicts(with_faults(clean(), joined()))

    assert VIOLATED not in found.values()
    assert (found["R1"], found["I15"]) == (HOLDS, HOLDS)


def test_a_second_change_that_is_taken_and_one_that_does_not_end_are_caught() -> None:
    assert verdicts(with_faults(clean(), joined("202 ")))["R1"] == VIOLATED
    stuck = verdicts(with_faults(clean(), joined(healed=None)))
    assert {stuck["R1"], stuck["L2"], stuck["I15"]} == {VIOLATED}


def test_a_second_change_of_any_kind_that_is_taken_is_caught() -> None:
    """Others may be refused for another reason, a rebalance is possible at any time."""
    for told, status in (
        ({"/cluster/rebalance": "409 CHANGE_RUNNING", "/x/drain": "400 INVALID_REQUEST"}, HOLDS),
        ({"/cluster/rebalance": "400 INVALID_REQUEST"}, VIOLATED),
        ({"/cluster/rebalance": "409 CHANGE_RUNNING", "/cluster/settings": "200 "}, VIOLATED),
    ):
        fault = joined()
        proof = {**fault.proof, "second": told}
        assert verdicts(with_faults(clean(), replace(fault, proof=proof)))["R1"] == status


def test_a_new_owner_that_is_read_before_it_was_filled_is_caught() -> None:
    """It holds less than the second of three owners did before the change."""
    for holds, status in ((80, HOLDS), (79, VIOLATED)):
        fault = joined()
        proof = {**fault.proof, "shard": 3, "new_node_holds": holds, "must_hold": 80}
        assert verdicts(with_faults(clean(), replace(fault, proof=proof)))["R1"] == status


def test_owners_that_differ_and_strangers_that_hold_are_caught() -> None:
    """I8 where not every node owns every shard: planted are a difference, and a copy too many."""

    def told(**shards: Any) -> str:
        states = tuple(NodeState(node, 1, held, owns=owns) for node, (held, owns) in shards.items())
        head = replace(HEAD, converges=True)
        found = check(replace(clean(), head=head, states=states))
        return next(one.status for one in found if one.id == "I8")

    same, other = (3, "aa"), (3, "bb")
    good = {
        "node1": ({"1": same, "2": same}, ("1", "2")),
        "node2": ({"1": same}, ("1",)),
        "node3": ({"2": same}, ("2",)),
        "node4": ({}, ()),
    }

    assert told(**good) == HOLDS
    assert told(**{**good, "node3": ({"2": other}, ("2",))}) == VIOLATED
    assert told(**{**good, "node3": ({}, ("2",))}) == VIOLATED
    assert told(**{**good, "node4": ({"1": same}, ())}) == VIOLATED


# -- N, W and R change -----------------------------------------------------------------------------


def changed(after: list[int], ended_at: int | None = 210, *blows: tuple[str, str]) -> FaultRecord:
    """From 3/2/2, asked for at 190; from 220 to 300 nodes are away."""
    note = {"before": [3, 2, 2], "after": after, "asked_at": 190, "ended_at": ended_at}
    proof = {
        **joined().proof, "blows": [list(one) for one in blows or [("kill", "node3")]],
        "quorums": [note],
    }  # fmt: skip
    return FaultRecord("quorum", ("kill:old-owner:before:3/2/2>3/3/1",), 190, 220, 300, 320, proof)


def test_an_ack_by_the_w_of_before_is_caught() -> None:
    """W=3 is in force and one node of three is away: nothing may be acknowledged. By W=2 it may."""
    during = append(30, "agent2", (1, 10), 250)

    raised = {one.id: one for one in check(with_faults(clean(during), changed([3, 3, 1])))}
    before = verdicts(with_faults(clean(during), changed([3, 3, 1], None)))
    lowered = verdicts(with_faults(clean(during), changed([3, 1, 3])))

    assert raised["I9"].status == VIOLATED
    assert any("op 30" in one and "by W=3" in one for one in raised["I9"].examples)
    assert before["I9"] != VIOLATED  # it had not ended: W=2 may still be in force
    assert lowered["I9"] != VIOLATED


def test_another_quorum_than_was_asked_for_is_caught() -> None:
    for in_force, status in (([3, 3, 1], HOLDS), ([3, 3, 3], VIOLATED)):
        fault = changed([3, 3, 1])
        fault = replace(fault, proof={**fault.proof, "in_force": in_force})
        assert verdicts(with_faults(clean(), fault))["R1"] == status


def test_a_complete_read_by_the_r_of_before_is_caught() -> None:
    """R=3 with a node away; clients reach one that is cut off, and it reaches nobody."""
    during = read(30, "agent2", seen("agent2", 1, 10), 250)

    away = verdicts(with_faults(clean(during), changed([3, 1, 3])))
    one = verdicts(with_faults(clean(during), changed([3, 3, 1])))
    cut = verdicts(with_faults(clean(during), changed([3, 2, 2], 210, ("cut", "node2"))))

    assert away["I6"] == VIOLATED
    assert one["I6"] != VIOLATED
    assert cut["I6"] == VIOLATED


def test_a_spare_may_have_stored_what_two_others_did_not() -> None:
    """Of four nodes two are left: that W=2 was met cannot be excluded."""
    during = append(30, "agent2", (1, 10), 250)
    fault = changed([3, 2, 2], 210, ("kill", "node2"), ("kill", "node3"))
    history = with_faults(clean(during), fault)

    assert verdicts(history)["I9"] == VIOLATED
    four = replace(history, head=replace(HEAD, spares=("node4",)))
    assert verdicts(four)["I9"] != VIOLATED
