"""Which blocks, and which of their rows, a scan may see: one snapshot of the holdings, then pure pruning.

The snapshot is taken on the event loop between two puts, so that the digests it carries and the rows that
a worker reads afterwards are of the same moment. Entry rows are append-only; only flags change, so flags
are copied and the rest is shared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from records.ids import EntryId
from records.messages import ScanRequest
from records.predicates import ScanPlan
from storage.entry_table import GONE
from storage.holdings import HIDDEN_ANY, BlockPlace, Holdings
from storage.merkle import Digest

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a scan sees. `masked`: half-open row ranges, counted in the entry, that are hidden."""

    rows: np.ndarray
    flags: np.ndarray
    blocks: list[BlockPlace | None]
    tenant: int | None
    only: np.ndarray | None
    masked: dict[int, Ranges]
    digests: dict[int, Digest]
    received_max: int


@dataclass(frozen=True, slots=True)
class BlockSlice:
    """A block and its entries that may be seen: columns of the entry table, and which rows are masked."""

    place: BlockPlace
    entries: np.ndarray
    numbers: np.ndarray
    masked: dict[int, Ranges]

    @property
    def whole(self) -> bool:
        """Whether every row of the block may be seen."""
        return not self.masked and int(self.entries["row_count"].sum()) == self.place.rows

    def row_mask(self) -> np.ndarray | None:
        """The rows that may be seen; None for all."""
        if self.whole:
            return None
        edges = np.zeros(self.place.rows + 1, np.int64)
        starts = self.entries["row_start"].astype(np.int64)
        np.add.at(edges, starts, 1)
        np.add.at(edges, starts + self.entries["row_count"], -1)
        mask = np.cumsum(edges[:-1]) > 0
        for position, number in enumerate(self.numbers.tolist()):
            start = int(starts[position])
            for a, b in self.masked.get(number, ()):
                mask[start + a : start + b] = False
        return mask


def take_snapshot(holdings: Holdings, request: ScanRequest) -> Snapshot:
    """Cheap, and without awaiting: call it on the event loop."""
    table, time = holdings.table, request.plan.time
    count = table.count
    only = None
    if request.only is not None:
        found = [n for one in request.only if (n := table.find(one)) is not None]
        only = np.array(sorted(set(found)), np.int64)
    flags = table.rows["flags"][:count].copy()
    return Snapshot(
        table.rows[:count],
        flags,
        list(holdings.blocks),
        table.tenants.find(request.plan.tenant),
        only,
        _masked(holdings, request, flags),
        {s: holdings.digest(s, time.start, time.end) for s in request.digest_shards},
        holdings.received_max,
    )


def _masked(holdings: Holdings, request: ScanRequest, flags: np.ndarray) -> dict[int, Ranges]:
    hidden = dict(holdings.partly_hidden) if request.only is None else {}
    for entry_id, spans in request.hide:
        number = holdings.table.find(EntryId(entry_id))
        if number is None:
            continue
        if spans:
            hidden[number] = (*hidden.get(number, ()), *spans)
        else:
            flags[number] |= GONE
    return {n: rows_of(holdings.spans(n)[0], spans) for n, spans in hidden.items()}


def rows_of(seqs: Sequence[tuple[int, int]], wanted: Sequence[tuple[int, int]]) -> Ranges:
    """Half-open ranges of rows, counted in an entry with `seqs`, that hold the sequences `wanted`."""
    ranges: list[tuple[int, int]] = []
    before = 0
    for first, last in seqs:
        for a, b in wanted:
            low, high = max(a, first), min(b, last)
            if low <= high:
                ranges.append((before + low - first, before + high - first + 1))
        before += last - first + 1
    return tuple(ranges)


def select(snapshot: Snapshot, request: ScanRequest) -> list[BlockSlice]:
    """The blocks that can hold matching rows, in log order."""
    return slices_of(snapshot, visible(snapshot, request))


def visible(snapshot: Snapshot, request: ScanRequest) -> np.ndarray:
    """Numbers of the entries that can hold matching rows, ascending. One pass over the entry table."""
    plan, rows = request.plan, snapshot.rows
    if snapshot.tenant is None or not len(rows):
        return np.zeros(0, np.int64)
    unseen = GONE | HIDDEN_ANY if snapshot.only is None else GONE
    keep = (snapshot.flags & unseen) == 0
    keep &= rows["tenant"] == snapshot.tenant
    shards = np.zeros(1 << 16, bool)
    shards[list(request.data_shards)] = True
    keep &= shards[rows["shard"]]
    keep &= (rows["min_ts"] < plan.time.end) & (rows["max_ts"] >= plan.time.start)
    keep &= rows["row_count"] > 0
    if plan.received_until is not None:
        keep &= rows["received"] <= plan.received_until
    keep &= _beyond_cursor(plan, rows)
    if snapshot.only is not None:
        wanted = np.zeros(len(rows), bool)
        wanted[snapshot.only] = True
        keep &= wanted
    return np.flatnonzero(keep)


def _beyond_cursor(plan: ScanPlan, rows: np.ndarray) -> np.ndarray | bool:
    if plan.after is None or plan.fold is not None:
        return True
    if plan.descending:
        return rows["min_ts"] <= plan.after.timestamp
    return rows["max_ts"] >= plan.after.timestamp


def slices_of(snapshot: Snapshot, numbers: np.ndarray) -> list[BlockSlice]:
    """The blocks of some entries, given by number, in log order."""
    if not len(numbers):
        return []
    blocks = snapshot.rows["block"][numbers]
    cuts = np.flatnonzero(np.diff(blocks)) + 1
    slices = []
    for part in np.split(numbers, cuts):
        place = snapshot.blocks[int(snapshot.rows["block"][part[0]])]
        assert place is not None, "a block that is gone has no present entries"
        masked = (
            {n: snapshot.masked[n] for n in part.tolist() if n in snapshot.masked}
            if (snapshot.masked)
            else {}
        )
        slices.append(BlockSlice(place, snapshot.rows[part], part, masked))
    return slices
