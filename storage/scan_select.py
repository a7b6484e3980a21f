"""Which blocks, and which of their rows, a scan may see: one snapshot of the holdings, then pure pruning.

The snapshot is taken on the event loop between two puts, so that the digests it carries and the rows that
a worker reads afterwards are of the same moment. Entry rows are append-only; only flags change, so flags
are copied and the rest is shared.

What is read is a *piece*: a block, or where filters left only some of its row groups, one of these: a place
with the row group's rows, and the entries with their rows counted from its first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from records.ids import EntryId
from records.messages import ScanRequest
from records.predicates import ScanPlan
from records.timestamps import TimeRange
from storage.blocks import Blocks, GroupPlace
from storage.digest_as_of import digests_as_of
from storage.entry_table import ERASED, GONE, HIDDEN, HIDDEN_ANY
from storage.filter_index import Survivors
from storage.holdings import BlockPlace, Holdings
from storage.merkle import Digest
from storage.retention import Rule, touched

Ranges = tuple[tuple[int, int], ...]
Narrow = Callable[[list[BlockPlace]], Survivors]
#: What a piece keeps of its entries; `row_start` is signed, as an entry may begin before the piece does.
_PIECE_ENTRY = np.dtype([
    ("id", "V16"), ("index", "<u4"), ("row_start", "<i8"), ("row_count", "<u4"),
    ("producer", "<i4"), ("first_seq", "<i8"), ("last_seq", "<i8"),
])  # fmt: skip
_KEPT = tuple(name for name in _PIECE_ENTRY.names or () if name != "row_start")
_PLACE_FIELDS = tuple(field.name for field in fields(BlockPlace))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a scan sees. `masked`: half-open row ranges, counted in the entry, that are hidden.

    `generation` is that of the entries' numbers (storage.repack).
    """

    rows: np.ndarray
    flags: np.ndarray
    blocks: Blocks
    tenant: int | None
    only: np.ndarray | None
    masked: dict[int, Ranges]
    digests: dict[int, Digest]
    received_max: int
    #: Runs of producers, by number (storage.entry_table).
    runs: np.ndarray
    generation: int = 0
    #: What watermarks and deletes hide of the tenant's rows in the plan's range, and of which entries that
    #: may be something. None: of none.
    rules: tuple[Rule, ...] = ()
    ruled: np.ndarray | None = None
    #: Whether any entry lies in a block with blanked rows.
    erased: bool = False
    #: Blocks set aside for damage so far.
    lost: int = 0
    #: Of the shards that are digested: those of which damage took entries (storage.holes).
    holes: tuple[int, ...] = ()

    def told(self, part: np.ndarray) -> tuple[bool, bool]:
        """(whether rules may hide rows of these entries, whether some of their blocks' are blanked)."""
        ruled = self.ruled is not None and bool(self.ruled[part].any())
        return ruled, self.erased and bool((self.flags[part] & ERASED).any())


@dataclass(frozen=True, slots=True)
class BlockSlice:
    """A block and its entries that may be seen: columns of the entry table, and which rows are masked."""

    place: BlockPlace
    entries: np.ndarray
    numbers: np.ndarray
    masked: dict[int, Ranges]
    #: Rows of all entries together, where entries lie wholly within the piece; else unknown.
    rows_seen: int = -1
    #: Whether watermarks or deletes may hide rows of it, and whether it has blanked rows.
    ruled: bool = False
    erased: bool = False

    def _spans(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last + 1 row of each entry, within the piece."""
        starts = self.entries["row_start"].astype(np.int64)
        ends = starts + self.entries["row_count"]
        rows = self.place.rows
        return np.clip(starts, 0, rows), np.clip(ends, 0, rows)

    @property
    def whole(self) -> bool:
        """Whether every row of the piece may be seen."""
        if self.masked or self.ruled or self.erased:
            return False
        if self.rows_seen >= 0:
            return self.rows_seen == self.place.rows
        starts, ends = self._spans()
        return int((ends - starts).sum()) == self.place.rows

    def row_mask(self) -> np.ndarray | None:
        """The rows that may be seen; None for all."""
        if self.whole:
            return None
        rows = self.place.rows
        if not self.masked and self.rows_seen == rows:
            return None
        edges = np.zeros(rows + 1, np.int64)
        starts, ends = self._spans()
        np.add.at(edges, starts, 1)
        np.add.at(edges, ends, -1)
        mask = np.cumsum(edges[:-1]) > 0
        first = self.entries["row_start"].astype(np.int64)
        for position, number in enumerate(self.numbers.tolist()):
            start = int(first[position])
            for a, b in self.masked.get(number, ()):
                mask[max(0, start + a) : max(0, start + b)] = False
        return mask


def take_snapshot(holdings: Holdings, request: ScanRequest) -> Snapshot:
    """Cheap, and without awaiting: call it on the event loop."""
    table = holdings.table
    count = table.count
    only = None
    if request.only is not None:
        found = [n for one in request.only if (n := table.find(one)) is not None]
        only = np.array(sorted(set(found)), np.int64)
    flags = table.rows["flags"][:count].copy()
    rules = rules_of(holdings, request.plan)
    return Snapshot(
        table.rows[:count],
        flags,
        holdings.blocks.copy(),
        table.tenants.find(request.plan.tenant),
        only,
        _masked(holdings, request, flags),
        _digests(holdings, request),
        holdings.newest_vouched,
        table.producers.runs,
        holdings.generation,
        rules,
        _ruled(holdings, rules, count),
        bool((flags & ERASED).any()),
        holdings.quarantined,
        holdings.holes.within(request.digest_shards),
    )


def _digests(holdings: Holdings, request: ScanRequest) -> dict[int, Digest]:
    """Of all entries; none yet if the plan has a snapshot of its own: that takes a worker (`as_of`)."""
    if request.plan.received_until is not None:
        return {}
    time = request.compared or request.plan.time
    return {s: holdings.digest(s, time.start, time.end) for s in request.digest_shards}


def as_of(snapshot: Snapshot, request: ScanRequest) -> Snapshot:
    """With the digests of what was received by the plan's `received_until`; see storage.digest_as_of."""
    until = request.plan.received_until
    assert until is not None
    time, shards = request.compared or request.plan.time, request.digest_shards
    digests = digests_as_of(snapshot.rows, snapshot.flags, shards, time, until)
    return replace(snapshot, digests=digests)


def narrowed(holdings: Holdings, request: ScanRequest) -> ScanRequest:
    """The request without the time in which watermarks hide all rows. Its digests are over all of it."""
    plan = request.plan
    start = holdings.retention.start_of(plan.tenant, plan.services)
    if start <= plan.time.start:
        return request
    time = TimeRange(start, max(start, plan.time.end))
    return replace(request, plan=replace(plan, time=time))


def rules_of(holdings: Holdings, plan: ScanPlan) -> tuple[Rule, ...]:
    """The rules that hide rows in the plan's range, but for time that `narrowed` leaves out."""
    retention = holdings.retention
    start = max(plan.time.start, retention.start_of(plan.tenant, plan.services))
    return tuple(
        rule
        for rule in retention.rules(plan.tenant)
        if rule.time.start < plan.time.end and rule.time.end > start
    )


def _ruled(holdings: Holdings, rules: Sequence[Rule], count: int) -> np.ndarray | None:
    """Which of the first `count` entries may hold rows that the rules hide."""
    if not rules:
        return None
    rows = holdings.table.rows[:count]
    found = np.zeros(count, bool)
    for rule in rules:
        found |= touched(rule, holdings.table, rows) & ~holdings.is_clean(rule.name, rows["block"])
    return found


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


def overlaps(snapshot: Snapshot, request: ScanRequest) -> bool:
    """Whether a data shard has entries in the compared range that are hidden, wholly or in part, by others
    of the same sequences."""
    rows, time = snapshot.rows, request.compared or request.plan.time
    found = (snapshot.flags & (GONE | HIDDEN)) == HIDDEN
    found[[number for number in snapshot.masked if number < len(found)]] = True
    numbers = np.flatnonzero(found)
    near = (rows["min_ts"][numbers] < time.end) & (rows["max_ts"][numbers] >= time.start)
    return bool(np.isin(rows["shard"][numbers[near]], request.data_shards).any())


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
    """The pieces that can hold matching rows, in log order, whatever filters say."""
    return list(pieces_of(snapshot, visible(snapshot, request)))


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


def pieces_of(snapshot: Snapshot, numbers: np.ndarray, narrow: Narrow | None = None) -> "Pieces":
    """The pieces of some entries, given by number, in log order.

    Args:
        narrow: prunes their blocks, and the row groups of these.
    """
    if narrow is None or not len(numbers):
        return laid_out(snapshot, numbers)
    considered = len(np.unique(snapshot.rows["block"][numbers]))
    return Pieces.of(_narrowed(snapshot, numbers, narrow), considered)


def _narrowed(snapshot: Snapshot, numbers: np.ndarray, narrow: Narrow) -> list[BlockSlice]:
    """The pieces that `narrow` leaves of these entries' blocks."""
    blocks = snapshot.rows["block"][numbers]
    places = [snapshot.blocks[ordinal] for ordinal in np.unique(blocks).tolist()]
    left = narrow([place for place in places if place is not None])
    if not len(left.ordinals):
        return []
    pieces: list[BlockSlice] = []
    for one in laid_out(snapshot, numbers[np.isin(blocks, left.ordinals)]):
        part = left.parts.get(one.place.ordinal)
        if part is None:
            pieces.append(one)
        else:
            pieces += [piece for group in part[1] if (piece := _piece(one, part[0], group))]
    return pieces


def _piece(one: BlockSlice, group_rows: int, group: int) -> BlockSlice | None:
    """One row group of a block; None if no entry that may be seen has rows in it."""
    first = group * group_rows
    rows = min(group_rows, one.place.rows - first)
    starts = one.entries["row_start"].astype(np.int64) - first
    inside = np.flatnonzero((starts < rows) & (starts + one.entries["row_count"] > 0))
    if not len(inside):
        return None
    entries = np.empty(len(inside), _PIECE_ENTRY)
    for name in _KEPT:
        entries[name] = one.entries[name][inside]
    entries["row_start"] = starts[inside]
    known = {name: getattr(one.place, name) for name in _PLACE_FIELDS}
    known["rows"] = rows
    place = GroupPlace(**known, group=group, first_row=first)
    return BlockSlice(
        place, entries, one.numbers[inside], one.masked, ruled=one.ruled, erased=one.erased
    )


def _beyond_cursor(plan: ScanPlan, rows: np.ndarray) -> np.ndarray | bool:
    if plan.after is None or plan.fold is not None:
        return True
    if plan.descending:
        return rows["min_ts"] <= plan.after.timestamp
    return rows["max_ts"] >= plan.after.timestamp


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pieces that are made when they are asked for: a search for the newest rows looks at few of them.

    Of each is known beforehand: between which times its entries lie (both included), how many rows they have.
    """

    min_ts: np.ndarray
    max_ts: np.ndarray
    rows: np.ndarray
    #: Blocks they are of; one may have several pieces.
    blocks: int
    _make: Callable[[int], BlockSlice]
    #: Whether filters left few of many blocks: then each of these has few matches, if any.
    rare: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> BlockSlice:
        if not 0 <= index < len(self.rows):
            raise IndexError(index)
        return self._make(index)

    def __iter__(self) -> Iterator[BlockSlice]:
        return map(self._make, range(len(self.rows)))

    @classmethod
    def of(cls, made: Sequence[BlockSlice], considered: int = 0) -> "Pieces":
        """Those that are made already, which filters left of `considered` blocks."""
        columns = ([getattr(one.place, name) for one in made] for name in _BOUNDS)
        low, high, rows = (np.array(values, np.int64) for values in columns)
        blocks = len({one.place.ordinal for one in made})
        return cls(low, high, rows, blocks, made.__getitem__, RARE_OF * blocks <= considered)


_BOUNDS = ("min_ts", "max_ts", "rows")
#: Filters that leave one block in so many are about something rare.
RARE_OF = 4


def laid_out(snapshot: Snapshot, numbers: np.ndarray) -> Pieces:
    """The pieces of some entries, a block each, in log order."""
    if not len(numbers):
        return Pieces.of([])
    blocks = snapshot.rows["block"][numbers]
    if (blocks[1:] < blocks[:-1]).any():  # merging scatters the entries of a block over the table
        order = np.argsort(blocks, kind="stable")
        numbers, blocks = numbers[order], blocks[order]
    starts = np.append(0, np.flatnonzero(np.diff(blocks)) + 1)
    ends = np.append(starts[1:], len(numbers))
    low, high, count = (snapshot.rows[name][numbers] for name in ("min_ts", "max_ts", "row_count"))
    seen = np.add.reduceat(count, starts, dtype=np.int64)

    def make(index: int) -> BlockSlice:
        begin, end = int(starts[index]), int(ends[index])
        return _slice(snapshot, numbers[begin:end], int(blocks[begin]), int(seen[index]))

    first, last = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
    return Pieces(first, last, seen, len(seen), make)


def _slice(snapshot: Snapshot, part: np.ndarray, ordinal: int, rows_seen: int) -> BlockSlice:
    """The piece of the entries `part`, all of block `ordinal`."""
    place = snapshot.blocks[ordinal]
    assert place is not None, "a block that is gone has no present entries"
    masked = (
        {n: snapshot.masked[n] for n in part.tolist() if n in snapshot.masked}
        if snapshot.masked
        else {}
    )
    first, last = int(part[0]), int(part[-1])
    neighbours = last - first == len(part) - 1
    entries = snapshot.rows[first : last + 1] if neighbours else snapshot.rows[part]
    ruled, erased = snapshot.told(part)
    return BlockSlice(place, entries, part, masked, rows_seen, ruled, erased)
