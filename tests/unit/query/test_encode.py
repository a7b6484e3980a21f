"""Rows as JSON, CSV and Arrow: by column, against json.dumps row by row."""

import csv
import io
import json
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from query import encode
from query.merge import EMPTY
from query.times import rfc3339
from tests.support.fake_store import Row, table_of
from tests.unit.query.helpers import NOW, row

texts = st.text(max_size=8).filter(lambda t: t.isprintable() or t.encode("utf-8", "ignore") != b"")
scalars = st.none() | st.integers(-(2**63), 2**63 - 1)
attribute_maps = st.dictionaries(
    st.text('abc"\\é{}:, ', min_size=1, max_size=4).map(lambda k: "k" + k),
    st.none() | st.booleans() | st.integers(-99, 99) | texts | st.lists(st.integers(), max_size=2),
    max_size=3,
)


@st.composite
def encoded_rows(draw: st.DrawFn) -> list[Row]:
    """Rows with awkward text, missing fields, attributes and nanoseconds."""
    rows = []
    for index in range(draw(st.integers(1, 5))):
        one = row(draw(st.integers(-(10**12), 10**12)), draw(texts), x=draw(scalars))
        one["host"] = draw(st.none() | texts)
        one["flag"] = draw(st.none() | st.booleans())
        one["ratio"] = draw(st.none() | st.floats(-1e9, 1e9))
        attributes = draw(st.none() | attribute_maps)
        one["attributes"] = None if attributes is None else json.dumps(attributes)
        one["timestamp_ns"] = draw(st.none() | st.integers(0, 999))
        rows.append({"_run": bytes([index]) * 16, "_number": index, **one})
    return rows


def spelled(one: Row) -> dict[str, Any]:
    """What a client must read: by the words of the contract, row by row."""
    stamp = rfc3339(one["timestamp"])
    if one.get("timestamp_ns") is not None:
        stamp = f"{stamp[:-1]}{one['timestamp_ns']:03d}Z"
    plain = {
        name: value
        for name, value in one.items()
        if value is not None and name not in ("_run", "_number", "attributes", "timestamp_ns")
    }
    tail = json.loads(one.get("attributes") or "{}")
    return {"_id": f"{one['_run'].hex()}-{one['_number']}", **plain, "timestamp": stamp, **tail}


@settings(max_examples=120)
@given(encoded_rows())
def test_json_rows_read_as_the_rows_themselves(rows: list[Row]) -> None:
    """Escapes, numbers to 64 bits, booleans; nulls left out, attributes taken apart, all digits."""
    table = encode.presented(table_of(rows))

    lines = encode.ndjson(table).decode().split("\n")
    assert lines.pop() == ""
    found = [json.loads(line) for line in lines]
    assert found == [spelled(one) for one in rows]
    assert json.loads(encode.json_array(table)) == found


@settings(max_examples=80)
@given(encoded_rows())
def test_csv_holds_every_field(rows: list[Row]) -> None:
    """Fixed columns; whatever has none is JSON in `attributes`; Python's csv reads it back."""
    table = encode.csv_table(encode.presented(table_of(rows)), None)
    text = (encode.csv_lines(table, True) + encode.csv_lines(table, False)).decode()

    read = list(csv.DictReader(io.StringIO(text, newline="")))

    assert len(read) == 2 * len(rows)
    for line, one in zip(read, rows + rows, strict=True):
        wanted = spelled(one)
        assert line["_id"] == wanted["_id"]
        assert line["message"] == wanted["message"]
        assert line["timestamp"] == wanted["timestamp"]
        rest = {k: v for k, v in wanted.items() if k not in encode.CSV_NAMES}
        assert json.loads(line["attributes"] or "{}") == rest


def test_the_fields_asked_for_and_no_others() -> None:
    """JSON keeps `_id`; CSV has just the columns asked for, empty where no row has them."""
    table = table_of([{"_run": b"a" * 16, "_number": 0, **row(1, x=5)}])

    shown = encode.presented(table, ("x", "nope"))

    assert shown.column_names == ["_id", "x"]
    assert encode.csv_lines(encode.csv_table(shown, ("x", "nope")), True) == b"x,nope\n5,\n"


def test_no_rows() -> None:
    """Empty pages of every format."""
    table = encode.presented(EMPTY)

    assert encode.ndjson(table) == b""
    assert encode.json_array(table) == "[]"
    assert encode.csv_lines(encode.csv_table(table, None), True).count(b"\n") == 1


def page(*rows: Row) -> pa.Table:
    """A page of a stream, with identities."""
    named = [{"_run": bytes([i]) * 16, "_number": i, **one} for i, one in enumerate(rows)]
    return encode.arrow_page(table_of(named))


def test_an_arrow_stream_has_one_schema_and_loses_nothing() -> None:
    """A column that comes later, or with another type, is JSON in `attributes`."""
    first = page(row(1, x=1, attributes='{"a":1}'))
    later = page(row(2, x="text", y=2.5, attributes='{"b":[2]}'), row(3, x="5"))
    shape = encode.ArrowShape(first, None)

    one, two = shape.fit(first), shape.fit(later)

    assert one.schema == two.schema == shape.schema
    assert shape.schema.field("timestamp").type == pa.timestamp("us", tz="UTC")
    assert one["x"].to_pylist() == [1]
    assert two["x"].to_pylist() == [None, None]
    tails = [json.loads(text) for text in two["attributes"].to_pylist()]
    assert tails == [{"x": "text", "y": 2.5, "b": [2]}, {"x": "5"}]


def test_an_arrow_stream_of_chosen_fields() -> None:
    """`_id` and the fields, in the order asked; a field no row has is null."""
    first = page(row(1, x=1))
    shape = encode.ArrowShape(first, ("x", "nope", "level"))

    assert shape.schema.names == ["_id", "x", "nope", "level"]
    assert shape.fit(first)["nope"].to_pylist() == [None]


def test_times_beyond_the_digits() -> None:
    """Nine digits where there are nanoseconds, six where not, before 1970 too."""
    stamps = pa.chunked_array([pa.array([NOW, -1], pa.timestamp("us", tz="UTC"))])

    assert encode.rfc3339_column(
        stamps, pa.chunked_array([pa.array([7, None], pa.int16())])
    ).to_pylist() == [
        "2026-11-18T11:06:40.000000007Z",
        "1969-12-31T23:59:59.999999Z",
    ]
