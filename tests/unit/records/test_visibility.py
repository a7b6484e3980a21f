"""Which copy counts: the same answer for the same set, whatever the order of arrival."""

from hypothesis import given, settings
from hypothesis import strategies as st

from records.ids import EntryId
from records.visibility import REPEAT_MICROS, EntryRef, hidden_parts

PRODUCER = ("default", "pay", "p", 1)


def ref(number: int, received: int, *spans: tuple[int, int], previous: bytes = b"") -> EntryRef:
    """An entry of one producer; `received` orders it."""
    producer = PRODUCER if spans else ()
    name = EntryId(number.to_bytes(16, "big"))
    return EntryRef(name, b"", producer, tuple(spans), previous, received)


def visible(entries: list[EntryRef]) -> dict[EntryId, set[int]]:
    """Entry id -> sequences that a reader sees."""
    hidden = hidden_parts(entries)
    result = {}
    for entry in entries:
        seqs = {s for a, b in entry.seqs for s in range(a, b + 1)}
        part = hidden.get(entry.entry_id)
        if part is not None:
            gone = {s for a, b in part.seqs for s in range(a, b + 1)}
            seqs = set() if part.whole else seqs - gone
        result[entry.entry_id] = seqs
    return result


def test_of_overlapping_sequences_those_received_first_show() -> None:
    """Two entries hold seq 3; the older copy is the visible one."""
    old, new = ref(1, 10, (1, 3)), ref(2, 20, (3, 5))

    shown = visible([new, old])

    assert shown[old.entry_id] == {1, 2, 3}
    assert shown[new.entry_id] == {4, 5}


def test_an_entry_wholly_covered_is_hidden_whole() -> None:
    """A resend cut differently adds nothing."""
    hidden = hidden_parts([ref(1, 10, (1, 10)), ref(2, 20, (2, 4))])

    assert hidden[ref(2, 20).entry_id].whole


def test_the_same_bytes_in_the_next_window_are_hidden_if_the_first_is_there() -> None:
    """An agent's retry across the window's edge names the id it would have had before."""
    first = ref(1, 10)
    again = ref(2, 20, previous=first.entry_id)

    assert hidden_parts([first, again])[again.entry_id].whole
    assert hidden_parts([again]) == {}


def repeat(number: int, received_at: int) -> EntryRef:
    """The same bytes, received in dedupe window `number`."""
    name, before = (EntryId(n.to_bytes(16, "big")) for n in (number, number - 1))
    return EntryRef(name, b"", (), (), before, received_at)


def test_the_same_bytes_sent_for_ever_show_at_least_once_a_window() -> None:
    """A job that says the same each 50 minutes: every other one is a repeat of a visible one.

    Were each hidden by its hidden predecessor, all but the first would be lost.
    """
    minute = REPEAT_MICROS // 60
    entries = [repeat(10 + i, 50 * i * minute) for i in range(6)]

    hidden = hidden_parts(entries)

    assert [entry.entry_id in hidden for entry in entries] == [False, True] * 3
    assert hidden_parts(list(reversed(entries))) == hidden


def test_bytes_that_come_again_after_more_than_a_window_are_new() -> None:
    """Sent each 61 minutes, in neighbouring windows, none is a retry."""
    minute = REPEAT_MICROS // 60
    entries = [repeat(10 + i, 61 * i * minute) for i in range(6)]

    assert hidden_parts(entries) == {}


SPAN = st.tuples(st.integers(1, 20), st.integers(0, 6)).map(lambda t: (t[0], t[0] + t[1]))


@settings(max_examples=100)
@given(st.lists(SPAN, min_size=1, max_size=6), st.randoms())
def test_each_sequence_is_visible_exactly_once_in_any_order(spans: list, random) -> None:
    """The union is kept, nothing is doubled, and the order of listing does not matter."""
    entries = [ref(i, 100 - i, span) for i, span in enumerate(spans)]
    shuffled = list(entries)
    random.shuffle(shuffled)

    shown = visible(entries)

    everything = [s for seqs in shown.values() for s in seqs]
    assert sorted(everything) == sorted({s for a, b in spans for s in range(a, b + 1)})
    assert shown == visible(shuffled)
