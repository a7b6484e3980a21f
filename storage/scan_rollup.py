"""Counts answered from sidecars: no row is touched.

It can be used when the fold counts rows by a subset of service and level, in buckets of whole minutes or
none, under a filter made of eq and in on these two, and the block's part of the time range begins and ends
on minutes. Codes are translated to one numbering for all blocks, so that summing is one `np.unique`.
"""

from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa

from records.predicates import Fold, ScanPlan
from records.sidecar import Rollup
from records.timestamps import MICROS_PER_MINUTE, TimeRange
from storage.entry_table import Names
from storage.scan_filter import BlockView, evaluate, only_over
from storage.scan_select import BlockSlice

KEYS = frozenset({"service", "level"})
#: Cells kept before they are summed: 3 arrays of 8 bytes each.
_CELLS_MAX = 1 << 18
_PAIRS_MAX = 4096


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


def covers(part: BlockSlice, time: TimeRange) -> bool:
    """Whether whole minutes decide for this block: its range is cut on minutes, nothing is masked."""
    start_fits = time.start <= part.place.min_ts or time.start % MICROS_PER_MINUTE == 0
    end_fits = time.end > part.place.max_ts or time.end % MICROS_PER_MINUTE == 0
    return start_fits and end_fits and not part.masked


@dataclass(slots=True)
class RollupCounter:
    """Sums cells by (group, bucket)."""

    fold: Fold
    _groups: Names = field(default_factory=Names)
    _group: list[np.ndarray] = field(default_factory=list)
    _bucket: list[np.ndarray] = field(default_factory=list)
    _count: list[np.ndarray] = field(default_factory=list)
    _known: dict[tuple, np.ndarray] = field(default_factory=dict)
    _cells: int = 0

    def add(self, part: BlockSlice, rollup: Rollup, plan: ScanPlan) -> None:
        """Adds the visible cells of a block that match the plan."""
        kept = self._visible(part, rollup, plan.time)
        service, level = rollup.service[kept].astype(np.int32), rollup.level[kept].astype(np.int32)
        columns: dict[str, pa.Array] = {
            "service": pa.DictionaryArray.from_arrays(
                service, pa.array(rollup.services, pa.string())
            ),
            "level": pa.DictionaryArray.from_arrays(level, pa.array(rollup.levels, pa.string())),
        }
        match = evaluate(plan.filter, BlockView(columns.get, len(kept)))
        kept = kept[match]
        pair = service[match].astype(np.int64) * len(rollup.levels) + level[match]
        self._group.append(self._group_numbers(rollup, pair))
        self._bucket.append(self._buckets(rollup.minute[kept]))
        self._count.append(rollup.count[kept].astype(np.int64))
        self._cells += len(kept)
        if self._cells > _CELLS_MAX:
            self._sum()

    def _group_numbers(self, rollup: Rollup, pair: np.ndarray) -> np.ndarray:
        """The group of each (service, level) pair. Most blocks share their dictionaries."""
        width = len(rollup.levels)
        if len(rollup.services) * width > _PAIRS_MAX:
            unique, inverse = np.unique(pair, return_inverse=True)
            return np.array([self._number(rollup, int(one)) for one in unique])[inverse]
        known = self._known.get((rollup.services, rollup.levels))
        if known is None:
            pairs = range(len(rollup.services) * width)
            known = np.array([self._number(rollup, one) for one in pairs], np.int64)
            self._known[(rollup.services, rollup.levels)] = known
        return known[pair]

    def _number(self, rollup: Rollup, pair: int) -> int:
        service, level = divmod(pair, len(rollup.levels))
        names = {"service": rollup.services[service], "level": rollup.levels[level]}
        return self._groups.number(tuple(names[name] for name in self.fold.by))

    @staticmethod
    def _visible(part: BlockSlice, rollup: Rollup, time: TimeRange) -> np.ndarray:
        stamps = rollup.minute * MICROS_PER_MINUTE
        mask = (stamps >= time.start - MICROS_PER_MINUTE + 1) & (stamps < time.end)
        if not part.whole:
            mask &= np.isin(rollup.entry, part.entries["index"])
        return np.flatnonzero(mask)

    def _buckets(self, minutes: np.ndarray) -> np.ndarray:
        step = self.fold.step_micros
        return (
            minutes * MICROS_PER_MINUTE // step * step if step else np.zeros(len(minutes), np.int64)
        )

    def _sum(self) -> None:
        group, bucket = np.concatenate(self._group), np.concatenate(self._bucket)
        count = np.concatenate(self._count)
        order = np.lexsort((bucket, group))
        group, bucket, count = group[order], bucket[order], count[order]
        edge = np.flatnonzero(np.append(True, (np.diff(group) != 0) | (np.diff(bucket) != 0)))
        self._group, self._bucket = [group[edge]], [bucket[edge]]
        self._count = [np.add.reduceat(count, edge)]
        self._cells = len(edge)

    def frame(self) -> pl.DataFrame | None:
        """The sums as a partial aggregate; None if no cell matched."""
        if not self._cells:
            return None
        self._sum()
        values = [self._groups.values[number] for number in self._group[0]]
        columns: dict[str, pl.Series] = {}
        for index, name in enumerate(self.fold.by):
            columns[name] = pl.Series([value[index] for value in values], dtype=pl.String)
        if self.fold.step_micros:
            columns["_bucket"] = pl.Series(self._bucket[0])
        for one in self.fold.aggregates:
            columns[one.name] = pl.Series(self._count[0])
        return pl.DataFrame(columns)
