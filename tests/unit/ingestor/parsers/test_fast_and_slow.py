"""The fast way and the slow way are one parser: same rows, same verdicts, whatever comes.

Differential tests. The slow way (line by line, Python's json with strict hooks) is the reference; the
fast way (pyarrow under a learned schema) may decline, but where it answers, it has to agree.
"""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.limits import Limits
from ingestor.parsers import csv_rows, json_document, json_lines, native, segments, strict_lines
from ingestor.parsers.base import Parsed
from ingestor.parsers.learned import LearnedSchemas

LIMITS = Limits()


@pytest.fixture(autouse=True)
def _without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two Python ways are compared here, also where the native kernel is installed."""
    monkeypatch.setattr(native, "_kernel", None)


def keep(_: str) -> bool:
    return False


def plain_rows(parsed: Parsed) -> list[dict[str, Any]]:
    """Rows as dicts without nulls; numbers as numbers, so that 1 and 1.0 are the same."""
    names = list(parsed.columns)
    table = pa.table([parsed.columns[name] for name in names], names=names) if names else None
    rows = table.to_pylist() if table is not None else [{} for _ in range(parsed.rows)]
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


def same(fast: Parsed | None, slow: Parsed) -> None:
    """The fast way declined, or gives just what the slow way gives."""
    if fast is None:
        return
    assert not fast.bad
    assert [(row.number, row.code) for row in slow.bad] == []
    assert fast.rows == slow.rows
    assert set(fast.columns) == set(slow.columns)
    assert plain_rows(fast) == plain_rows(slow)
    for name, column in fast.columns.items():
        assert pa.types.is_boolean(column.type) == pa.types.is_boolean(slow.columns[name].type)
        assert pa.types.is_string(column.type) == pa.types.is_string(slow.columns[name].type)


def fast_lines(body: bytes, learned: LearnedSchemas) -> Parsed | None:
    key = ("k", json_lines._first_keys(body, LIMITS))
    return json_lines._fast(body, LIMITS, learned, key)


# ---- values ----------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", "2026-11-21T00:00:00Z", "true", "1", "null", "\x00", "\u2028", "😀", "é", "\ud83d"]
    ),
)
NUMBERS = st.one_of(
    st.integers(-(1 << 66), 1 << 66),
    st.integers(-100, 100),
    st.sampled_from(
        [0, -1, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, -(1 << 63)]
    ),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1e300, 5e-324, 1.0, -1.5]),
)
SCALARS = st.one_of(TEXTS, NUMBERS, st.booleans(), st.none())
NAMES = st.sampled_from(["a", "b", "c", "a.b", "msg", "", "é", "x" * 300])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.dictionaries(NAMES, inner, max_size=3), st.lists(inner, max_size=2)),
    max_leaves=4,
)
ROWS = st.dictionaries(NAMES, VALUES, max_size=5)
#: Rows of one shape, as most logs are: the fast way answers these.
REGULAR = st.fixed_dictionaries(
    {"msg": TEXTS, "n": st.integers(-(1 << 63), (1 << 63) - 1), "ok": st.booleans()},
    optional={
        "f": st.one_of(
            st.floats(allow_nan=False, allow_infinity=False), st.integers(-(1 << 54), 1 << 54)
        ),
        "http": st.fixed_dictionaries({"path": TEXTS}, optional={"code": st.integers(0, 999)}),
        "none": st.none(),
    },
)


def encoded(row: Any, ascii_only: bool) -> bytes:
    text = json.dumps(row, ensure_ascii=ascii_only)
    return text.encode("utf-8", "surrogatepass")


@settings(max_examples=80)
@given(rows=st.lists(st.one_of(ROWS, REGULAR), min_size=1, max_size=12), ascii_only=st.booleans())
def test_valid_rows_of_any_shape(rows: list[Any], ascii_only: bool) -> None:
    """Nested, mixed types, big numbers, lone surrogates: both ways see the same."""
    body = b"\n".join(encoded(row, ascii_only) for row in rows)

    same(fast_lines(body, LearnedSchemas(LIMITS)), json_lines.parse_slowly(body, LIMITS, keep))


@settings(max_examples=100)
@given(rows=st.lists(REGULAR, min_size=1, max_size=12), end=st.sampled_from([b"", b"\n"]))
def test_regular_rows_take_the_fast_way(rows: list[Any], end: bytes) -> None:
    """Rows of one shape (within what a double holds) are not declined."""
    body = b"\n".join(encoded(row, True) for row in rows) + end
    fast = fast_lines(body, LearnedSchemas(LIMITS))
    slow = json_lines.parse_slowly(body, LIMITS, keep)

    same(fast, slow)
    odd = any(
        abs(row.get("f", 0)) >= 1 << 53 or "\\ud83d" in json.dumps(row) or row.get("http") == {}
        for row in rows
    )
    assert odd or fast is not None


HOSTILE = st.sampled_from(
    [
        b"", b" ", b"\r", b"{", b"}", b"[", b"]", b"{}", b"[]", b"null", b"5", b'"x"', b"{}{}", b"{} {}",
        b'{"msg":1}', b'{"msg":"a","msg":"b"}', b'{"msg":"a\tb"}', b'{"msg":"a\x00b"}', b'{"msg":"\xff"}',
        b'{"msg":"\xed\xa0\x80"}', b'{"msg":"\\ud800"}', b'{"msg":"\\u0000"}', b'{"n":NaN}', b'{"n":-0}',
        b'{"n":Infinity}', b'{"n":1e999}', b'{"n":01}', b'{"n":1.}', b'{"n":9223372036854775808}',
        b'{"n":1.0}', b'{"n":1e2}', b"{'msg':1}", b'{"msg":"a",}', b'{"msg":"a"},', b'{"a":{"b":1},"a.b":2}',
        b'{"msg":"a"', b'"}', b'{"msg":\n"a"}', b'{"msg":"a"}\r', b'\xef\xbb\xbf{"msg":"a"}',
        b'{"n":null,"n":1}', b'{"\\u006dsg":"a","msg":"b"}', b'{"msg":"a"}//',
        b'{"http":{"path":"/","path":1}}',
        b'{"http":[]}', b'{"http":{}}', b'{"http":5}', b'{"n":' + b"1" * 5000 + b"}", b'{"f":0.1}',
        b'{"f":NaN}', b'{"f":-Infinity}', b'{"f":-0.0}', b'{"f":9007199254740993}', b'{"f":7}',
        b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", b'{"a":' * 100 + b"1" + b"}" * 100,
    ]
)  # fmt: skip
FRAGMENTS = st.one_of(
    REGULAR.map(lambda row: encoded(row, True)),
    HOSTILE,
    st.binary(max_size=8),
    st.text(alphabet='{}[]",:\\ntrue01.eE-+ \t\r', max_size=12).map(str.encode),
)


@settings(max_examples=80)
@given(
    lines=st.lists(FRAGMENTS, min_size=1, max_size=8),
    glue=st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
)
def test_broken_and_hostile_lines(lines: list[bytes], glue: bytes) -> None:
    """The fast way never accepts what the slow way would refuse, and never sees other rows."""
    learned = LearnedSchemas(LIMITS)
    good = b'{"msg":"x","n":1,"ok":true,"f":0.5,"http":{"path":"/","code":1}}'
    fast_lines(b"\n".join([good] * 4), learned)  # a schema that fits is known already
    body = glue.join(lines)

    slow = json_lines.parse_slowly(body.removeprefix(b"\xef\xbb\xbf"), LIMITS, keep)
    fast = fast_lines(body.removeprefix(b"\xef\xbb\xbf"), learned)

    same(fast, slow)


@settings(max_examples=80)
@given(rows=st.lists(st.one_of(REGULAR, ROWS), min_size=1, max_size=8), enveloped=st.booleans())
def test_arrays_and_envelopes(rows: list[Any], enveloped: bool) -> None:
    """A document read as one row of a list gives the same columns as walking it."""
    value: Any = {"service": "a", "logs": rows} if enveloped else rows
    body = encoded(value, True)

    fast, _ = json_document._fast(body, LIMITS, LearnedSchemas(LIMITS), "k")
    slow = json_document.parse_slowly(body, LIMITS, keep)

    assert slow.enveloped == enveloped
    if fast is not None:
        same(fast.parsed, slow.parsed)
        assert (fast.enveloped, fast.envelope) == (slow.enveloped, slow.envelope)
        for number in range(1, len(rows) + 1):
            assert json.loads(fast.parsed.raw(number)) == json.loads(json.dumps(rows[number - 1]))


@settings(max_examples=100)
@given(
    rows=st.lists(REGULAR, min_size=1, max_size=4),
    place=st.integers(0, 10**6),
    junk=FRAGMENTS,
    cut=st.integers(0, 2),
)
def test_damaged_documents(rows: list[Any], place: int, junk: bytes, cut: int) -> None:
    """Junk put into a document: the fast way declines, or the slow way agrees with it."""
    learned = LearnedSchemas(LIMITS)
    body = encoded(rows, True)
    json_document._fast(body, LIMITS, learned, "k")
    place %= len(body)
    damaged = body[:place] + junk + body[place + cut :]

    fast, _ = json_document._fast(damaged, LIMITS, learned, "k")
    if fast is not None:
        same(fast.parsed, json_document.parse_slowly(damaged, LIMITS, keep).parsed)


CELLS = st.one_of(
    st.text(alphabet='ab1,"\n\r é', max_size=6),
    st.sampled_from(["", "x", "2026-11-21", '"', '""', '"a"b', 'a"b']),
)


def quoted_cell(cell: str, quote: bool) -> str:
    if quote or any(char in cell for char in ',"\n\r'):
        return '"' + cell.replace('"', '""') + '"'
    return cell


@settings(max_examples=100)
@given(
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=8),
    quote=st.booleans(),
    raw=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_both_ways(rows: list[list[str]], quote: bool, raw: bool, end: str) -> None:
    """Short rows, long rows, quotes in odd places, line ends within quotes."""
    lines = [",".join(cell if raw else quoted_cell(cell, quote) for cell in row) for row in rows]
    body = end.join(["a,b,c", *lines]).encode()
    names = ["a", "b", "c"]

    records = csv_rows._records(body)
    next(records)
    slow = csv_rows._slow(records, names, LIMITS, True)
    fast = csv_rows._fast(body[len("a,b,c" + end) :], names, LIMITS, True)

    same(fast, slow)


@pytest.mark.parametrize("rows", [60, 500])
def test_a_batch_with_a_new_field_is_read_and_the_field_learned(rows: int) -> None:
    """A schema that lacks a field sends one batch the slow way; the next goes fast."""
    learned = LearnedSchemas(LIMITS)
    body = b"".join(b'{"msg":"%d","n":1}\n' % i for i in range(rows))
    more = body[:-1] + b'\n{"msg":"x","n":2,"extra":"y"}\n' + body

    assert fast_lines(body, learned) is not None
    parsed = json_lines.parse_json_lines(more * 10, LIMITS, learned, "k", keep)
    again = fast_lines(more * 10, learned)

    assert parsed.columns["extra"].null_count == parsed.rows - 10
    assert again is not None
    assert plain_rows(again) == plain_rows(parsed)


BLOCK = st.sampled_from(
    [
        b'{"msg":"x","n":1,"ok":true,"f":0.5}', b'{"msg":"y","n":2,"ok":false,"f":7}', b'{"msg":"only"}',
        b'{"msg":"z","n":1.5,"ok":true,"new":"field"}', b'{"msg":5,"n":1}',
        b'{"msg":"a","n":9007199254740993}',
        b'{"msg":"a","http":{"path":"/"}}', b'{"tags":[1,2]}', b"broken", b"", b'{"msg":"a"', b'{"f":"text"}',
        b'{"msg":"\xff"}', b'{"n":true}',
    ]
)  # fmt: skip


@settings(max_examples=80)
@given(
    blocks=st.lists(st.tuples(BLOCK, st.integers(1, 40)), min_size=3, max_size=30), data=st.data()
)
def test_segments_agree_with_the_slow_way(blocks: list[tuple[bytes, int]], data: Any) -> None:
    """Fast segments and slow ones joined are what the slow way makes of the whole."""
    body = b"\n".join(line for line, count in blocks for _ in range(count))
    schema = LearnedSchemas(LIMITS)
    shape = [{"msg": "x", "n": 1, "ok": True, "f": 0.5}]
    fields = schema.learn("k", shape)
    assert fields is not None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "SMALLEST_BYTES", data.draw(st.sampled_from([40, 200])))
        patch.setattr(segments, "SLOW_SHARE", 1.0)
        parsed = segments.parse_in_segments(body, fields, LIMITS, keep)
    if parsed is None:
        return
    slow = json_lines.parse_slowly(body, LIMITS, keep)

    assert [(b.number, b.code, b.raw) for b in parsed.bad] == [
        (b.number, b.code, b.raw) for b in slow.bad
    ]
    assert plain_rows(parsed) == plain_rows(slow)
    assert parsed.row_numbers().tolist() == slow.row_numbers().tolist()
    assert kinds(parsed) == kinds(slow)


def kinds(parsed: Parsed) -> dict[str, str]:
    """Types by name; a whole number may have been read as a double, as an earlier batch taught."""
    names = {"int64": "number", "double": "number"}
    return {name: names.get(str(c.type), str(c.type)) for name, c in parsed.columns.items()}


def test_one_bad_line_does_not_slow_all_others() -> None:
    """20 000 rows and one bad one: counted in lines that were read one by one."""
    lines = [b'{"msg":"row %d","n":%d}' % (i, i) for i in range(20_000)]
    lines[7_000] = b'{"msg":}'
    body = b"\n".join(lines)
    read = 0

    def counting(segment: bytes, *args: Any) -> Parsed:
        nonlocal read
        read += segment.count(b"\n") + 1
        return strict_lines.parse_slowly(segment, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "parse_slowly", counting)
        parsed = json_lines.parse_json_lines(body, LIMITS, LearnedSchemas(LIMITS), "k", keep)

    assert [(row.number, row.code, row.raw) for row in parsed.bad] == [
        (7_001, "bad_json", b'{"msg":}')
    ]
    assert (parsed.rows, parsed.total) == (19_999, 20_000)
    assert parsed.row_numbers()[7_000] == 7_002
    assert parsed.raw(7_002) == lines[7_001]
    assert 0 < read < 2_000


def test_strings_that_look_like_dates_stay_strings() -> None:
    """pyarrow would infer times; the explicit schema forbids it."""
    body = b'{"d":"2026-11-21","e":"2026-11-21T00:00:00Z"}\n' * 300
    parsed = json_lines.parse_json_lines(body, LIMITS, LearnedSchemas(LIMITS), "k", keep)
    assert parsed.columns["d"].to_pylist()[0] == "2026-11-21"
    assert pa.types.is_string(parsed.columns["e"].type)


def test_tenants_do_not_share_schemas() -> None:
    """What one tenant sends cannot slow another's batches down."""
    learned = LearnedSchemas(LIMITS)
    hostile = b"".join(b'{"msg":"x","k%d":1}\n' % i for i in range(300)) * 2
    json_lines.parse_json_lines(hostile, LIMITS, learned, "evil", keep)
    body = b'{"msg":"x","k0":1}\n' * 1000

    json_lines.parse_json_lines(body, LIMITS, learned, "good", keep)

    assert learned.get(("good", ("msg", "k0"))) is not None


def test_learned_schemas_are_bounded() -> None:
    """A client with ever new keys fills no memory."""
    learned = LearnedSchemas(LIMITS)
    for i in range(2000):
        learned.learn(i, [{"a": i}])
        learned.teach(("x", i), [{"a": [1]}])
    assert len(learned._known) <= 512
    assert len(learned._hopeless) <= 512
