"""The benchmark's logs, made from a seed: bodies of JSON lines and of CSV, the same for every store.

slim: timestamp, service, level, message (about 170 bytes a row); rich: 11 fields (about 350 bytes).
Both are rows of the simulated shop, cut into bodies of a given number of rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as arrow_compute

from node.simulate.formats import times, to_bytes
from node.simulate.generator import Shop, digits

pc: Any = arrow_compute
START_MICROS = 1_767_225_600_000_000  # 2026-01-01
ROWS_PER_SECOND = 1000.0
SLIM = ("timestamp", "service", "level", "message")
RICH = (
    *SLIM, "trace_id", "span_id", "user_id", "session_id", "operation", "host", "duration_ms",
)  # fmt: skip
COLUMNS = {"slim": SLIM, "rich": RICH}


@dataclass(frozen=True, slots=True)
class Body:
    """The same rows twice: as JSON lines and as CSV without header."""

    rows: int
    json: bytes
    csv: bytes


def rows(seed: int, count: int) -> pa.Table:
    """`count` rows of the shop; `timestamp` as text."""
    shop = Shop(seed, START_MICROS, ROWS_PER_SECOND)
    chunks: list[pa.Table] = []
    have = 0
    for chunk in shop.chunks():
        chunks.append(chunk)
        have += chunk.num_rows
        if have >= count:
            break
    table = pa.concat_tables(chunks).slice(0, count).combine_chunks()
    return table.set_column(0, "timestamp", times(table["timestamp"]))


def slim(table: pa.Table) -> pa.Table:
    """The four columns; trace and user go into the message, as in a plain application's log."""
    message = pc.binary_join_element_wise(
        table["message"], " user=", table["user_id"], " trace=", table["trace_id"], ""
    )
    return table.set_column(table.schema.get_field_index("message"), "message", message)


def rich(table: pa.Table) -> pa.Table:
    """The eleven columns; hosts have their full names, operations their service's."""
    host = pc.binary_join_element_wise(table["host"], table["region"], "shop.example", ".")
    operation = pc.binary_join_element_wise(table["service"], table["operation"], "/")
    table = table.set_column(table.schema.get_field_index("host"), "host", host)
    return table.set_column(table.schema.get_field_index("operation"), "operation", operation)


def _lines(table: pa.Table, names: tuple[str, ...], json: bool) -> bytes:
    parts: list[Any] = []
    for place, name in enumerate(names):
        number = pa.types.is_integer(table[name].type)
        value = digits(table[name].to_numpy()) if number else table[name]
        quote = "" if number else '"'
        lead = ("," if place else "") if not json else f'{"," if place else "{"}"{name}":'
        parts += [lead + quote, value, quote]
    return to_bytes(pc.binary_join_element_wise(*parts, "}\n" if json else "\n", ""))


def bodies(kind: str, seed: int, count: int, batch_rows: int) -> list[Body]:
    """`count` rows in bodies of `batch_rows`."""
    return list(_cut(kind, rows(seed, count), batch_rows))


def _cut(kind: str, table: pa.Table, batch_rows: int) -> Iterator[Body]:
    names = COLUMNS[kind]
    table = (slim if kind == "slim" else rich)(table).select(names)
    for first in range(0, table.num_rows, batch_rows):
        part = table.slice(first, batch_rows)
        yield Body(part.num_rows, _lines(part, names, True), _lines(part, names, False))
