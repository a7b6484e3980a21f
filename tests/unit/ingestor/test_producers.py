"""The book of producers: one session a reign, bounded."""

from cluster.quorum_tally import Group
from ingestor.producers import ProducerBook

KEY = ("default", "shop", "p1")
REIGN = (5, 1, 1)


async def test_a_session_ends_with_its_reign() -> None:
    """Another shard epoch or ring epoch: a new session, which must be recovered."""
    book = ProducerBook(10)
    one = book.session(KEY, REIGN)
    one.ready = True

    assert book.session(KEY, REIGN) is one
    assert not book.session(KEY, (5, 2, 1)).ready


async def test_the_longest_unused_is_forgotten() -> None:
    """Two fit; the one used least recently goes."""
    book = ProducerBook(2)
    keys = [("default", "shop", f"p{i}") for i in range(3)]
    first = book.session(keys[0], REIGN)
    book.session(keys[1], REIGN)
    book.session(keys[0], REIGN)
    book.session(keys[2], REIGN)

    assert len(book) == 2
    assert book.session(keys[0], REIGN) is first


async def test_a_producer_has_a_session_for_each_shard_of_its_epochs() -> None:
    """One ends no other: both may be led here when a service was split."""
    book = ProducerBook(10)
    one = book.session(KEY, REIGN)

    assert book.session(KEY, (6, 1, 1)) is not one
    assert book.session(KEY, REIGN) is one


async def test_asking_about_an_unknown_epoch_leaves_nothing_behind() -> None:
    """Epochs are the client's to name in a question; memory is not."""
    book = ProducerBook(10)
    session = book.session(KEY, REIGN)

    assert session.progress(99, [Group(frozenset("abc"), 2)]).ack_till == 0
    assert session.ledgers() == []
