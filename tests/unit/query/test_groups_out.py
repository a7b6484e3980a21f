"""Groups as JSON: the text says what Python's own encoder says of the same rows."""

import json
from datetime import UTC, datetime

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from query.groups_out import groups_json, object_json

TEXT = st.none() | st.text(max_size=5) | st.sampled_from(['"', "%s", "\\", "\n", "é", "\ud7ff"])
ROW = st.fixed_dictionaries({
    "text": TEXT,
    'na"me%s': st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
    "ratio": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.none() | st.booleans(),
    "list": st.none() | st.lists(st.integers(0, 9), max_size=2),
})  # fmt: skip
SCHEMA = pa.schema([
    ("text", pa.string()), ('na"me%s', pa.int64()), ("ratio", pa.float64()),
    ("flag", pa.bool_()), ("list", pa.list_(pa.int64())),
])  # fmt: skip


@given(st.lists(ROW, max_size=6))
def test_any_values_are_written_as_they_are(rows: list[dict]) -> None:
    """Names and texts with quotes, percent signs and line ends; nulls in each column."""
    assert json.loads(groups_json(pa.Table.from_pylist(rows, SCHEMA))) == rows


def test_times_are_rfc_3339_and_what_is_no_number_is_null() -> None:
    """JSON has neither NaN nor infinity."""
    stamps = [0, None, 1_767_225_600_000_001]
    table = pa.table({
        "timestamp": pa.array(stamps, pa.timestamp("us", tz="UTC")),
        "avg": [float("nan"), float("inf"), 0.5],
    })  # fmt: skip

    found = json.loads(groups_json(table))

    assert [one["avg"] for one in found] == [None, None, 0.5]
    assert [one["timestamp"] for one in found] == [
        "1970-01-01T00:00:00.000000Z", None, "2026-01-01T00:00:00.000001Z",
    ]  # fmt: skip
    assert datetime.fromisoformat(found[2]["timestamp"]).tzinfo == UTC


def test_rows_stand_between_what_comes_before_and_after() -> None:
    """Also where there is nothing before or after."""
    assert object_json({"by": ["é"]}, "rows", "[1]", {"cut": False}) == (
        '{"by":["é"],"rows":[1],"cut":false}'
    )
    assert object_json({}, "rows", "[]", {}) == '{"rows":[]}'
