"""CSV with a header row, RFC 4180 quoting: any column names, all values text.

A short row lacks its last fields, a long one is bad (`csv_columns`). An empty field is an absent one. If
no column can be the message, the raw line is. A quote that never closes makes one bad row of the rest.
Quotes where RFC 4180 has none (`a"b`, `"a"b`) are taken as pyarrow and Python's csv both take them.
"""

import csv
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from ingestor.limits import MIB, Limits
from ingestor.parsers.base import BadRow, Parsed, quoted
from ingestor.parsers.fast_json import is_utf8
from ingestor.parsers.lines import text_lines
from records.errors import InvalidRequest, TooLarge

pc: Any = pyarrow.compute
MESSAGE_COLUMN = "message"
_BOM = b"\xef\xbb\xbf"
#: A value that no honest row consists of; it ends a body whose quotes might not be closed.
_END = "\x1e"
csv.field_size_limit(512 * MIB)


def parse_csv(body: bytes, limits: Limits, message_names: tuple[str, ...]) -> Parsed:
    """The rows after the header. `message_names`: columns that can be the message.

    Raises:
        InvalidRequest: no header, or one that names a column twice (`reason`: bad_csv_header).
        TooLarge: too many rows or columns.
    """
    body = body.removeprefix(_BOM)
    records = _records(body)
    first = next(records, None)
    if first is None:
        raise InvalidRequest("the body has no header row", reason="bad_csv_header")
    header, raw = first
    names = _header(header, limits)
    wants_line = not any(name in message_names for name in names)
    parsed = _fast(body[len(raw) :], names, limits, wants_line)
    if parsed is None:
        parsed = _slow(records, names, limits, wants_line)
    parsed.raw = _Raw(body)
    return parsed


def _header(fields: list[str], limits: Limits) -> list[str]:
    names = [name or f"column_{index}" for index, name in enumerate(fields, 1)]
    if len(names) > limits.row_fields:
        raise TooLarge(f"the header has {len(names)} columns; at most {limits.row_fields}")
    for name in names:
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise InvalidRequest("the header is not UTF-8", reason="bad_utf8") from None
        if size > limits.name_bytes or "\0" in name or names.count(name) > 1:
            text = f"column {quoted(name)} is named twice, too long or holds NUL"
            raise InvalidRequest(text, reason="bad_csv_header")
    return names


def _fast(body: bytes, names: list[str], limits: Limits, wants_line: bool) -> Parsed | None:
    """All rows by pyarrow's reader; None at any doubt."""
    if not is_utf8(body) or not body.strip(b"\r\n") or _may_be_long(body, limits):
        return None
    guard = b'"' in body
    if guard:
        body += b"\n" + ",".join([_END] * len(names)).encode() + b"\n"
    try:
        table = _read(body, names)
    except (pa.ArrowException, ValueError):
        return None
    if guard:
        if table.slice(table.num_rows - 1).to_pylist() != [dict.fromkeys(names, _END)]:
            return None
        table = table.slice(0, table.num_rows - 1)
    rows = table.num_rows
    if rows > limits.document_rows:
        raise TooLarge(f"more than {limits.document_rows} rows in one document")
    columns = {name: table.column(name).combine_chunks() for name in names}
    if wants_line:
        lines = _lines(body, rows, rows + guard)
        if lines is None:
            return None
        columns[MESSAGE_COLUMN] = lines
    columns = {name: column for name, column in columns.items() if column.null_count < rows}
    return Parsed(columns, rows, lambda _: b"")


def _may_be_long(body: bytes, limits: Limits) -> bool:
    """Whether a row could be over the limit."""
    if len(body) <= limits.row_bytes_max:
        return False
    ends = np.flatnonzero(np.frombuffer(body, np.uint8) == ord("\n"))
    longest = np.diff(ends, prepend=-1, append=len(body)).max()
    return b'"' in body or bool(longest > limits.row_bytes_max)


def _read(body: bytes, names: list[str]) -> pa.Table:
    return pyarrow.csv.read_csv(
        pa.BufferReader(body),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=len(body) + 1, column_names=names
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )


def _lines(body: bytes, rows: int, expected: int) -> pa.Array | None:
    """The body's first `rows` lines as strings, if it has just `expected` that are not empty."""
    if body.count(b"\r") != body.count(b"\r\n"):
        return None
    lines = text_lines(body)
    return lines.slice(0, rows) if len(lines) == expected else None


def _slow(
    records: Iterator[tuple[list[str], bytes]], names: list[str], limits: Limits, wants_line: bool
) -> Parsed:
    """Record by record."""
    width = len(names)
    values: list[list[str | None]] = [[] for _ in range(width + 1)]
    bad: list[BadRow] = []
    numbers: list[int] = []
    for number, (fields, raw) in enumerate(records, 1):
        if number > limits.document_rows:
            raise TooLarge(f"more than {limits.document_rows} rows in one document")
        wrong = _wrong(fields, raw, width, limits)
        if wrong is not None:
            bad.append(BadRow(number, *wrong, raw.rstrip(b"\r\n")[: limits.failed_row_bytes]))
            continue
        numbers.append(number)
        for index in range(width):
            values[index].append((fields[index] or None) if index < len(fields) else None)
        values[width].append(raw.decode().rstrip("\r\n"))
    columns = {name: pa.array(values[index], pa.string()) for index, name in enumerate(names)}
    if wants_line:
        columns[MESSAGE_COLUMN] = pa.array(values[width], pa.string())
    rows = len(numbers)
    columns = {name: column for name, column in columns.items() if column.null_count < rows}
    known = np.array(numbers, np.int64) if bad else None
    return Parsed(columns, rows, lambda _: b"", known, bad)


def _wrong(fields: list[str], raw: bytes, width: int, limits: Limits) -> tuple[str, str] | None:
    """(code, reason) of a bad record."""
    if len(raw) > limits.row_bytes_max:
        return "row_too_large", f"{len(raw)} bytes; at most {limits.row_bytes_max}"
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return "bad_utf8", f"byte {error.start + 1} is not UTF-8"
    if b'"' in raw and _unclosed(raw):
        return "csv_quote", "a quote is never closed"
    if len(fields) > width:
        return "csv_columns", f"{len(fields)} columns; the header has {width}"
    return None


def _unclosed(raw: bytes) -> bool:
    """Whether a quote is open at the end: then what follows would belong to the same record."""
    text = raw.decode().rstrip("\r\n") + "\n" + _END
    return list(csv.reader(io.StringIO(text, newline="")))[-1] != [_END]


def _records(body: bytes) -> Iterator[tuple[list[str], bytes]]:
    """Each record's fields and bytes; empty lines are none."""
    lines = _Recorder(body)
    for fields in csv.reader(lines):
        raw = lines.taken()
        if fields:
            yield fields, raw


class _Recorder:
    """Hands out lines and remembers which ones the reader took for a record."""

    def __init__(self, body: bytes) -> None:
        self._lines = io.StringIO(body.decode("utf-8", "surrogateescape"), newline="")
        self._taken: list[str] = []

    def __iter__(self) -> "_Recorder":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken.append(line)
        return line

    def taken(self) -> bytes:
        """The bytes since the last call."""
        raw = "".join(self._taken).encode("utf-8", "surrogateescape")
        self._taken.clear()
        return raw


class _Raw:
    """The bytes of a record by number; reads the body again, once, when first asked for."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._records: list[bytes] | None = None

    def __call__(self, number: int) -> bytes:
        if self._records is None:
            self._records = [raw.rstrip(b"\r\n") for _, raw in _records(self._body)]
        return self._records[number]
