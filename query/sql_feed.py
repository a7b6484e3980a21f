"""Pages of rows as one table for the engine: one schema, whatever fields the pages turn out to have.

The schema has to be known before the first row goes out. So the first pages are gathered; where a later
page has a wider type or a field that was not seen before, the input is withdrawn and begun again with what
is known by then (`Wider`). Nothing of the result was sent yet, so nobody notices.
"""

from collections.abc import Iterator

import polars as pl
import pyarrow as pa

from query.encode import ATTRIBUTES, ID, arrow_page
from records.columns import (
    CORE_NAMES,
    CORE_TYPES,
    NUMBER_COLUMN,
    RUN_COLUMN,
    conform,
    plain,
    united_schema,
)
from records.errors import InvalidRequest

#: Core columns that `SELECT *` shows only if rows have them.
_DULL = ("timestamp_ns", "tenant", "producer", "producer_epoch", "seq", "received_at")
#: Bytes of one batch on its way to the engine.
BATCH_BYTES = 1 << 20


class Wider(Exception):
    """A page does not fit the schema that is in use; the shape knows a wider one now."""


class Shape:
    """The schema of `logs` for one query.

    `wanted`: the columns it names; `star`: and all others. `defined`: names (lower case) that the query
    gives to something itself; such a column exists only if a row has it. Others that no row has are null.
    """

    def __init__(
        self, wanted: tuple[str, ...], star: bool, defined: set[str], with_id: bool
    ) -> None:
        self._wanted, self._star, self._defined, self._with_id = wanted, star, defined, with_id
        self._found: pa.Schema = pa.schema([])
        self._schema: pa.Schema | None = None

    def learn(self, page: pa.Table) -> pa.Table:
        """Notes the columns and types of a page; the page, with the fields wanted out of `attributes`.

        Raises:
            Wider: the schema is in use and does not hold them.
        """
        if self._star:
            page = _with_fields(page, [n for n in self._wanted if n not in CORE_TYPES and n != ID])
        known = self._found
        self._found = united_schema([known, _seen(_bare(page))])
        if self._schema is not None and self._found != known:
            raise Wider
        return page

    @property
    def schema(self) -> pa.Schema:
        """The schema; in use from now on."""
        if self._schema is None:
            self._schema = pa.schema([(name, self._type(name)) for name in self._names()])
        return self._schema

    def again(self) -> None:
        """The schema is not in use any more."""
        self._schema = None

    @property
    def absent(self) -> list[str]:
        """Fields that the query names and no row has; they read as null."""
        return [field.name for field in self.schema if field.type == pa.null()]

    def _names(self) -> list[str]:
        found = [f.name for f in self._found if f.name not in CORE_TYPES and f.type != pa.null()]
        first = [ID] if self._with_id else []
        fields = [
            name
            for name in self._wanted
            if name not in CORE_TYPES and (name in found or name.lower() not in self._defined)
        ]
        if self._star:
            core = [
                n for n in CORE_NAMES if n not in _DULL or n in (*self._found.names, *self._wanted)
            ]
            return [*first, *core, *dict.fromkeys([*found, *fields])]
        core = [name for name in CORE_NAMES if name in self._wanted]
        folded = [name.lower() for name in fields]
        if twice := sorted(name for name in fields if folded.count(name.lower()) > 1):
            raise InvalidRequest(
                f"sql: the fields {' and '.join(twice)} differ in case alone, which SQL cannot tell apart",
                parameter="query",
            )
        return [*first, *core, *fields] or ["timestamp"]

    def _type(self, name: str) -> pa.DataType:
        if name == ID:
            return pa.string()
        kind = CORE_TYPES.get(name)
        if kind is None:
            index = self._found.get_field_index(name)
            kind = self._found.field(index).type if index >= 0 else pa.null()
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def batches(self, page: pa.Table) -> Iterator[pa.RecordBatch]:
        """The page under the schema, in pieces of about `BATCH_BYTES`."""
        table = arrow_page(page) if self._with_id else _bare(page)
        empty = [
            f.name for f in self.schema if f.type == pa.null() and f.name in table.column_names
        ]
        table = conform(plain(table.drop_columns(empty)), self.schema)
        rows = max(1, table.num_rows * BATCH_BYTES // max(1, table.nbytes))
        yield from table.combine_chunks().to_batches(max_chunksize=rows)


def _seen(page: pa.Table) -> pa.Schema:
    """The columns of a page; one without any value has no type to tell."""
    fields = [
        (field.name, pa.null() if column.null_count == len(column) else field.type)
        for field, column in zip(page.schema, page.columns, strict=True)
    ]
    return pa.schema(fields)


def _with_fields(page: pa.Table, names: list[str]) -> pa.Table:
    """The page with these fields looked up in `attributes` where they are no columns: `*` asks for columns.

    With a projection the replicas do this, see `storage.scan_filter`.
    """
    if ATTRIBUTES not in page.column_names:
        return page
    texts = pl.Series(pl.from_arrow(page[ATTRIBUTES]))
    for name in names:
        quoted = name.replace("\\", "\\\\").replace("'", "\\'")
        values = texts.str.json_path_match(f"$['{quoted}']")
        if values.null_count() == len(values):
            continue
        index = page.schema.get_field_index(name)
        if index < 0:
            page = page.append_column(name, pa.chunked_array([values.to_arrow()]).cast(pa.string()))
        elif (pl.Series(pl.from_arrow(page.column(index).is_null())) & values.is_not_null()).any():
            known = pl.Series(pl.from_arrow(page.column(index).cast(pa.string())))
            filled = known.fill_null(values).to_arrow()
            page = page.set_column(index, name, pa.chunked_array([filled]).cast(pa.string()))
    return page


def _bare(page: pa.Table) -> pa.Table:
    return page.drop_columns(
        [name for name in (RUN_COLUMN, NUMBER_COLUMN) if name in page.column_names]
    )
