"""Counts answered from rollups: no row is touched, and no block is visited one by one.

It can be used when the fold counts rows by a subset of service and level, in buckets of whole minutes or
none, under a filter made of eq and in on these two. A block counts this way if its part of the time range
begins and ends on minutes and none of its entries is hidden in part; the others are left to be read.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from records.predicates import TRUE, Fold, ScanPlan
from records.timestamps import MICROS_PER_MINUTE, TimeRange
from storage.rollup_index import INDEXED, Cells
from storage.scan_filter import BlockView, evaluate, only_over
from storage.scan_select import Snapshot

KEYS = frozenset({"service", "level"})
BUCKET = "_bucket"
#: Groups times buckets that are counted in one dense array of 8 bytes each; more are sorted.
_DENSE_MAX = 1 << 21


def fits(plan: ScanPlan) -> bool:
    """Whether rollups can answer the plan at all."""
    fold = plan.fold
    return (
        fold is not None
        and all(one.function == "count" and not one.column for one in fold.aggregates)
        and set(fold.by) <= KEYS
        and fold.step_micros % MICROS_PER_MINUTE == 0
        and only_over(plan.filter, KEYS)
    )


@dataclass(frozen=True, slots=True)
class Counted:
    """The counts of the blocks that rollups answer, and the entries left to be read."""

    table: pa.Table | None
    blocks: int
    rest: np.ndarray


def count(cells: Cells, snapshot: Snapshot, visible: np.ndarray, plan: ScanPlan) -> Counted:
    """Counts the visible entries' cells that match.

    Args:
        cells: with what is known of all blocks of `visible`.
        visible: numbers of the entries that may match, ascending.
    """
    blocks = snapshot.rows["block"][visible].astype(np.int64)
    answered = _answered(cells, snapshot, visible, blocks, plan.time)
    rest = visible[~answered]
    block_of = np.full(len(snapshot.rows) + 1, -1, np.int64)
    block_of[visible[answered]] = blocks[answered]
    inside = cells.number < len(snapshot.rows)  # entries that came after the snapshot
    mask = block_of[np.where(inside, cells.number, -1)] == cells.block
    if plan.time != TimeRange():
        stamps = cells.minute * MICROS_PER_MINUTE
        mask &= (stamps > plan.time.start - MICROS_PER_MINUTE) & (stamps < plan.time.end)
    if plan.filter != TRUE:
        mask &= _matching_pairs(cells, plan)[cells.pair]
    kept = np.flatnonzero(mask)
    done = blocks[answered]
    number = int(np.count_nonzero(np.diff(done)) + 1) if len(done) else 0
    assert plan.fold is not None
    return Counted(_table(cells, kept, plan.fold) if len(kept) else None, number, rest)


def _answered(
    cells: Cells, snapshot: Snapshot, visible: np.ndarray, blocks: np.ndarray, time: TimeRange
) -> np.ndarray:
    """Which of the visible entries lie in blocks that rollups answer."""
    unfit = cells.state != INDEXED
    if snapshot.masked:
        masked = np.intersect1d(np.fromiter(snapshot.masked, np.int64), visible)
        unfit[snapshot.rows["block"][masked]] = True
    if snapshot.ruled is not None:
        unfit[blocks[snapshot.ruled[visible]]] = True
    cut = [edge for edge in (time.start, time.end) if edge % MICROS_PER_MINUTE]
    if cut:
        straddling = np.zeros(len(visible), bool)
        low, high = snapshot.rows["min_ts"][visible], snapshot.rows["max_ts"][visible]
        for edge in cut:
            straddling |= (low < edge) & (high >= edge)
        unfit[blocks[straddling]] = True
    return ~unfit[blocks]


def _matching_pairs(cells: Cells, plan: ScanPlan) -> np.ndarray:
    columns: dict[str, pa.Array] = {
        name: pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(values, pa.string()))
        for name, codes, values in (
            ("service", cells.pair_service, cells.services),
            ("level", cells.pair_level, cells.levels),
        )
    }  # fmt: skip
    return evaluate(plan.filter, BlockView(columns.get, len(cells.pair_service)))


def _table(cells: Cells, kept: np.ndarray, fold: Fold) -> pa.Table:
    """Sums by group and bucket; a group is a number whose digits are the codes of `fold.by`."""
    known = {
        "service": (cells.pair_service, cells.services),
        "level": (cells.pair_level, cells.levels),
    }
    group_of_pair, groups = np.zeros(len(cells.pair_service), np.int64), 1
    for name in fold.by:
        codes, values = known[name]
        group_of_pair = group_of_pair * len(values) + codes
        groups *= len(values)
    keys, buckets, first = group_of_pair[cells.pair[kept]], 1, 0
    if step := fold.step_micros:
        bucket = cells.minute[kept] * MICROS_PER_MINUTE // step
        first = int(bucket.min())
        buckets = int(bucket.max()) - first + 1
        keys = keys * buckets + (bucket - first)
    keys, counts = _summed(keys, cells.count[kept], groups * buckets)
    group, bucket = np.divmod(keys, buckets)
    columns: dict[str, pa.Array] = {}
    for name in reversed(fold.by):
        group, codes = np.divmod(group, len(known[name][1]))
        columns[name] = pa.array(known[name][1], pa.string()).take(pa.array(codes))
    columns = {name: columns[name] for name in fold.by}
    if step:
        columns[BUCKET] = pa.array((bucket + first) * step)
    for one in fold.aggregates:
        columns[one.name] = pa.array(counts)
    return pa.table(columns)


def _summed(keys: np.ndarray, counts: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(distinct keys, sum of counts of each)."""
    if size <= _DENSE_MAX:
        sums = np.bincount(keys, counts, size)  # exact: sums of whole numbers below 2^53
        found = np.flatnonzero(np.bincount(keys, minlength=size))
        return found, sums[found].astype(np.int64)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    edge = np.flatnonzero(np.append(True, np.diff(keys) != 0))
    return keys[edge], np.add.reduceat(counts[order], edge)
