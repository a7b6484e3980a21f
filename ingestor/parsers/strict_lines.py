"""JSON lines the slow way: line by line, exact, each bad line with its reason."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ingestor.limits import Limits
from ingestor.parsers.base import BadRow, Parsed, RowError
from ingestor.parsers.row_columns import RowColumns, flatten
from ingestor.parsers.strict_json import read_row

_BLANK = b" \t\r"
#: Names that the tail's folding leaves alone.
Keep = Callable[[str], bool]
#: Takes the rows that the slow way read, so that the next batch of their shapes goes the fast way.
Teach = Callable[[list[dict[str, Any]]], None]


def row_lines(body: bytes) -> list[bytes]:
    """The lines that are rows: not blank, without the white space around them."""
    return [line for line in (line.strip(_BLANK) for line in body.split(b"\n")) if line]


class RawLines:
    """A row's line by its number, from 1; the body is split once, when first asked."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._lines: list[bytes] | None = None

    def __call__(self, number: int) -> bytes:
        if self._lines is None:
            self._lines = row_lines(self._body)
        return self._lines[number - 1]


def parse_slowly(body: bytes, limits: Limits, keep: Keep, teach: Teach | None = None) -> Parsed:
    """The rows of `body`, for batches that are small or that the fast way doubts."""
    columns = RowColumns(limits, keep)
    bad: list[BadRow] = []
    numbers: list[int] = []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(row_lines(body), 1):
        try:
            row = read_row(line, limits)
            columns.add(flatten(row, limits))
            numbers.append(number)
            if teach is not None:
                rows.append(row)
        except RowError as error:
            bad.append(BadRow(number, error.code, error.reason, line[: limits.failed_row_bytes]))
    if teach is not None:
        teach(rows)
    known = np.array(numbers, np.int64) if bad else None
    return Parsed(columns.build(), columns.rows, RawLines(body), known, bad)
