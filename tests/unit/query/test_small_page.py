"""A small page reads as the same page written by column."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query import encode, small_page
from tests.support.fake_store import Row, table_of
from tests.unit.query.helpers import row
from tests.unit.query.test_encode import encoded_rows, spelled

FIELDS = st.none() | st.lists(
    st.sampled_from(["message", "timestamp", "x", "host", "none", "message"]), min_size=1
).map(tuple)


@settings(max_examples=150)
@given(encoded_rows(), FIELDS)
def test_a_small_page_reads_as_one_written_by_column(rows: list[Row], fields: Any) -> None:
    """Awkward texts, nulls, numbers to 64 bits, attributes taken apart, all digits of times."""
    table = table_of(rows)

    text = small_page.json_array(table, fields)

    assert text is not None
    assert json.loads(text) == json.loads(encode.json_array(encode.presented(table, fields)))
    if fields is None:
        assert json.loads(text) == [spelled(one) for one in rows]


def page(count: int, **more: Any) -> pa.Table:
    return table_of(
        [{"_run": bytes(16), "_number": i, **row(i, "x", **more)} for i in range(count)]
    )


def test_what_is_long_is_written_by_column() -> None:
    """Many rows, or few with much text: not on the event loop."""
    assert small_page.json_array(page(small_page.ROWS_MAX), None) is not None
    assert small_page.json_array(page(small_page.ROWS_MAX + 1), None) is None
    assert small_page.json_array(page(2, y="z" * small_page.BYTES_MAX), None) is None


@pytest.mark.parametrize(
    "column", [pa.array([float("nan")]), pa.array([[1]]), pa.array([b"x"])], ids=str
)
def test_what_is_not_known_here_is_written_by_column(column: pa.Array) -> None:
    """Numbers that JSON lacks, lists, bytes."""
    table = page(1).append_column("odd", column)

    assert small_page.json_array(table, None) is None
    assert small_page.json_array(table, ("message",)) is not None


def test_no_rows_are_an_empty_array() -> None:
    """Of a table that has its columns."""
    assert small_page.json_array(page(1).slice(0, 0), None) == "[]"
