"""JSON lines: one object a line. Blank lines are no rows; rows count from 1.

The fast way takes a batch as columns; the slow way reads line by line and gives each bad line its
reason. Small batches go the slow way at once: the reader's fixed cost is that of some fifty rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from ingestor.limits import Limits
from ingestor.parsers.base import BadRow, Parsed, RowError
from ingestor.parsers.fast_json import is_utf8, plain_lines, read_table, table_columns
from ingestor.parsers.learned import LearnedSchemas
from ingestor.parsers.row_columns import RowColumns, flatten
from ingestor.parsers.strict_json import read_row

#: Below so many bytes the slow way is faster: about 50 slim rows.
SMALL_BYTES = 8 << 10
SAMPLE_ROWS = 48
_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r"
#: Names that the tail's folding leaves alone.
Keep = Callable[[str], bool]
#: Takes the rows that the slow way read, so that the next batch of their shapes goes the fast way.
Teach = Callable[[list[dict[str, Any]]], None]


def parse_json_lines(
    body: bytes, limits: Limits, learned: LearnedSchemas, key: Any, keep: Keep
) -> Parsed:
    """The rows of `body`. `key`: under what their shape is learned (tenant, surface)."""
    body = body.removeprefix(_BOM)
    teach = None
    if len(body) >= SMALL_BYTES:
        parsed, teach = _fast(body, limits, learned, key)
        if parsed is not None:
            return parsed
    return parse_slowly(body, limits, keep, teach)


def _fast(
    body: bytes, limits: Limits, learned: LearnedSchemas, key: Any
) -> tuple[Parsed | None, Teach | None]:
    """The rows, or None and whom to tell about the shapes that the slow way meets."""
    lines = plain_lines(body)
    if lines is None or lines[1] > limits.row_bytes_max or not is_utf8(body):
        return None, None
    try:
        end = body.find(b"\n")
        first = read_row(body[:end] if end >= 0 else body, limits)
    except RowError:
        return None, None
    key = (key, tuple(first))
    if learned.hopeless(key):
        return None, None
    known = learned.get(key)
    columns = _read(body, known, lines[0]) if known else None
    if columns is None:
        fresh = learned.learn(key, _sample(body, lines[0], limits))
        columns = _read(body, fresh, lines[0]) if fresh and fresh != known else None
    if columns is None:
        return None, lambda rows: learned.teach(key, rows)
    return Parsed(columns, lines[0], lambda number: nth_line(body, number)), None


def _read(body: bytes, fields: list[pa.Field], rows: int) -> dict[str, pa.Array] | None:
    table = read_table(body, fields)
    if table is None or table.num_rows != rows:
        return None
    return table_columns(table)


def _sample(body: bytes, lines: int, limits: Limits) -> list[dict[str, Any]]:
    """Some rows from all over the body; bad ones left out."""
    step = max(1, len(body) // SAMPLE_ROWS)
    rows = []
    for start in range(0, len(body), step):
        begin = 0 if start == 0 else body.find(b"\n", start) + 1
        if start and begin == 0:
            break
        end = body.find(b"\n", begin)
        line = body[begin : end if end >= 0 else len(body)]
        try:
            rows.append(read_row(line, limits))
        except RowError:
            continue
    return rows


def nth_line(body: bytes, number: int) -> bytes:
    """The line that is row `number`, from 1."""
    count = 0
    for line in body.split(b"\n"):
        if line.strip(_BLANK):
            count += 1
            if count == number:
                return line.strip(_BLANK)
    raise IndexError(number)


def parse_slowly(body: bytes, limits: Limits, keep: Keep, teach: Teach | None = None) -> Parsed:
    """Line by line: exact, for batches that are small or that the fast way doubts."""
    columns = RowColumns(limits, keep)
    bad: list[BadRow] = []
    numbers: list[int] = []
    rows: list[dict[str, Any]] = []
    number = 0
    for line in body.split(b"\n"):
        line = line.strip(_BLANK)
        if not line:
            continue
        number += 1
        try:
            row = read_row(line, limits)
            columns.add(flatten(row, limits))
            if teach is not None:
                rows.append(row)
            numbers.append(number)
        except RowError as error:
            bad.append(BadRow(number, error.code, error.reason, line[: limits.failed_row_bytes]))
    if teach is not None:
        teach(rows)
    return Parsed(
        columns.build(),
        columns.rows,
        lambda row: nth_line(body, row),
        np.array(numbers, np.int64) if bad else None,
        bad,
    )
