"""Which comparisons close a hole."""

from cluster.sync_holes import HoleBook

PEERS = {1: ("b", "c")}


def test_a_hole_closes_once_every_other_owner_was_compared_after_it() -> None:
    """One of two is not enough; told once."""
    book = HoleBook()
    book.note("b", {1: 7})
    assert book.closed({1: 7}, PEERS) == []
    book.note("c", {1: 7})
    assert book.closed({1: 7}, PEERS) == [1]
    assert book.closed({1: 7}, PEERS) == []


def test_what_was_compared_before_another_damage_does_not_count() -> None:
    """Also if that came while the last comparison ran."""
    book = HoleBook()
    book.note("b", {1: 7})
    book.note("c", {1: 7})
    assert book.closed({1: 8}, PEERS) == []
    book.note("c", {1: 8})
    assert book.closed({1: 8}, PEERS) == []
    book.note("b", {1: 8})
    assert book.closed({1: 8}, PEERS) == [1]


def test_without_another_owner_nothing_closes() -> None:
    """N = 1: nobody can say that nothing lacks."""
    book = HoleBook()
    book.note("b", {1: 7})
    assert book.closed({1: 7}, {1: ()}) == []
    assert book.closed({1: 7}, {}) == []
