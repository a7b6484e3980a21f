"""Merging what replicas answered: ordered tables -> one, each row once, at most `limit`. Pure, by column.

A row is named by (`_entry`, `_row`); a sequenced row also by (tenant, service, producer, epoch, seq), which
is the backstop where two entries hold it and no single replica knew both. Order is that of RowKey: time,
entry, row. Merging is set union, so it may see the same row from several replicas and asks no questions.
"""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute

from records.columns import CORE_TYPES, ENTRY_COLUMN, ROW_COLUMN, united
from records.predicates import RowKey

pc: Any = pyarrow.compute
ENTRY_TYPE = pa.binary(16)
KEY_TYPES = {ENTRY_COLUMN: ENTRY_TYPE, ROW_COLUMN: pa.int32(), "timestamp": CORE_TYPES["timestamp"]}
#: The name of a sequenced row. `tenant` may be absent: one query reads one tenant.
SEQUENCED = ("service", "producer", "producer_epoch", "seq")
EMPTY = pa.table({name: pa.array([], kind) for name, kind in KEY_TYPES.items()})


def normalised(table: pa.Table) -> pa.Table:
    """The table with its key columns in the types that we compare."""
    for name, kind in KEY_TYPES.items():
        index = table.schema.get_field_index(name)
        if index >= 0 and table.schema.field(index).type != kind:
            table = table.set_column(index, name, table.column(index).cast(kind))
    return table


def merge_rows(tables: list[pa.Table], descending: bool, limit: int) -> pa.Table:
    """The rows of all `tables` (each in order), distinct, in order, the first `limit` (0: all)."""
    full = [normalised(table) for table in tables if table.num_rows]
    if not full:
        return normalised(tables[0]) if tables and ENTRY_COLUMN in tables[0].column_names else EMPTY
    if len(full) == 1:
        merged = full[0]
    else:
        merged = _sorted_distinct(united(full), descending)
        merged = _distinct_sequences(merged)
    return merged.slice(0, limit) if limit else merged


def _keys(table: pa.Table) -> tuple[np.ndarray, ...]:
    """(time, high and low half of the entry id, row): what to sort by, most significant first."""
    column = table[ENTRY_COLUMN].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], ENTRY_TYPE)
    raw = np.frombuffer(column.buffers()[1], ">u8", 2 * len(column), 16 * column.offset)
    halves = raw.reshape(-1, 2).astype(np.uint64)
    stamps = table["timestamp"].cast(pa.int64()).to_numpy()
    return stamps, halves[:, 0], halves[:, 1], table[ROW_COLUMN].to_numpy()


def _sorted_distinct(table: pa.Table, descending: bool) -> pa.Table:
    keys = _keys(table)
    order = np.lexsort(tuple(reversed(keys)))
    _, high, low, row = (key[order] for key in keys)
    fresh = np.ones(len(order), bool)
    fresh[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1]) | (row[1:] != row[:-1])
    order = order[fresh]
    return table.take(pa.array(order[::-1] if descending else order))


def _distinct_sequences(table: pa.Table) -> pa.Table:
    """Leaves the first of several rows with the same producer, epoch and sequence."""
    if not set(SEQUENCED) <= set(table.column_names):
        return table
    named = [name for name in ("tenant", *SEQUENCED) if name in table.column_names]
    numbered = pc.is_valid(table["seq"])
    if not pc.any(numbered).as_py():
        return table
    frame: Any = pl.from_arrow(table.select(named))
    first = frame.select(pl.struct(named).is_first_distinct()).to_series().to_arrow()
    return table.filter(pc.or_(pc.invert(numbered), first))


def key_at(table: pa.Table, index: int) -> RowKey:
    """The key of one row of a merged table; negative indexes count from the end."""
    index = index % table.num_rows
    stamp = table["timestamp"].cast(pa.int64())[index].as_py()
    return RowKey(stamp, table[ENTRY_COLUMN][index].as_py(), table[ROW_COLUMN][index].as_py())


def rows_up_to(table: pa.Table, horizon: RowKey, descending: bool) -> int:
    """How many rows of an ordered table lie at or before `horizon`, in the direction of the order."""
    bound = _comparable(horizon)
    low, high = 0, table.num_rows
    while low < high:
        middle = (low + high) // 2
        key = _comparable(key_at(table, middle))
        if (key >= bound) if descending else (key <= bound):
            low = middle + 1
        else:
            high = middle
    return low


def _comparable(key: RowKey) -> tuple[int, bytes, int]:
    return key.timestamp, key.entry_id, key.row


def farther(keys: list[RowKey], descending: bool) -> RowKey:
    """The key that comes first in the order: up to it, all sources have told what they hold."""
    pick = max if descending else min
    return pick(keys, key=_comparable)
