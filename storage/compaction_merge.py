"""Merges blocks into segments: bytes to bytes, on a worker. The entries keep their identity and their rows.

* Blocks that disagree on the type of a field are not merged (it would turn numbers into text), nor are
  blocks where one keeps in `attributes` what the other has as a column: each answer stays what it was.
* Entries go to the segment of their hour; those that span hours share one. If there were more segments than
  half the blocks, the smallest hours share it too, so each merge leaves fewer pieces than it found.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from records.block import BlockHeader
from records.block_codec import EncodedBlock, decode_header, encode_block, open_body, parse_prefix
from records.columns import CORE_TYPES, ERASED_COLUMN, united
from records.errors import BlockCorrupt, EnvelopeCorrupt
from records.ids import BlockId
from storage.holdings import BlockPlace
from storage.hot import HotSet
from storage.segment_file import hour_within

ATTRIBUTES = "attributes"
#: Groups of blocks that fit together which a source is held against.
_GROUPS_MAX = 32


@dataclass(frozen=True, slots=True)
class Source:
    """A block to merge: numbers and header indexes of its present entries, ascending."""

    place: BlockPlace
    numbers: np.ndarray
    indexes: np.ndarray


@dataclass(frozen=True, slots=True)
class Opened:
    """A source as read."""

    source: Source
    header: BlockHeader
    table: pa.Table

    @property
    def fields(self) -> dict[str, pa.DataType]:
        """Types of the columns that are not core, nor ours."""
        names = CORE_TYPES.keys() | {ERASED_COLUMN}
        return {f.name: f.type for f in self.table.schema if f.name not in names}


@dataclass(frozen=True, slots=True)
class Merged:
    """A segment's block, and the entry numbers and first rows of its entries in order."""

    block: EncodedBlock
    numbers: np.ndarray
    row_starts: np.ndarray


@dataclass(frozen=True, slots=True)
class _Piece:
    """Entry `index` of an opened source, with the number it has in the entry table."""

    opened: Opened
    index: int
    number: int


def open_source(hot: HotSet, source: Source) -> Opened:
    """Reads and verifies a block.

    Raises:
        BlockCorrupt: it is damaged (details: `ordinal`).
    """
    data = hot.raw(source.place)
    try:
        header = decode_header(data)
        body = memoryview(data)[parse_prefix(data).body[0] :]
        table = pa.table({})
        if header.rows:
            table = open_body(body, header.columns).read(use_threads=False)
    except (BlockCorrupt, EnvelopeCorrupt, pa.ArrowException) as error:
        raise BlockCorrupt(str(error), ordinal=source.place.ordinal) from error
    if table.num_rows != header.rows:
        raise BlockCorrupt(f"{table.num_rows} rows in the body", ordinal=source.place.ordinal)
    return Opened(source, header, table)


def merge(opened: Sequence[Opened]) -> list[Merged]:
    """Segments of all sources that fit together; a source that fits with no other is in none."""
    merged: list[Merged] = []
    for group in _compatible(opened):
        if len(group) > 1:
            merged += _merge_group(group)
    return merged


def carry(hot: HotSet, source: Source) -> list[Merged]:
    """One block as a segment of its own: its bytes as they are, if all of its entries are present.

    Otherwise it is encoded anew with those that are: without a catalog a segment's header is believed, and it
    must not name an entry that was refused when the block came.

    Raises:
        BlockCorrupt: it is damaged (details: `ordinal`).
    """
    opened = open_source(hot, source)
    if len(source.numbers) < len(opened.header.entries):
        return _merge_group([opened])
    starts = np.array([entry.row_start for entry in opened.header.entries], np.int64)
    block = EncodedBlock(opened.header, hot.raw(source.place))
    return [Merged(block, source.numbers, starts)]


def regrouped(opened: Opened) -> list[Merged]:
    """A block, opened and changed, as a segment of its own; without rows there is none."""
    return _merge_group([opened])


def _compatible(opened: Sequence[Opened]) -> list[list[Opened]]:
    """Groups of sources whose rows mean the same in one table; each goes to the first it fits."""
    groups: list[list[Opened]] = []
    fields: list[dict[str, pa.DataType]] = []
    for one in opened:
        for position, group in enumerate(groups[:_GROUPS_MAX]):
            both = {**fields[position], **one.fields}
            if _fits(one, group, fields[position], both):
                group.append(one)
                fields[position] = both
                break
        else:
            groups.append([one])
            fields.append(one.fields)
    return groups


def _fits(
    one: Opened, group: list[Opened], known: dict[str, pa.DataType], both: dict[str, pa.DataType]
) -> bool:
    if any(known.get(name, kind) != kind for name, kind in one.fields.items()):
        return False
    if ATTRIBUTES in one.table.schema.names and len(one.fields) < len(both):
        return False
    return len(both) == len(known) or not any(ATTRIBUTES in o.table.schema.names for o in group)


def _merge_group(group: list[Opened]) -> list[Merged]:
    hours: dict[int | None, list[_Piece]] = defaultdict(list)
    for opened in group:
        source = opened.source
        for index, number in zip(source.indexes.tolist(), source.numbers.tolist(), strict=True):
            entry = opened.header.entries[index]
            hour = hour_within(entry.min_ts, entry.max_ts) if entry.row_count else None
            hours[hour].append(_Piece(opened, index, number))
    most = max(1, len(group) // 2)
    if len(hours) > most:
        _share(hours, most)
    if None in hours and len(hours) > 1 and not _rows(hours[None]):
        shared = hours.pop(None)  # entries without rows: a file has to have some
        hours[next(iter(hours))] += shared
    return (
        [_encoded(pieces) for pieces in hours.values()] if any(map(_rows, hours.values())) else []
    )


def _share(hours: dict[int | None, list[_Piece]], most: int) -> None:
    """Moves the smallest hours to the shared segment, so that at most `most` are left."""
    shared = hours.pop(None, [])
    by_size = sorted((hour for hour in hours if hour is not None), key=lambda h: -_rows(hours[h]))
    for hour in by_size[max(0, most - 1) :]:
        shared += hours.pop(hour)
    hours[None] = shared


def _rows(pieces: Sequence[_Piece]) -> int:
    return sum(one.opened.header.entries[one.index].row_count for one in pieces)


def _encoded(unordered: Sequence[_Piece]) -> Merged:
    pieces = sorted(unordered, key=lambda one: (one.opened.source.place.ordinal, one.index))
    entries, starts, at = [], [], 0
    for one in pieces:
        entry = one.opened.header.entries[one.index]
        entries.append(replace(entry, row_start=at))
        starts.append(at)
        at += entry.row_count
    headers = list({id(one.opened): one.opened.header for one in pieces}.values())
    oldest = BlockId(min(bytes(header.block_id) for header in headers))
    ring_epoch = max(header.ring_epoch for header in headers)
    table = united([table for table in _tables(pieces) if table.num_rows]).combine_chunks()
    block = encode_block(oldest, ring_epoch, table, tuple(entries))
    return Merged(block, np.array([one.number for one in pieces]), np.array(starts))


def _tables(pieces: Sequence[_Piece]) -> list[pa.Table]:
    """The rows of the pieces in order, one table for each run of the same source."""
    runs: list[tuple[Opened, list[int]]] = []
    for one in pieces:
        if not runs or runs[-1][0] is not one.opened:
            runs.append((one.opened, []))
        runs[-1][1].append(one.index)
    return [_rows_of(opened, indexes) for opened, indexes in runs]


def _rows_of(opened: Opened, indexes: Sequence[int]) -> pa.Table:
    entries = [opened.header.entries[index] for index in indexes]
    if sum(entry.row_count for entry in entries) == opened.header.rows:
        return opened.table
    rows = [np.arange(e.row_start, e.row_start + e.row_count) for e in entries]
    return opened.table.take(pa.array(np.concatenate(rows)))
