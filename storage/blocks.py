"""The blocks and segments that a node holds, by ordinal. Pure.

An ordinal is given once while the process lives and never again, also when its block was merged or set aside:
caches and entry rows name blocks by it. Only present blocks take memory, so a node that merges small blocks
for years holds what it holds and no trace of the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from records.block import BlockHeader
from records.ids import BlockId


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """Where a block lies and what it spans. `ordinal` counts blocks as they are filed.

    `file` is the sequence of a log file, or less than 0: then the block is the segment of number `-file`,
    and `offset` is 0 (see storage.segment_file).
    """

    ordinal: int
    block_id: BlockId
    file: int
    offset: int
    length: int
    rows: int
    min_ts: int
    max_ts: int

    @classmethod
    def of(
        cls, ordinal: int, header: BlockHeader, file: int, offset: int, length: int
    ) -> "BlockPlace":
        """The place of a block with this header."""
        times = header.min_ts, header.max_ts
        return cls(ordinal, header.block_id, file, offset, length, header.rows, *times)


@dataclass(frozen=True, slots=True)
class GroupPlace(BlockPlace):
    """One row group of a block: `rows` are its own, the first of them is row `first_row` of the block."""

    group: int
    first_row: int


class Blocks:
    """Present blocks, ascending. `end` is the next ordinal; `len` counts those that are present."""

    __slots__ = ("_places", "end")

    def __init__(self) -> None:
        self._places: dict[int, BlockPlace] = {}
        self.end = 0

    def add(self, place: BlockPlace) -> None:
        """Adds a block after all others; a checkpoint leaves out the ordinals of those that are gone."""
        assert place.ordinal >= self.end
        self._places[place.ordinal] = place
        self.end = place.ordinal + 1

    def remove(self, ordinal: int) -> None:
        """The block is gone."""
        del self._places[ordinal]

    def __getitem__(self, ordinal: int) -> BlockPlace | None:
        return self._places.get(ordinal)

    def __iter__(self) -> Iterator[BlockPlace]:
        return iter(self._places.values())

    def __len__(self) -> int:
        return len(self._places)

    def since(self, ordinal: int) -> list[BlockPlace]:
        """Those from `ordinal` on, ascending. Cost: what it returns."""
        found: list[BlockPlace] = []
        for place in reversed(self._places.values()):
            if place.ordinal < ordinal:
                break
            found.append(place)
        return found[::-1]

    def mask(self) -> np.ndarray:
        """Which ordinals are present: one bool for each below `end`."""
        mask = np.zeros(self.end, bool)
        mask[np.fromiter(self._places, np.int64, len(self._places))] = True
        return mask

    def copy(self) -> "Blocks":
        """As they are now, for a reader on another thread."""
        other = Blocks()
        other._places, other.end = self._places.copy(), self.end
        return other
