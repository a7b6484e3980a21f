"""Groups as JSON text, by column: each column's values are written, then joined row by row. Pure.

A dashboard's histogram has thousands of rows of the same few services and minutes: each distinct text and
time is written once, and no object is made for a row. Times are RFC 3339; what is no number is null.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from query.times import rfc3339


def groups_json(table: pa.Table) -> str:
    """The rows of a table (times as `timestamp`, no dictionaries) as a JSON array of objects."""
    if not table.num_rows:
        return "[]"
    names = [_json(name).replace("%", "%%") for name in table.column_names]
    row = "{" + ",".join(f"{name}:%s" for name in names) + "}"
    columns = [_texts(column) for column in table.columns]
    return "[" + ",".join([row % values for values in zip(*columns, strict=True)]) + "]"


def object_json(before: dict[str, Any], name: str, rows: str, after: dict[str, Any]) -> str:
    """The JSON object {**before, name: rows, **after}, where `rows` is JSON text already."""
    head, tail = _json(before)[1:-1], _json(after)[1:-1]
    return "{" + ",".join(part for part in (head, f"{_json(name)}:{rows}", tail) if part) + "}"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _texts(column: pa.ChunkedArray) -> list[Any]:
    """The JSON of each value, or what `%s` makes it of."""
    kind = column.type
    if pa.types.is_integer(kind) and not column.null_count:
        return column.to_numpy().tolist()
    if pa.types.is_floating(kind):
        return [
            "null" if x is None or not math.isfinite(x) else repr(x) for x in column.to_pylist()
        ]
    if pa.types.is_nested(kind) or pa.types.is_null(kind):
        return [_json(value) for value in column.to_pylist()]
    if pa.types.is_timestamp(kind):
        return _distinct(column.cast(pa.int64()), lambda at: f'"{rfc3339(at)}"')
    return _distinct(column, _json)


def _distinct(column: pa.ChunkedArray, write: Callable[[Any], str]) -> list[str]:
    """Each distinct value written once."""
    whole = pa.concat_arrays(column.chunks).dictionary_encode()
    texts = [write(value) for value in whole.dictionary.to_pylist()]
    codes = whole.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False).tolist()
    texts.append("null")
    return [texts[code] for code in codes]
