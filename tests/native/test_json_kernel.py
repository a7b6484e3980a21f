"""The kernel against the slow way: equal verdicts and equal columns, on valid, broken and hostile lines.

The slow way (Python's json, line by line, strict hooks) is the oracle. The kernel may decline a batch;
where it answers, rows, numbers, types, values, reasons and raw bytes have to be the same. Without the
kernel these tests are skipped; CI builds it, and fails if they are.
"""

import json
from dataclasses import replace
from itertools import product
from typing import Any

import pyarrow.compute
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingestor.limits import Limits
from ingestor.parsers import native, strict_lines
from ingestor.parsers.base import Parsed
from tests.unit.ingestor.parsers.test_fast_and_slow import (
    FRAGMENTS,
    HOSTILE,
    REGULAR,
    ROWS,
    encoded,
    keep,
)

pc: Any = pyarrow.compute
LIMITS = Limits()
pytestmark = pytest.mark.skipif(not native.available(), reason=native.described())
EXAMPLES = settings(max_examples=120)


def same(kernel: Parsed, slow: Parsed) -> None:
    """Not one difference: verdicts, types, bits of doubles, order of columns."""
    assert kernel.bad == slow.bad
    assert kernel.rows == slow.rows
    assert kernel.row_numbers().tolist() == slow.row_numbers().tolist()
    assert list(kernel.columns) == list(slow.columns)
    for name, column in kernel.columns.items():
        column.validate(full=True)
        other = slow.columns[name]
        assert column.type == other.type, name
        assert column.null_count == other.null_count
        assert [said(v) for v in column.to_pylist()] == [said(v) for v in other.to_pylist()]


def said(value: Any) -> str:
    """What it says. As text a double may end in either of two digits that are as near to it:
    562949953421312.25 is ...2.2 (Python) or ...2.3, which are one double."""
    if isinstance(value, str) and value.startswith(("[", "{", "-", *"123456789")):
        try:
            return repr(json.loads(value))
        except ValueError:
            return repr(value)
    return repr(value)


def both(body: bytes, limits: Limits = LIMITS, must: bool = False) -> Parsed | None:
    """What the kernel gives, compared with the slow way; `must`: it may not decline."""
    kernel = native.parse(body, limits)
    assert kernel is not None or not must
    if kernel is not None:
        same(kernel, strict_lines.parse_slowly(body, limits, keep))
    return kernel


@EXAMPLES
@given(rows=st.lists(st.one_of(ROWS, REGULAR), min_size=1, max_size=12), ascii_only=st.booleans())
def test_valid_rows_of_any_shape(rows: list[Any], ascii_only: bool) -> None:
    """Nested objects, arrays, mixed types, big numbers, halves of surrogates."""
    both(b"\n".join(encoded(row, ascii_only) for row in rows))


@EXAMPLES
@given(
    rows=st.lists(REGULAR, min_size=1, max_size=12),
    end=st.sampled_from([b"", b"\n", b"\r\n", b" \n\n"]),
)
def test_rows_of_one_shape_are_not_declined(rows: list[Any], end: bytes) -> None:
    """What most logs are, with whole numbers among decimals, and characters of all planes."""
    both(end.join([b"\n".join(encoded(row, True) for row in rows), b""]), must=True)


@EXAMPLES
@given(
    lines=st.lists(FRAGMENTS, min_size=1, max_size=8),
    glue=st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \t"]),
)
@example(lines=[b"\xff", b'{"a":1}'], glue=b"\n")
def test_broken_and_hostile_lines(lines: list[bytes], glue: bytes) -> None:
    """Each bad line has Python's code, reason and bytes; the good ones between keep their numbers."""
    both(glue.join(lines))


@EXAMPLES
@given(
    rows=st.lists(REGULAR, min_size=1, max_size=5),
    place=st.integers(0, 10**6),
    junk=st.one_of(HOSTILE, st.binary(max_size=3)),
    cut=st.integers(0, 3),
)
def test_a_body_with_some_bytes_changed(rows: list[Any], place: int, junk: bytes, cut: int) -> None:
    """Junk anywhere in good lines."""
    body = b"\n".join(encoded(row, False) for row in rows if "\ud83d" not in str(row))
    place %= len(body) + 1
    both(body[:place] + junk + body[place + cut :])


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 40])
def test_each_byte_in_each_place_of_a_string(size: int) -> None:
    """All 256 bytes, in keys and values, at each offset within the kernel's words of eight."""
    for byte in range(256):
        pad = b"x" * size
        char = bytes([byte])
        both(b'{"k":"' + pad + char + b'tail"}\n{"' + pad + char + b'":1}\n{"k":"\\' + char + b'"}')


@EXAMPLES
@example(values=[562949953421312.25], text=True)
@example(values=[562949953421312.25], text=False)
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1),
    text=st.booleans(),
)
def test_doubles_as_numbers_and_as_text(values: list[float], text: bool) -> None:
    """A column of doubles, and the same one beside a text: the same doubles, in the shortest digits."""
    lines = [json.dumps({"f": value}).encode() for value in values]
    lines += [b'{"a":[%s]}' % repr(value).encode() for value in values]
    both(b"\n".join([*lines, b'{"f":"text"}'] if text else lines), must=True)


def test_halves_of_characters_in_every_order() -> None:
    """Escapes of surrogates, paired and alone, beside plain text and at the end: as Python reads them."""
    parts = [b"\\ud83d", b"\\ude00", b"\\u0041", b"x", b"\\uDBFF", b"\\uDFFF", b""]
    texts = [b"".join(three) for three in product(parts, repeat=3)]
    both(b"\n".join(b'{"k":"%s","a":["%s"]}' % (text, text) for text in texts), must=True)


TYPED = st.sampled_from(
    [b"1", b"-0", b"0", b"9007199254740992", b"-9223372036854775808", b"1.5", b"-0.0", b"1e300", b"true",
     b"false", b"null", b'"x"', b'""', b"[1, 2]", b'{"y":1}', b"99999999999999999999"]
)  # fmt: skip


@EXAMPLES
@given(values=st.lists(st.tuples(st.sampled_from("ab"), TYPED), min_size=1, max_size=20))
def test_types_that_conflict_in_any_order(values: list[tuple[str, bytes]]) -> None:
    """A column's type follows from all its values, whatever came first."""
    both(b"\n".join(b'{"%s":%s}' % (name.encode(), value) for name, value in values))


def test_a_bad_row_leaves_no_trace() -> None:
    """Its fields, whose types conflict with the good rows', stay out of the columns."""
    body = b'{"a":1}\n{"a":"x","b":2,"a.c":3,}\n{"a":2}'

    parsed = both(body, must=True)

    assert parsed is not None
    assert {name: column.to_pylist() for name, column in parsed.columns.items()} == {"a": [1, 2]}


def test_limits_are_the_python_paths() -> None:
    """Sizes just at and just over each limit."""
    small = replace(LIMITS, row_bytes_max=60, row_fields=3, name_bytes=5, depth=2, columns_sure=4)
    rows = [
        b'{"a":"' + b"x" * 52 + b'"}', b'{"a":"' + b"x" * 53 + b'"}', b'{"a":1,"b":2,"c":3}',
        b'{"a":1,"b":2,"c":3,"d":4}', b'{"abcde":1}', b'{"abcdef":1}', b'{"a":{"b":{"c":1}}}',
        b'{"a":{"b":{"c":{"d":1}}}}', b'{"a":[[1]]}', b'{"a":[[[1]]]}', b'{"a":[{"b":[]}]}',
        b'{"a":[[{}]]}', b'{"a":1,"b":1,"c":1}', b'{"d":1,"e":1}',
    ]  # fmt: skip
    for row in rows:
        both(row + b"\n" + rows[2], small)
    assert both(rows[0] + b" \r\n" + rows[1], small, must=True)


def test_many_columns_are_declined() -> None:
    """Folding rare fields is the Python path's: more columns than are sure to stay are not the kernel's."""
    body = b"".join(b'{"k%d":1}\n' % i for i in range(LIMITS.columns_sure))
    assert both(body, must=True)
    assert both(body + b'{"one":"more"}') is None


def test_a_dictionary_column_has_the_values_in_order() -> None:
    """Numbered as pyarrow does it; too many values, or a number among them, make it text."""
    hints = native.Hints(dictionaries=("s",))
    usual = [b'{"s":"%s"}' % name for name in (b"b", b"a", b"b", b"", b"c" * 300, b"a")]
    for lines in (usual, [*usual, b'{"t":1}', *usual]):
        parsed = native.parse(b"\n".join(lines), LIMITS, hints)
        assert parsed is not None
        plain = native.parse(b"\n".join(lines), LIMITS)
        assert plain is not None
        encoded = plain.columns["s"].dictionary_encode()
        parsed.columns["s"].validate(full=True)
        assert parsed.columns["s"].dictionary.equals(encoded.dictionary)
        assert parsed.columns["s"].equals(encoded)
    for other in ([*usual, b'{"s":5}'], [b'{"s":"%d"}' % i for i in range(5000)]):
        body = b"\n".join(other)
        parsed = native.parse(body, LIMITS, hints)
        assert parsed is not None
        same(parsed, strict_lines.parse_slowly(body, LIMITS, keep))


def test_a_panic_costs_the_kernel_and_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that fails is not asked again; the Python path answers."""

    class Broken:
        asked = 0

        def parse_ndjson(self, *_: Any) -> None:
            self.asked += 1
            raise RuntimeError("the JSON kernel panicked")

    broken = Broken()
    monkeypatch.setattr(native, "_kernel", broken)
    monkeypatch.setattr(native, "_why", "")
    assert native.parse(b"{}", LIMITS) is None
    assert native.parse(b"{}", LIMITS) is None
    assert broken.asked == 1
    assert not native.available()


def test_the_buffers_outlive_the_answer() -> None:
    """Columns stay valid when the body and the kernel's answer are gone, and nobody can write to them."""
    parsed = native.parse(
        b"".join(b'{"m":"row %d","n":%d}\n' % (i, i) for i in range(1000)), LIMITS
    )
    assert parsed is not None
    columns = parsed.columns
    del parsed
    assert columns["m"].to_pylist() == [f"row {i}" for i in range(1000)]
    assert pc.sum(columns["n"]).as_py() == 499_500
    assert not any(buffer.is_mutable for buffer in columns["n"].buffers() if buffer is not None)


def test_a_hostile_body_takes_no_more_than_its_share_of_memory() -> None:
    """Millions of rows of few bytes with many columns are declined before they fill memory."""
    head = b'{"a":1' + b"".join(b',"k%d":1' % i for i in range(90)) + b"}\n"
    assert native.parse(head + b"{}\n" * 500_000, LIMITS) is None


def test_rows_unlike_the_first_ones() -> None:
    """Room is made for rows like the first hundreds; what comes may be longer, shorter, or of other types."""
    short, long = b'{"m":"a","n":1}', b'{"m":"' + b"b" * 999 + b'","n":0.5,"new":true}'
    for lines in (
        [short] * 600 + [long] * 600,
        [long] * 300 + [short] * 900,
        [short] * 255 + [long],
    ):
        both(b"\n".join(lines), must=True)
