"""Entry rows that nobody needs any more are dropped while the node runs. Pure.

A merge files its entries anew and leaves their old rows behind, `GONE`: a scan that began before still reads
them. With tiny requests each entry is merged a few times, and the rows left behind are most of the table.

    pack (worker)    copies the rows of present blocks, and makes the indexes of them anew
    Holdings.adopt   (event loop) takes over the flags, adds what came meanwhile, swaps: new numbers for all

Rows are dropped by whole blocks, so an entry keeps its position in its block; and of blocks that are gone, so
no present entry is dropped. Older snapshots keep the old columns. Whatever holds entry numbers longer
than a snapshot does, either follows the renumbering or names the `generation` its numbers are of.
"""

from dataclasses import dataclass

import numpy as np

from storage.entry_table import ENTRY_TYPE, GONE, NO_ID, IdIndex

#: Rows of blocks that are gone below which packing is not worth while: 8 MiB.
GONE_MIN = 65_536


@dataclass(frozen=True, slots=True)
class Packed:
    """The rows `kept` (old numbers, ascending) of the first `seen` rows of a table, with room for more."""

    rows: np.ndarray
    kept: np.ndarray
    seen: int
    ids: IdIndex
    previous: IdIndex


def is_due(count: int, gone: int) -> bool:
    """Whether a table of `count` rows, `gone` of them not needed, should be packed.

    At a third: what is copied in all stays below twice what was ever added, and at most half as many rows as
    are needed lie about (and GONE_MIN).
    """
    return gone >= GONE_MIN and gone * 3 >= count


def droppable(rows: np.ndarray, present: np.ndarray) -> int:
    """How many of the rows are of blocks that are gone: what `pack` drops. 5 ns a row: on a worker.

    `present` is as for `pack`. Entries that left a block that stays (expired, or their shard left) lie about
    until it is written anew, however often the table were packed.
    """
    return len(rows) - int(np.count_nonzero(present[rows["block"]]))


def pack(rows: np.ndarray, present: np.ndarray) -> Packed:
    """Copies the rows of present blocks. Slow (0.3 us a row): call it on a worker.

    Args:
        rows: the first rows of an entry table; only their flags may change meanwhile.
        present: a mask by block ordinal, of the same moment as `rows`.
    """
    kept = np.flatnonzero(present[rows["block"]])
    packed = np.zeros(max(1024, len(kept) + len(kept) // 4), ENTRY_TYPE)
    packed[: len(kept)] = rows[kept]
    ids, previous = IdIndex(), IdIndex()
    live = np.flatnonzero((packed["flags"][: len(kept)] & GONE) == 0)
    ids.add_all(live, packed["id"])
    chained = packed["previous"][live] != np.void(NO_ID)
    previous.add_all(live[chained], packed["previous"])
    return Packed(packed, kept, len(rows), ids, previous)


def renumbering(packed: Packed, count: int) -> np.ndarray:
    """New number by old number, -1 of rows that were dropped; `count`: rows of the table now."""
    moved = np.full(count, -1, np.int64)
    moved[packed.kept] = np.arange(len(packed.kept))
    moved[packed.seen :] = np.arange(count - packed.seen) + len(packed.kept)
    return moved
