"""A batch in which few lines are bad: the fast way for all segments but those that hold the bad lines.

The body is cut at line ends into segments, each read the fast way; one that is doubted is cut further,
and the smallest go line by line. So one bad line in 20 000 costs the slow way for some hundred lines. The
result is that of the slow way over the whole: where joining the parts could give another (a text made
of doubles, too many columns), there is no result.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ingestor.limits import Limits
from ingestor.parsers.base import BadRow, Parsed
from ingestor.parsers.fast_json import read_lines
from ingestor.parsers.row_columns import EXACT
from ingestor.parsers.strict_lines import Keep, RawLines, parse_slowly

#: Parts into which a doubted segment is cut, and bytes below which it goes line by line.
PARTS = 8
SMALLEST_BYTES = 32 << 10
#: Share of the bytes that may go line by line before the attempt is given up.
SLOW_SHARE = 0.5

Part = tuple[dict[str, pa.Array], int, list[BadRow]]


class _GaveUp(Exception):
    pass


def parse_in_segments(
    body: bytes, fields: list[pa.Field], limits: Limits, keep: Keep
) -> Parsed | None:
    """The rows of `body`, good and bad; None if most of it is doubtful or the parts cannot be joined."""
    if len(body) < PARTS * SMALLEST_BYTES:
        return None
    reader = _Reader(fields, limits, keep, int(len(body) * SLOW_SHARE))
    try:
        parts = [part for segment in _cut(body) for part in reader.read(segment)]
    except _GaveUp:
        return None
    return _joined(parts, body, limits)


def _cut(body: bytes) -> Iterator[bytes]:
    """About PARTS segments of whole lines."""
    step = len(body) // PARTS + 1
    begin = 0
    while begin < len(body):
        end = body.find(b"\n", begin + step) + 1
        yield body[begin : end or len(body)]
        begin = end or len(body)


class _Reader:
    def __init__(self, fields: list[pa.Field], limits: Limits, keep: Keep, slow_bytes: int) -> None:
        self._fields = fields
        self._limits = limits
        self._keep = keep
        self._slow_bytes = slow_bytes

    def read(self, segment: bytes) -> Iterator[Part]:
        found = read_lines(segment, self._fields, self._limits)
        if found is not None:
            yield (*found, [])
        elif len(segment) > SMALLEST_BYTES:
            for smaller in _cut(segment):
                if len(smaller) == len(segment):
                    yield self._slowly(segment)
                    return
                yield from self.read(smaller)
        else:
            yield self._slowly(segment)

    def _slowly(self, segment: bytes) -> Part:
        self._slow_bytes -= len(segment)
        if self._slow_bytes < 0:
            raise _GaveUp
        parsed = parse_slowly(segment, self._limits, self._keep)
        return parsed.columns, parsed.rows, parsed.bad


def _joined(parts: list[Part], body: bytes, limits: Limits) -> Parsed | None:
    names = list(dict.fromkeys(name for columns, _, _ in parts for name in columns))
    if len(names) > limits.columns_sure:
        return None
    joined: dict[str, pa.Array] = {}
    for name in names:
        pieces = [columns.get(name, rows) for columns, rows, _ in parts]
        column = _one_column(pieces)
        if column is None:
            return None
        joined[name] = column
    bad, numbers, before = [], [], 0
    for _, rows, part_bad in parts:
        total = rows + len(part_bad)
        good = np.ones(total, bool)
        for row in part_bad:
            good[row.number - 1] = False
            bad.append(BadRow(before + row.number, row.code, row.reason, row.raw))
        numbers.append(np.flatnonzero(good) + before + 1)
        before += total
    known = np.concatenate(numbers) if bad else None
    rows = sum(count for _, count, _ in parts)
    return Parsed(joined, rows, RawLines(body), known, bad)


def _one_column(pieces: list[pa.Array | int]) -> pa.Array | None:
    """The pieces in order under one type; a number of rows stands for as many nulls."""
    kinds = {str(piece.type) for piece in pieces if not isinstance(piece, int)}
    if len(kinds) == 1:
        kind = next(piece.type for piece in pieces if not isinstance(piece, int))
    elif kinds == {"int64", "double"}:
        kind = pa.float64()
        if not all(_exact(piece) for piece in pieces):
            return None
    elif "double" in kinds:
        return None  # a double's text depends on how it was written
    else:
        kind = pa.string()
    arrays = [
        pa.nulls(piece, kind) if isinstance(piece, int) else piece.cast(kind) for piece in pieces
    ]
    return pa.concat_arrays(arrays)


def _exact(piece: pa.Array | int) -> bool:
    if isinstance(piece, int) or not pa.types.is_integer(piece.type):
        return True
    values = np.asarray(piece.fill_null(0))
    return bool(((values > -EXACT) & (values < EXACT)).all())
