"""Cursors: they read back, belong to one question, and damage is found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.cursor import Cursor, decode
from records.errors import InvalidRequest
from records.predicates import RowKey
from records.timestamps import TimeRange

micros = st.integers(-(1 << 62), 1 << 62)
cursors = st.builds(
    Cursor,
    st.binary(min_size=8, max_size=8),
    micros,
    st.builds(TimeRange, micros, micros),
    st.builds(RowKey, micros, st.binary(min_size=16, max_size=16), st.integers(0, (1 << 31) - 1)),
)


@given(cursors)
def test_a_cursor_reads_back_and_is_safe_in_a_url(cursor: Cursor) -> None:
    """Only letters, digits, - and _; decoded it is the same."""
    text = cursor.encode()

    assert text.replace("-", "").replace("_", "").isalnum()
    assert decode(text, cursor.question) == cursor


@given(cursors, st.data())
def test_a_changed_character_is_found(cursor: Cursor, data: st.DataObject) -> None:
    """The checksum covers every part; a cursor is never read as another place."""
    text = cursor.encode()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_ü ").filter(lambda c: c != text[at]))

    try:
        found = decode(text[:at] + other + text[at + 1 :], cursor.question)
    except InvalidRequest:
        return

    assert found == cursor  # the last character has spare bits


@pytest.mark.parametrize("text", ["x", "AA", "=", "%%", "é", "A" * 400])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """400 that names the parameter."""
    with pytest.raises(InvalidRequest) as caught:
        decode(text, bytes(8))

    assert caught.value.details["parameter"] == "cursor"


def test_a_cursor_of_another_question_is_refused() -> None:
    """It would silently answer something else."""
    cursor = Cursor(b"question", 0, TimeRange(), RowKey(0, bytes(16), 0))

    with pytest.raises(InvalidRequest, match="other parameters"):
        decode(cursor.encode(), b"another!")
