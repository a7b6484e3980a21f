"""Arrays and envelopes: where the kernel answers, it gives what walking the document gives."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.limits import Limits
from ingestor.parsers import json_document, native
from ingestor.parsers.json_document import Document
from tests.native.test_json_kernel import same
from tests.unit.ingestor.parsers.test_fast_and_slow import FRAGMENTS, REGULAR, ROWS, encoded, keep

LIMITS = Limits()
pytestmark = pytest.mark.skipif(not native.available(), reason=native.described())
EXAMPLES = settings(max_examples=100)


def both(body: bytes, limits: Limits = LIMITS, must: bool = False) -> Document | None:
    """What the kernel gives, compared with the walk; `must`: it may not decline."""
    kernel = json_document._with_kernel(body, limits, native.NO_HINTS)
    assert kernel is not None or not must
    if kernel is not None:
        slow = json_document.parse_slowly(body, limits, keep)
        same(kernel.parsed, slow.parsed)
        assert (kernel.enveloped, kernel.envelope) == (slow.enveloped, slow.envelope)
        for number in range(1, kernel.parsed.rows + 1):
            assert kernel.parsed.raw(number) == slow.parsed.raw(number)
    return kernel


@EXAMPLES
@given(
    rows=st.lists(st.one_of(REGULAR, ROWS), max_size=8),
    envelope=st.none() | st.dictionaries(st.sampled_from(["service", "epoch", "x"]), st.integers()),
    indent=st.sampled_from([None, 0, 2]),
)
def test_arrays_and_envelopes(
    rows: list[Any], envelope: dict[str, Any] | None, indent: Any
) -> None:
    """In one line or over many."""
    value: Any = rows if envelope is None else {**envelope, "logs": rows}
    both(json.dumps(value, indent=indent).encode("utf-8", "surrogatepass"))


@EXAMPLES
@given(
    rows=st.lists(REGULAR, min_size=1, max_size=4),
    enveloped=st.booleans(),
    place=st.integers(0, 10**6),
    junk=FRAGMENTS,
    cut=st.integers(0, 2),
)
def test_damaged_documents(
    rows: list[Any], enveloped: bool, place: int, junk: bytes, cut: int
) -> None:
    """Junk put anywhere: the kernel declines, or the walk agrees."""
    body = encoded({"service": "a", "logs": rows, "skip": []} if enveloped else rows, True)
    place %= len(body)
    both(body[:place] + junk + body[place + cut :])


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b" [ ] \n", b'[{"a":1}]', b'[\n{"a":1},\r\n\t{}\n]\n', b'{"logs":[]}',
        b'{"logs":[{"a":1}],"skip":[1]}', b'{"service":"s","logs":[{"service":"t"}],"epoch":null}',
    ],
)  # fmt: skip
def test_whole_documents_are_not_declined(body: bytes) -> None:
    """White space anywhere between tokens, other keys on both sides of the rows."""
    both(body, must=True)


@pytest.mark.parametrize(
    "body",
    [
        b"[", b"[{}", b"[{},]", b"[,{}]", b"[{}]]", b"[{}] x", b"[1]", b"[null]", b"[[{}]]",
        b'[{"a":1,"a":2}]', b'[{"a":"\xff"}]', b'{"logs":[{}]', b'{"logs":[{}]}}', b'{"logs":[{}],"logs":[]}',
        b'{"logs":[{}],}', b'{"service":"s","service":"t","logs":[{}]}', b'{"x\\"logs":[{"a":1}],"logs":[]}',
        b"\x0b[{}]",
        b'{"x":{"logs":[{}]}}', b'{"logs":[{}],"n":NaN}',
    ],
)  # fmt: skip
def test_what_is_broken_or_odd_is_declined(body: bytes) -> None:
    """The walk words the error, or sees what the document really is."""
    assert both(body) is None


def test_too_many_rows_are_declined() -> None:
    """The walk refuses them."""
    limits = replace(LIMITS, document_rows=3)
    assert both(b"[{},{},{}]", limits, must=True)
    assert both(b"[{},{},{},{}]", limits) is None
