"""The Arrow shape of rows: core columns with fixed types, then whatever fields the rows brought.

A column that is null in a whole block is absent from it; readers unite columns by name. A field seen
often in a block is a typed column (int64, float64, bool, string); the long tail of rare fields goes
into `attributes`, one JSON object text a row. Names that begin with `_` are ours (enrichment).

Per-entry facts (tenant, received_at, row numbers) live in the block header; `tenant`, `received_at`,
`producer` and `producer_epoch` are repeated as columns so that a Parquet file explains itself.
"""

import pyarrow as pa

DICTIONARY = pa.dictionary(pa.int32(), pa.string())

#: Columns whose type never varies. `timestamp` is Parquet's int64 microseconds, adjusted to UTC.
CORE_TYPES: dict[str, pa.DataType] = {
    "timestamp": pa.timestamp("us", tz="UTC"),
    "timestamp_ns": pa.int16(),
    "service": DICTIONARY,
    "level": DICTIONARY,
    "message": pa.string(),
    "trace_id": pa.string(),
    "span_id": pa.string(),
    "parent_id": pa.string(),
    "request_id": pa.string(),
    "host": DICTIONARY,
    "tenant": DICTIONARY,
    "producer": DICTIONARY,
    "producer_epoch": pa.int64(),
    "seq": pa.int64(),
    "received_at": pa.timestamp("us", tz="UTC"),
    "attributes": pa.string(),
}
CORE_NAMES = tuple(CORE_TYPES)
REQUIRED_NAMES = ("timestamp", "service", "level", "message")

#: The name of a row in answers and cursors: the 16 bytes of its run, and its number there (records.ids).
RUN_COLUMN = "_run"
NUMBER_COLUMN = "_number"
#: Marks the rows of a block whose contents were removed (storage.erase): not null there. It is int8, which
#: no field that a row brought is.
ERASED_COLUMN = "_erased"


def is_erased(schema: pa.Schema) -> bool:
    """Whether a block has blanked rows."""
    return ERASED_COLUMN in schema.names and pa.types.is_int8(schema.field(ERASED_COLUMN).type)


def plain(table: pa.Table) -> pa.Table:
    """The table with dictionary columns decoded, for engines and clients that want plain strings."""
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            decoded = table.column(index).cast(field.type.value_type)
            table = table.set_column(index, field.name, decoded)
    return table


def _wider(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    if left == right:
        return left
    pair = {str(left), str(right)}
    if pair <= {"int64", "double"}:
        return pa.float64()
    if pa.types.is_null(left):
        return right
    if pa.types.is_null(right):
        return left
    return pa.string()


def united_schema(schemas: list[pa.Schema]) -> pa.Schema:
    """One schema for all: columns by name, core first; types that differ widen (int -> float -> text)."""
    types: dict[str, pa.DataType] = {}
    seen: list[pa.Schema] = []
    for schema in schemas:
        if any(schema.equals(one) for one in seen[-4:]):
            continue  # blocks of one writer are alike
        seen.append(schema)
        for field in schema:
            known = types.get(field.name)
            types[field.name] = field.type if known is None else _wider(known, field.type)
    for name in types:
        types[name] = CORE_TYPES.get(name, types[name])
    ordered = [name for name in CORE_NAMES if name in types]
    ordered += sorted(name for name in types if name not in CORE_TYPES)
    return pa.schema([(name, types[name]) for name in ordered])


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns of `schema`: cast where types differ, null where absent."""
    own = table.schema
    if own.equals(schema, check_metadata=True):
        return table
    arrays = []
    for field in schema:
        index = own.get_field_index(field.name)
        if index < 0:
            arrays.append(pa.nulls(table.num_rows, field.type))
        elif own.field(index).type == field.type:
            arrays.append(table.column(index))
        else:
            arrays.append(_cast(table.column(index), field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _cast(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_dictionary(target):
        return column.cast(target.value_type).dictionary_encode()
    if pa.types.is_integer(column.type) and pa.types.is_floating(target):
        return column.cast(target, safe=False)  # beyond 2^53 the nearest float, not an error
    return column.cast(target)


def united(tables: list[pa.Table]) -> pa.Table:
    """All rows of `tables`, in order, under their united schema."""
    if len(tables) == 1:
        return tables[0]
    schema = united_schema([table.schema for table in tables])
    return pa.concat_tables([conform(table, schema) for table in tables]).unify_dictionaries()
