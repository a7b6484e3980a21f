"""Rows held with other bytes: which, where in the request, and what `_failed` keeps of them."""

import json

from cluster.quorum_tally import Group
from ingestor.batch import Batch, RejectedRow
from ingestor.conflicts import failed_rows, split_conflicts
from ingestor.outcomes import EntryTally, Verdict
from ingestor.shards import sequenced_piece
from records.block import Spans
from records.messages import EntryStatus
from tests.support.fake_replica import FakeView
from tests.support.write_path import BASE, numbered_batch


def refused(batch: Batch, *answers: tuple[str, Spans]) -> EntryTally:
    """The batch's entry after CONFLICTs."""
    assert batch.sequence is not None
    piece = sequenced_piece("default", batch.sequence, batch.table, FakeView(), 1, BASE)
    tally = EntryTally(piece.entries[0], [Group(frozenset("abc"), 2)], 2)
    for owner, spans in answers:
        tally.take(owner, EntryStatus.CONFLICT, 0, spans)
    return tally


def test_what_any_owner_refuses_is_taken_out() -> None:
    """a names 2..3, b names 5: those three rows go, the others stay in order."""
    batch = numbered_batch([1, 2, 3, 4, 5, 6])
    tally = refused(batch, ("a", ((2, 3),)), ("b", ((5, 5),)))

    kept, gone, reports = split_conflicts(batch.table, tally, batch)

    assert tally.verdict is Verdict.CONFLICT
    assert kept["seq"].to_pylist() == [1, 4, 6]
    assert gone["seq"].to_pylist() == [2, 3, 5]
    assert [(one.row, one.seq) for one in reports] == [(2, 2), (3, 3), (5, 5)]


def test_an_owner_that_does_not_say_which_refuses_all() -> None:
    """Better to report too much than to ask for ever."""
    batch = numbered_batch([7, 9])

    kept, gone, _ = split_conflicts(batch.table, refused(batch, ("a", ())), batch)

    assert (kept.num_rows, gone["seq"].to_pylist()) == (0, [7, 9])


def test_row_numbers_count_the_bad_rows_of_the_request() -> None:
    """Row 2 of the request was bad: the second row of the table is row 3."""
    bad = (RejectedRow(2, "bad_timestamp", "nonsense", 2),)
    batch = numbered_batch([1, 3], rejected=bad, rejected_count=1)

    _, _, reports = split_conflicts(batch.table, refused(batch, ("a", ((3, 3),))), batch)

    assert [(one.row, one.seq, one.code) for one in reports] == [(3, 3, "conflict")]


def test_failed_keeps_the_whole_row() -> None:
    """As JSON text, with why and whose it was; named by the batch, so a resend adds nothing."""
    batch = numbered_batch([1, 2], text="other")
    made = failed_rows(batch, batch.table, BASE, 0)
    again = failed_rows(batch, batch.table, BASE + 5, 0)

    assert made.failed is not None
    rows = made.failed.to_pylist()
    assert [row["service"] for row in rows] == ["_failed", "_failed"]
    assert json.loads(rows[1]["message"])["message"] == "other 2"
    assert (rows[0]["code"], rows[0]["source_service"]) == ("conflict", "shop")
    assert made.identity == again.identity
    assert failed_rows(batch, batch.table, BASE, 1).identity != made.identity
    assert (made.table.num_rows, made.sequence) == (0, None)
