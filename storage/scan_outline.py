"""What a fold would read, told instead of read: pieces by time, for a caller that deals them out.

A piece is a block, or a row group of it where filters name the row groups; what filters and sidecars
exclude is not there. Counts that rollups answer read nothing, so their outline is empty.
Cost: the pruning of the scan itself, and a few passes over the entries; no page is opened.
"""

import numpy as np
import pyarrow as pa

from storage import scan_rollup
from storage.scanner import Scanner


def outline(scanner: Scanner, most: int) -> pa.Table:
    """Columns `first`, `last` (microseconds, both included) and `rows`, by `first`; at most `most` lines.

    More pieces are told together with their neighbours.
    """
    parts = [] if scan_rollup.fits(scanner.plan) else scanner.candidates()
    if not parts:
        return _table(*(np.zeros(0, np.int64) for _ in range(3)))
    time, entries = scanner.plan.time, scanner.snapshot.rows
    numbers = np.concatenate([part.numbers for part in parts])
    edges = np.cumsum([0, *(len(part.numbers) for part in parts[:-1])])
    first = np.minimum.reduceat(entries["min_ts"][numbers], edges).astype(np.int64)
    last = np.maximum.reduceat(entries["max_ts"][numbers], edges).astype(np.int64)
    held = np.add.reduceat(entries["row_count"][numbers].astype(np.int64), edges)
    rows = np.minimum(held, [part.place.rows for part in parts])
    first, last = np.maximum(first, time.start), np.minimum(last, time.end - 1)
    order = np.argsort(first, kind="stable")
    starts = np.arange(0, len(order), -(-len(order) // most))
    return _table(
        first[order][starts],
        np.maximum.reduceat(last[order], starts),
        np.add.reduceat(rows[order], starts),
    )


def _table(first: np.ndarray, last: np.ndarray, rows: np.ndarray) -> pa.Table:
    return pa.table({"first": first, "last": last, "rows": rows})
