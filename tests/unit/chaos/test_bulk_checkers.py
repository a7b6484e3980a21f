"""Planted bugs in a history of bulk rows: each is caught under its name; the clean one passes."""

from dataclasses import replace
from typing import Any

import pytest

from chaos.checkers import HOLDS, UNSEEN, VIOLATED, Verdict, check, worth
from chaos.history import BULK, BULK_FINAL, BULK_READ, OK, FaultRecord, History, Op
from tests.unit.chaos.histories import NODES, clean, count

BULK_SERVICES = {"bulk-agent1": "chaos-bulk-agent1", "bulk-numbered1": "chaos-bulk-numbered1"}
TOPS = {"bulk-agent1": 6_000, "bulk-numbered1": 9_000}
TWO_AWAY = FaultRecord("kill", ("node2", "node3"), 500, 505, 600, 620)


def sent(
    id: int, client: str, rows: tuple[int, int], t: int, outcome: str = OK, **resp: Any
) -> Op:  # fmt: skip
    """A bulk write from `t` to `t + 10`, through node1."""
    return Op(id, client, BULK, "node1", t, t + 10, outcome, (rows,), "", resp)


def looked(
    id: int, client: str, asked: tuple[int, int], found: list[list[int]], t: int,
    complete: bool = True, kind: str = BULK_READ, node: str = "node2", **more: Any,
) -> Op:  # fmt: skip
    """A bulk read from `t` to `t + 10`."""
    resp = {"complete": complete, "missing": [] if complete else ["7"], "found": found}
    resp |= {"order": "aa", "doubled": [], "altered": [], **more}
    return Op(id, "bulk-reader1", kind, node, t, t + 10, OK, (asked,), client, resp)


def finals(found: dict[str, list[list[int]]], **more: Any) -> list[Op]:
    """Last reads of each client through each node."""
    return [
        looked(80 + 10 * i + k, client, (1, TOPS[client]), found[client], 2000, True, BULK_FINAL,
               node, **more)
        for i, node in enumerate(NODES)
        for k, client in enumerate(TOPS)
    ]  # fmt: skip


ALL = {client: [[1, top]] for client, top in TOPS.items()}


def bulk(*more: Op, last: list[Op] | None = None, drop: tuple[int, ...] = ()) -> History:
    """A clean history with bulk rows: a doubt, a repeat, a gap that is filled, reads."""
    history = clean(*more)
    ops = (
        sent(40, "bulk-agent1", (1, 4_000), 100),
        sent(41, "bulk-agent1", (4_001, 6_000), 210, "unknown"),
        sent(42, "bulk-agent1", (4_001, 6_000), 230),
        sent(43, "bulk-numbered1", (1, 3_000), 100, ack_till=3_000, epoch=1),
        sent(44, "bulk-numbered1", (6_001, 9_000), 210, ack_till=3_000, epoch=1, missing=[[3_001, 6_000]]),
        sent(45, "bulk-numbered1", (3_001, 6_000), 240, ack_till=9_000, epoch=1),
        looked(46, "bulk-agent1", (1, 5_000), [[1, 4_500]], 215),
        looked(47, "bulk-agent1", (1, 5_000), [[1, 5_000]], 232),
        *(finals(ALL) if last is None else last),
    )  # fmt: skip
    head = replace(history.head, bulk=BULK_SERVICES, sequenced=("numbered1", "bulk-numbered1"))
    kept = tuple(op for op in (*history.ops, *ops) if op.id not in drop)
    return replace(history, head=head, ops=kept)


def only(history: History, id: str) -> Verdict:
    """The one invariant that is violated."""
    found = {one.id: one for one in check(history) if one.status == VIOLATED}
    assert list(found) == [id], found
    return found[id]


def test_a_clean_history_holds_and_counts() -> None:
    """Bulk rows are part of the verdicts, and are needed."""
    history = bulk()

    verdicts = {one.id: one for one in check(history)}

    for id in ("I1", "I2", "I3", "I4", "I5", "I7", "I17"):
        assert verdicts[id].status == HOLDS, verdicts[id]
        assert "in bulk" in verdicts[id].text
    assert worth(history, 45).counts


def test_a_lost_row_is_caught() -> None:
    """I1: one row of 15,000, through one node."""
    last = finals(ALL)
    last[2] = replace(last[2], resp=last[2].resp | {"found": [[1, 77], [79, 6_000]]})

    found = only(bulk(last=last), "I1")

    assert found.count == 1
    assert found.examples == ("bulk-agent1:78 was acknowledged, node2 does not find it",)


def test_rows_under_an_ack_till_are_owed() -> None:
    """I1: the promise for rows 3001-6000 is an ackTill that came with another request."""
    late = replace(sent(45, "bulk-numbered1", (3_001, 6_000), 240, "unknown"), t_ret=None)
    told = sent(48, "bulk-numbered1", (6_001, 9_000), 260, ack_till=9_000, epoch=1)
    gone = ALL | {"bulk-numbered1": [[1, 3_000], [6_001, 9_000]]}

    history = bulk(drop=(45,), last=finals(gone))
    history = replace(history, ops=(*history.ops, late, told))

    found = {one.id: one for one in check(history) if one.status == VIOLATED}
    assert found["I1"].count == 3_000 * len(NODES)


def test_a_doubled_row_is_caught() -> None:
    """I2: in an answer, or in a count."""
    twice = finals(ALL)
    twice[0] = replace(twice[0], resp=twice[0].resp | {"doubled": [[5, 6]]})
    high = count(90, {"agent1": 20, "agent2": 10, "numbered1": 15}, 300)
    high.resp["bulk"] = {"bulk-agent1": 6_001, "bulk-numbered1": 9_000}

    assert only(bulk(last=twice), "I2").count == 2
    assert only(bulk(high), "I2").count == 1


@pytest.mark.parametrize(
    "more",
    [{"altered": [[9, 9]]}, {"strangers": [1, ["{'chaos_number': 10000}"]]}],
)
def test_a_row_that_is_not_what_was_sent_is_caught(more: dict[str, Any]) -> None:
    """I3: other content, or no content of ours."""
    odd = finals(ALL)
    odd[0] = replace(odd[0], resp=odd[0].resp | more)

    assert only(bulk(last=odd), "I3").count == 1


def test_a_row_read_before_it_was_sent_is_caught() -> None:
    """I3: nobody can have sent it yet."""
    early = looked(49, "bulk-agent1", (1, 5_000), [[1, 4_001]], 150)

    assert only(bulk(early), "I3").count == 1


def test_a_complete_read_without_an_acknowledged_row_is_caught() -> None:
    """I4: in a read, or in a count; a partial read may lack it, an unacknowledged row as well."""
    stale = looked(49, "bulk-agent1", (1, 5_000), [[2, 4_000]], 120)
    low = count(90, {"agent1": 20, "agent2": 10, "numbered1": 15}, 300)
    low.resp["bulk"] = {"bulk-agent1": 6_000, "bulk-numbered1": 8_990}

    assert only(bulk(stale), "I4").count == 1
    assert only(bulk(low), "I4").count == 10
    partial = replace(stale, resp=stale.resp | {"complete": False, "missing": ["3"]})
    assert not [one for one in check(bulk(partial)) if one.status == VIOLATED]


def test_contradicting_acknowledgements_are_caught() -> None:
    """I5: ackTill falls, covers a gap, or rows never sent; a row above it is neither missing nor stored."""
    falls = sent(49, "bulk-numbered1", (1, 3_000), 300, ack_till=8_999, epoch=1)
    gap = sent(49, "bulk-numbered1", (1, 3_000), 300, ack_till=9_000, epoch=1, missing=[[5, 9]])
    beyond = sent(49, "bulk-numbered1", (1, 3_000), 300, ack_till=9_500, epoch=1)
    early = sent(49, "bulk-numbered1", (1, 3_000), 120, ack_till=3_500, epoch=1)
    refused = sent(49, "bulk-agent1", (1, 4_000), 300, rejected=[17])

    for planted in (falls, gap, beyond, refused):
        assert only(bulk(planted), "I5").count == 1
    found = {one.id: one for one in check(bulk(early)) if one.status == VIOLATED}
    assert found["I5"].count >= 500

    silent = sent(44, "bulk-numbered1", (6_001, 9_000), 210, ack_till=3_000, epoch=1)
    waits = replace(sent(45, "bulk-numbered1", (3_001, 6_000), 240, "unknown"), t_ret=None)
    last = finals(ALL | {"bulk-numbered1": [[1, 3_000], [6_001, 9_000]]})
    history = bulk(drop=(44, 45), last=last)
    history = replace(history, ops=(*history.ops, silent, waits))
    assert only(history, "I5").count == 3_000


def test_a_row_that_vanishes_before_it_was_acknowledged_is_caught() -> None:
    """I7: seen at 225, gone at 236, acknowledged at 240."""
    again = looked(49, "bulk-agent1", (1, 5_000), [[1, 4_499], [4_501, 5_000]], 236)

    found = only(bulk(again), "I7")

    assert found.examples[0].startswith("bulk-agent1:4500 had been read")


def test_another_order_is_caught() -> None:
    """I17: the same rows, through one node in another order."""
    odd = finals(ALL)
    odd[-1] = replace(odd[-1], resp=odd[-1].resp | {"order": "bb"})

    assert only(bulk(last=odd), "I17").count == 1


def test_bulk_requests_are_judged_by_who_was_away() -> None:
    """I9 and I6: an acknowledgement, and a complete answer, with two of three nodes dead."""
    write = sent(49, "bulk-agent1", (1, 10), 520)
    read = looked(49, "bulk-agent1", (1, 5_000), [[1, 5_000]], 520, node="node1")

    for op, id in ((write, "I9"), (read, "I6")):
        assert only(replace(bulk(op), faults=(TWO_AWAY,)), id).count == 1


def test_a_run_whose_bulk_rows_nobody_read_back_does_not_count() -> None:
    """Or that acknowledged none of a client's rows."""
    unread = worth(bulk(last=finals(ALL)[1:]), 45)
    silent = worth(bulk(drop=(43, 44, 45)), 45)

    assert unread.reasons == ("the last read of bulk-agent1 through node1 is not complete",)
    assert "no row of bulk-numbered1 was acknowledged" in silent.reasons


def test_a_history_without_bulk_is_judged_as_before() -> None:
    """Nothing is said of bulk."""
    assert all("bulk" not in one.text for one in check(clean()) if one.status != UNSEEN)
