"""The book of producers: one session a reign, bounded, fed by the replies of puts."""

from cluster.quorum_tally import Group
from ingestor.producers import ProducerBook
from ingestor.shards import sequenced_piece
from records.messages import ProducerState
from tests.support.fake_replica import FakeView
from tests.support.write_path import BASE, numbered_batch

KEY = ("default", "shop", "p1")
REIGN = (5, 1, 1)


def held(last: int, told: int = 0, newest: int = 1) -> ProducerState:
    """An owner with 1..last."""
    return ProducerState((*KEY, 1), ((1, last),), told, newest)


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


async def test_replies_of_puts_feed_the_arithmetic_of_known_producers_only() -> None:
    """A repair for a producer that is led elsewhere leaves no trace."""
    book = ProducerBook(10)
    book.hear("a", (held(3),), book.calls.tick())
    assert len(book) == 0

    session = book.session(KEY, REIGN)
    for owner in "ab":
        book.hear(owner, (held(3, newest=2),), book.calls.tick())

    assert session.progress(1, [Group(frozenset("abc"), 2)]).ack_till == 3
    assert session.newest_epoch == 2


async def test_told_travels_with_the_next_put() -> None:
    """What was answered, by producer epoch; nothing for producers that were told nothing."""
    book = ProducerBook(10)
    batch = numbered_batch([4])
    assert batch.sequence is not None
    entries = sequenced_piece("default", batch.sequence, batch.table, FakeView(), 1, BASE).entries
    session = book.session(KEY, REIGN)
    assert book.told(entries) == ()

    for owner in "ab":
        book.hear(owner, (held(3),), book.calls.tick())
    session.progress(1, [Group(frozenset("abc"), 2)])

    assert book.told(entries) == (((*KEY, 1), 3),)


async def test_asking_about_an_unknown_epoch_leaves_nothing_behind() -> None:
    """Epochs are the client's to name in a question; memory is not."""
    book = ProducerBook(10)
    session = book.session(KEY, REIGN)

    assert session.progress(99, [Group(frozenset("abc"), 2)]).ack_till == 0
    assert session.ledgers() == []
