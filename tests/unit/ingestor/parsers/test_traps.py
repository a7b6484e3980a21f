"""What pyarrow's readers would take and strict JSON or CSV does not: each trap stands among good rows.

The schema fits and the counts may add up; only the checks around the reader can tell. Each case was made
against one of them, and fails without it.
"""

import pytest

from ingestor.limits import Limits
from ingestor.parsers import csv_rows, json_document
from ingestor.parsers.fast_json import read_lines
from ingestor.parsers.learned import LearnedSchemas
from ingestor.parsers.strict_lines import parse_slowly
from tests.unit.ingestor.parsers.test_fast_and_slow import keep, plain_rows

LIMITS = Limits()
GOOD = b'{"msg":"x","f":0.5,"http":{"path":"/"}}'
SHAPE = [{"msg": "x", "f": 0.5, "http": {"path": "/"}}]

LINE_TRAPS = {
    "two objects in a line": [b'{"msg":"a"}{"msg":"b"}'],
    "two objects with a space": [b'{"msg":"a"} {"msg":"b"}'],
    "an object over two lines": [b'{"msg":', b'"a"}'],
    "one over two lines and two in one": [b'{"msg":"a"}{"msg":"b"}', b'{"msg":', b'"c"}'],
    "a nested object on its own line": [b'{"msg":"a"}{"msg":"b"}', b'{"http":', b'{"path":"/"}}'],
    "closed before, opened after": [b'{"msg":"a"}{"msg":"b"}', b'{"http":{"path":"/"}', b'}'],
    "bytes that are not UTF-8": [b'{"msg":"\xff"}'],
    "an overlong zero": [b'{"msg":"\xc0\x80"}'],
    "a surrogate in UTF-8": [b'{"msg":"\xed\xa0\x80"}'],
    "not a number": [b'{"f":NaN}'],
    "infinity": [b'{"f":Infinity}'],
    "minus infinity": [b'{"f":-Infinity}'],
    "a key twice": [b'{"msg":"a","msg":"b"}'],
    "a nested key twice": [b'{"http":{"path":"/","path":"/"}}'],
    "a raw control character": [b'{"msg":"a\tb"}'],
    "a raw NUL": [b'{"msg":"a\x00b"}'],
    "a line of NUL": [b"\x00"],
}  # fmt: skip


@pytest.mark.parametrize("name", LINE_TRAPS)
def test_the_fast_way_declines_what_is_bad(name: str) -> None:
    """The slow way refuses at least one row; so the fast way may not answer."""
    body = b"\n".join([GOOD, *LINE_TRAPS[name], GOOD])
    fields = LearnedSchemas(LIMITS).learn("k", SHAPE)
    assert fields is not None

    assert parse_slowly(body, LIMITS, keep).bad
    assert read_lines(body, fields, LIMITS) is None
    assert read_lines(b"\n".join([GOOD, GOOD]), fields, LIMITS) is not None


@pytest.mark.parametrize(
    "number", [b"9007199254740993", b"-9007199254740993", b"123456789012345678"]
)
def test_an_integer_that_a_double_cannot_hold_is_kept_exactly(number: bytes) -> None:
    """Read as a double it would be another number."""
    body = b"\n".join([GOOD, b'{"f":' + number + b"}"])
    fields = LearnedSchemas(LIMITS).learn("k", SHAPE)
    assert fields is not None

    assert read_lines(body, fields, LIMITS) is None
    assert plain_rows(parse_slowly(body, LIMITS, keep))[1] == {"f": number.decode()}


def test_zero_has_no_sign() -> None:
    """-0 is an integer's zero and -0.0 a double's: the same value, the same bytes."""
    fields = LearnedSchemas(LIMITS).learn("k", SHAPE)
    assert fields is not None
    found = read_lines(b'{"f":-0.0}\n{"f":-0}\n{"f":0}', fields, LIMITS)
    assert found is not None
    assert [str(value) for value in found[0]["f"].to_pylist()] == ["0.0"] * 3
    slow = parse_slowly(b'{"f":-0.0}\n{"f":0.5}', LIMITS, keep)
    assert str(slow.columns["f"][0].as_py()) == "0.0"


DOCUMENT_TRAPS = {
    "null for a row": (b'[{"msg":"a"},null,{"msg":"b"}]', 1),
    "a number for a row": (b'[{"msg":"a"},5]', 1),
    "bytes that are not UTF-8": (b'[{"msg":"a"},{"msg":"\xff"}]', 1),
    "an envelope within the wrapping": (b'[{"msg":"a"}],"logs":[{"msg":"b"}]', None),
    "a second document": (b'[{"msg":"a"}]\n[{"msg":"b"}]', None),
    "the wrapping closed and opened": (b'[{"msg":"a"}]}\n{"logs":[{"msg":"b"}]', None),
    "null for the array": (b'{"logs":null}', None),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENT_TRAPS)
def test_a_document_is_not_taken_for_another(name: str) -> None:
    """An array is read inside of `{"logs":…}`: nothing in it may end or repeat that."""
    body, bad = DOCUMENT_TRAPS[name]
    learned = LearnedSchemas(LIMITS)
    json_document._fast(b'[{"msg":"a"}]', LIMITS, learned, "k")

    fast, _ = json_document._fast(body, LIMITS, learned, "k")

    assert fast is None
    if bad is not None:
        assert len(json_document.parse_slowly(body, LIMITS, keep).parsed.bad) == bad


@pytest.mark.parametrize(
    "body",
    [b'1,"2\n3,4\n', b'a"x,"b\n', b'"a""\n1,2\n', b'1,2\n"', b'1,"2""\n3,4\n'],
)
def test_a_quote_that_never_closes_is_a_bad_row(body: bytes) -> None:
    """Both readers would take all that follows for one value."""
    names = ["a", "b"]
    assert csv_rows._fast(body, names, LIMITS, False) is None
    slow = csv_rows._slow(csv_rows._records(body), names, LIMITS, False)
    assert slow.bad[-1].code == "csv_quote"
