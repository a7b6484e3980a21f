"""Canonical equality of rows: what may differ between two copies, and what may not."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from storage.compare import EntryRows, canonical, differing_entries, differing_seqs, same_values
from tests.unit.storage.samples import T0, header_of, row, sequenced, table_of


def rows_of(first: int, rows: list[dict], received_at: int = T0) -> EntryRows:
    """Rows with sequences from `first` on."""
    entry = replace(
        sequenced(1, 1),
        rows=rows,
        seqs=((first, first + len(rows) - 1),),
        received_at=received_at,
    )
    table = table_of(rows).combine_chunks()
    columns = {name: table.column(name).combine_chunks() for name in table.schema.names}
    return EntryRows(header_of(entry, 0), columns)


def differs(left: dict[str, Any], right: dict[str, Any], **received: int) -> bool:
    """Whether two single rows differ."""
    a = rows_of(1, [left])
    b = rows_of(1, [right], **received)
    return differing_seqs(a, b, ((1, 1),)) != ()


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"n": 5}, {"n": 5.0}),
        ({"n": 5}, {"n": "5"}),
        ({"n": True}, {"n": "true"}),
        ({"n": 5}, {"attributes": '{"n": 5}'}),
        ({"attributes": '{"a": 1, "b": [1, 2]}'}, {"attributes": '{"b":[1.0,2],"a":1}'}),
        ({"o": '{"x": 1}'}, {"attributes": '{"o": {"x": 1}}'}),
        ({"_host": "a"}, {"_host": "b"}),
        ({"received_at": 5}, {"received_at": 6}),
        ({"n": None}, {}),
    ],
)
def test_equal_in_canonical_form(left: dict, right: dict) -> None:
    """The same row, encoded in another block, or enriched on another node."""
    assert not differs(row(1, **left), row(1, **right))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"n": 5}, {"n": 6}),
        ({"n": 5}, {}),
        ({"n": 1}, {"n": True}),
        ({"n": "a"}, {"n": "A"}),
        ({"n": 5}, {"attributes": '{"n": 6}'}),
        ({"attributes": '{"a": {"b": 1}}'}, {"attributes": '{"a": {"b": 2}}'}),
        ({"message": "a"}, {"message": "b"}),
        ({"level": "info"}, {"level": "error"}),
        ({"trace_id": "a"}, {"trace_id": "b"}),
        ({"attributes": "not json"}, {"attributes": "not json either"}),
    ],
)
def test_different_in_canonical_form(left: dict, right: dict) -> None:
    """One value is other: a conflict."""
    assert differs({**row(1), **left}, {**row(1), **right})


def test_a_timestamp_of_our_making_is_no_difference() -> None:
    """A row without a timestamp gets the time of receipt, which differs from try to try."""
    first, second = {**row(0), "timestamp": T0}, {**row(0), "timestamp": T0 + 77}

    assert not differs(first, second, received_at=T0 + 77)
    assert differs(first, {**row(0), "timestamp": T0 + 78}, received_at=T0 + 77)


def test_names_exactly_the_sequences_that_differ() -> None:
    """Twelve rows against eight, in common 5..8, of which 6 and 8 differ."""
    left = rows_of(1, [row(k, f"m{k}") for k in range(1, 13)])
    right = rows_of(5, [row(k, f"m{k}" if k not in (6, 8) else "x") for k in range(5, 13)])

    assert differing_seqs(left, right, ((5, 8),)) == ((6, 6), (8, 8))
    assert differing_seqs(left, right, ((5, 5), (7, 7))) == ()


def test_whole_entries_are_compared_row_by_row() -> None:
    """Equal, unequal, and of different lengths."""
    rows = [row(k, f"m{k}") for k in range(1, 5)]
    base = rows_of(1, rows)

    assert differing_entries(base, rows_of(1, rows)) == (True, ())
    assert differing_entries(base, rows_of(1, [*rows[:3], row(4, "x")])) == (False, ((4, 4),))
    assert differing_entries(base, rows_of(1, rows[:2])) == (False, ((1, 4),))


def test_values_as_json_gives_them() -> None:
    """Booleans are no numbers; huge integers compare; NaN equals itself."""
    assert same_values(float("nan"), float("nan"))
    assert not same_values(True, 1)
    assert same_values(2**70, float(2**70))
    assert not same_values("9" * 400, 5)
    assert not same_values({"a": 1}, [1])
    assert canonical({"a": 1, "attributes": '{"a": 2, "b": null, "_c": 1}'}) == {"a": 1}


def test_blanked_rows_equal_whatever_the_other_side_has() -> None:
    """Their contents were removed: they cannot be in conflict with anything."""
    kept, gone = row(1, text="same"), row(2, message="secret")
    whole = rows_of(1, [kept, gone])
    mark = {"_erased": pa.array([None, 1], pa.int8())}
    blanked = rows_of(1, [kept, row(2, message="")])
    marked = EntryRows(blanked.header, {**blanked.columns, **mark})

    assert differing_seqs(whole, marked, ((1, 2),)) == ()
    assert differing_seqs(marked, whole, ((1, 2),)) == ()
    assert differing_entries(whole, marked) == (True, ())
    assert differing_seqs(whole, blanked, ((1, 2),)) == ((2, 2),)
    other = rows_of(1, [row(1, text="other"), gone])
    assert differing_seqs(other, marked, ((1, 2),)) == ((1, 1),)
