"""The entry table against a dict: look-ups through growth, collisions, gone rows and a reload."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from records.block import EntryHeader
from storage.entry_table import COMPLEX, GONE, EntryTable, Names
from tests.unit.storage.samples import header_of, plain, sequenced

BASE = header_of(plain(0), 0)


def entry(entry_id: bytes, previous: bytes = b"") -> EntryHeader:
    return replace(BASE, entry_id=entry_id, previous=previous)


def colliding(count: int) -> list[bytes]:
    """Ids whose halves have the same XOR: one slot for all of them."""
    halves = [number.to_bytes(8, "little") for number in range(count)]
    return [half + half for half in halves]


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=16, max_size=16), unique=True, max_size=200))
def test_finds_exactly_what_was_added(ids: list[bytes]) -> None:
    """Present ids give their number, in a table that was loaded as well."""
    table = EntryTable()
    for number, one in enumerate(ids):
        table.add(entry(one), number // 3, number % 3)
    copy = EntryTable()
    copy.load(table.rows[: table.count].copy(), table.tenants.values, table.producers.values)

    for asked in (table, copy):
        assert [asked.find(one) for one in ids] == list(range(len(ids)))
        assert asked.find(b"\xfe" * 15 + b"\x01") in (None, *range(len(ids)))
        assert asked.find(bytes(15) + b"\x99") is None or bytes(15) + b"\x99" in ids


def test_ids_of_one_slot_and_ids_that_end_in_zeros_are_told_apart() -> None:
    """The slot is a hash of sixteen bytes; the bytes themselves decide."""
    ids = [*colliding(50), b"\x01" + bytes(15)]
    table = EntryTable()
    for one in ids:
        table.add(entry(one), 0, 0)

    assert [table.find(one) for one in ids] == list(range(len(ids)))
    assert table.find(colliding(51)[-1]) is None


def test_growing_keeps_everything() -> None:
    """Past the first capacity, of rows and of slots."""
    ids = [number.to_bytes(16, "little") for number in range(1, 5000)]
    table = EntryTable()
    for one in ids:
        table.add(entry(one, previous=one[::-1]), 0, 0)

    assert [table.find(one) for one in ids] == list(range(len(ids)))
    assert table.find_successors(ids[17][::-1]) == [17]
    assert table.memory_bytes / len(ids) < 250


def test_gone_entries_are_not_found_but_can_come_again() -> None:
    """After quarantine the same id is filed anew, and found under its new number."""
    table = EntryTable()
    table.add(entry(b"a" * 16, b"p" * 16), 0, 0)
    table.rows["flags"][0] |= GONE

    assert table.find(b"a" * 16) is None
    assert table.find_successors(b"p" * 16) == []
    table.add(entry(b"a" * 16, b"p" * 16), 1, 0)
    assert table.find(b"a" * 16) == 1
    assert table.find_successors(b"p" * 16) == [1]


def test_what_does_not_fit_is_marked_complex() -> None:
    """Two spans, skips, or a long hash: the header must be asked."""
    table = EntryTable()
    simple = header_of(sequenced(1, 4), 0)
    gaps = replace(simple, seqs=((1, 2), (5, 6)))
    for one in (
        simple,
        gaps,
        replace(simple, skips=((9, 9),)),
        replace(simple, content_hash=b"x" * 32),
    ):
        table.add(one, 0, 0)

    marks = [bool(flags & COMPLEX) for flags in table.rows["flags"][:4]]
    assert marks == [False, True, True, True]


def test_entries_of_a_producer_by_hull() -> None:
    """Hulls that meet the range, of this producer only."""
    table = EntryTable()
    for first, last in ((1, 5), (6, 10), (20, 30)):
        table.add(header_of(sequenced(first, last), 0), 0, 0)
    table.add(header_of(sequenced(1, 50, epoch=2), 0), 0, 0)

    assert table.producer_entries(0, 5, 6) == [0, 1]
    assert table.producer_entries(0, 11, 19) == []
    assert table.producer_entries(1, 11, 19) == [3]


def test_blocks_are_ranges_of_numbers() -> None:
    """A block without entries is an empty range."""
    table = EntryTable()
    for number, block in enumerate((0, 0, 2, 2, 2)):
        table.add(entry(bytes([number]) * 16), block, 0)

    assert [table.block_range(block) for block in range(4)] == [(0, 2), (2, 2), (2, 5), (5, 5)]


def test_names_are_numbered_once() -> None:
    """In order of appearance."""
    names = Names()

    assert [names.number(one) for one in ("a", "b", "a")] == [0, 1, 0]
    assert names.find("b") == 1
    assert names.find("c") is None
