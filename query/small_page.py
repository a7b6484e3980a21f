"""One page of few rows as JSON, written here and now: the text that `query.encode` would write by column.

For a hundred rows nearly all the time of the columnar way is getting there: 0.8 ms, and a worker to be
reached and waited for, where this takes 0.2 ms. What is long, or of a type not known here, is left to it.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from query.encode import ATTRIBUTES, ID
from records.columns import NUMBER_COLUMN, RUN_COLUMN

#: A page that takes less than about half a millisecond of the event loop.
ROWS_MAX, BYTES_MAX = 128, 64 << 10
_NANOS = "timestamp_ns"
_text: Callable[[str], str] = json.JSONEncoder(ensure_ascii=False).encode
Texts = list[str | None]


def json_array(table: pa.Table, fields: tuple[str, ...] | None) -> str | None:
    """The rows as a JSON array of objects without nulls; None if they are to be written by column."""
    if (
        table.num_rows > ROWS_MAX
        or table.nbytes > BYTES_MAX
        or RUN_COLUMN not in table.column_names
    ):
        return None
    names = [n for n in table.column_names if n not in (NUMBER_COLUMN, RUN_COLUMN, _NANOS)]
    if fields is not None:
        names = [name for name in dict.fromkeys(fields) if name in names]
    columns = [_ids(table)]
    for name in names:
        texts = _column(table, name)
        if texts is None:
            return None
        columns.append(texts)
    rows = (",".join(filter(None, row)) for row in zip(*columns, strict=True))
    return "[" + ",".join(f"{{{row}}}" for row in rows) + "]"


def _ids(table: pa.Table) -> Texts:
    pairs = zip(table[RUN_COLUMN].to_pylist(), table[NUMBER_COLUMN].to_pylist(), strict=True)
    return [f'"{ID}":"{run.hex()}-{number}"' for run, number in pairs]


def _column(table: pa.Table, name: str) -> Texts | None:
    """`"name":value` of each row, None where it is null; None if the type is not known here."""
    column = table[name]
    if column.null_count == len(column):
        nothing: Texts = [None] * len(column)
        return nothing
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if name == ATTRIBUTES:
        return [_inside(text) for text in column.to_pylist()] if pa.types.is_string(kind) else None
    if pa.types.is_timestamp(kind):
        written = _times(table, name)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        written = [None if value is None else _text(value) for value in column.to_pylist()]
    elif pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = column.to_pylist()
        if any(isinstance(value, float) and not math.isfinite(value) for value in values):
            return None
        written = [None if value is None else json.dumps(value) for value in values]
    else:
        return None
    key = _text(name)
    return [None if value is None else f"{key}:{value}" for value in written]


def _inside(text: str | None) -> str | None:
    """The members of a JSON object's text, None if it has none."""
    inner = (text or "").strip().removeprefix("{").removesuffix("}").strip()
    return inner or None


def _times(table: pa.Table, name: str) -> Texts:
    """RFC 3339 in UTC with six digits, nine where there are nanoseconds."""
    texts = table[name].cast(pa.timestamp("us")).cast(pa.string()).to_pylist()
    known = name == "timestamp" and _NANOS in table.column_names
    nanos: list[Any] = table[_NANOS].to_pylist() if known else [None] * len(texts)
    return [
        None if text is None else f'"{text.replace(" ", "T", 1)}{_digits(fine)}Z"'
        for text, fine in zip(texts, nanos, strict=True)
    ]


def _digits(nanos: int | None) -> str:
    return "" if nanos is None else f"{nanos:03d}"
