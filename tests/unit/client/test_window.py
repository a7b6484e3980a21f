"""`AckWindow`: which rows are settled, which go out next."""

from __future__ import annotations

from quorumlog.window import AckWindow


def test_rows_go_out_once_and_in_order() -> None:
    """What is on the way is not sent again; what ended without an answer is."""
    window = AckWindow(0, 0)

    assert window.next_range(10, 4) == (1, 4)
    window.start(1, 4)
    assert window.next_range(10, 4) == (5, 8)
    window.stop(1, 4)
    assert window.next_range(10, 100) == (1, 10)


def test_ack_moves_the_position_and_missing_rows_go_out_again() -> None:
    """Protocol section 1: keep a row until seq <= ackTill, send missing ones again."""
    window = AckWindow(0, 0)
    window.start(1, 10)
    window.stop(1, 10)
    window.on_stored(1, 10)

    progress = window.on_ack((1, 10), 3, [(4, 5)])

    assert progress.ack_till == 3
    assert progress.again
    assert window.settled_till == 3
    assert window.next_range(10, 100) == (4, 5)
    window.on_stored(4, 5)
    assert window.settled_till == 10
    assert window.on_ack((4, 5), 10, []).ack_till == 10


def test_the_position_never_falls() -> None:
    """A server that says less than before is not believed, and the difference is reported."""
    window = AckWindow(100, 100)
    window.start(101, 110)
    window.on_stored(101, 110)

    progress = window.on_ack((101, 110), 49, [(50, 60)])

    assert progress.ack_till == 110
    assert progress.unfillable == ((50, 60),)
    assert not progress.again


def test_seqs_that_were_never_sent_are_foreign() -> None:
    """An ackTill or a gap beyond what was sent belongs to another user of the name."""
    window = AckWindow(0, 5)
    window.start(1, 7)

    assert not window.is_foreign(7, [])
    assert window.is_foreign(8, [])
    assert window.is_foreign(0, [(8, 8)])


def test_what_was_acked_since_the_request_left_is_not_missing() -> None:
    """Answers overtake one another; one that is older than an ackTill knows less than we do."""
    window = AckWindow(10, 30)
    window.on_ack((11, 30), 30, [])

    assert window.not_acked_since(10, [(5, 12), (20, 20), (40, 41)]) == ((5, 10), (40, 41))
    assert window.not_acked_since(30, [(5, 12)]) == ((5, 12),)
    assert window.not_acked_since(10, []) == ()


def test_holes_are_skipped_until_declared() -> None:
    """Rows around a hole go out; the hole counts as settled only after the server took the skip."""
    window = AckWindow(0, 9)
    window.add_hole(4, 6)

    assert window.next_range(9, 100) == (1, 3)
    window.on_stored(1, 3)
    assert window.next_range(9, 100) == (7, 9)
    window.on_stored(7, 9)
    assert window.settled_till == 3
    assert window.unsettled(9) == [(4, 6)]
    window.on_stored(4, 6)
    assert window.settled_till == 9
