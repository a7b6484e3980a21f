"""Planted bugs: each checker catches its violation, and only then; a clean history passes.

A suite that cannot see a planted bug proves nothing by seeing none.
"""

from dataclasses import replace

import pytest

from chaos.checkers import HOLDS, UNSEEN, VIOLATED, Verdict, check, worth
from chaos.history import FINAL, FaultRecord, History, Op
from tests.unit.chaos.histories import (
    KILL,
    NODES,
    SENT,
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

TWO_AWAY = FaultRecord("kill", ("node2", "node3"), 500, 505, 600, 620)


def violated(history: History) -> dict[str, Verdict]:
    """The violated invariants by id."""
    return {one.id: one for one in check(history) if one.status == VIOLATED}


def only(history: History, id: str) -> Verdict:
    """The one invariant that is violated."""
    found = violated(history)
    assert list(found) == [id], found
    return found[id]


def test_a_clean_history_holds_and_counts() -> None:
    """All invariants that were put to the test hold; what was not is said to be unseen."""
    history = clean()

    statuses = {one.id: one.status for one in check(history)}

    tested = dict.fromkeys(("I1", "I2", "I3", "I4", "I5", "I15", "I17", "L2"), HOLDS)
    for unseen in (
        "I1d", "I6", "I7", "I7r", "I8", "I8d", "I9", "I10", "I13", "I14", "N5", "R1", "S6",
        "L1", "L3",
    ):  # fmt: skip
        assert statuses.pop(unseen) == UNSEEN
    assert statuses == tested
    assert worth(history, acked_min=45).counts


def test_rows_without_an_answer_may_be_there_or_not() -> None:
    """A write whose outcome nobody knows is allowed both ways, whole or in part."""
    doubt = append(12, "agent2", (11, 13), 250, "unknown")

    assert violated(clean(doubt)) == {}
    assert violated(clean(doubt, rows=everything() + seen("agent2", 11, 12))) == {}


@pytest.mark.parametrize(("client", "number"), [("agent1", 7), ("agent2", 10), ("numbered1", 8)])
def test_a_lost_row_is_caught(client: str, number: int) -> None:
    """I1: acknowledged, and one node does not find it. Named with the node."""
    rows = [row for row in everything() if row[0] != f"{client}:{number}"]
    history = without(clean(), 20)
    history = replace(history, ops=(*history.ops, final(20, "node1", rows)))

    found = only(history, "I1")

    assert found.count == 1
    assert f"{client}:{number}" in found.examples[0]
    assert "node1" in found.examples[0]


def test_rows_under_an_ack_till_are_owed_although_their_own_request_was_never_answered() -> None:
    """I1: the promise for rows 6-8 is an ackTill that came with another request."""
    history = without(clean(), 8)
    late = replace(append(8, "numbered1", (6, 8), 220, "unknown"), t_ret=None)
    told = append(12, "numbered1", (9, 15), 260, ack_till=15, epoch=1)
    rows = [row for row in everything() if row[0] != "numbered1:7"]
    ops = tuple(op for op in history.ops if op.kind != FINAL)
    finals = tuple(final(20 + i, node, rows) for i, node in enumerate(NODES))

    found = violated(replace(history, ops=(*ops, late, told, *finals)))

    assert found["I1"].count == len(NODES)


def test_a_doubled_row_is_caught() -> None:
    """I2: twice in one answer, at the end or during the run."""
    twice = clean(rows=everything() + seen("agent1", 3, 3))
    meanwhile = clean(read(12, "agent1:0", seen("agent1", 1, 20) + seen("agent1", 2, 2), 350))

    assert "agent1:3 2 times" in only(twice, "I2").examples[0]
    assert "agent1:2 2 times" in only(meanwhile, "I2").examples[0]


def test_a_count_above_what_was_sent_is_caught() -> None:
    """I2: a double may show in a count alone."""
    found = only(clean(count(12, SENT | {"agent2": 11}, 400)), "I2")

    assert "11 rows of agent2, 10 were sent" in found.examples[0]


def test_an_altered_row_is_caught() -> None:
    """I3: the digest of what was read is not that of what was sent."""
    rows = [[name, digest if name != "agent2:4" else "0" * 12] for name, digest in everything()]

    found = only(clean(rows=rows), "I3")

    assert found.count == len(NODES)
    assert "agent2:4" in found.examples[0]


def test_two_rows_that_changed_places_are_caught() -> None:
    """I3: each name has the content of the other."""
    swap = {"agent1:1": "agent1:2", "agent1:2": "agent1:1"}
    digests = {name: digest for name, digest in everything()}
    rows = [[name, digests[swap.get(name, name)]] for name, _ in everything()]

    assert only(clean(rows=rows), "I3").count == 2 * len(NODES)


@pytest.mark.parametrize("name", ["agent1:21", "agent9:1", "?aa-0", "agent1:", ":3", "agent1:0"])
def test_a_row_from_nowhere_is_caught(name: str) -> None:
    """I3: nobody sent it, or it has no name that could have been sent."""
    found = only(clean(rows=[*everything(), [name, "0" * 12]]), "I3")

    assert "sent by nobody" in found.examples[0]


def test_a_row_that_was_refused_for_sure_must_not_be_there() -> None:
    """I3: the server said `definite: true`, nothing was stored; and yet it is."""
    refused = append(12, "agent2", (11, 11), 250, "fail")

    assert violated(clean(refused)) == {}
    assert only(clean(refused, rows=everything() + seen("agent2", 11, 11)), "I3").count == 3


def test_a_row_read_before_it_was_sent_is_caught() -> None:
    """I3: only its resend was taken, and that came later than the read."""
    late = append(12, "agent2", (11, 11), 380)
    early = read(13, "agent2", seen("agent2", 1, 11), 300)

    found = only(clean(late, early, rows=everything() + seen("agent2", 11, 11)), "I3")

    assert "op 13" in found.examples[0]


def test_a_complete_read_that_misses_an_acknowledged_row_is_caught() -> None:
    """I4: stale although it says complete; by group, by client, by count."""
    group = read(12, "agent1:0", seen("agent1", 1, 9) + seen("agent1", 11, 20), 350)
    client = read(12, "agent2", seen("agent2", 2, 10), 350)
    low = count(12, SENT | {"numbered1": 14}, 350)

    assert "agent1:10" in only(clean(group), "I4").examples[0]
    assert "agent2:1" in only(clean(client), "I4").examples[0]
    assert "14 rows of numbered1, 15" in only(clean(low), "I4").examples[0]
    none = count(12, {"agent1": 20, "agent2": 10}, 350)
    assert "0 rows of numbered1" in only(clean(none), "I4").examples[0]


def test_a_partial_read_may_miss_rows_and_a_concurrent_write_may_be_unseen() -> None:
    """I4 binds complete reads, and rows whose ack came before the read began."""
    partial = read(12, "agent1:0", [], 350, complete=False)
    concurrent = read(13, "agent1:0", seen("agent1", 1, 10), 235)  # 11-20 are acked at 240

    assert violated(clean(partial, concurrent)) == {}


def test_an_ack_till_that_falls_is_caught() -> None:
    """I5: a later request is told less than an earlier one; overlapping ones may be."""
    less = append(12, "numbered1", (1, 5), 300, ack_till=5, epoch=1)
    beside = append(12, "numbered1", (1, 5), 245, ack_till=5, epoch=1)

    assert "ackTill 15 (op 8) fell to" in only(clean(less), "I5").examples[0]
    assert violated(clean(beside)) == {}


def test_an_epoch_that_falls_is_caught() -> None:
    """I5: a newer epoch was told before."""
    newer = append(12, "numbered1", (1, 5), 300, ack_till=5, epoch=2)
    older = append(13, "numbered1", (1, 15), 330, ack_till=15, epoch=1)

    assert violated(clean(newer)) == {}
    assert "fell to epoch 1" in only(clean(newer, older), "I5").examples[0]


def test_a_gap_under_the_ack_till_is_caught() -> None:
    """I5: `missing` and `ackTill` contradict each other."""
    odd = append(12, "numbered1", (15, 15), 300, ack_till=15, epoch=1, missing=[[4, 4]])

    assert "missing 4-4 lies under ackTill 15" in only(clean(odd), "I5").examples[0]


def test_an_ack_of_rows_that_were_never_sent_is_caught() -> None:
    """I5: ackTill above all that was sent; such rows are then owed, and not found."""
    much = append(12, "numbered1", (15, 15), 300, ack_till=17, epoch=1)

    found = violated(clean(much))

    assert found["I5"].count == 2
    assert "numbered1:16 is acknowledged unsent" in found["I5"].examples[0]
    assert "numbered1:16" in found["I1"].examples[0]


def test_a_row_not_named_as_missing_and_not_stored_is_caught() -> None:
    """I5: above ackTill, what is not missing was said to be held."""
    gone = append(12, "numbered1", (17, 18), 300, ack_till=15, epoch=1)  # 16 is missing, unsaid

    found = violated(clean(gone, rows=everything() + seen("numbered1", 17, 18)))

    assert list(found) == ["I5"]
    assert "numbered1:16 was not named as missing" in found["I5"].examples[0]


def test_good_rows_that_are_refused_are_caught() -> None:
    """I5: the corpus has no bad rows, and the same bytes are no conflict."""
    refused = append(12, "numbered1", (16, 16), 300, ack_till=15, epoch=1, rejected=[16])
    conflict = append(12, "numbered1", (1, 5), 300, ack_till=15, epoch=1, conflict=True)

    assert "numbered1:16 is a good row" in violated(clean(refused))["I5"].examples[0]
    assert "CONFLICT" in only(clean(conflict), "I5").examples[0]


def test_a_complete_answer_without_enough_nodes_is_caught() -> None:
    """I6: two of three were away all the time, so R=2 cannot have answered."""
    claim = read(12, "agent1", seen("agent1", 1, 20), 520)
    history = with_faults(clean(claim), KILL, TWO_AWAY)

    found = only(history, "I6")

    assert "complete with node2, node3 away" in found.examples[0]
    partial = with_faults(clean(read(12, "agent1", [], 520, complete=False)), TWO_AWAY)
    assert {one.id: one.status for one in check(partial)}["I6"] == HOLDS


def test_an_answer_that_began_before_the_fault_may_be_complete() -> None:
    """I6: only what lies wholly inside the time of the fault is judged."""
    before = read(12, "agent1", seen("agent1", 1, 20), 500)
    across = replace(before, id=13, t_inv=595, t_ret=640)

    assert violated(with_faults(clean(before, across), TWO_AWAY)) == {}


def test_a_partial_answer_that_names_nothing_is_caught() -> None:
    """I6: partial, but what is missing stays a secret; or complete, and something is missing."""
    silent = read(12, "agent1", [], 350, complete=False)
    silent.resp["missing"] = []
    torn = count(12, SENT, 350)
    torn.resp["missing"] = ["3"]

    assert "names nothing" in only(clean(silent), "I6").examples[0]
    assert "names missing shards" in only(clean(torn), "I6").examples[0]


def test_an_ack_without_a_quorum_is_caught() -> None:
    """I9: acknowledged while one node alone was there."""
    alone = append(12, "agent1", (1, 10), 520)
    tried = append(12, "agent1", (1, 10), 520, "unknown")

    found = only(with_faults(clean(alone), TWO_AWAY), "I9")

    assert "acknowledged op 12 of agent1 by W=2 with node2, node3 away" in found.examples[0]
    statuses = {one.id: one.status for one in check(with_faults(clean(tried), TWO_AWAY))}
    assert statuses["I9"] == HOLDS


def test_half_an_answer_that_is_taken_for_one_is_caught() -> None:
    """N5: at the lengths that the sweep names."""
    swept = {"/logs": {"bytes": 300, "cut": 299, "ended": True, "taken": []}}
    good = FaultRecord("cut-sweep", ("/logs",), 200, 205, 300, 320, {"swept": swept})
    taken = {"/logs": {**swept["/logs"], "taken": [280]}}

    found = {one.id: one for one in check(with_faults(clean(), good))}
    assert found["N5"].status == HOLDS
    assert "/logs 300 bytes" in found["N5"].text
    bad = only(with_faults(clean(), replace(good, proof={"swept": taken})), "N5")
    assert bad.examples == ("/logs: 280 bytes of an answer were taken for one",)


def test_a_cluster_that_does_not_come_back_is_caught() -> None:
    """L2: a node is not ready after its restart, or a client never got its last rows acknowledged."""
    stuck = replace(KILL, t_healed=None, error="node3: no answer")
    waiting = replace(clean(), unfinished={"agent2": 31})

    found = violated(with_faults(clean(), stuck))
    assert set(found) == {"I15", "L2"}  # it crashed, and it does not start from its disk either
    assert "node3: no answer" in found["L2"].examples[0]
    assert "agent2 still had 31 rows" in only(waiting, "L2").examples[0]


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        (with_faults(clean()), "0 faults bit"),
        (with_faults(clean(), replace(KILL, t_bitten=None)), "0 faults bit"),
        (with_faults(clean(), replace(KILL, t_begin=700, t_heal=800)), "no request overlapped"),
        (
            with_faults(clean(), KILL, replace(KILL, what="pause", t_begin=700, t_heal=800)),
            "no request overlapped pause",
        ),
        (without(clean(), 21), "complete through 2 of 3 nodes"),
        (without(clean(final(22, "node3", [], complete=False)), 22), "through 2 of 3"),
    ],
)
def test_a_run_that_proves_nothing_does_not_count(history: History, reason: str) -> None:
    """No fault bit, nothing was written meanwhile, or the last read is not whole."""
    judged = worth(history, acked_min=45)

    assert not judged.counts
    assert reason in " ".join(judged.reasons)


def test_too_few_rows_do_not_count() -> None:
    """45 rows were acknowledged."""
    assert worth(clean(), acked_min=46).reasons == (
        "45 rows were acknowledged, 46 are needed",
    )  # fmt: skip


def test_an_empty_history_is_no_proof() -> None:
    """Nothing was seen, nothing holds."""
    nothing = History(clean().head, ())

    assert {one.status for one in check(nothing)} == {UNSEEN}
    assert not worth(nothing, 0).counts


def test_the_verdict_names_a_few_and_counts_all() -> None:
    """A thousand lost rows are not a thousand lines."""
    empty: tuple[Op, ...] = tuple(final(20 + i, node, []) for i, node in enumerate(NODES))
    ops = tuple(op for op in clean().ops if op.kind != FINAL)

    found = violated(replace(clean(), ops=(*ops, *empty)))["I1"]

    assert (found.count, len(found.examples)) == (45 * len(NODES), 5)


def library(history: History, *faults: FaultRecord) -> History:
    """The history with an acknowledgement to a client that asks whom it likes, under these faults."""
    op = replace(append(12, "agent1", (1, 10), 520), node="library")
    return with_faults(replace(history, ops=(*history.ops, op)), *faults)


def test_a_client_that_asks_whom_it_likes_may_have_asked_the_greater_side() -> None:
    """I9: two nodes are cut from the third, and W of them can still store; with two dead nobody can."""
    cut = FaultRecord("partition", ("node1", "node2"), 500, 505, 600, 620)
    both = FaultRecord("partition", ("node1",), 500, 505, 600, 620)

    assert violated(library(clean(), cut)) == {}
    assert only(library(clean(), TWO_AWAY), "I9").count == 1
    assert only(library(clean(), cut, both), "I9").count == 1
