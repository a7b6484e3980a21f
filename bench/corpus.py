"""The benchmark's logs, made from a seed: the same rows for every store, in pieces.

slim: timestamp, service, level, message (about 171 bytes a row as JSON); rich: 11 fields (about 340).
Both are rows of the simulated shop. Piece k of a corpus depends on the seed, k and its size alone, so
that a run of a hundred million rows holds one piece in memory, and can begin again in the middle.

Invariant: each piece holds one row, in its middle, with a word that no other row has: `rare_word(k)`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as arrow_compute

from node.simulate.formats import times, to_bytes
from node.simulate.generator import Shop, digits

pc: Any = arrow_compute
SEED = 42
START_MICROS = 1_767_225_600_000_000  # 2026-01-01
ROWS_PER_SECOND = 1000
SLIM = ("timestamp", "service", "level", "message")
RICH = (
    *SLIM, "trace_id", "span_id", "user_id", "session_id", "operation", "host", "duration_ms",
)  # fmt: skip
COLUMNS = {"slim": SLIM, "rich": RICH}
KINDS = tuple(COLUMNS)


@dataclass(frozen=True, slots=True)
class Body:
    """One batch: `json` is its lines; `table` the same columns, timestamps as text (RFC 3339, UTC)."""

    rows: int
    json: bytes
    table: pa.Table

    def csv(self) -> bytes:
        """The same without header, text quoted, as PostgreSQL's COPY reads it."""
        return _lines(self.table, json=False)


def rare_word(piece: int) -> str:
    """A word that one row of piece `piece` has, and no other row."""
    return f"unicorn{piece:06d}"


def rows(seed: int, count: int, piece: int = 0) -> pa.Table:
    """The `count` rows of a piece as the shop makes them; `timestamp` as text, pieces follow in time."""
    start = START_MICROS + piece * count * (1_000_000 // ROWS_PER_SECOND)
    shop = Shop(seed + piece, start, float(ROWS_PER_SECOND))
    chunks: list[pa.Table] = []
    have = 0
    for chunk in shop.chunks():
        chunks.append(chunk)
        have += chunk.num_rows
        if have >= count:
            break
    table = pa.concat_tables(chunks).slice(0, count).combine_chunks()
    return _with_rare_word(table.set_column(0, "timestamp", times(table["timestamp"])), piece)


def _with_rare_word(table: pa.Table, piece: int) -> pa.Table:
    place, column = table.num_rows // 2, table.schema.get_field_index("message")
    message = table["message"]
    marked = pa.array([f"{message[place].as_py()} {rare_word(piece)}"], message.type)
    parts = [message.slice(0, place), pa.chunked_array([marked]), message.slice(place + 1)]
    chunks = [chunk for part in parts for chunk in part.chunks]
    return table.set_column(column, "message", pa.concat_arrays(chunks))


def slim(table: pa.Table) -> pa.Table:
    """The four columns; trace and user go into the message, as in a plain application's log."""
    message = pc.binary_join_element_wise(
        table["message"], " user=", table["user_id"], " id=", table["trace_id"], ""
    )
    return table.set_column(table.schema.get_field_index("message"), "message", message)


def rich(table: pa.Table) -> pa.Table:
    """The eleven columns; hosts have their full names, operations their service's."""
    host = pc.binary_join_element_wise(table["host"], table["region"], "shop.example", ".")
    operation = pc.binary_join_element_wise(table["service"], table["operation"], "/")
    table = table.set_column(table.schema.get_field_index("host"), "host", host)
    return table.set_column(table.schema.get_field_index("operation"), "operation", operation)


def _lines(table: pa.Table, json: bool) -> bytes:
    parts: list[Any] = []
    for place, name in enumerate(table.column_names):
        number = pa.types.is_integer(table[name].type)
        value = digits(table[name].to_numpy()) if number else table[name]
        quote = "" if number else '"'
        lead = ("," if place else "") if not json else f'{"," if place else "{"}"{name}":'
        parts += [lead + quote, value, quote]
    return to_bytes(pc.binary_join_element_wise(*parts, "}\n" if json else "\n", ""))


def table_of(kind: str, count: int, piece: int = 0, seed: int = SEED) -> pa.Table:
    """The rows of a piece with the columns of `kind`."""
    return (slim if kind == "slim" else rich)(rows(seed, count, piece)).select(COLUMNS[kind])


def cut(table: pa.Table, batch_rows: int) -> Iterator[Body]:
    """The rows in batches of `batch_rows`, the last one shorter."""
    for first in range(0, table.num_rows, batch_rows):
        part = table.slice(first, batch_rows)
        yield Body(part.num_rows, _lines(part, json=True), part)


def bodies(kind: str, seed: int, count: int, batch_rows: int) -> list[Body]:
    """`count` rows, all one piece, in batches of `batch_rows`."""
    return list(cut(table_of(kind, count, 0, seed), batch_rows))
