"""The book of producers: spans of rows and skips, newest epochs, the ackTill told."""

from records.messages import ProducerState
from storage.producers import ProducerBook
from tests.unit.storage.samples import header_of, sequenced

KEY = ("default", "pay", "p")


def test_states_list_every_epoch_with_rows_and_skips_as_one() -> None:
    """Skips are durable like rows: they fill the gap."""
    book = ProducerBook()
    book.add(header_of(sequenced(1, 4, skips=((5, 6),)), 0))
    book.add(header_of(sequenced(9, 9), 0))
    book.add(header_of(sequenced(1, 2, epoch=3), 0))
    book.raise_told([(((*KEY, 1)), 4), ((*KEY, 1), 3)])

    assert book.states(0, KEY) == [
        ProducerState((*KEY, 1), ((1, 6), (9, 9)), 4, 3),
        ProducerState((*KEY, 3), ((1, 2),), 0, 3),
    ]


def test_overlap_is_with_rows_not_with_skips() -> None:
    """A row that arrives after its sequence was skipped is new."""
    book = ProducerBook()
    book.add(header_of(sequenced(1, 4, skips=((5, 8),)), 0))

    assert book.overlap(header_of(sequenced(3, 9), 0)) == ((3, 4),)
    assert book.overlap(header_of(sequenced(3, 9, shard=5), 0)) == ()
    assert book.overlap(header_of(sequenced(3, 9, epoch=2), 0)) == ()


def test_the_newest_epoch_only_rises() -> None:
    """And a sealed epoch without rows is known."""
    book = ProducerBook()

    assert book.raise_newest(0, KEY, 4) == 4
    assert book.raise_newest(0, KEY, 2) == 4
    assert book.states(0, KEY) == [ProducerState((*KEY, 4), (), 0, 4)]
    assert book.states(1, KEY) == []
