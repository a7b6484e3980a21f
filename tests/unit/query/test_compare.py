"""Comparing entry lists: who lacks what, and what the union hides that no replica alone knows."""

from hypothesis import given, settings

from query.compare import WHOLE, compare, fullest
from records.visibility import EntryRef
from tests.support.fake_store import FakeEntry, make_entry, visible
from tests.unit.query.divergent import Case, cases, numbered
from tests.unit.query.helpers import row


def cut(number: int, first: int, last: int, block: int) -> FakeEntry:
    """An entry with the sequences first..last of producer a."""
    rows = [numbered("a", seq) for seq in range(first, last + 1)]
    return make_entry(number, 0, rows, seqs=((first, last),), producer="a", block=block)


def refs(*entries: FakeEntry) -> tuple[EntryRef, ...]:
    """Their references."""
    return tuple(entry.ref for entry in entries)


def test_equal_lists_lack_nothing() -> None:
    """Whatever the order."""
    a, b = cut(1, 1, 2, 1), make_entry(2, 0, [row(1)])

    found = compare("n0", {"n0": refs(a, b), "n1": refs(b, a)})

    assert not found.lacking
    assert not found.wanted
    assert not found.lacks_by_node
    assert not found.overlaps


def test_each_replica_is_told_what_it_lacks() -> None:
    """n0 lacks c, n1 lacks a; c comes from n1 or n2, the holder of the older block first."""
    a, b, c = (make_entry(number, 0, [row(number)]) for number in (1, 2, 3))
    newer = make_entry(3, 0, [row(3)], block=9)

    found = compare("n0", {"n0": refs(a, b), "n1": refs(b, newer), "n2": refs(a, b, c)})

    assert found.lacking == {c.id: ("n2", "n1")}
    assert found.wanted == (c.id,)
    assert found.base_hide == {c.id: WHOLE}
    assert found.lacks_by_node == {"n0": {c.id}, "n1": {a.id}}


def test_an_older_block_that_only_another_has_hides_rows_of_the_base() -> None:
    """The base holds 3..6 in block 20; an older block elsewhere has 1..4: 3 and 4 belong to that."""
    held, elsewhere = cut(1, 3, 6, 20), cut(2, 1, 4, 10)

    found = compare("n0", {"n0": refs(held), "n1": refs(elsewhere)})

    assert found.overlaps
    assert found.base_hide == {held.id: ((3, 4),), elsewhere.id: ((1, 4),)}
    assert found.wanted == (elsewhere.id,)
    assert not found.holder_hide


def test_what_the_base_has_in_an_older_block_is_hidden_at_the_holder() -> None:
    """The other way round: the supplement leaves out 3 and 4."""
    held, elsewhere = cut(1, 1, 4, 10), cut(2, 3, 6, 20)

    found = compare("n0", {"n0": refs(held), "n1": refs(elsewhere)})

    assert not found.overlaps
    assert found.holder_hide == {elsewhere.id: ((3, 4),)}


def test_an_entry_wholly_covered_is_not_fetched_but_still_lacking() -> None:
    """Its rows are all visible elsewhere; for repair it is missing nevertheless."""
    held, elsewhere = cut(1, 1, 9, 10), cut(2, 3, 6, 20)

    found = compare("n0", {"n0": refs(held), "n1": refs(elsewhere)})

    assert found.wanted == ()
    assert found.lacks_by_node["n0"] == {elsewhere.id}


def test_an_unsequenced_repeat_in_the_next_window_is_hidden_by_its_previous() -> None:
    """The base has the repeat, another owner the original: the repeat is hidden whole."""
    original = make_entry(1, 0, [row(1)])
    repeat = make_entry(2, 0, [row(1)], previous=original.id)

    found = compare("n0", {"n0": refs(repeat), "n1": refs(original)})

    assert found.overlaps
    assert found.base_hide[repeat.id] == WHOLE
    assert found.wanted == (original.id,)


def test_overlapping_copies_in_different_blocks_are_a_dispute() -> None:
    """n0 and n1 keep the same entry in different blocks: they disagree on who hides whom."""
    here, there = cut(1, 1, 4, 10), cut(1, 1, 4, 30)
    other = cut(2, 3, 6, 20)

    assert compare("n0", {"n0": refs(here), "n1": refs(there, other)}).disputed
    assert not compare("n0", {"n0": refs(here), "n1": refs(here, other)}).disputed


def test_the_fullest_replica() -> None:
    """Most entries; the preferred one among equals."""
    a, b = make_entry(1, 0, [row(1)]), make_entry(2, 0, [row(2)])

    assert fullest({"n0": refs(a), "n1": refs(a, b)}, "n0") == "n1"
    assert fullest({"n0": refs(a), "n1": refs(b)}, "n0") == "n0"


@settings(max_examples=100, deadline=None)
@given(cases(fewest=1))
def test_base_and_supplement_together_show_each_row_of_the_union_once(case: Case) -> None:
    """By a model: what the base shows less `base_hide`, plus the wanted less `holder_hide`."""
    for shard in range(4):
        pairs = [
            (e, p)
            for e, p in zip(case.entries, case.holders, strict=True)
            if e.header.shard == shard
        ]
        held = {f"n{n}": [e for e, places in pairs if n in places] for n in range(3)}
        found = compare("n0", {node: refs(*entries) for node, entries in held.items()})
        shown = [
            (e.id, i)
            for e, i in visible(held["n0"])
            if e.id not in found.base_hide or not hidden(e, i, found.base_hide[e.id])
        ]
        for entry_id in found.wanted:
            holder = found.lacking[entry_id][0]
            shown += [
                (e.id, i)
                for e, i in visible(held[holder])
                if e.id == entry_id
                and not (e.id in found.holder_hide and hidden(e, i, found.holder_hide[e.id]))
            ]
        assert sorted(shown) == sorted((e.id, i) for e, i in visible([e for e, _ in pairs]))


def hidden(entry: FakeEntry, index: int, spans: tuple) -> bool:
    """As a replica reads `hide`."""
    return not spans or any(a <= index < b for a, b in entry.header.rows_of(spans))
