"""The shop's bytes, read back by parsers that are not ours."""

import csv
import io
import json
import re
from datetime import datetime

import pyarrow as pa
import pytest

from node.simulate.formats import CSV_COLUMNS, CSV_HEADER, LINES, to_bytes
from node.simulate.generator import Shop

START = 1_767_225_600_000_000


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """One chunk of rows."""
    return next(Shop(11, START).chunks())


def test_json_lines_hold_the_rows_and_leave_absent_fields_out(table: pa.Table) -> None:
    """Each line is an object equal to its row without nulls."""
    lines = to_bytes(LINES["json"](table)).splitlines()

    assert len(lines) == table.num_rows
    for line, row in zip(lines, table.to_pylist(), strict=True):
        found = json.loads(line)
        moment = datetime.fromisoformat(found.pop("timestamp"))
        assert round(moment.timestamp() * 1e6) == row.pop("timestamp")
        assert found == {name: value for name, value in row.items() if value is not None}


def test_csv_has_the_columns_of_its_header(table: pa.Table) -> None:
    """Python's csv module reads the same texts."""
    text = (CSV_HEADER + to_bytes(LINES["csv"](table))).decode()
    found = list(csv.DictReader(io.StringIO(text)))

    assert tuple(found[0]) == CSV_COLUMNS
    assert [row["message"] for row in found] == table["message"].to_pylist()
    assert [row["status"] for row in found] == [
        "" if status is None else str(status) for status in table["status"].to_pylist()
    ]


def test_plain_lines_begin_with_time_and_level(table: pa.Table) -> None:
    """One row is one line."""
    lines = to_bytes(LINES["plain"](table)).decode().splitlines()

    assert len(lines) == table.num_rows
    pattern = re.compile(
        r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (DEBUG|INFO|WARN|ERROR) [a-z]+ .+"
    )
    assert all(pattern.fullmatch(line) for line in lines)


def test_access_log_is_in_combined_format() -> None:
    """Apache's combined log format: host ident user [time] "request" status bytes "referer" "agent"."""
    table = next(Shop(11, START).access())
    lines = to_bytes(LINES["clf"](table)).decode().splitlines()
    pattern = re.compile(
        r'[\d.]+ - \S+ \[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "(GET|POST) /\S+ HTTP/1\.1"'
        r' [1-5]\d\d \d+ "[^"]*" "[^"]*"'
    )

    for line, micros in zip(lines, table["timestamp"].to_pylist(), strict=True):
        found = pattern.fullmatch(line)
        assert found is not None, line
        moment = datetime.strptime(found[1], "%d/%b/%Y:%H:%M:%S %z")
        assert int(moment.timestamp()) == micros // 1_000_000


def test_a_slice_gives_the_bytes_of_its_rows(table: pa.Table) -> None:
    """Lines do not depend on how the table is cut."""
    whole = to_bytes(LINES["json"](table))
    cut = to_bytes(LINES["json"](table.slice(0, 100))) + to_bytes(LINES["json"](table.slice(100)))

    assert cut == whole
