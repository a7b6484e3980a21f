"""The book of producers: spans of rows and skips, newest epochs, the ackTill told."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from records.messages import ProducersRequest, ProducerState
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


GROUPS = st.tuples(st.integers(0, 1), st.sampled_from("st"), st.sampled_from("pq"))


@given(
    st.lists(st.tuples(GROUPS, st.integers(1, 8), st.booleans()), max_size=30),
    st.one_of(st.none(), GROUPS),
)
def test_producers_with_gaps_are_listed_as_a_slow_look_finds_them(
    steps: list[tuple[tuple[int, str, str], int, bool]], reset: tuple[int, str, str] | None
) -> None:
    """Rows and skips one by one, a group forgotten in between: sets say who has a gap."""
    book, held = ProducerBook(), dict[tuple, set[int]]()
    for number, ((shard, service, producer), seq, skip) in enumerate(steps):
        key = (shard, "default", service, producer, 1)
        if reset is not None and number == len(steps) // 2:
            gone = (reset[0], "default", *reset[1:], 1)
            book.reset(gone)
            held[gone] = set()
        book.insert(key, () if skip else ((seq, seq),), ((seq, seq),) if skip else ())
        held.setdefault(key, set()).add(seq)
    gapped = sorted(key for key, seqs in held.items() if len(seqs) != max(seqs, default=0))

    for shards in ((0,), (0, 1)):
        found = book.listed(ProducersRequest(shards, gaps=True))
        assert [(shard, *state.producer) for shard, state in found] == [
            key for key in gapped if key[0] in shards
        ]
    for at, key in enumerate(gapped):
        asked = ProducersRequest((0, 1), gaps=True, most=2, after=key)
        found = book.listed(ProducersRequest.from_head(asked.to_head()))
        assert [(shard, *state.producer) for shard, state in found] == gapped[at + 1 : at + 3]
    whole = book.listed(ProducersRequest((0, 1), "default", "s"))
    assert [(shard, *state.producer) for shard, state in whole] == sorted(
        key for key in held if key[2] == "s"
    )
    assert book.listed(ProducersRequest((0, 1), "other")) == []
    assert len(book.listed(ProducersRequest((0, 1), most=1))) == min(1, len(held))


def test_an_epoch_that_was_told_of_is_listed_without_rows_and_no_other_producers() -> None:
    """Its rows may be on other owners; the list is a look-up, however many producers there are."""
    book = ProducerBook()
    others = [("t", "s", f"p{n}", 1) for n in range(3)]
    book.raise_told([((*KEY, 2), 7), *((one, 5) for one in others)])

    class NoPass(dict):
        def __iter__(self) -> Any:
            raise AssertionError("it goes over all producers")

    book.told = NoPass(book.told)
    assert book.states(0, KEY) == [ProducerState((*KEY, 2), (), 7, 0)]
