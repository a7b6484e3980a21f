"""Tables as text: NDJSON, JSON rows, CSV. Pure, by column: polars writes each column's JSON, then joins.

A row is `{"_id": "<run hex>-<number>", "timestamp": RFC 3339, …}`: null fields are left out, `attributes`
(one JSON object a row) is taken apart into the row, `timestamp_ns` becomes the last three digits of the
time. CSV has fixed columns, so that pages fit together: those asked for, or the core ones and `attributes`,
which then holds all other fields as JSON.
"""

from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute

from records.columns import CORE_TYPES, NUMBER_COLUMN, RUN_COLUMN, plain

pc: Any = pyarrow.compute
ID = "_id"
ATTRIBUTES = "attributes"
_NANOS = "timestamp_ns"
#: Columns of CSV (and of Arrow, at least) when no fields are asked for.
CSV_NAMES = (ID, *(name for name in CORE_TYPES if name not in (_NANOS, "tenant")))


def presented(table: pa.Table, fields: tuple[str, ...] | None = None) -> pa.Table:
    """The table as clients see it: `_id` first, times as text, plain strings; the fields asked for.

    Columns asked for that no row has are absent.
    """
    table = plain(table)
    columns: dict[str, Any] = {}
    if RUN_COLUMN in table.column_names:
        columns[ID] = _ids(table)
    nanos = table[_NANOS] if _NANOS in table.column_names else None
    for name in table.column_names:
        if name in (NUMBER_COLUMN, RUN_COLUMN, _NANOS):
            continue
        column = table[name]
        if pa.types.is_timestamp(column.type):
            column = rfc3339_column(column, nanos if name == "timestamp" else None)
        columns[name] = column
    if fields is not None:
        columns = {name: columns[name] for name in (ID, *fields) if name in columns}
    return pa.table(columns)


def _ids(table: pa.Table) -> pa.ChunkedArray:
    frame: Any = pl.from_arrow(table.select([NUMBER_COLUMN, RUN_COLUMN]))
    text = (
        pl.col(RUN_COLUMN).cast(pl.Binary).bin.encode("hex") + "-" + pl.col(NUMBER_COLUMN).cast(str)
    )
    return frame.select(text).to_series().to_arrow()


def rfc3339_column(column: pa.ChunkedArray, nanos: Any = None) -> pa.ChunkedArray:
    """Microseconds as RFC 3339 in UTC with six digits, nine where there are nanoseconds."""
    frame = pl.DataFrame({"t": pl.from_arrow(column.cast(pa.timestamp("us")).cast(pa.string()))})
    text = pl.col("t").str.replace(" ", "T", literal=True)
    if nanos is not None and nanos.null_count < len(nanos):
        frame = frame.with_columns(pl.Series("n", pl.from_arrow(nanos)).cast(pl.Int64))
        text += pl.col("n").cast(pl.String).str.zfill(3).fill_null("")
    return frame.select(text + "Z").to_series().to_arrow()


def json_rows(table: pa.Table) -> pl.Series:
    """One JSON object a row of a presented table, without nulls."""
    if table.num_columns == 0:
        return pl.Series(["{}"] * table.num_rows, dtype=pl.String)
    # By place: the engine takes some names for patterns (`*`), and has no empty one.
    places = [f"c{place}" for place in range(table.num_columns)]
    frame: Any = pl.from_arrow(table.rename_columns(places))
    parts = [_fragment(*one) for one in zip(table.column_names, places, strict=True)]
    body = pl.concat_str(parts, separator=",", ignore_nulls=True)
    return frame.select(pl.concat_str(pl.lit("{"), body, pl.lit("}"))).to_series()


def _fragment(name: str, place: str) -> pl.Expr:
    """`"name":value` of each row, null where the value in the column `place` is."""
    column = pl.col(place)
    if name == ATTRIBUTES:
        inner = column.str.strip_chars().str.strip_prefix("{").str.strip_suffix("}")
        inner = inner.str.strip_chars()
        return pl.when(inner != "").then(inner)
    written = pl.struct(column.alias(name)).struct.json_encode()
    return pl.when(column.is_not_null()).then(written.str.strip_prefix("{").str.strip_suffix("}"))


def ndjson(table: pa.Table) -> bytes:
    """A JSON line a row of a presented table."""
    if table.num_rows == 0:
        return b""
    return (json_rows(table).str.join("\n")[0] + "\n").encode()


def json_array(table: pa.Table) -> str:
    """The rows of a presented table as a JSON array."""
    if table.num_rows == 0:
        return "[]"
    return "[" + json_rows(table).str.join(",")[0] + "]"


def with_attributes(table: pa.Table, kept: tuple[str, ...]) -> pa.Table:
    """The table with exactly the columns `kept`; all others go, as JSON, into `attributes`.

    `attributes` must be among `kept`. Absent columns are null text.
    """
    rest = [name for name in table.column_names if name not in kept or name == ATTRIBUTES]
    columns: dict[str, Any] = {}
    for name in kept:
        if name == ATTRIBUTES:
            columns[name] = _packed(table.select(rest)) if rest else _nulls(table)
        else:
            columns[name] = table[name] if name in table.column_names else _nulls(table)
    return pa.table(columns)


def _nulls(table: pa.Table) -> pa.Array:
    return pa.nulls(table.num_rows, pa.string())


def _packed(table: pa.Table) -> Any:
    texts = json_rows(table)
    return texts.set(texts == "{}", None).to_arrow()


def csv_lines(table: pa.Table, header: bool) -> bytes:
    """CSV (RFC 4180 quoting, LF) of a presented table; null is the empty field."""
    frame: Any = pl.from_arrow(table)
    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    frame = frame.with_columns(pl.struct(name).struct.json_encode().alias(name) for name in nested)
    return frame.write_csv(include_header=header).encode()


def csv_table(table: pa.Table, fields: tuple[str, ...] | None) -> pa.Table:
    """A presented table with the columns of CSV: the fields asked for, or the fixed ones."""
    if fields is None:
        return with_attributes(table, CSV_NAMES)
    return pa.table({n: table[n] if n in table.column_names else _nulls(table) for n in fields})


class ArrowShape:
    """One schema for all pages of an Arrow stream: that of the first page, and the core columns.

    A column that appears later, or with values that do not fit the type it had first, goes into
    `attributes` as JSON, so that nothing is lost.
    """

    def __init__(self, first: pa.Table, fields: tuple[str, ...] | None) -> None:
        types = {field.name: field.type for field in first.schema}
        if fields is None:
            names = [
                ID,
                *_arrow_core(types),
                *(n for n in types if n not in CORE_TYPES and n != ID),
            ]
        else:
            names = [ID, *(name for name in fields if name != ID)]
        self._fields = fields
        kinds = {name: _arrow_type(name, types.get(name)) for name in names}
        self.schema = pa.schema(list(kinds.items()))

    def fit(self, table: pa.Table) -> pa.Table:
        """A page (plain columns, `_id` added) under the schema."""
        columns: dict[str, Any] = {}
        spare: dict[str, Any] = {}
        for name in table.column_names:
            index = self.schema.get_field_index(name)
            if index < 0:
                spare[name] = table[name]
                continue
            kind = self.schema.field(index).type
            columns[name], left = _cast(table[name], kind)
            if left is not None:
                spare[name] = left
        if spare and self._fields is None:
            if ATTRIBUTES in columns:
                spare[ATTRIBUTES] = columns[ATTRIBUTES]
            columns[ATTRIBUTES] = _chunked(_packed(_texts(pa.table(spare))), pa.string())
        arrays = [
            columns.get(field.name, pa.nulls(table.num_rows, field.type)) for field in self.schema
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def _arrow_core(types: dict[str, pa.DataType]) -> list[str]:
    dull = ("tenant", "producer", "producer_epoch", "seq")
    return [name for name in CORE_TYPES if name not in dull or name in types]


def _arrow_type(name: str, known: pa.DataType | None) -> pa.DataType:
    core = CORE_TYPES.get(name)
    if core is not None:
        return core.value_type if pa.types.is_dictionary(core) else core
    if known is None or pa.types.is_null(known) or pa.types.is_large_string(known):
        return pa.string()
    return known


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[Any, Any]:
    """(the column as `kind`, what does not fit or None)."""
    if column.type == kind:
        return column, None
    try:
        return column.cast(kind), None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.nulls(len(column), kind), column


def _chunked(array: Any, kind: pa.DataType) -> Any:
    return array.cast(kind)


def _texts(table: pa.Table) -> pa.Table:
    """Timestamps as text, for JSON."""
    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            column = rfc3339_column(table.column(index))
            table = table.set_column(index, field.name, pa.chunked_array([column]))
    return table


def arrow_page(table: pa.Table) -> pa.Table:
    """The table with `_id` in place of the key columns, dictionaries decoded, types kept."""
    table = plain(table)
    if RUN_COLUMN not in table.column_names:
        return table
    ids = pa.array(_ids(table)).cast(pa.string())
    table = table.drop_columns([n for n in (NUMBER_COLUMN, RUN_COLUMN) if n in table.column_names])
    return table.add_column(0, ID, ids)
