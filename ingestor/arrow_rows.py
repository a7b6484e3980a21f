"""An Arrow IPC stream as rows: no text is parsed, but nothing that it says is believed either.

First the messages are walked by their metadata alone (`arrow_walk`): kinds, rows, what reading them would
cost; no compressed buffers (an encoding of the request is the way to compress). Then each batch is read
without a copy and validated in full: lengths, offsets, dictionary indices, UTF-8. Only flat columns that
rows can have are taken: text, numbers, booleans, times, dictionaries of text.

What a batch as a whole cannot be (a column of another type, damage) refuses the request and names the
column or batch; a value that a row cannot have (a time outside the years 1..9999, NaN, a row too large)
makes that row bad, as in JSON. The schema's metadata may hold, under `quorumlog`, a JSON object with
service, producer, epoch and skip: then the column `seq` numbers the rows, as in TraceHub's object.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ingestor.arrow_walk import DAMAGE, bad_column, damaged, walk
from ingestor.limits import Limits
from ingestor.parsers.base import BadRow, Parsed
from ingestor.parsers.json_document import Document
from ingestor.parsers.row_columns import json_text
from ingestor.timestamps import FIRST_MICROS, LAST_MICROS
from records.columns import DICTIONARY
from records.errors import InvalidRequest, TooLarge

pc: Any = pyarrow.compute
CONTENT_TYPE = "application/vnd.apache.arrow.stream"
ENVELOPE_KEY = b"quorumlog"
TIME = "timestamp"
#: Columns that may stay dictionaries: few values, and everything after this knows them as such.
_CODED = frozenset({"service", "level", "host"})
#: Rows written out at once, at most, to keep one that is bad.
WINDOW_ROWS = 1_024
_END = b"\xff\xff\xff\xff\0\0\0\0"
_MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}


def parse_arrow(body: bytes, limits: Limits) -> Document:
    """The rows of a stream.

    Raises:
        InvalidRequest: `reason` is bad_arrow, bad_column or truncated.
        TooLarge: more rows than a document may have, or it would cost too much to read.
    """
    if not body.endswith(_END):
        raise InvalidRequest("the Arrow stream has no end mark", reason="truncated")
    rows = walk(body, limits)
    table = _read(body)
    if table.num_rows != rows:
        raise damaged(f"{table.num_rows} rows were read, {rows} announced")
    columns, wrong = _columns(table, limits)
    document = Document(_parsed(table, columns, wrong))
    text = (table.schema.metadata or {}).get(ENVELOPE_KEY)
    if text is not None:
        document.enveloped, document.envelope = True, _envelope(text)
    return document


def _envelope(text: bytes) -> dict[str, Any]:
    try:
        envelope = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("the schema's metadata: bad JSON", reason="bad_arrow") from error
    if not isinstance(envelope, dict):
        raise InvalidRequest("the schema's metadata: an object is expected", reason="bad_arrow")
    return envelope


# ---- the columns


def _read(body: bytes) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            schema = reader.schema
            for batch in reader:
                batch.validate(full=True)
                batches.append(batch)
        return pa.Table.from_batches(batches, schema)
    except DAMAGE as error:
        raise damaged(f"batch {len(batches)}: {error}") from error


class _Wrong:
    """Which rows cannot stay, and why: the first reason counts."""

    def __init__(self) -> None:
        self.reasons: dict[int, tuple[str, str]] = {}

    def mark(self, rows: np.ndarray, code: str, reason: str) -> None:
        for row in np.flatnonzero(rows).tolist():
            self.reasons.setdefault(row, (code, reason))


def _columns(table: pa.Table, limits: Limits) -> tuple[dict[str, pa.Array], _Wrong]:
    wrong = _Wrong()
    columns: dict[str, pa.Array] = {}
    sizes = np.zeros(table.num_rows, np.int64)
    texts: list[tuple[str, pa.Array]] = []
    for name, chunked in zip(table.schema.names, table.columns, strict=True):
        array = _one(chunked)
        if array.null_count == len(array):
            continue
        if _is_text(array.type):
            sizes += _sizes(array)
            texts.append((name, array))
        else:
            columns[name] = _plain(name, array, wrong)
    # Now it is known what the texts are once written out: a dictionary may repeat a long value.
    if sizes.sum() > max(limits.document_bytes, table.nbytes):
        raise TooLarge(f"over {limits.document_bytes} bytes of text", limit=limits.document_bytes)
    most = limits.row_bytes_max
    wrong.mark(sizes > most, "row_too_large", f"over {most} bytes")
    columns |= {name: _text(name, array) for name, array in texts}
    return columns, wrong


def _one(chunked: pa.ChunkedArray) -> pa.Array:
    if chunked.num_chunks == 1:
        return chunked.chunk(0)
    if pa.types.is_dictionary(chunked.type):
        chunked = chunked.unify_dictionaries()
    combined: Any = chunked.combine_chunks()
    return combined


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _sizes(array: pa.Array) -> np.ndarray:
    """Bytes of each value, nulls none."""
    if isinstance(array, pa.DictionaryArray):
        lengths = np.asarray(pc.fill_null(pc.binary_length(array.dictionary), 0)).astype(np.int64)
        lengths = np.append(lengths, 0)
        codes = pc.fill_null(array.indices.cast(pa.int64()), len(lengths) - 1)
        return lengths[np.asarray(codes)]
    lengths = pc.binary_length(array)
    return np.asarray(pc.fill_null(lengths, 0) if array.null_count else lengths).astype(np.int64)


def _text(name: str, array: pa.Array) -> pa.Array:
    if not isinstance(array, pa.DictionaryArray):
        return array if pa.types.is_string(array.type) else array.cast(pa.string())
    if name in _CODED and array.dictionary.null_count == 0:
        return array if array.type == DICTIONARY else array.cast(DICTIONARY)
    return array.dictionary.take(array.indices).cast(pa.string())


def _plain(name: str, array: pa.Array, wrong: _Wrong) -> pa.Array:
    kind = array.type
    if pa.types.is_boolean(kind):
        return array
    if pa.types.is_integer(kind):
        fits = kind != pa.uint64() or pc.max(array).as_py() < 1 << 63
        return array.cast(pa.int64() if fits else pa.string())
    if pa.types.is_floating(kind):
        return _doubles(name, array.cast(pa.float64()), wrong)
    if pa.types.is_date(kind):
        kind = pa.timestamp("s" if pa.types.is_date32(kind) else "ms")
        array = array.cast(kind)
    if pa.types.is_timestamp(kind):
        return _times(name, array, wrong)
    raise bad_column(name, f"the type {kind} is not taken; text, numbers, booleans and times are")


def _doubles(name: str, array: pa.Array, wrong: _Wrong) -> pa.Array:
    values = np.asarray(pc.fill_null(array, 0.0))
    wrong.mark(~np.isfinite(values), "bad_number", f"{name}: not a finite number")
    return pc.add(array, 0.0)  # -0.0 is 0.0, as an integer zero is


def _times(name: str, array: pa.Array, wrong: _Wrong) -> pa.Array:
    """The column `timestamp` as times, others as text that says the same."""
    unit = array.type.unit
    values = np.asarray(pc.fill_null(array.view(pa.int64()), 0))
    scale = _MICROS.get(unit)
    low, high = (FIRST_MICROS // scale, LAST_MICROS // scale) if scale else (None, None)
    if low is not None and high is not None:
        outside = (values < low) | (values > high)
        if outside.any():
            wrong.mark(outside, "bad_timestamp", f"{name}: outside the years 1 to 9999")
            array = pa.array(np.where(outside, 0, values), mask=_nulls(array)).view(array.type)
    if name == TIME:
        return array
    finest = "ns" if unit == "ns" else "us"
    text = pc.strftime(
        array.view(pa.int64()).view(pa.timestamp(unit, "UTC")).cast(pa.timestamp(finest, "UTC")),
        format="%Y-%m-%dT%H:%M:%SZ",
    )
    return text.cast(pa.string())


def _nulls(array: pa.Array) -> np.ndarray | None:
    return np.asarray(array.is_null()) if array.null_count else None


def _parsed(table: pa.Table, columns: dict[str, pa.Array], wrong: _Wrong) -> Parsed:
    raw = _Raw(table)
    if not wrong.reasons:
        return Parsed(columns, table.num_rows, raw)
    rows = sorted(wrong.reasons)
    raws = _raws(table.take(pa.array(rows, pa.int64())))
    bad = [BadRow(row + 1, *wrong.reasons[row], one) for row, one in zip(rows, raws, strict=True)]
    keep = np.ones(table.num_rows, bool)
    keep[rows] = False
    mask = pa.array(keep)
    kept = {name: column.filter(mask) for name, column in columns.items()}
    kept = {name: column for name, column in kept.items() if column.null_count < len(column)}
    return Parsed(kept, int(keep.sum()), raw, np.flatnonzero(keep) + 1, bad)


class _Raw:
    """A row's bytes by its number, from 1, for rows that turn out bad later; asked for in ascending order.

    Each time a window of rows is made, twice as large as the one before: one bad row costs little, and all
    rows bad cost no more than the table as a whole.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table, self._size = table, 1
        self._first, self._held = 0, list[bytes]()

    def __call__(self, number: int) -> bytes:
        at = number - 1 - self._first
        if not 0 <= at < len(self._held):
            self._first, at = number - 1, 0
            self._held = _raws(self._table.slice(self._first, self._size))
            self._size = min(2 * self._size, WINDOW_ROWS)
        return self._held[at]


def _raws(table: pa.Table) -> list[bytes]:
    """Rows as JSON text: the bytes kept of bad ones. Columns are taken as wholes, not value by value."""
    names = table.schema.names
    columns = [_shown(column) for column in table.columns]
    return [
        json_text({n: v for n, v in zip(names, row, strict=True) if v is not None}).encode()
        for row in zip(*columns, strict=True)
    ]


def _shown(column: pa.ChunkedArray) -> list[Any]:
    """A column's values as JSON can say them; times as numbers, as they may be no time at all."""
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
        return column.cast(pa.int64()).to_pylist()
    if pa.types.is_date32(kind):
        return column.cast(pa.int32()).to_pylist()
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
        found = column.to_pylist()
        odd = np.flatnonzero(~np.isfinite(np.asarray(pc.fill_null(column, 0.0))))
        for at in odd.tolist():
            found[at] = str(found[at])
        return found
    return column.to_pylist()
