"""All rollups of a node end to end, so that counts over any number of blocks are a few numpy passes.

A cell is (entry number, block, minute, pair of service and level, count): 28 bytes, about 60 cells for a
block of 20,000 rows. Cells are appended when a scan first meets a block and never change; whether a cell
counts is decided by each scan from its own snapshot of the entry table. When entries get new numbers, so
do the cells (`renumber`); a snapshot from before then finds none and reads blocks instead.
Bounded: beyond `cells_max` the cells of blocks that are gone make room, and what still does not fit is
answered block by block.

Thread-safe: scans load from several workers. The arrays handed out are never written again.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from records.errors import BlockCorrupt
from records.sidecar import Rollup
from storage.entry_table import Names

CELL = np.dtype(
    [("number", "<i4"), ("block", "<i4"), ("minute", "<i8"), ("pair", "<i4"), ("count", "<i8")]
)
#: Cells kept: 2 M are 56 MB. A store of 100 M rows in blocks of 20,000 has 300,000.
CELLS_MAX = 2 << 20
UNKNOWN, INDEXED, WITHOUT = 0, 1, 2
Load = Callable[[int], Rollup | None]


@dataclass(frozen=True, slots=True)
class Cells:
    """What a scan reads: columns of cells, and the services and levels that `pair` stands for.

    `state` by block ordinal: INDEXED blocks have all their cells here, the others must be read.
    """

    number: np.ndarray
    block: np.ndarray
    minute: np.ndarray
    pair: np.ndarray
    count: np.ndarray
    pair_service: np.ndarray
    pair_level: np.ndarray
    services: tuple[str, ...]
    levels: tuple[str, ...]
    state: np.ndarray


def _empty() -> dict[str, np.ndarray]:
    return {name: np.zeros(0, CELL[name]) for name in CELL.names or ()}


@dataclass(slots=True)
class RollupIndex:
    """The cells of the blocks that scans have met."""

    cells_max: int = CELLS_MAX
    #: That of the entry numbers in the cells.
    generation: int = 0
    _columns: dict[str, np.ndarray] = field(default_factory=_empty)
    _count: int = 0
    _state: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    _services: Names = field(default_factory=Names)
    _levels: Names = field(default_factory=Names)
    _pairs: Names = field(default_factory=Names)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _view: Cells | None = None

    @property
    def cells(self) -> int:
        """How many cells are held."""
        return self._count

    def covering(
        self,
        ordinals: np.ndarray,
        rows: np.ndarray,
        load: Load,
        alive: Callable[[], np.ndarray],
        generation: int = 0,
    ) -> Cells:
        """The cells, among them those of the blocks `ordinals` as far as they have rollups that fit.

        Args:
            ordinals: blocks that the caller may want to count, ascending.
            rows: the entry table; a block's entries are neighbours, `block` ascends.
            load: a block's rollup; may raise.
            alive: a mask by ordinal of the blocks that are not gone; asked only when there is no room.
            generation: of the numbers of `rows`; there are no cells for another one.
        """
        blocks = int(ordinals[-1]) + 1 if len(ordinals) else 0
        with self._lock:
            if generation != self.generation:
                return self._none(blocks)
            self._make_room(blocks)
            fresh = ordinals[self._state[ordinals] == UNKNOWN]
        if len(fresh):
            lows = np.searchsorted(rows["block"], fresh)
            highs = np.searchsorted(rows["block"], fresh, "right")
            loaded = []
            for ordinal, low, high in zip(fresh.tolist(), lows, highs, strict=True):
                rollup = load(ordinal)
                loaded.append((ordinal, rollup, int(low), rows["index"][low:high]))
            with self._lock:
                if generation != self.generation:
                    return self._none(blocks)
                self._add(loaded, alive)
        with self._lock:
            return self._cells() if generation == self.generation else self._none(blocks)

    def renumber(self, moved: np.ndarray, generation: int) -> None:
        """Entries got new numbers: `moved` has them by old number, -1 of entries that are gone."""
        with self._lock:
            number = moved[self._columns["number"][: self._count]]
            kept = np.flatnonzero(number >= 0)
            dropped = np.unique(self._columns["block"][: self._count][number < 0])
            self._state = self._state.copy()
            self._state[dropped] = UNKNOWN
            self._columns = {name: one[: self._count][kept] for name, one in self._columns.items()}
            self._columns["number"] = number[kept].astype(CELL["number"])
            self._count, self._view, self.generation = len(kept), None, generation

    @staticmethod
    def _none(blocks: int) -> Cells:
        """No cells, and none known of any block below `blocks`."""
        pairs = np.zeros(0, np.int64)
        return Cells(**_empty(), pair_service=pairs, pair_level=pairs, services=(), levels=(),
                     state=np.zeros(blocks, np.uint8))  # fmt: skip

    def _make_room(self, blocks: int) -> None:
        if blocks > len(self._state):
            grown = np.zeros(max(1024, blocks + blocks // 4), np.uint8)
            grown[: len(self._state)] = self._state
            self._state = grown
            self._view = None

    def _add(
        self,
        loaded: Sequence[tuple[int, Rollup | None, int, np.ndarray]],
        alive: Callable[[], np.ndarray],
    ) -> None:
        loaded = [one for one in loaded if self._state[one[0]] == UNKNOWN]
        wanted = sum(len(rollup.count) for _, rollup, _, _ in loaded if rollup)
        if self._count + wanted > self.cells_max:
            self._drop(alive())
        self._view = None
        state = self._state.copy()
        pieces: list[dict[str, np.ndarray]] = []
        added = self._count
        for ordinal, rollup, low, indexes in loaded:
            if rollup is None or added + len(rollup.count) > self.cells_max:
                state[ordinal] = WITHOUT
                continue
            pieces.append(self._piece(ordinal, rollup, low, indexes))
            added += len(pieces[-1]["count"])
            state[ordinal] = INDEXED
        self._append(pieces)
        self._state = state

    def _piece(
        self, ordinal: int, rollup: Rollup, low: int, indexes: np.ndarray
    ) -> dict[str, np.ndarray]:
        """A block's cells; those of entries that were not accepted are left out."""
        at = np.minimum(np.searchsorted(indexes, rollup.entry), len(indexes) - 1)
        kept = np.flatnonzero(indexes[at] == rollup.entry)
        try:
            services = self._numbers(self._services, rollup.services)[rollup.service[kept]]
            levels = self._numbers(self._levels, rollup.levels)[rollup.level[kept]]
        except IndexError as error:
            raise BlockCorrupt("a rollup names more than it lists", ordinal=ordinal) from error
        keys, inverse = np.unique(services << 32 | levels, return_inverse=True)
        pairs = self._numbers(self._pairs, [(k >> 32, k & 0xFFFFFFFF) for k in keys.tolist()])
        return {
            "number": low + at[kept],
            "block": np.full(len(kept), ordinal),
            "minute": rollup.minute[kept],
            "pair": pairs[inverse],
            "count": rollup.count[kept],
        }

    @staticmethod
    def _numbers(names: Names, values: Iterable[object]) -> np.ndarray:
        return np.array([names.number(value) for value in values], np.int64)

    def _append(self, pieces: list[dict[str, np.ndarray]]) -> None:
        if not pieces:
            return
        added = sum(len(piece["count"]) for piece in pieces)
        total = self._count + added
        for name, column in self._columns.items():
            if total > len(column):
                grown = np.zeros(total + total // 4, CELL[name])
                grown[: self._count] = column[: self._count]
                self._columns[name] = column = grown
            column[self._count : total] = np.concatenate([piece[name] for piece in pieces])
        self._count = total

    def _drop(self, alive: np.ndarray) -> None:
        """Forgets the cells of blocks that are gone; into new arrays, as readers hold the old ones."""
        known = np.zeros(len(self._state), bool)
        known[: len(alive)] = alive[: len(known)]
        kept = np.flatnonzero(known[self._columns["block"][: self._count]])
        self._columns = {name: one[: self._count][kept] for name, one in self._columns.items()}
        self._count = len(kept)
        self._state = np.where(known, self._state, UNKNOWN).astype(np.uint8)

    def _cells(self) -> Cells:
        if self._view is None:
            columns = {name: one[: self._count] for name, one in self._columns.items()}
            pairs = np.array(self._pairs.values, np.int64).reshape(-1, 2)
            self._view = Cells(
                **columns,
                pair_service=pairs[:, 0],
                pair_level=pairs[:, 1],
                services=tuple(self._services.values),
                levels=tuple(self._levels.values),
                state=self._state,
            )
        return self._view
