"""Pages of rows as one table for the engine: one schema, whatever fields the pages turn out to have.

The schema has to be known before the first row goes out. So the first pages are gathered; where a later
page has a wider type or a field that was not seen before, the input is withdrawn and begun again with what
is known by then (`Wider`). Nothing of the result was sent yet, so nobody notices.
"""

from collections.abc import Iterator

import pyarrow as pa

from query.encode import ID, arrow_page
from records.columns import CORE_NAMES, CORE_TYPES, conform, plain, united_schema
from records.errors import InvalidRequest

#: Core columns that `SELECT *` shows only if rows have them.
_DULL = ("timestamp_ns", "tenant", "producer", "producer_epoch", "seq", "received_at")
#: Bytes of one batch on its way to the engine.
BATCH_BYTES = 1 << 20


class Wider(Exception):
    """A page does not fit the schema that is in use; the shape knows a wider one now."""


class Shape:
    """The schema of `logs` for one query.

    `wanted`: the columns it names, None for all. `defined`: names (lower case) that the query gives to
    something itself; such a column exists only if a row has it. Others that no row has are null.
    """

    def __init__(self, wanted: tuple[str, ...] | None, defined: set[str], with_id: bool) -> None:
        self._wanted, self._defined, self._with_id = wanted, defined, with_id
        self._found: pa.Schema = pa.schema([])
        self._schema: pa.Schema | None = None

    def learn(self, page: pa.Table) -> None:
        """Notes the columns and types of a page.

        Raises:
            Wider: the schema is in use and does not hold them.
        """
        known = self._found
        self._found = united_schema([known, _bare(page).schema])
        if self._schema is not None and self._found != known:
            raise Wider

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
        return [
            n
            for n in self.schema.names
            if n not in CORE_TYPES and n not in self._found.names and n != ID
        ]

    def _names(self) -> list[str]:
        found = [name for name in self._found.names if name not in CORE_TYPES]
        first = [ID] if self._with_id else []
        if self._wanted is None:
            core = [n for n in CORE_NAMES if n not in _DULL or n in self._found.names]
            return [*first, *core, *found]
        fields = [
            name
            for name in self._wanted
            if name not in CORE_TYPES and (name in found or name.lower() not in self._defined)
        ]
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
        table = conform(plain(table), self.schema)
        rows = max(1, table.num_rows * BATCH_BYTES // max(1, table.nbytes))
        yield from table.combine_chunks().to_batches(max_chunksize=rows)


def _bare(page: pa.Table) -> pa.Table:
    return page.drop_columns([name for name in ("_entry", "_row") if name in page.column_names])
