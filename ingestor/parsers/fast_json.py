"""The fast way for JSON: pyarrow's reader under an explicit schema, and what makes it strict.

The reader refuses by itself: unknown fields, wrong types, a key twice, raw control characters, lone
surrogates, bad escapes. It does not refuse: bytes that are not UTF-8, NaN and Infinity, integers that a
double cannot hold, two objects in a line or one over two lines. Those are checked here. Every doubt is
`None`, never a verdict.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.json

from ingestor.limits import Limits
from ingestor.parsers.row_columns import EXACT

pc: Any = pyarrow.compute
_NEWLINE, _OPEN, _CLOSE = ord("\n"), ord("{"), ord("}")


def is_utf8(body: bytes) -> bool:
    """Whether all of `body` is UTF-8."""
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def plain_lines(body: bytes) -> tuple[int, int] | None:
    """(number of lines, bytes of the longest) if each line begins with `{` and ends with `}`, else None.

    Between `}` and `{` a line end can only stand between two rows, and within a JSON string none can
    stand at all; so if the reader finds as many rows as there are lines, each line is one row.
    """
    if not body or body[0] != _OPEN:
        return None
    data = np.frombuffer(body, np.uint8)
    ends = np.flatnonzero(data == _NEWLINE)
    if body[-1] != _NEWLINE:
        if body[-1] != _CLOSE:
            return None
        ends = np.append(ends, len(body))
    if not (data[ends - 1] == _CLOSE).all() or not (data[ends[:-1] + 1] == _OPEN).all():
        return None
    longest = int(np.diff(ends, prepend=-1).max()) - 1
    return len(ends), longest


def read_table(body: bytes, fields: list[pa.Field]) -> pa.Table | None:
    """`body` under exactly these fields; None when the reader refuses."""
    try:
        return pyarrow.json.read_json(
            pa.BufferReader(body),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(body) + 1),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=pa.schema(fields), unexpected_field_behavior="error"
            ),
        )
    except (pa.ArrowException, ValueError, OverflowError):
        return None


def read_lines(
    body: bytes, fields: list[pa.Field], limits: Limits
) -> tuple[dict[str, pa.Array], int] | None:
    """(columns, rows) of JSON lines; None at a doubt."""
    lines = plain_lines(body)
    if lines is None or lines[1] > limits.row_bytes_max or not is_utf8(body):
        return None
    table = read_table(body, fields)
    if table is None or table.num_rows != lines[0]:
        return None
    columns = table_columns(table)
    return None if columns is None else (columns, lines[0])


def flat_columns(struct: pa.StructArray) -> dict[str, pa.Array] | None:
    """The leaves of `struct` by dotted name, columns that are all null left out; None at a doubt."""
    columns: dict[str, pa.Array] = {}
    for index, field in enumerate(struct.type):
        if not _add_leaves(struct.flatten()[index], field.name, columns):
            return None
    return columns


def table_columns(table: pa.Table) -> dict[str, pa.Array] | None:
    """The leaves of `table` by dotted name, as `flat_columns`."""
    columns: dict[str, pa.Array] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        one = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if not _add_leaves(one, field.name, columns):
            return None
    return columns


def _add_leaves(array: pa.Array, name: str, columns: dict[str, pa.Array]) -> bool:
    if pa.types.is_struct(array.type):
        parts = array.flatten()
        return all(
            _add_leaves(part, f"{name}.{field.name}", columns)
            for part, field in zip(parts, array.type, strict=True)
        )
    if array.null_count == len(array):
        return True
    if pa.types.is_floating(array.type):
        values = pc.fill_null(array, 0.0)
        if not bool((np.abs(np.asarray(values)) < EXACT).all()):  # NaN compares false
            return False
        array = pc.add(array, 0.0)  # -0.0 is 0.0, as an integer zero is
    columns[name] = array
    return True
