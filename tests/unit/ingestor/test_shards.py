"""From a batch to pieces: where rows go, how entries are named, what headers say."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.batch import Batch, Identity
from ingestor.shards import (
    MAX_ENTRY_ROWS,
    codes_and_names,
    merged,
    ranges_within,
    rows_within,
    sequenced_piece,
    spans_of,
    unsequenced_pieces,
)
from records.ids import digest_entry_id, sequenced_entry_id
from ring.shards import shard_of
from tests.support.fake_replica import FakeView
from tests.support.write_path import BASE, body_batch, numbered_batch, table_of

HOUR = 3_600_000_000
IDENTITY = Identity(b"scope", b"content")


def pieces_of(batch: Batch, view: FakeView | None = None, most: int = 65_536):
    """Routed with a one-hour window at BASE."""
    return unsequenced_pieces(batch, view or FakeView(), BASE, HOUR, most)


def split_view() -> FakeView:
    """Odd shards on a, b, c; even ones on d, e, f."""
    placed = tuple((s, ("a", "b", "c") if s % 2 else ("d", "e", "f")) for s in range(32))
    return FakeView(placed=placed)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=60), st.integers(5, 100))
def test_every_row_goes_to_its_services_shard_and_keeps_its_order(
    services: list[int], most: int
) -> None:
    """Against a loop over rows: rows of an entry are those of its shard, in order of arrival."""
    rows = [{"service": f"s{one}", "message": f"m{i}"} for i, one in enumerate(services)]
    found: dict[int, list[str]] = {}
    for piece in pieces_of(body_batch(rows), split_view(), most):
        messages = [text for table in piece.tables for text in table["message"].to_pylist()]
        at = 0
        for entry in piece.entries:
            assert entry.row_start == at
            assert tuple(sorted(split_view().owners(entry.shard))) == piece.owners
            found.setdefault(entry.shard, []).extend(messages[at : at + entry.row_count])
            at += entry.row_count
        assert at == len(messages)

    expected: dict[int, list[str]] = {}
    for row in rows:
        shard = int(shard_of("default", row["service"], shard_count=32))
        expected.setdefault(shard, []).append(row["message"])
    assert found == expected


def test_headers_carry_the_time_range_of_their_own_rows() -> None:
    """Two services in different shards, times interleaved."""
    rows = [
        {"service": "s0", "timestamp": 50},
        {"service": "s1", "timestamp": 10},
        {"service": "s0", "timestamp": 20},
        {"service": "s1", "timestamp": 99},
    ]
    entries = [e for piece in pieces_of(body_batch(rows)) for e in piece.entries]
    by_shard = {e.shard: (e.min_ts - BASE, e.max_ts - BASE) for e in entries}

    assert by_shard == {
        shard_of("default", "s0"): (20, 50),
        shard_of("default", "s1"): (10, 99),
    }


def test_an_entry_is_named_by_scope_content_shard_and_window() -> None:
    """The id, and the id that the same bytes had in the window before."""
    batch = Batch("default", table_of([{"message": "x"}]), IDENTITY)
    (entry,) = pieces_of(batch)[0].entries
    window = BASE // HOUR

    assert entry.entry_id == digest_entry_id(entry.shard, b"scope", b"content", window)
    assert entry.previous == digest_entry_id(entry.shard, b"scope", b"content", window - 1)
    assert entry.received_at == BASE


def test_a_key_has_no_window_and_is_hashed_by_its_rows() -> None:
    """Window 0 for ever, no predecessor; other rows under the key hash otherwise."""
    key = replace(IDENTITY, ages=False)
    one = pieces_of(Batch("default", table_of([{"message": "x"}]), key))[0].entries[0]
    two = pieces_of(Batch("default", table_of([{"message": "y"}]), key))[0].entries[0]

    assert one.entry_id == two.entry_id == digest_entry_id(one.shard, b"scope", b"content", 0)
    assert one.previous == b""
    assert one.content_hash != two.content_hash


def test_the_failed_rows_never_share_a_name_with_the_good_ones() -> None:
    """Were `_failed` to fall on the same shard, its entry must still be another."""
    same = FakeView(shard_count=1)
    failed = table_of([{"service": "_failed", "message": "{"}])
    (piece,) = pieces_of(body_batch([{"message": "x"}], failed=failed), same)

    assert [entry.service for entry in piece.entries] == ["", "_failed"]
    assert piece.entries[0].entry_id != piece.entries[1].entry_id
    assert piece.entries[1].row_start == 1


def test_a_large_entry_is_cut_at_fixed_rows_and_each_part_has_a_name() -> None:
    """150,000 rows: parts of 65,536; the first is named as if there were no others."""
    table = table_of([{"message": "x"}]).take(pa.array(np.zeros(150_000, np.int64)))
    pieces = pieces_of(Batch("default", table, IDENTITY))
    entries = [entry for piece in pieces for entry in piece.entries]
    small = pieces_of(Batch("default", table.slice(0, 5), IDENTITY))[0].entries[0]

    assert [e.row_count for e in entries] == [MAX_ENTRY_ROWS, MAX_ENTRY_ROWS, 18_928]
    assert len({e.entry_id for e in entries}) == 3
    assert entries[0].entry_id == small.entry_id
    assert [piece.rows for piece in pieces] == [e.row_count for e in entries]


def test_pieces_of_the_same_owners_are_merged_up_to_the_limit() -> None:
    """Tables stay as they are; row starts count on."""
    one, two = (pieces_of(body_batch([{"message": text}] * 3)) for text in "ab")
    both = merged([*one, *two], 6)
    apart = merged([*one, *two], 5)

    assert [len(both), len(apart)] == [1, 2]
    assert [entry.row_start for entry in both[0].entries] == [0, 3]
    assert both[0].nbytes == one[0].nbytes + two[0].nbytes


def test_unused_names_of_a_dictionary_have_no_shard() -> None:
    """A filtered column keeps the names of rows that are gone."""
    table = table_of([{"service": "s0"}, {"service": "s1"}]).slice(0, 1)
    (piece,) = pieces_of(Batch("default", table, IDENTITY))

    assert [entry.shard for entry in piece.entries] == [shard_of("default", "s0")]


def test_codes_of_chunks_with_different_dictionaries_are_made_one() -> None:
    """Chunks of a reader may each have a dictionary of their own; plain text works too."""
    chunks = [pa.array(names).dictionary_encode() for names in (["x", "y"], ["y", "z"])]
    for column in (pa.chunked_array(chunks), pa.chunked_array([["x", "y"], ["y", "z"]])):
        codes, names = codes_and_names(column)
        assert [names[code] for code in codes] == ["x", "y", "y", "z"]


@pytest.mark.parametrize(
    ("seqs", "spans"),
    [
        ([], ()),
        ([7], ((7, 7),)),
        ([1, 2, 3], ((1, 3),)),
        ([1, 3, 4, 9], ((1, 1), (3, 4), (9, 9))),
    ],
)
def test_spans_of_sequences(seqs: list[int], spans: tuple) -> None:
    """Closed, ascending, as few as possible."""
    assert spans_of(np.array(seqs, np.int64)) == spans


def test_a_sequenced_entry_is_named_by_its_sequences_and_skips() -> None:
    """Without skips the id is records.ids'; a skip beside the same rows makes another."""
    batch = numbered_batch([1, 2, 5])
    assert batch.sequence is not None
    args = (FakeView(), 3, BASE)
    entry = sequenced_piece("default", batch.sequence, batch.table, *args).entries[0]
    skipping = replace(batch.sequence, skips=((3, 4),))
    other = sequenced_piece("default", skipping, batch.table, *args).entries[0]

    assert entry.entry_id == sequenced_entry_id(
        entry.shard, "default", "shop", "p1", 1, [(1, 2), (5, 5)]
    )
    assert (entry.seqs, entry.skips) == (((1, 2), (5, 5)), ())
    assert other.entry_id != entry.entry_id
    assert (other.seqs, other.skips) == (entry.seqs, ((3, 4),))
    assert (entry.producer, entry.producer_epoch, entry.shard_epoch) == ("p1", 1, 3)


def test_skips_alone_are_filed_at_a_time_that_depends_on_nothing() -> None:
    """Two replicas that got it at different times must file it alike."""
    batch = numbered_batch([], skips=((1, 2),))
    assert batch.sequence is not None
    entries = [
        sequenced_piece("default", batch.sequence, batch.table, FakeView(), 1, received).entries[0]
        for received in (BASE, BASE + 10 * HOUR)
    ]

    assert entries[0].entry_id == entries[1].entry_id
    assert entries[0].content_hash == entries[1].content_hash
    assert entries[0].hours == entries[1].hours == (0,)


def test_rows_are_found_by_their_sequences() -> None:
    """4, 6 and 7 are rows 0, 1 and 2."""
    table = numbered_batch([4, 6, 7]).table

    assert ranges_within(table, ((6, 7),)) == [(1, 3)]
    assert ranges_within(table, ((1, 4),)) == [(0, 1)]
    assert [a == b for a, b in ranges_within(table, ((5, 5), (8, 99)))] == [True, True]
    assert rows_within(table, ((1, 4), (7, 9)))["seq"].to_pylist() == [4, 7]
