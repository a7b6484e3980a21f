"""Results as text: types that JSON lacks, nested values, what has no form."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from query.sql import SqlAnswer
from query.sql_out import arrow, csv, json_text, ndjson
from records.errors import InvalidRequest


def answer(**columns: Any) -> SqlAnswer:
    """A result with these columns."""
    table = pa.table(columns)
    return SqlAnswer(table, [(name, "X") for name in columns], True, (), {"how": "rows"}, ["note"])


MOMENT = datetime(2026, 11, 18, 1, 2, 3, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (pa.array([Decimal(5)], pa.decimal128(38, 0)), 5),
        (pa.array([Decimal(10**20)], pa.decimal128(38, 0)), str(10**20)),
        (pa.array([Decimal("1.25")], pa.decimal128(9, 2)), 1.25),
        (pa.array([MOMENT], pa.timestamp("us", tz="UTC")), "2026-11-18T01:02:03.000004Z"),
        (pa.array([date(2026, 1, 2)]), "2026-01-02"),
        (pa.array([time(1, 2, 3)], pa.time64("us")), "01:02:03.000000"),
        (pa.array([b"\x00\xff"]), "00ff"),
        (pa.array([[1, 2]]), [1, 2]),
        (pa.array([{"a": {"b": "c"}}]), {"a": {"b": "c"}}),
        (pa.array([True]), True),
        (pa.array([None]), None),
        (pa.array(['q"\n\\\u2028']), 'q"\n\\\u2028'),
        (pa.array([2**63], pa.uint64()), 2**63),
    ],
)
def test_values(array: pa.Array, value: Any) -> None:
    """In JSON and NDJSON alike; nulls beside them."""
    both = pa.concat_arrays([array, pa.nulls(1, array.type)])
    lines = [json.loads(line) for line in ndjson(answer(x=both)).decode().split("\n") if line]

    assert lines == [{"x": value}, {"x": None}]
    assert json.loads(json_text(answer(x=both)))["rows"] == lines


def test_the_answer() -> None:
    """All that is told beside the rows; no rows are an empty list, not nothing."""
    body = json.loads(json_text(answer(x=pa.array([], pa.int64()))))

    assert body == {
        "columns": [{"name": "x", "type": "X"}], "rows": [], "complete": True, "missing": [],
        "stats": {"how": "rows"}, "notes": ["note"],
    }  # fmt: skip


def test_csv_has_its_header_also_without_rows() -> None:
    """RFC 4180 quoting; nested values as JSON; null is empty."""
    full = csv(answer(a=['x,"y', None], b=[[1], None], c=[{"k": 1}, None])).decode()

    assert full == 'a,b,c\n"x,""y",[1],"{""k"":1}"\n,,\n'
    assert csv(answer(a=pa.array([], pa.string()))) == b"a\n"


def test_arrow_keeps_the_types() -> None:
    """A decimal stays a decimal."""
    table = pa.table({"x": pa.array([Decimal(5)], pa.decimal128(38, 0))})

    assert pa.ipc.open_stream(arrow(answer(x=table["x"]))).read_all() == table


def test_what_has_no_form_is_refused_with_the_way_out() -> None:
    """An interval, also deep inside."""
    interval = pa.scalar(pa.MonthDayNano([1, 2, 3]))
    for array in (pa.array([interval]), pa.array([[interval]])):
        with pytest.raises(InvalidRequest, match='"i"::VARCHAR'):
            ndjson(answer(i=array))
