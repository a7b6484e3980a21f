"""SQL results as JSON, NDJSON, CSV: by column. Arrow stays as the engine gave it.

JSON has no decimals, intervals or bytes: whole decimals (`sum` of integers) become integers where they fit,
other decimals numbers, bytes hexadecimal text; what has no good form is refused with the cast that gives it
one. Times are RFC 3339 in UTC. Unlike `/query`, nulls are written: the columns are the same in each row.
"""

import json
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute

from query.encode import rfc3339_column
from query.sql import SqlAnswer
from records.errors import InvalidRequest

pc: Any = pyarrow.compute
kinds = pa.types


def plain_frame(table: pa.Table) -> pl.DataFrame:
    """The table with types that text formats can hold.

    Raises:
        InvalidRequest: a column has none; names it and its type.
    """
    columns = {}
    for name in table.column_names:
        column = _plain(table[name], name)
        columns[name] = (
            pl.Series(name, pl.from_arrow(column)) if len(column) else _empty(column.type)
        )
    return pl.DataFrame(columns)


def _empty(kind: pa.DataType) -> pl.Series:
    series = pl.from_arrow(pa.array([], kind))
    assert isinstance(series, pl.Series)
    return series


def _plain(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    kind = column.type
    if kinds.is_timestamp(kind):
        return pa.chunked_array([rfc3339_column(column.cast(pa.timestamp("us"), safe=False))])
    if kinds.is_decimal(kind):
        return _number(column)
    if kinds.is_time(kind):
        return column.cast(pa.string())
    if kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind):
        series = pl.Series(pl.from_arrow(column.cast(pa.large_binary())))
        return pa.chunked_array([series.bin.encode("hex").to_arrow()])
    if _nested_unfit(kind):
        raise InvalidRequest(
            f"sql: the column {name!r} ({kind}) has no form in JSON and CSV; cast it, as in "
            f'"{name}"::VARCHAR, or ask for Arrow',
            parameter="query",
        )
    return column


def _number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A decimal as int64 if whole and small enough, as text if whole and larger, else as a float."""
    if column.type.scale:
        return column.cast(pa.float64())
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column.cast(pa.string())


def _nested_unfit(kind: pa.DataType) -> bool:
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return _nested_unfit(kind.value_type)
    if kinds.is_struct(kind):
        return any(_nested_unfit(field.type) for field in kind)
    if kinds.is_map(kind):
        return _nested_unfit(kind.key_type) or _nested_unfit(kind.item_type)
    simple = (
        kinds.is_boolean(kind), kinds.is_integer(kind), kinds.is_floating(kind), kinds.is_string(kind),
        kinds.is_large_string(kind), kinds.is_string_view(kind), kinds.is_date(kind), kinds.is_null(kind),
        kinds.is_dictionary(kind), kinds.is_timestamp(kind), kinds.is_decimal(kind),
    )  # fmt: skip
    return not any(simple)


def ndjson(answer: SqlAnswer) -> bytes:
    """A JSON object a row."""
    frame = plain_frame(answer.table)
    return frame.write_ndjson().encode() if len(frame) else b""


def csv(answer: SqlAnswer) -> bytes:
    """A header and a line a row (RFC 4180 quoting, LF); null is the empty field, nested values JSON."""
    frame = plain_frame(answer.table)
    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    texts = [
        pl.when(pl.col(name).is_not_null())
        .then(
            pl.struct(pl.col(name).alias("v"))
            .struct.json_encode()
            .str.slice(5)
            .str.strip_suffix("}")
        )
        .alias(name)
        for name in nested
    ]
    return frame.with_columns(texts).write_csv().encode()


def arrow(answer: SqlAnswer) -> bytes:
    """An Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, answer.table.schema) as writer:
        writer.write_table(answer.table)
    return sink.getvalue().to_pybytes()


def json_text(answer: SqlAnswer) -> str:
    """`{"columns":[{"name","type"}], "rows":[{…}], "complete", "missing", "stats", "notes"}`"""
    rows = ndjson(answer).decode().rstrip("\n").replace("\n", ",")
    columns = [{"name": name, "type": kind} for name, kind in answer.columns]
    rest = {
        "complete": answer.complete,
        "missing": answer.missing,
        "stats": answer.stats,
        "notes": answer.notes,
    }
    head = json.dumps(columns, separators=(",", ":"), ensure_ascii=False)
    tail = json.dumps(rest, separators=(",", ":"), ensure_ascii=False)[1:]
    return f'{{"columns":{head},"rows":[{rows}],{tail}'
