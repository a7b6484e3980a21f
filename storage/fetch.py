"""Blocks restricted to some of their entries, for repair. Runs on a worker.

A block that holds nothing else goes out verbatim; of another one the rows are taken and encoded anew.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from records.block import BlockHeader
from records.block_codec import EncodedBlock, encode_block
from records.ids import EntryId
from storage.holdings import BlockPlace, Holdings
from storage.hot import HotSet


def places_of(
    holdings: Holdings, entry_ids: Sequence[EntryId]
) -> list[tuple[BlockPlace, list[int]]]:
    """Where these entries lie: each block with the indexes of the wanted ones. Unknown ids are left out."""
    found: dict[int, list[int]] = {}
    for entry_id in dict.fromkeys(entry_ids):
        number = holdings.table.find(entry_id)
        if number is not None:
            row = holdings.table.rows[number]
            found.setdefault(int(row["block"]), []).append(int(row["index"]))
    pairs = ((holdings.blocks[ordinal], indexes) for ordinal, indexes in found.items())
    return [(place, indexes) for place, indexes in pairs if place is not None]


def fetch_blocks(
    hot: HotSet, wanted: Sequence[tuple[BlockPlace, Sequence[int]]], max_bytes: int
) -> list[EncodedBlock]:
    """For each (place, indexes of entries) a block; at least one, then as many as fit into `max_bytes`.

    Raises:
        BlockCorrupt: a block is damaged (details: `ordinal`).
    """
    blocks: list[EncodedBlock] = []
    size = 0
    for place, indexes in wanted:
        if blocks and size >= max_bytes:
            break
        block = _restricted(hot, place, sorted(indexes))
        blocks.append(block)
        size += len(block.data)
    return blocks


def _restricted(hot: HotSet, place: BlockPlace, indexes: Sequence[int]) -> EncodedBlock:
    header = hot.header(place)
    if len(indexes) == len(header.entries):
        return EncodedBlock(header, hot.raw(place))
    entries = []
    at = 0
    for index in indexes:
        entries.append(replace(header.entries[index], row_start=at))
        at += header.entries[index].row_count
    table = _rows(hot, place, header, indexes)
    return encode_block(header.block_id, header.ring_epoch, table, tuple(entries))


def _rows(hot: HotSet, place: BlockPlace, header: BlockHeader, indexes: Sequence[int]) -> pa.Table:
    columns = hot.columns(place, header.columns)
    entries = [header.entries[index] for index in indexes]
    rows = [np.arange(e.row_start, e.row_start + e.row_count) for e in entries]
    if not columns or not sum(map(len, rows)):
        return pa.table({})
    chosen = pa.array(np.concatenate(rows))
    return pa.table({name: columns[name].take(chosen) for name in header.columns})
