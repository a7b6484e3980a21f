"""The entry table against a dict: look-ups through growth, collisions, gone rows and a reload."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from records.block import EntryHeader
from records.ids import producer_run
from storage.entry_table import COMPLEX, GONE, EntryTable, Names, Producers
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


def test_a_producer_epoch_keeps_the_run_of_its_rows() -> None:
    """Found by it in each shard that has rows, however many there are; a snapshot's runs stay."""
    producers = Producers()
    keys = [(shard, "t", "s", f"p{n}", 1) for n in range(40) for shard in (0, 7)]
    early = producers.runs
    numbers = [producers.number(key) for key in keys]

    assert numbers == [producers.number(key) for key in keys] == list(range(80))
    for key in keys[::2]:
        run = producer_run(*key[1:])
        assert producers.of_run(run) == [producers.find(key), producers.find((7, *key[1:]))]
        assert producers.runs[producers.find(key)].astype(">u8").tobytes() == run
    assert producers.of_run(b"x" * 16) == []
    assert early[:10].tolist() == producers.runs[:10].tolist()


def test_each_field_of_an_entry_stands_in_its_column() -> None:
    """Rows are packed as bytes: the packing and the columns' type must agree on every field."""
    made = replace(
        BASE,
        entry_id=b"i" * 16,
        content_hash=b"h" * 16,
        previous=b"p" * 16,
        min_ts=-5,
        max_ts=1 << 60,
        received_at=1 << 59,
        row_start=1 << 31,
        row_count=(1 << 32) - 1,
        shard=65_535,
    )
    table = EntryTable()
    table.add(made, (1 << 32) - 2, 7)

    row = table.rows[0]
    assert [row[n].tobytes() for n in ("id", "hash", "previous")] == [
        b"i" * 16,
        b"h" * 16,
        b"p" * 16,
    ]
    numbers = ("min_ts", "max_ts", "received", "block", "index", "row_start", "row_count", "shard")
    expected = [-5, 1 << 60, 1 << 59, (1 << 32) - 2, 7, 1 << 31, (1 << 32) - 1, 65_535]
    assert [int(row[name]) for name in numbers] == expected
    assert (int(row["producer"]), int(row["first_seq"]), int(row["last_seq"])) == (-1, 0, 0)
