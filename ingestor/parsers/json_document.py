"""One JSON document that holds many rows: an array of objects, or TraceHub's object with `logs`.

    [{…}, {…}]
    {"service":"pay", "producer":"pay-7f", "epoch":2, "logs":[{…}, …], "skip":[{"from":…, "to":…}]}

The fast way reads the whole document as *one* row with a list of structs, then takes the list's values
as columns: no loop over rows. The slow way walks the elements one by one, so that a bad element costs
itself alone; only a document whose syntax breaks is refused as a whole.
"""

import re
from dataclasses import dataclass, field, replace
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

import numpy as np
import pyarrow as pa

from ingestor.limits import Limits
from ingestor.parsers import native
from ingestor.parsers.base import BadRow, Parsed, RowError, quoted
from ingestor.parsers.fast_json import flat_columns, is_utf8, read_table
from ingestor.parsers.json_lines import KERNEL_BYTES, SAMPLE_ROWS, SMALL_BYTES
from ingestor.parsers.learned import LearnedSchemas
from ingestor.parsers.native import NO_HINTS, Hints
from ingestor.parsers.row_columns import RowColumns, flatten
from ingestor.parsers.strict_json import DECODER, LENIENT, checked_object, row_error
from ingestor.parsers.strict_lines import Keep, Teach
from records.errors import InvalidRequest, TooLarge

_SPACE = re.compile(r"[ \t\n\r]*")
_BOM = b"\xef\xbb\xbf"
#: The start of a document whose first array or object is `logs`.
_ENVELOPE_HEAD = re.compile(rb'\s*\{[^\[\]{}]{0,4096}?"logs"\s*:\s*\[')
_SKIPS = pa.list_(pa.struct([("from", pa.int64()), ("to", pa.int64()), ("reason", pa.string())]))
_ENVELOPE_FIELDS = [
    pa.field("service", pa.string()),
    pa.field("producer", pa.string()),
    pa.field("epoch", pa.int64()),
    pa.field("skip", _SKIPS),
]
#: Bytes at the start of the first element's array from which a sample is decoded.
_SAMPLE_BYTES = 64 << 10


@dataclass(slots=True)
class Document:
    """A document's rows and, for TraceHub's object, its other keys as they came."""

    parsed: Parsed
    enveloped: bool = False
    envelope: dict[str, Any] = field(default_factory=dict)


def looks_like_envelope(body: bytes) -> bool:
    """Whether the first array in `body` is the value of a key `logs` (the usual form)."""
    return _ENVELOPE_HEAD.match(body) is not None


def parse_document(
    body: bytes,
    limits: Limits,
    learned: LearnedSchemas,
    key: Any,
    keep: Keep,
    hints: Hints = NO_HINTS,
) -> Document:
    """The rows of an array, of an object with `logs`, or of one object that is itself a row.

    Raises:
        InvalidRequest: the document's syntax is broken (reason: bad_json); nothing of it is used.
        TooLarge: more than `document_rows` rows.
    """
    body = body.removeprefix(_BOM)
    if len(body) >= KERNEL_BYTES:
        document = _with_kernel(body, limits, hints)
        if document is not None:
            return document
    teach = None
    if len(body) >= SMALL_BYTES:
        document, teach = _fast(body, limits, learned, key)
        if document is not None:
            return document
    return parse_slowly(body, limits, keep, teach)


# ---- the native kernel -----------------------------------------------------------------------------


def _with_kernel(body: bytes, limits: Limits, hints: Hints) -> Document | None:
    """The kernel reads the rows; what stands around them is read with an empty array in their place."""
    head = _ENVELOPE_HEAD.match(body)
    if head is not None:
        if b"\\" in head.group():  # a key whose escaped end looks like `"logs"`
            return None
        start = head.end() - 1
        hints = replace(
            hints, dictionaries=()
        )  # the envelope's service may take the column's place
    else:
        start = len(body) - len(body.lstrip(b" \t\r\n"))
        if body[start : start + 1] != b"[":
            return None
    found = native.parse_elements(body, start, limits, hints)
    if found is None:
        return None
    columns, rows, end = found
    parsed = Parsed(columns, rows, _Raw(body, limits))
    if head is None:
        return None if body[end:].strip(b" \t\r\n") else Document(parsed)
    try:
        around = DECODER.decode((body[:start] + b"[]" + body[end:]).decode())
    except (ValueError, RecursionError):
        return None
    return Document(parsed, True, around) if around.pop("logs", None) == [] else None


# ---- the fast way ----------------------------------------------------------------------------------


def _fast(
    body: bytes, limits: Limits, learned: LearnedSchemas, key: Any
) -> tuple[Document | None, Teach | None]:
    text = body.lstrip(b" \t\r\n")
    enveloped = text[:1] == b"{"
    head = _ENVELOPE_HEAD.match(text) if enveloped else None
    if (enveloped and head is None) or not is_utf8(body):
        return None, None
    start = head.end() if head else 1
    sample = _first_elements(text[start : start + _SAMPLE_BYTES], limits)
    if not sample:
        return None, None
    key = (key, "document", tuple(sample[0]))
    if learned.hopeless(key):
        return None, None
    whole = text if enveloped else b'{"logs":' + text + b"}"
    known = learned.get(key)
    document = _read(whole, known, enveloped, body, limits) if known else None
    if document is None:
        fresh = learned.learn(key, sample)
        if fresh and fresh != known:
            document = _read(whole, fresh, enveloped, body, limits)
    if document is None:
        return None, lambda rows: learned.teach(key, rows)
    return document, None


def _first_elements(window: bytes, limits: Limits) -> list[dict[str, Any]]:
    """The first rows of an array whose `[` is just before `window`; as many as are whole and good."""
    text = window.decode("utf-8", "ignore")
    rows: list[dict[str, Any]] = []
    at = 0
    while len(rows) < SAMPLE_ROWS:
        at = _skip_space(text, at)
        try:
            value, at = DECODER.raw_decode(text, at)
            rows.append(checked_object(value, limits))
        except (ValueError, RecursionError, RowError):
            break
        at = _skip_space(text, at)
        if text[at : at + 1] != ",":
            break
        at += 1
    return rows


def _read(
    whole: bytes, fields: list[pa.Field], enveloped: bool, body: bytes, limits: Limits
) -> Document | None:
    logs = pa.field("logs", pa.list_(pa.struct(fields)))
    table = read_table(whole, [logs, *_ENVELOPE_FIELDS] if enveloped else [logs])
    if table is None or table.num_rows != 1:
        return None
    lists = table.column("logs").chunk(0)
    values = lists.flatten()
    if lists.null_count or values.null_count or len(values) > limits.document_rows:
        return None
    columns = flat_columns(values)
    if columns is None or _longest(columns) > limits.row_bytes:
        return None
    parsed = Parsed(columns, len(values), _Raw(body, limits))
    if not enveloped:
        return Document(parsed)
    others = {name: table.column(name)[0].as_py() for name in table.schema.names if name != "logs"}
    given = {name: value for name, value in others.items() if value is not None}
    return Document(parsed, True, given)


def _longest(columns: dict[str, pa.Array]) -> int:
    """Bytes of the longest value of text."""
    longest = 0
    for column in columns.values():
        if pa.types.is_string(column.type):
            offsets = np.frombuffer(
                column.buffers()[1], np.int32, len(column) + 1, column.offset * 4
            )
            longest = max(longest, int(np.diff(offsets).max(initial=0)))
    return longest


class _Raw:
    """The bytes of the n-th element; found by walking the document, once, when first asked for."""

    def __init__(self, body: bytes, limits: Limits) -> None:
        self._body = body
        self._limits = limits
        self._spans: list[tuple[int, int]] | None = None
        self._text = ""

    def __call__(self, number: int) -> bytes:
        if self._spans is None:
            walk = _Walk(self._body, self._limits, RowColumns(self._limits, lambda _: False), None)
            walk.document()
            self._spans, self._text = walk.spans, walk.text
        start, end = self._spans[number - 1]
        return self._text[start:end].encode("utf-8", "surrogateescape")


# ---- the slow way ----------------------------------------------------------------------------------


def parse_slowly(body: bytes, limits: Limits, keep: Keep, teach: Teach | None = None) -> Document:
    """Element by element. Raises as `parse_document`."""
    columns = RowColumns(limits, keep)
    rows: list[dict[str, Any]] | None = None if teach is None else []
    walk = _Walk(body, limits, columns, rows)
    walk.document()
    if teach is not None and rows is not None:
        teach(rows)
    raw = _Raw(body, limits)
    raw._spans, raw._text = walk.spans, walk.text
    numbers = np.array(walk.numbers, np.int64) if walk.bad else None
    parsed = Parsed(columns.build(), columns.rows, raw, numbers, walk.bad)
    return Document(parsed, walk.enveloped, walk.envelope)


class _Walk:
    """Walks one document; good rows go to `columns`, bad ones to `bad`, bounds of each to `spans`."""

    def __init__(
        self,
        body: bytes,
        limits: Limits,
        columns: RowColumns,
        rows: list[dict[str, Any]] | None,
    ) -> None:
        self.text = body.decode("utf-8", "surrogateescape")
        self.spans: list[tuple[int, int]] = []
        self.numbers: list[int] = []
        self.bad: list[BadRow] = []
        self.enveloped = False
        self.envelope: dict[str, Any] = {}
        self._escaped = not is_utf8(body)
        self._limits = limits
        self._columns = columns
        self._rows = rows

    def document(self) -> None:
        """Reads all of it."""
        at = _skip_space(self.text, 0)
        first = self.text[at : at + 1]
        if first == "[":
            at = self._array(at + 1)
        elif first == "{":
            at = self._object(at)
        else:
            raise _broken("a JSON array or object is expected", at)
        at = _skip_space(self.text, at)
        if at != len(self.text):
            error = _broken("more stands behind the document", at)
            error.details["trailing"] = first == "{"
            raise error

    def _object(self, start: int) -> int:
        """An envelope if it has a key `logs`, else one row."""
        at = _skip_space(self.text, start + 1)
        closed = self.text[at : at + 1] == "}"
        while not closed:
            name, at = self._key(at)
            if name in self.envelope or (name == "logs" and self.enveloped):
                raise _broken(f"the key {quoted(name)} stands twice", at)
            if name == "logs" and self.text[at : at + 1] == "[":
                self.enveloped = True
                at = self._array(at + 1)
            else:
                self.envelope[name], at = self._value(at)
            at = _skip_space(self.text, at)
            mark = self.text[at : at + 1]
            if mark not in (",", "}"):
                raise _broken("a comma or } is expected", at)
            closed = mark == "}"
            at = at if closed else _skip_space(self.text, at + 1)
        if not self.enveloped:
            self.envelope = {}
            self._element(start)
        return at + 1

    def _key(self, at: int) -> tuple[str, int]:
        if self.text[at : at + 1] != '"':
            raise _broken("a key in double quotes is expected", at)
        try:
            name, at = scanstring(self.text, at + 1, True)
        except ValueError as error:
            raise _broken(str(error), at) from None
        at = _skip_space(self.text, at)
        if self.text[at : at + 1] != ":":
            raise _broken("a colon is expected", at)
        return name, _skip_space(self.text, at + 1)

    def _value(self, at: int) -> tuple[Any, int]:
        try:
            return DECODER.raw_decode(self.text, at)
        except (ValueError, RecursionError) as error:
            raise _broken(row_error(error).reason, at) from None

    def _array(self, at: int) -> int:
        at = _skip_space(self.text, at)
        if self.text[at : at + 1] == "]":
            return at + 1
        while True:
            at = _skip_space(self.text, self._element(at))
            mark = self.text[at : at + 1]
            if mark == "]":
                return at + 1
            if mark != ",":
                raise _broken("a comma or ] is expected", at)
            at = _skip_space(self.text, at + 1)

    def _element(self, start: int) -> int:
        """One row; returns where it ends. What is wrong within it costs this row alone."""
        number = len(self.spans) + 1
        if number > self._limits.document_rows:
            raise TooLarge(f"more than {self._limits.document_rows} rows in one document")
        error: RowError | None = None
        value = None
        try:
            value, end = DECODER.raw_decode(self.text, start)
        except (ValueError, RecursionError) as caught:
            error = row_error(caught)
            value, end = self._resume(start, error)
        self.spans.append((start, end))
        if error is None:
            error = self._take(value, start, end)
        if error is not None:
            raw = self.text[start : min(end, start + self._limits.failed_row_bytes)]
            cut = raw.encode("utf-8", "surrogateescape")[: self._limits.failed_row_bytes]
            seq = value.get("seq") if isinstance(value, dict) else None
            known = seq if type(seq) is int else None
            self.bad.append(BadRow(number, error.code, error.reason, cut, known))
        else:
            self.numbers.append(number)
        return end

    def _take(self, value: Any, start: int, end: int) -> RowError | None:
        try:
            if end - start > self._limits.row_bytes_max:
                return RowError("row_too_large", f"over {self._limits.row_bytes_max} bytes")
            if self._escaped:
                _check_utf8(self.text[start:end])
            row = checked_object(value, self._limits)
            self._columns.add(flatten(row, self._limits))
        except RowError as error:
            return error
        if self._rows is not None:
            self._rows.append(row)
        return None

    def _resume(self, start: int, error: RowError) -> tuple[Any, int]:
        """What can be known of a bad row (its seq), and where it ends."""
        if error.code == "duplicate_key":
            return LENIENT.raw_decode(self.text, start)
        if error.code == "too_deep":
            found = _LEADING_SEQ.match(self.text, start)
            value = {"seq": int(found.group(1))} if found else None
            return value, _matching_end(self.text, start)
        raise _broken(error.reason, start)


_LEADING_SEQ = re.compile(r'\{\s*"seq"\s*:\s*(\d{1,18})\b')
#: A string (the last one perhaps without an end: else each quote in it would be tried), or a bracket.
_MARKS = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def _matching_end(text: str, start: int) -> int:
    """Where the value that opens at `start` closes, by counting brackets outside of strings."""
    depth = 0
    for found in _MARKS.finditer(text, start):
        mark = found.group()
        if mark in ("[", "{"):
            depth += 1
        elif mark in ("]", "}"):
            depth -= 1
            if depth == 0:
                return found.end()
    raise _broken("the document ends within a row", start)


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError("bad_utf8", f"character {error.start + 1} is not UTF-8") from None


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _broken(reason: str, at: int) -> InvalidRequest:
    return InvalidRequest(f"{reason}, at character {at + 1}", reason="bad_json")
