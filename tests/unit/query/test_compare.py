"""Comparing entry lists: who lacks what, and what the union hides that no replica alone knows."""

from hypothesis import given, settings

from query.compare import WHOLE, compare, fullest
from records.visibility import EntryRef
from tests.support.fake_store import FakeEntry, make_entry, rows_with, visible
from tests.unit.query.divergent import Case, cases, numbered
from tests.unit.query.helpers import row


def cut(number: int, first: int, last: int, received_at: int) -> FakeEntry:
    """An entry with the sequences first..last of producer a."""
    rows = [numbered("a", seq) for seq in range(first, last + 1)]
    return make_entry(number, 0, rows, seqs=((first, last),), producer="a", received_at=received_at)


def refs(*entries: FakeEntry) -> tuple[EntryRef, ...]:
    """Their references."""
    return tuple(entry.ref for entry in entries)


def test_equal_lists_lack_nothing() -> None:
    """Whatever the order."""
    a, b = cut(1, 1, 2, 1), make_entry(2, 0, [row(1)])

    found = compare("n0", {"n0": refs(a, b), "n1": refs(b, a)})

    assert not found.wanted
    assert not found.lacks_by_node
    assert not found.overlaps


def test_each_replica_is_told_what_it_lacks() -> None:
    """n0 lacks c, n1 lacks a; c comes from n1 or n2, the holder that got it first."""
    a, b, c = (make_entry(number, 0, [row(number)]) for number in (1, 2, 3))
    newer = make_entry(3, 0, [row(3)], received_at=9)

    found = compare("n0", {"n0": refs(a, b), "n1": refs(b, newer), "n2": refs(a, b, c)})

    assert found.wanted == {c.id: ("n2", "n1")}
    assert found.lacking == 1
    assert found.base_hide == {c.id: WHOLE}
    assert found.lacks_by_node == {"n0": {c.id}, "n1": {a.id}}


def test_in_a_snapshot_what_was_received_later_is_lacking_but_not_to_be_repaired() -> None:
    """Both have a; n1 got it after the snapshot, as it did b and c."""
    a, b, c = (make_entry(number, 0, [row(number)]) for number in (1, 8, 9))
    late = make_entry(1, 0, [row(1)], received_at=7)
    lists = {"n0": refs(a), "n1": refs(late, b, c)}

    found = compare("n1", lists, until=5)

    assert found.wanted == {a.id: ("n0",)}
    assert found.lacking == 1
    assert not found.lacks_by_node
    assert not compare("n0", lists, until=5).wanted
    assert fullest(lists, "n1", until=5) == "n0"
    assert fullest(lists, "n0") == "n1"


def test_an_older_entry_that_only_another_has_hides_rows_of_the_base() -> None:
    """The base got 3..6 at 20; an older entry elsewhere has 1..4: 3 and 4 belong to that."""
    held, elsewhere = cut(1, 3, 6, 20), cut(2, 1, 4, 10)

    found = compare("n0", {"n0": refs(held), "n1": refs(elsewhere)})

    assert found.overlaps
    assert found.base_hide == {held.id: ((3, 4),), elsewhere.id: ((1, 4),)}
    assert found.wanted == {elsewhere.id: ("n1",)}
    assert not found.wanted_hide


def test_what_the_base_has_in_an_older_entry_is_hidden_at_the_holder() -> None:
    """The other way round: the supplement leaves out 3 and 4."""
    held, elsewhere = cut(1, 1, 4, 10), cut(2, 3, 6, 20)

    found = compare("n0", {"n0": refs(held), "n1": refs(elsewhere)})

    assert not found.overlaps
    assert found.wanted_hide == {elsewhere.id: ((3, 4),)}


def test_an_entry_wholly_covered_is_not_fetched_but_still_lacking() -> None:
    """Its rows are all visible elsewhere; for repair it is missing nevertheless."""
    held, elsewhere = cut(1, 1, 9, 10), cut(2, 3, 6, 20)

    found = compare("n0", {"n0": refs(held), "n1": refs(elsewhere)})

    assert found.wanted == {}
    assert found.lacks_by_node["n0"] == {elsewhere.id}


def test_an_unsequenced_repeat_in_the_next_window_is_hidden_by_its_previous() -> None:
    """The base has the repeat, another owner the original: the repeat is hidden whole."""
    original = make_entry(1, 0, [row(1)])
    repeat = make_entry(2, 0, [row(1)], previous=original.id)

    found = compare("n0", {"n0": refs(repeat), "n1": refs(original)})

    assert found.overlaps
    assert found.base_hide[repeat.id] == WHOLE
    assert found.wanted == {original.id: ("n1",)}


def test_a_repeat_that_the_base_hides_for_a_hidden_one_is_asked_for_by_name() -> None:
    """The same bytes at 0, 50 and 100 minutes: the second repeats the first, so the third is shown.

    The base lacks the first: it shows the second, and hides the third as a repeat of that.
    """
    minutes = 60_000_000
    first = make_entry(1, 0, [row(1)])
    second = make_entry(2, 0, [row(1)], received_at=50 * minutes, previous=first.id)
    third = make_entry(3, 0, [row(1)], received_at=100 * minutes, previous=second.id)

    found = compare("n0", {"n0": refs(second, third), "n1": refs(first, second, third)})

    assert found.wanted == {first.id: ("n1",), third.id: ("n0",)}
    assert found.base_hide == {first.id: WHOLE, second.id: WHOLE}
    assert not found.wanted_hide


def test_copies_of_different_age_are_seen_as_the_base_keeps_them() -> None:
    """n0 got 1..4 at 10, so it is older than 3..6 of 20, whenever n1 got it."""
    here, there = cut(1, 1, 4, 10), cut(1, 1, 4, 30)
    other = cut(2, 3, 6, 20)

    found = compare("n0", {"n0": refs(here), "n1": refs(there, other)})

    assert found.wanted_hide == {other.id: ((3, 4),)}
    assert not found.overlaps


def test_the_fullest_replica() -> None:
    """Most entries; the preferred one among equals."""
    a, b = make_entry(1, 0, [row(1)]), make_entry(2, 0, [row(2)])

    assert fullest({"n0": refs(a), "n1": refs(a, b)}, "n0") == "n1"
    assert fullest({"n0": refs(a), "n1": refs(b)}, "n0") == "n0"


@settings(max_examples=100)
@given(cases(fewest=1, resent=True))
def test_base_and_supplement_together_show_each_row_of_the_union_once(case: Case) -> None:
    """By a model: what the base shows less `base_hide`, plus all of the wanted less `wanted_hide`.

    Of a row in several entries any may show it: it counts by its message.
    """
    copies = case.copies()
    for shard in range(4):
        held = {f"n{n}": [] for n in range(3)}
        for entry, place in copies:
            if entry.header.shard == shard:
                held[f"n{(shard + place) % 3}"].append(entry)
        base = f"n{shard % 3}"
        found = compare(base, {node: refs(*entries) for node, entries in held.items()})
        shown = [
            (e, i)
            for e, i in visible(held[base])
            if e.id not in found.base_hide or not hidden(e, i, found.base_hide[e.id])
        ]
        for entry_id, holders in found.wanted.items():
            (entry,) = (e for e in held[holders[0]] if e.id == entry_id)
            gone = found.wanted_hide.get(entry_id)
            shown += [
                (entry, i)
                for i in range(len(entry.rows))
                if gone is None or not hidden(entry, i, gone)
            ]
        union = {e.id: e for entries in held.values() for e in entries}
        expected = visible(list(union.values()))
        assert messages(shown) == messages(expected)


def messages(rows: list[tuple[FakeEntry, int]]) -> list[str]:
    """What the rows say, in order: their names, equal in all copies."""
    return sorted(entry.rows[index]["message"] for entry, index in rows)


def hidden(entry: FakeEntry, index: int, spans: tuple) -> bool:
    """As a replica reads `hide`."""
    return not spans or index in rows_with(entry.header, spans)
