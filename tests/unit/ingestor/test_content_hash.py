"""The hash of rows: blind to types, order and our own columns; sensitive to all else."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.content_hash import content_hash
from tests.support.write_path import BASE, TIMES, table_of

ROWS = [
    {"message": "a", "n": 1, "host": "h"},
    {"message": "b", "n": None, "host": None},
    {"message": "", "n": 3, "host": "h"},
]


def changed(name: str, values: list[Any], kind: Any = None) -> pa.Table:
    """ROWS with one column made anew."""
    table = table_of(ROWS)
    array = pa.array(values, kind)
    index = table.schema.get_field_index(name)
    if index < 0:
        return table.append_column(name, array)
    return table.set_column(index, name, array)


HASH = content_hash(table_of(ROWS), BASE + 99)


def hashed(table: pa.Table) -> bytes:
    """With the receive time that HASH has."""
    return content_hash(table, BASE + 99)


@pytest.mark.parametrize(
    "table",
    [
        changed("n", [1.0, None, 3.0], pa.float64()),
        changed("n", [1, None, 3], pa.int32()),
        changed("host", ["h", None, "h"]).combine_chunks(),
        changed("host", pa.array(["h", None, "h"]).dictionary_encode().to_pylist()),
        table_of(ROWS).select(["n", "message", "level", "host", "service", "timestamp"]),
        pa.concat_tables([table_of(ROWS).slice(0, 1), table_of(ROWS).slice(1)]),
        pa.concat_tables([table_of([ROWS[0], *ROWS]).slice(1)]).set_column(
            0, "timestamp", table_of(ROWS)["timestamp"]
        ),
        changed("_hostname", ["x", "y", "z"]),
        changed("received_at", [1, 2, 3]),
        changed("nothing", [None, None, None], pa.string()),
    ],
)
def test_the_same_rows_hash_alike(table: pa.Table) -> None:
    """Int or float, dictionary or text, order of columns, chunks, slices, enrichment, null columns."""
    assert hashed(table) == HASH


@pytest.mark.parametrize(
    "table",
    [
        changed("n", [1, None, 4]),
        changed("n", [1, 0, 3]),
        changed("n", ["1", None, "3"]),
        changed("n", [1.5, None, 3]),
        changed("message", ["a", "b", None]),
        changed("message", ["ab", "", ""]),
        changed("other", [1, None, 3]),
        table_of(ROWS).rename_columns(
            ["m" if n == "n" else n for n in table_of(ROWS).schema.names]
        ),
        table_of(ROWS).slice(0, 2),
        table_of([ROWS[1], ROWS[0], ROWS[2]]),
        changed("timestamp", [BASE, BASE + 1, BASE + 3], TIMES),
        changed("flag", [True, False, None]),
    ],
)
def test_other_rows_hash_otherwise(table: pa.Table) -> None:
    """A value, a null, a type that shows, a name, an order, a boundary between texts."""
    assert hashed(table) != HASH


def test_a_missing_timestamp_hashes_the_same_whenever_it_is_received() -> None:
    """Rows that were given the receive time: sent again an hour later they are the same rows."""
    early = changed("timestamp", [BASE, BASE + 1, BASE + 50], TIMES)
    late = changed("timestamp", [BASE, BASE + 1, BASE + 70], TIMES)

    assert content_hash(early, BASE + 50) == content_hash(late, BASE + 70)
    assert content_hash(early, 0) != content_hash(late, 0)


def test_large_integers_keep_their_last_digit() -> None:
    """2**60 and 2**60 + 1 are one float64, but not one row."""
    one, two = (changed("n", [2**60 + i, None, 3]) for i in (0, 1))

    assert hashed(one) != hashed(two)


def test_minus_zero_and_nan_have_one_form_each() -> None:
    """-0.0 equals 0; any NaN is a NaN."""
    assert hashed(changed("n", [0.0, None, 3.0])) == hashed(changed("n", [-0.0, None, 3.0]))
    quiet = changed("n", [float("nan"), None, 3.0])
    assert hashed(quiet) == hashed(changed("n", [-float("nan"), None, 3.0]))


@settings(max_examples=60)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"message": st.text(max_size=4), "x": st.none() | st.text(max_size=3)}
        ),
        min_size=1,
        max_size=6,
    ),
    st.lists(
        st.fixed_dictionaries(
            {"message": st.text(max_size=4), "x": st.none() | st.text(max_size=3)}
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_it_is_equal_exactly_when_the_rows_are(one: list[dict], two: list[dict]) -> None:
    """No two different lists of short texts meet."""
    same = content_hash(table_of(one), 0) == content_hash(table_of(two), 0)

    assert same == (one == two)
