"""Rows as bytes: whatever a caller passes becomes one valid JSON object, or an error."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorumlog import InvalidRow
from quorumlog.rows import encode_row, renumber, rfc3339, with_seq

NOW = 1_763_683_200_123_456_789


def test_the_row_opens_with_its_seq_and_the_time() -> None:
    """Names are the wire's, the time is now unless given."""
    row = with_seq(encode_row({"message": "hé", "trace_id": "t"}, NOW), 7)

    assert row == (
        b'{"seq":7,"timestamp":"2025-11-21T00:00:00.123456Z","message":"h\xc3\xa9","traceId":"t"}'
    )
    assert renumber(row, 12345) == row.replace(b'"seq":7,', b'"seq":12345,')


def test_rfc3339_agrees_with_datetime() -> None:
    """The cached second changes with the time, also backwards."""
    for second in (0, 1, 1_763_683_199, 1_763_683_200, 5):
        expected = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.000007Z")
        assert rfc3339(second * 10**9 + 7_999) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (date(2026, 1, 2), "2026-01-02"),
        (b"\xff\x00", "\ufffd\x00"),
        ("\ud800", "?"),
        ({1: float("nan"), (2, 3): None}, {"1": "nan", "(2, 3)": None}),
    ],
)
def test_values_that_json_lacks_become_text(value: object, text: object) -> None:
    """Nothing that an application logs is refused for its type."""
    assert json.loads(encode_row({"x": value}, NOW))["x"] == text


def test_both_spellings_are_kept_apart() -> None:
    """If the wire's name is given too, it wins."""
    row = json.loads(encode_row({"trace_id": "a", "traceId": "b"}, NOW))

    assert row["traceId"] == "b"


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_rows_that_cannot_be_written_are_refused() -> None:
    """Reserved names, circles and values without a text are the caller's mistake."""
    circle: list[Any] = []
    circle.append(circle)
    for fields in ({"seq": 1}, {"service": "x"}, {"x": _Unprintable()}):
        with pytest.raises(InvalidRow):
            encode_row(fields, NOW)
    deep = json.loads(encode_row({"x": circle}, NOW))
    assert deep["x"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150)
@given(st.dictionaries(st.text().filter(lambda name: name not in ("seq", "service")), values))
def test_each_row_is_one_line_of_strict_json(fields: dict[str, object]) -> None:
    """No newline, no NaN, valid UTF-8: a batch is the rows joined by commas."""

    def no_constants(name: str) -> None:
        raise AssertionError(name)

    row = with_seq(encode_row(fields, NOW), 1)

    assert b"\n" not in row
    assert json.loads(row.decode("utf-8"), parse_constant=no_constants)["seq"] == 1
