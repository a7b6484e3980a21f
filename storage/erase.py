"""Blanking: hidden rows of a block lose their contents for good, and keep their place.

A block is written again as a segment in which these rows have no message, no ids, no fields: only their time,
service, level and sequence are left, and a mark (ERASED_COLUMN). So an entry stays what it is to the other
replicas: same id, same hash, same sequences, same number of rows; put again it is a duplicate, and which copy
of a row hides which does not change. Removing the rows instead would have changed all of these, one replica
after the other. What is left of a row takes next to nothing: nulls are run-length encoded.

Which blocks are due follows from the rules and the entry table; blocks that were looked through are
remembered (`Holdings.clean`) until they are merged. A rule of a watermark waits for a block to be older
than it; entries that will be dropped as a whole (storage.retiring) are left to that.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from records.block import BlockHeader
from records.columns import CORE_TYPES, ERASED_COLUMN
from records.timestamps import MICROS_PER_HOUR
from storage.compaction_merge import Merged, Opened, Source, open_source, regrouped
from storage.entry_table import GONE
from storage.holdings import Holdings
from storage.hot import HotSet
from storage.retention import Rule, floors_of, touched
from storage.scan_hidden import blanked_rows, hidden_rows, may_match

#: Arrow's kernels are made at import; type checkers cannot see them.
pc: Any = pyarrow.compute
#: What a blanked row keeps. Its message is the empty text: every row has one.
KEPT = frozenset(("timestamp", "timestamp_ns", "service", "level", "tenant", "received_at")) | {
    "producer",
    "producer_epoch",
    "seq",
    ERASED_COLUMN,
}
#: Blocks that one step looks through.
BLOCKS_MAX = 8
#: Microseconds: a block of which more will be dropped this soon is not yet written anew without what was.
SOON_MICROS = 24 * MICROS_PER_HOUR
Count = Callable[[int], None]


def due(holdings: Holdings, rule: Rule, floors: np.ndarray | None = None) -> np.ndarray:
    """Ordinals of the blocks that the rule still has to be carried out on, ascending.

    Args:
        floors: as `floors_of` has them, if known, of as many entries or fewer.
    """
    table = holdings.table
    if floors is None:
        floors = floors_of(holdings.retention, table)
    rows = table.rows[: len(floors)]
    found = touched(rule, table, rows) & ((rows["flags"] & GONE) == 0)
    found &= rows["max_ts"] >= floors
    found &= ~holdings.is_clean(rule.name, rows["block"])
    ordinals = np.unique(rows["block"][found]).tolist()
    if rule.rising:
        places = ((ordinal, holdings.blocks[ordinal]) for ordinal in ordinals)
        ordinals = [n for n, place in places if place is not None and rule.settled(place.max_ts)]
    return np.array(ordinals, np.int64)


def next_blocks(holdings: Holdings) -> tuple[list[int], list[Rule]]:
    """Some blocks to look through, and the rules to carry out on them; empty if there is nothing to do.

    A few passes over the entry table for each rule: on a worker. A block may be gone by the time it is used.
    """
    wanted: dict[int, list[Rule]] = {}
    floors = floors_of(holdings.retention, holdings.table)
    for rule in holdings.retention.all_rules:
        for ordinal in due(holdings, rule, floors).tolist():
            wanted.setdefault(ordinal, []).append(rule)
    if not wanted:
        return [], []
    first = min(wanted)
    alike = [ordinal for ordinal in sorted(wanted) if wanted[ordinal] == wanted[first]]
    return alike[:BLOCKS_MAX], wanted[first]


def thinnable(holdings: Holdings) -> list[int]:
    """Ordinals of the blocks to write anew without the entries that were dropped from them, ascending.

    Of a block that holds several services some may be dropped long before the others; else their rows would
    stay on disk with these. It waits while more of the block's entries will be dropped soon.
    """
    table = holdings.table
    floors = floors_of(holdings.retention, table)
    rows = table.rows[: len(floors)]
    gone = (rows["flags"] & GONE) != 0
    soon = ~gone & (rows["max_ts"] < floors + SOON_MICROS)
    left = ~gone & (rows["row_count"] > 0)
    wanted = _blocks_of(rows, gone) & _blocks_of(rows, left) & ~_blocks_of(rows, soon)
    found = np.flatnonzero(wanted).tolist()
    return [ordinal for ordinal in found if holdings.blocks[ordinal] is not None]


def _blocks_of(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """By ordinal, whether a block has any of the chosen entries. Entries are in the order of their blocks."""
    mask = np.zeros(int(rows["block"][-1]) + 1 if len(rows) else 0, bool)
    mask[rows["block"][chosen]] = True
    return mask


def erasing(
    rules: Sequence[Rule], erased: Count
) -> Callable[[HotSet, Sequence[Source]], Iterator[Merged]]:
    """How blocks are rewritten: those with rows to blank, each by itself; the others not at all.

    Args:
        erased: told how many rows were blanked; on the worker.
    """

    def run(hot: HotSet, sources: Sequence[Source]) -> Iterator[Merged]:
        for source in sources:
            mask = _new_rows(hot, source, rules)
            if mask is not None:
                erased(int(np.count_nonzero(mask)))
                opened = open_source(hot, source)
                table = blanked(opened.table, mask)
                yield from regrouped(Opened(source, opened.header, table))

    return run


def _new_rows(hot: HotSet, source: Source, rules: Sequence[Rule]) -> np.ndarray | None:
    """The mask of the block's rows that are hidden and not blanked yet; None for none."""
    place = source.place
    mask = np.zeros(place.rows, bool)
    for tenant in dict.fromkeys(rule.tenant for rule in rules):
        own = [one for one in rules if one.tenant == tenant and may_match(hot, place, one)]
        hidden = hidden_rows(hot, place, own, False)
        if hidden is not None:
            mask |= hidden & _rows_of(hot.header(place), tenant)
    before = blanked_rows(hot, place) if mask.any() else None
    if before is not None:
        mask &= ~before
    return mask if mask.any() else None


def _rows_of(header: BlockHeader, tenant: str) -> np.ndarray:
    """The mask of a tenant's rows: a block may hold those of several, and a rule speaks of its own."""
    mask = np.zeros(header.rows, bool)
    for entry in header.entries:
        if entry.tenant == tenant:
            mask[entry.row_start : entry.row_start + entry.row_count] = True
    return mask


def blanked(table: pa.Table, mask: np.ndarray) -> pa.Table:
    """The rows without the contents of those where `mask` holds, which are marked."""
    gone = pa.array(mask)
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for name in table.schema.names:
        column = table[name] if name in KEPT else _without(table[name], gone, name)
        if name != ERASED_COLUMN and column.null_count < table.num_rows:
            columns[name] = column
    marks = pa.array(np.where(mask, 1, 0).astype(np.int8), mask=~mask)
    if ERASED_COLUMN in table.schema.names:
        marks = pc.coalesce(marks, table[ERASED_COLUMN])
    columns[ERASED_COLUMN] = marks
    return pa.table(columns)


def _without(column: pa.ChunkedArray, gone: pa.Array, name: str) -> pa.ChunkedArray:
    """A column with nulls (of messages: empty texts) for the rows that go, and no trace of them."""
    kind = column.type
    dictionary = pa.types.is_dictionary(kind)
    plain = column.cast(kind.value_type) if dictionary else column
    nothing = pa.scalar("" if name == "message" else None, plain.type)
    kept = pc.if_else(gone, nothing, plain)
    return kept.dictionary_encode().cast(CORE_TYPES.get(name, kind)) if dictionary else kept
