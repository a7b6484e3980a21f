"""Merging what replicas answered: ordered tables -> one, each row once, at most `limit`. Pure, by column.

A row is named by its run and number (records.ids), the same from all replicas and in all entries that hold
a copy. Order is that of RowKey: time, run, number. Merging is set union by that name, so it may see the same
row several times and asks no questions. Of copies at several times (rows without a time of their own, sent
again) the first in the order is kept.
"""

import numpy as np
import pyarrow as pa

from records.columns import CORE_TYPES, NUMBER_COLUMN, RUN_COLUMN, united
from records.predicates import RowKey

RUN_TYPE = pa.binary(16)
KEY_TYPES = {
    RUN_COLUMN: RUN_TYPE,
    NUMBER_COLUMN: pa.int64(),
    "timestamp": CORE_TYPES["timestamp"],
}
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
        return normalised(tables[0]) if tables and RUN_COLUMN in tables[0].column_names else EMPTY
    merged = full[0] if len(full) == 1 else _sorted_distinct(united(full), descending)
    return merged.slice(0, limit) if limit else merged


def _keys(table: pa.Table) -> tuple[np.ndarray, ...]:
    """(time, high and low half of the run, number): what to sort by, most significant first."""
    column = table[RUN_COLUMN].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], RUN_TYPE)
    raw = np.frombuffer(column.buffers()[1], ">u8", 2 * len(column), 16 * column.offset)
    halves = raw.reshape(-1, 2).astype(np.uint64)
    stamps = table["timestamp"].cast(pa.int64()).to_numpy()
    return stamps, halves[:, 0], halves[:, 1], table[NUMBER_COLUMN].to_numpy()


def _sorted_distinct(table: pa.Table, descending: bool) -> pa.Table:
    keys = _keys(table)
    order = np.lexsort(tuple(reversed(keys)))
    if descending:
        order = order[::-1]
    return table.take(pa.array(order[_first_of_name(*(key[order] for key in keys[1:]))]))


def _first_of_name(high: np.ndarray, low: np.ndarray, number: np.ndarray) -> np.ndarray:
    """The mask of the rows that no row before them has the name of."""
    by_name = np.lexsort((number, low, high))  # stable: rows of one name stay in their order
    high, low, number = high[by_name], low[by_name], number[by_name]
    again = (high[1:] == high[:-1]) & (low[1:] == low[:-1]) & (number[1:] == number[:-1])
    first = np.ones(len(by_name), bool)
    first[by_name[1:][again]] = False
    return first


def key_at(table: pa.Table, index: int) -> RowKey:
    """The key of one row of a merged table; negative indexes count from the end."""
    index = index % table.num_rows
    stamp = table["timestamp"].cast(pa.int64())[index].as_py()
    return RowKey(stamp, table[RUN_COLUMN][index].as_py(), table[NUMBER_COLUMN][index].as_py())


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
    return key.timestamp, key.run, key.number


def farther(keys: list[RowKey], descending: bool) -> RowKey:
    """The key that comes first in the order: up to it, all sources have told what they hold."""
    pick = max if descending else min
    return pick(keys, key=_comparable)
