"""Merging ordered tables: order, distinct rows, limits."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from query.merge import EMPTY, farther, key_at, merge_rows, rows_up_to
from records.predicates import RowKey
from tests.support.fake_store import key_tuple, table_of
from tests.unit.query.helpers import keys

entries = st.sampled_from([b"\x00" * 16, b"a" * 16, b"\xff" * 16])
#: A row of an entry has one time, so the time is a function of the two; few times, so that keys tie.
all_keys = st.builds(lambda e, r: ((e[0] + r * r) % 5 - 2, e, r), entries, st.integers(0, 6))


def table(found: list[tuple[int, bytes, int]], descending: bool, **columns: object) -> pa.Table:
    """Distinct keys in order, as a replica answers them."""
    ordered = sorted(set(found), reverse=descending)
    return table_of([{"timestamp": t, "_run": e, "_number": r, **columns} for t, e, r in ordered])


@settings(max_examples=150)
@given(st.lists(st.lists(all_keys, max_size=8), max_size=4), st.booleans(), st.integers(0, 6))
def test_merging_is_ordered_set_union(
    lists: list[list[tuple[int, bytes, int]]], descending: bool, limit: int
) -> None:
    """Rows of any number of replicas, overlapping at will: the union in order, cut at the limit."""
    union = sorted({key for one in lists for key in one}, reverse=descending)

    merged = merge_rows([table(one, descending) for one in lists], descending, limit)

    assert keys(merged) == (union[:limit] if limit else union)


def test_nothing_merges_to_an_empty_table_with_keys() -> None:
    """No replica, or replicas without rows and columns."""
    for tables in ([], [pa.table({})], [EMPTY, pa.table({})]):
        assert merge_rows(tables, True, 5).column_names[:2] == ["_run", "_number"]


def test_columns_are_united_and_types_widened() -> None:
    """A column one replica lacks is null there; integers meet floats as floats."""
    left = table([(1, b"a" * 16, 0)], False, x=1, only="l")
    right = table([(2, b"b" * 16, 0)], False, x=2.5, level="info")

    merged = merge_rows([left, right], False, 0)

    assert merged["x"].to_pylist() == [1.0, 2.5]
    assert merged["only"].to_pylist() == ["l", None]
    assert merged["level"].to_pylist() == [None, "info"]


def test_a_row_that_two_tables_have_at_two_times_comes_once() -> None:
    """A row without a time of its own, sent again: it has the name, not the time; the first is kept."""
    run = b"a" * 16
    early, late = table([(1, run, 7)], False, x=1), table([(4, run, 7), (4, run, 8)], False, x=4)

    up = merge_rows([early, late], False, 0)
    down = merge_rows([early, late.take([1, 0])], True, 0)

    assert keys(up) == [(1, run, 7), (4, run, 8)]
    assert keys(down) == [(4, run, 8), (4, run, 7)]
    assert up["x"].to_pylist() == [1, 4]


@given(st.lists(all_keys, min_size=1, max_size=8), all_keys, st.booleans())
def test_rows_up_to_counts_by_key(
    found: list[tuple[int, bytes, int]], bound: tuple[int, bytes, int], descending: bool
) -> None:
    """The horizon of a stream: how many rows lie at or before it."""
    rows = table(found, descending)
    inside = [k for k in keys(rows) if (k >= bound if descending else k <= bound)]

    assert rows_up_to(rows, RowKey(*bound), descending) == len(inside)
    assert key_tuple(key_at(rows, -1)) == keys(rows)[-1]
    ends = [RowKey(*bound), key_at(rows, 0)]
    assert key_tuple(farther(ends, descending)) == (max if descending else min)(
        map(key_tuple, ends)
    )
