"""What the steps of a scan share: the snapshot, the hot set, a budget, and the counters of the reply."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa

from records.errors import DeadlineExceeded
from records.messages import ScanReply, ScanRequest
from records.predicates import ScanPlan
from records.timestamps import TimeRange
from storage.hot import HotSet
from storage.prune import probe_of
from storage.scan_filter import BlockView, evaluate, excludes
from storage.scan_select import BlockSlice, Snapshot, pieces_of, visible
from storage.settings import StorageSettings


@dataclass(slots=True)
class Budget:
    """What a scan may use. `expired` is asked between blocks; groups, values and bytes are caps."""

    expired: Callable[[], bool] = lambda: False
    max_groups: int = 100_000
    max_values: int = 2_000_000
    max_bytes: int = 64 << 20
    truncated: bool = False

    @classmethod
    def of(cls, settings: StorageSettings, expired: Callable[[], bool]) -> "Budget":
        """What the settings allow."""
        caps = (settings.max_groups, settings.max_values, settings.max_scan_bytes)
        return cls(expired, *caps)

    def check(self) -> None:
        """Called between two blocks.

        Raises:
            DeadlineExceeded: the time is up, or the caller has gone.
        """
        if self.expired():
            raise DeadlineExceeded("the scan was not finished in time")


@dataclass(slots=True)
class Scanner:
    """One scan: what it reads from, and what it counts."""

    snapshot: Snapshot
    request: ScanRequest
    hot: HotSet
    budget: Budget
    rows_scanned: int = 0
    blocks_scanned: int = 0
    blocks_pruned: int = 0
    _gone: dict[tuple[tuple[str, ...], tuple[str, ...]], bool] = field(default_factory=dict)

    @property
    def plan(self) -> ScanPlan:
        """The request's plan."""
        return self.request.plan

    def visible(self) -> np.ndarray:
        """Numbers of the entries that can hold matching rows."""
        return visible(self.snapshot, self.request)

    def slices(self, numbers: np.ndarray | None = None) -> list[BlockSlice]:
        """The pieces of some entries, or of all that may match, less what filters rule out.

        Counts the other blocks as pruned.
        """
        probe = probe_of(self.plan.filter)
        narrow = None if probe is None else partial(self.hot.filters.survivors, probe)
        found = pieces_of(self.snapshot, self.visible() if numbers is None else numbers, narrow)
        alive = len(self.snapshot.blocks) - self.snapshot.blocks.count(None)
        self.blocks_pruned = alive - len({part.place.ordinal for part in found})
        return found

    def excluded(self, part: BlockSlice) -> bool:
        """Whether the sidecar shows that no row of the block matches; counts it if so."""
        side = self.hot.sidecar(part.place)
        names = (side.services, side.levels)
        gone = self._gone.get(names)
        if gone is None:  # blocks alike have the same names: thousands of blocks, a few answers
            wanted = self.plan.services
            gone = bool(wanted) and not set(wanted) & set(side.services)
            gone = gone or excludes(self.plan.filter, {"service": names[0], "level": names[1]})
            self._gone[names] = gone
        self.blocks_pruned += gone
        return gone

    def view(self, part: BlockSlice) -> BlockView:
        """The columns of a block, loaded when asked for."""
        return BlockView(lambda name: self.load(part, name), part.place.rows)

    def load(self, part: BlockSlice, name: str) -> pa.Array | None:
        """One column of a block."""
        return self.hot.columns(part.place, [name]).get(name)

    def timestamps(self, part: BlockSlice) -> np.ndarray:
        """The block's timestamps in microseconds."""
        column = self.load(part, "timestamp")
        assert column is not None, "every block has timestamps"
        return column.cast(pa.int64()).to_numpy(zero_copy_only=False)

    def matching(self, part: BlockSlice, time: TimeRange | None = None) -> np.ndarray:
        """Positions of the rows that may be seen, lie in the time range and match the filter."""
        self.blocks_scanned += 1
        self.rows_scanned += part.place.rows
        mask = part.row_mask()
        time = time or self.plan.time
        if not time.covers(part.place.min_ts, part.place.max_ts):
            stamps = self.timestamps(part)
            inside = (stamps >= time.start) & (stamps < time.end)
            mask = inside if mask is None else mask & inside
        view = self.view(part)
        if mask is None:
            return np.flatnonzero(evaluate(self.plan.filter, view))
        positions = np.flatnonzero(mask)
        if len(positions) == 0:
            return positions
        return positions[evaluate(self.plan.filter, view.narrowed(mask))]

    def reply(self) -> ScanReply:
        """The reply's head."""
        return ScanReply(
            self.snapshot.digests,
            self.snapshot.received_max,
            self.rows_scanned,
            self.blocks_scanned,
            self.blocks_pruned,
            self.budget.truncated,
        )
