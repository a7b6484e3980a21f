"""From pieces to one encoded block: rows side by side, per-entry facts as columns, encoded once.

Runs in a worker thread; what takes time (concatenation, Parquet, zstd, CRC) releases the GIL.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ingestor.enrich import constant
from ingestor.shards import Piece, join_pieces
from records.block import EntryHeader
from records.block_codec import EncodedBlock, encode_block
from records.columns import CORE_NAMES, CORE_TYPES, united
from records.ids import BlockId, RingEpoch

_FACTS = ("tenant", "received_at", "producer", "producer_epoch")


def encode_pieces(pieces: Sequence[Piece], block: BlockId, filters: str = "auto") -> EncodedBlock:
    """The block of all entries of `pieces`, in order; they share owners and ring epoch."""
    whole = join_pieces(pieces)
    table = _rows(whole.tables)
    entries = whole.entries
    epoch = RingEpoch(whole.ring_epoch)
    return encode_block(block, epoch, with_facts(table, entries), entries, filters)


def _rows(tables: Sequence[pa.Table]) -> pa.Table:
    """All rows under one schema; tables alike are laid side by side without a look at their columns."""
    filled = [table for table in tables if table.num_rows]
    if not filled:
        return pa.table({})
    first = filled[0].schema
    if len(filled) > 1 and all(table.schema.equals(first) for table in filled[1:]):
        table = pa.concat_tables(filled).unify_dictionaries()
    else:
        table = united(filled)
    return table.combine_chunks() if len(filled) > 1 else table


def with_facts(table: pa.Table, entries: Sequence[EntryHeader]) -> pa.Table:
    """The rows with tenant, received_at and, where sequenced, producer and epoch; core columns first.

    A field of the sender's that has the name of one of these keeps its value under `<name>_`.
    """
    if table.num_rows == 0:
        return table
    names = [_free(name, table.schema.names) for name in table.schema.names]
    columns: dict[str, Any] = dict(zip(names, table.columns, strict=True))
    counts = np.array([entry.row_count for entry in entries])
    columns["tenant"] = _repeated([entry.tenant for entry in entries], counts)
    received = np.repeat(np.array([entry.received_at for entry in entries], np.int64), counts)
    columns["received_at"] = pa.array(received).view(CORE_TYPES["received_at"])
    if any(entry.sequenced for entry in entries):
        columns["producer"] = _repeated([entry.producer or None for entry in entries], counts)
        epochs = np.array([entry.producer_epoch for entry in entries], np.int64)
        absent = np.repeat(np.array([not entry.sequenced for entry in entries]), counts)
        columns["producer_epoch"] = pa.array(np.repeat(epochs, counts), mask=absent)
    ordered = [name for name in CORE_NAMES if name in columns]
    ordered += [name for name in columns if name not in CORE_TYPES]
    return pa.table({name: columns[name] for name in ordered})


def _free(name: str, taken: list[str]) -> str:
    if name not in _FACTS:
        return name
    while name in _FACTS or name in taken:
        name += "_"
    return name


def _repeated(values: list[str | None], counts: np.ndarray) -> pa.Array:
    first = values[0]
    if first and values.count(first) == len(values):
        return constant(first, int(counts.sum()))
    names = sorted({value for value in values if value is not None})
    code_of = {name: code for code, name in enumerate(names)}
    codes = np.array([code_of.get(value, -1) if value else -1 for value in values], np.int32)
    indices = np.repeat(codes, counts)
    absent = indices < 0
    plain = pa.array(indices, pa.int32(), mask=absent if absent.any() else None)
    return pa.DictionaryArray.from_arrays(plain, pa.array(names, pa.string()))


def without_rows(table: pa.Table, dropped: Sequence[tuple[int, int]]) -> tuple[pa.Table, pa.Table]:
    """(`table` without the half-open row ranges `dropped`, the rows dropped)."""
    keep = np.ones(table.num_rows, bool)
    for start, end in dropped:
        keep[start:end] = False
    return table.filter(pa.array(keep)), table.filter(pa.array(~keep))
