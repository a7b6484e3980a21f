"""What the steps of a scan share: the snapshot, the hot set, a budget, and the counters of the reply."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from records.errors import DeadlineExceeded
from records.messages import ScanReply, ScanRequest
from records.predicates import ScanPlan
from storage.hot import HotSet
from storage.prune import probe_of
from storage.scan_filter import excludes
from storage.scan_hidden import hidden_rows
from storage.scan_select import BlockSlice, Pieces, Snapshot, pieces_of, visible
from storage.settings import StorageSettings

#: Does work on each item, on several threads if some are free; results in order (see Workers.share).
Share = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


def _alone(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [work(item) for item in items]


@dataclass(slots=True)
class Budget:
    """What a scan may use. `expired` is asked between batches; groups, values and bytes are caps."""

    expired: Callable[[], bool] = lambda: False
    max_groups: int = 100_000
    max_values: int = 2_000_000
    max_bytes: int = 64 << 20
    share: Share = _alone
    truncated: bool = False

    @classmethod
    def of(
        cls, settings: StorageSettings, expired: Callable[[], bool], share: Share = _alone
    ) -> "Budget":
        """What the settings allow; `share` is the worker pool's."""
        caps = (settings.max_groups, settings.max_values, settings.max_scan_bytes)
        return cls(expired, *caps, share)

    def check(self) -> None:
        """Called between two batches.

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
    _gone: dict[tuple[frozenset[str], frozenset[str]], bool] = field(default_factory=dict)

    @property
    def plan(self) -> ScanPlan:
        """The request's plan."""
        return self.request.plan

    def visible(self) -> np.ndarray:
        """Numbers of the entries that can hold matching rows."""
        return visible(self.snapshot, self.request)

    def pieces(self, numbers: np.ndarray | None = None) -> Pieces:
        """The pieces of some entries, or of all that may match, less what filters rule out.

        Counts the other blocks as pruned.
        """
        probe = probe_of(self.plan.filter)
        narrow = None if probe is None else partial(self.hot.filters.survivors, probe)
        found = pieces_of(self.snapshot, self.visible() if numbers is None else numbers, narrow)
        self.blocks_pruned = len(self.snapshot.blocks) - found.blocks
        return found

    def slices(self, numbers: np.ndarray | None = None) -> list[BlockSlice]:
        """All of `pieces`, made."""
        return list(self.pieces(numbers))

    def hidden(self, part: BlockSlice) -> np.ndarray | None:
        """The mask of the piece's rows that watermarks, deletes and blanking hide; None for none."""
        if not (part.ruled or part.erased):
            return None
        rules = self.snapshot.rules if part.ruled else ()
        return hidden_rows(self.hot, part.place, rules, part.erased)

    def excluded(self, part: BlockSlice) -> bool:
        """Whether the sidecar shows that no row of the block matches; counts it if so."""
        side = self.hot.sidecar(part.place)
        names = (frozenset(side.services), frozenset(side.levels))
        gone = self._gone.get(names)
        if gone is None:  # blocks alike have the same names: thousands of blocks, a few answers
            wanted = self.plan.services
            gone = bool(wanted) and not names[0].intersection(wanted)
            known = {"service": side.services, "level": side.levels}
            gone = gone or excludes(self.plan.filter, known)
            self._gone[names] = gone
        self.blocks_pruned += gone
        return gone

    def candidates(self, numbers: np.ndarray | None = None) -> list[BlockSlice]:
        """The pieces of `slices` that sidecars do not exclude."""
        return [part for part in self.slices(numbers) if not self.excluded(part)]

    def count(self, rows: int, parts: Sequence[BlockSlice]) -> None:
        """Counts pieces as scanned."""
        self.rows_scanned += rows
        self.blocks_scanned += len(parts)

    def restart(self) -> None:
        """Forgets what was counted as scanned: the pieces are read again in another way."""
        self.rows_scanned = self.blocks_scanned = 0

    def reply(self) -> ScanReply:
        """The reply's head."""
        return ScanReply(
            self.snapshot.digests,
            self.snapshot.received_max,
            self.rows_scanned,
            self.blocks_scanned,
            self.blocks_pruned,
            self.budget.truncated,
            lost=self.snapshot.lost,
            holes=self.snapshot.holes,
        )
