"""Finds the first `limit` rows in the order (timestamp, run, number), and only then loads their columns.

Blocks are visited by the end of their time range that comes first in the order, as many at once as must hold
enough rows by their rollups, or as have about as many rows. Once `limit` rows are known, a block that
begins beyond the last of them ends the search: late materialisation over top-K.
"""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from records.columns import NUMBER_COLUMN, RUN_COLUMN, conform, united, united_schema
from records.predicates import ScanPlan
from records.timestamps import MAX_MICROS, MIN_MICROS, TimeRange
from storage.blocks import GroupPlace
from storage.scan_batch import BATCH_ROWS, Batch, in_batches
from storage.scan_expect import Expected
from storage.scan_select import BlockSlice, Pieces
from storage.scanner import Scanner

_RUN = pa.binary(16)
#: Where nobody knows how many match, first as many rows are looked through as are wanted (a whole batch where
#: they are rare, see Pieces), then twice as many each time, up to this.
_MOST_ROWS = 16 * BATCH_ROWS
#: Of the rows that are wanted, so many are read first, to learn how wide they are.
_FIRST_ROWS = 1_024


@dataclass(frozen=True, slots=True)
class _Keys:
    """Candidate rows as parallel arrays: the sort key (two halves of the run's id), then where the row is."""

    ts: np.ndarray
    high: np.ndarray
    low: np.ndarray
    number: np.ndarray
    part: np.ndarray
    position: np.ndarray

    def take(self, index: np.ndarray | slice) -> "_Keys":
        return _Keys(*(getattr(self, name)[index] for name in _Keys.__dataclass_fields__))

    @staticmethod
    def none() -> "_Keys":
        whole, half = np.zeros(0, np.int64), np.zeros(0, np.uint64)
        return _Keys(whole, half, half, whole, whole, whole)

    @staticmethod
    def joined(parts: "list[_Keys]") -> "_Keys":
        names = _Keys.__dataclass_fields__
        return _Keys(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


class _Best:
    """The first `limit` rows seen so far. Sorts only when as many new ones as `limit` have gathered."""

    def __init__(self, plan: ScanPlan) -> None:
        self._plan = plan
        self.known: _Keys | None = None
        self._new: list[_Keys] = []
        self._new_rows = 0

    def add(self, keys: _Keys) -> None:
        """Adds candidates, in any order."""
        if len(keys.ts):
            self._new.append(keys)
            self._new_rows += len(keys.ts)
        if self._new_rows >= self._plan.limit:
            self.settle()

    def settle(self) -> None:
        """Sorts what has gathered into `known`."""
        if self._new:
            parts = self._new if self.known is None else [self.known, *self._new]
            self.known = _smallest(_Keys.joined(parts), self._plan)
            self._new, self._new_rows = [], 0


def find_rows(scanner: Scanner) -> pa.Table:
    """The plan's rows; the table always has `_run`, `_number` and `timestamp`."""
    plan, pieces = scanner.plan, scanner.pieces()
    order = np.argsort(-pieces.max_ts if plan.descending else pieces.min_ts, kind="stable")
    best, expected = _Best(plan), Expected(scanner)
    read: list[BlockSlice] = []
    at, rows = 0, BATCH_ROWS if pieces.rare else min(plan.limit, BATCH_ROWS)
    while at < len(order) and plan.limit > 0:
        window, after = _next_pieces(scanner, pieces, order[at:], rows, best.known, expected)
        if not after:
            scanner.blocks_pruned += len(order) - at
            break
        at += after
        rows = min(2 * max(rows, sum(part.place.rows for part in window)), _MOST_ROWS)
        time = _window(scanner, best.known)
        numbers = {id(part): number for number, part in enumerate(window, len(read))}
        read += window

        def keys(batch: Batch, time: TimeRange = time, numbers: dict = numbers) -> _Keys:
            return _candidates(scanner, batch, time, numbers)

        for found in in_batches(scanner, window, keys):
            best.add(found)
    best.settle()
    if best.known is None:
        return _empty()
    return _materialise(scanner, read, best.known)


def _next_pieces(
    scanner: Scanner,
    pieces: Pieces,
    order: np.ndarray,
    rows: int,
    best: _Keys | None,
    expected: Expected,
) -> tuple[list[BlockSlice], int]:
    """(the next pieces to read, how many of `order` that disposes of).

    As many as have `rows` rows, or surely enough of those that are wanted. None at all if all further rows
    come after those known.
    """
    window: list[BlockSlice] = []
    wanted = scanner.plan.limit - (0 if best is None else len(best.ts))
    unsure = total = surely = after = 0
    for index in order.tolist():
        full = unsure >= rows or total >= _MOST_ROWS or 0 < wanted <= surely
        if full or _beyond(pieces, index, best, scanner.plan):
            break
        after += 1
        part = pieces[index]
        told = expected.of(part)
        if told is None and scanner.excluded(part):
            continue
        most, sure = told or (part.place.rows, 0)
        if most == 0:
            scanner.blocks_pruned += 1
            continue
        window.append(part)
        total += part.place.rows
        unsure += 0 if sure else part.place.rows
        surely += sure
    return window, after


def _beyond(pieces: Pieces, index: int, best: _Keys | None, plan: ScanPlan) -> bool:
    """Whether enough rows are known, and all of the piece's rows come after the last of them."""
    if best is None or len(best.ts) < plan.limit:
        return False
    last = int(best.ts[-1])
    return bool(pieces.max_ts[index] < last if plan.descending else pieces.min_ts[index] > last)


def _window(scanner: Scanner, best: _Keys | None) -> TimeRange:
    """The plan's time range, narrowed by the cursor and by the rows already known."""
    plan = scanner.plan
    start, end = plan.time.start, plan.time.end
    marks = [plan.after.timestamp] if plan.after else []
    if plan.descending:
        end = min([end, *(mark + 1 for mark in marks)])
        if best is not None and len(best.ts) >= plan.limit:
            start = max(start, int(best.ts[-1]))
    else:
        start = max([start, *marks])
        if best is not None and len(best.ts) >= plan.limit:
            end = min(end, int(best.ts[-1]) + 1)
    return TimeRange(max(start, MIN_MICROS), min(end, MAX_MICROS))


def _candidates(scanner: Scanner, batch: Batch, time: TimeRange, numbers: dict[int, int]) -> _Keys:
    """The keys of a batch's matching rows. `numbers`: of each piece, by identity."""
    plan, positions = scanner.plan, batch.matching(time)
    if not len(positions):
        return _Keys.none()
    stamps = batch.timestamps()[positions]
    if plan.after is None and len(positions) > plan.limit:
        kept = _near_first(stamps, plan)
        positions, stamps = positions[kept], stamps[kept]
    runs, number = _named(scanner.snapshot.runs, batch, positions)
    part = np.searchsorted(batch.starts, positions, "right") - 1
    piece = np.array([numbers[id(one)] for one in batch.parts], np.int64)
    place = positions - batch.starts[part]
    keys = _Keys(stamps, runs[:, 0], runs[:, 1], number, piece[part], place)
    return keys if plan.after is None else keys.take(np.flatnonzero(_after(keys, plan)))


def _named(runs: np.ndarray, batch: Batch, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(runs, n x 2, and numbers) of the rows at `positions`.

    A sequence follows from the entry's first, but where sequences are left out between its rows.
    """

    def told(name: str) -> np.ndarray:
        return np.concatenate([part.entries[name] for part in batch.parts])

    start = np.repeat(batch.starts[:-1], [len(part.entries) for part in batch.parts])
    first = told("row_start").astype(np.int64)
    # An entry may begin before its piece does.
    entry = np.searchsorted(start + np.maximum(first, 0), positions, "right") - 1
    used, entry = np.unique(entry, return_inverse=True)
    producer, first_seq = told("producer")[used], told("first_seq")[used]
    sequenced = producer >= 0
    named = told("id")[used].view(">u8").reshape(-1, 2).astype(np.uint64)
    named[sequenced] = runs[producer[sequenced]]
    number = positions + (np.where(sequenced, first_seq, 0) - (start + first)[used])[entry]
    gaps = sequenced & (told("last_seq")[used] - first_seq + 1 != told("row_count")[used])
    if gaps.any():
        chosen = np.flatnonzero(gaps[entry])
        number[chosen] = _sequences(batch, positions[chosen])
    return named[entry], number


def _sequences(batch: Batch, positions: np.ndarray) -> np.ndarray:
    """The sequences of sequenced rows, as they are stored."""
    column = batch.column("seq")
    assert column is not None, "sequenced rows have sequences"
    return column.take(pa.array(positions)).to_numpy(zero_copy_only=False)


def _near_first(stamps: np.ndarray, plan: ScanPlan) -> np.ndarray:
    """Positions of the `limit` first stamps in the order, and of all that tie with the last of them."""
    if plan.descending:
        edge = np.partition(stamps, len(stamps) - plan.limit)[len(stamps) - plan.limit]
        return np.flatnonzero(stamps >= edge)
    edge = np.partition(stamps, plan.limit - 1)[plan.limit - 1]
    return np.flatnonzero(stamps <= edge)


def _after(keys: _Keys, plan: ScanPlan) -> np.ndarray:
    """Rows strictly beyond the cursor."""
    assert plan.after is not None
    high, low = (
        np.uint64(int.from_bytes(part, "big")) for part in (plan.after.run[:8], plan.after.run[8:])
    )
    pairs = (
        (keys.ts, np.int64(plan.after.timestamp)),
        (keys.high, high),
        (keys.low, low),
        (keys.number, np.int64(plan.after.number)),
    )
    beyond = np.zeros(len(keys.ts), bool)
    equal = np.ones(len(keys.ts), bool)
    for column, value in pairs:
        beyond |= equal & ((column < value) if plan.descending else (column > value))
        equal &= column == value
    return beyond


def _smallest(keys: _Keys, plan: ScanPlan) -> _Keys:
    """The first `limit` candidates, in order."""
    order = np.lexsort((keys.number, keys.low, keys.high, keys.ts))
    if plan.descending:
        order = order[::-1]
    return keys.take(order[: plan.limit])


def _materialise(scanner: Scanner, parts: list[BlockSlice], keys: _Keys) -> pa.Table:
    """The rows of `keys`, in order; those that the byte cap allows.

    Nobody knows beforehand how wide rows are. So a few are read first, then as many as should fit by what
    these took; a step that turns out much too wide is given up half-way, and smaller ones follow.
    """
    most = scanner.budget.max_bytes
    tables: list[pa.Table] = []
    at, size, step, ceiling = 0, 0, _FIRST_ROWS, len(keys.ts)
    while at < len(keys.ts) and size <= most:
        table = _gathered(scanner, parts, keys.take(np.s_[at : at + step]), step > 1)
        if table is None:
            step = ceiling = max(1, step // 16)
            continue
        tables.append(table)
        at, size = at + table.num_rows, size + table.nbytes
        step = min(ceiling, max(1, (most - size) * at // max(1, size) + 1))
    scanner.budget.truncated |= at < len(keys.ts)
    return _within_bytes(scanner, united(tables))


def _gathered(
    scanner: Scanner, parts: list[BlockSlice], keys: _Keys, may_give_up: bool
) -> pa.Table | None:
    """The rows of `keys`, in order; None if they take more than twice the byte cap."""
    tables, places, size = [], [], 0
    for index in dict.fromkeys(keys.part.tolist()):
        scanner.budget.check()
        chosen = np.flatnonzero(keys.part == index)
        chosen = chosen[np.argsort(keys.position[chosen], kind="stable")]
        tables.append(_rows(scanner, parts[index], keys.position[chosen]))
        places.append(chosen)
        size += tables[-1].nbytes
        if may_give_up and size > 2 * scanner.budget.max_bytes:
            return None
    schema = _plain_schema([table.schema for table in tables])
    table = pa.concat_tables([conform(one, schema) for one in tables])
    back = np.argsort(np.concatenate(places), kind="stable")
    table = table.take(pa.array(back))
    ids = np.stack((keys.high, keys.low), axis=1).astype(">u8").tobytes()
    run = pa.Array.from_buffers(_RUN, len(keys.ts), [None, pa.py_buffer(ids)])
    table = table.add_column(0, pa.field(RUN_COLUMN, _RUN), run)
    return table.add_column(1, pa.field(NUMBER_COLUMN, pa.int64()), pa.array(keys.number))


def _plain_schema(schemas: list[pa.Schema]) -> pa.Schema:
    """The united schema with text instead of dictionaries: a few rows need no dictionary."""
    fields = [
        (f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
        for f in united_schema(schemas)
    ]
    return pa.schema(fields)


def _rows(scanner: Scanner, part: BlockSlice, positions: np.ndarray) -> pa.Table:
    """The projected columns of some rows of a block (`positions` ascend), dictionaries as plain text."""
    present = scanner.hot.names(part.place)
    fields = scanner.plan.fields
    names = list(present if fields is None else dict.fromkeys(("timestamp", *fields)))
    names = [name for name in names if name not in (RUN_COLUMN, NUMBER_COLUMN)]
    loaded = scanner.hot.columns(part.place, names)
    batch = Batch(scanner, [part])
    columns: dict[str, pa.Array] = {}
    # Of a small block mostly all rows are wanted. (A row group may be a view of a whole block's columns.)
    every = len(positions) == part.place.rows and not isinstance(part.place, GroupPlace)
    chosen = None if every else pa.array(positions)
    for name in names:
        if name in loaded:
            array = loaded[name] if chosen is None else loaded[name].take(chosen)
            if pa.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            columns[name] = array
        elif (attribute := batch.view(positions).attribute(name)) is not None:
            columns[name] = attribute.to_arrow().cast(pa.string())
    return pa.table(columns)


def _within_bytes(scanner: Scanner, table: pa.Table) -> pa.Table:
    """Cuts the answer at its end to the byte cap, and says so."""
    most = scanner.budget.max_bytes
    if table.nbytes <= most:
        return table
    scanner.budget.truncated = True
    counts = range(1, table.num_rows + 1)
    fitting = bisect_right(counts, most, key=lambda count: table.slice(0, count).nbytes)
    return table.slice(0, max(1, fitting))


def _empty() -> pa.Table:
    columns = [(RUN_COLUMN, _RUN), (NUMBER_COLUMN, pa.int64())]
    columns.append(("timestamp", pa.timestamp("us", tz="UTC")))
    return pa.schema(columns).empty_table()
