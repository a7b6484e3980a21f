"""Folds of whole blocks, remembered: a block never changes, so neither does what it adds to an answer.

A dashboard asks the same every few seconds, of a range that has moved on: between two times only the newest
blocks are new. What is kept are parts (storage.fold_part) of *runs* of blocks. Runs form a tree over block
ordinals, eight to a node: the parts of eight neighbours, of up to 64 blocks, of up to 512, and so on
up to all that were asked for. A question asked again finds the root; with a few new blocks, or over another
range, it finds most of the tree, and merges at most a few handfuls of parts a level.

A part is kept under exactly the blocks it was made of and the shape of the question (keys, columns, step,
filter). Blocks count only if every row of theirs may be seen and lies in the time range: hidden entries,
shards and the edges of ranges are decided by each scan, before it asks here. Bounded in bytes; the least
recently used go first.

Source: the roll-up tree is a radix tree over time, as in materialised aggregates of time series stores
(InfluxDB's and Prometheus' downsampling), but made on demand and in memory.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from runtime.metrics import Metrics
from storage.fold_part import Part, merged
from storage.lru import CountedLru

if TYPE_CHECKING:
    from storage.scan_select import BlockSlice

#: Bytes kept. A histogram by (group, value) takes 12 bytes a pair, counts by a few groups next to nothing.
FOLD_BYTES = 32 << 20
#: Ordinals of a node: 2 to this.
_BITS = 3
#: Part of several windows of pieces.
Compute = Callable[[list[list["BlockSlice"]]], list[Part]]
Cut = Callable[[Sequence["BlockSlice"]], Iterator[list["BlockSlice"]]]


class FoldCache:
    """Parts by (shape, blocks). Thread-safe."""

    def __init__(self, metrics: Metrics, limit_bytes: int = FOLD_BYTES) -> None:
        asked = metrics.counter(
            "quorumlog_hot_folds_total",
            "Blocks folded by codes, what they add to the answer remembered or not",
            ("found",),
        )
        self._kept = CountedLru(limit_bytes, asked)
        self.count = self._kept.count

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self._kept.size

    def get(self, shape: str, run: bytes) -> Part | None:
        """The part of a run of blocks."""
        return self._kept.get((shape, run))

    def put(self, shape: str, run: bytes, part: Part) -> None:
        """Keeps it."""
        self._kept.put((shape, run), part, part.nbytes + len(shape) + len(run))


@dataclass(slots=True)
class _Node:
    pieces: "Sequence[BlockSlice]"
    run: bytes
    part: Part | None
    children: "list[_Node]" = field(default_factory=list)


def fold_runs(
    cache: FoldCache, shape: str, pieces: "Sequence[BlockSlice]", cut: Cut, compute: Compute
) -> Part:
    """The part of all `pieces`: whole blocks, ordinals ascending. What is not remembered is computed.

    Args:
        shape: names keys, columns, step and filter.
        cut: divides the pieces of a leaf, which may be large, into windows.
        compute: the parts of windows, in order; asked once, for all that is missing.
    """
    root = _found(cache, shape, pieces, [int(one.place.ordinal) for one in pieces])
    leaves = list(_absent(root))
    windows = [list(cut(leaf.pieces)) for leaf in leaves]
    absent = sum(len(leaf.pieces) for leaf in leaves)
    cache.count(len(pieces) - absent, absent)
    computed = iter(compute([window for some in windows for window in some]))
    for leaf, some in zip(leaves, windows, strict=True):
        leaf.part = merged(list(itertools.islice(computed, len(some))))
        cache.put(shape, leaf.run, leaf.part)
    return _whole(cache, shape, root)


def _found(
    cache: FoldCache, shape: str, pieces: "Sequence[BlockSlice]", ordinals: list[int]
) -> _Node:
    """The tree as far down as it is not remembered."""
    run = np.array(ordinals, np.int64).tobytes()
    node = _Node(pieces, run, cache.get(shape, run))
    spread = ordinals[0] ^ ordinals[-1]
    if node.part is not None or spread < 1 << _BITS:
        return node
    shift = (spread.bit_length() - 1) // _BITS * _BITS
    low = 0
    for high in range(1, len(ordinals) + 1):
        if high == len(ordinals) or ordinals[high] >> shift != ordinals[low] >> shift:
            node.children.append(_found(cache, shape, pieces[low:high], ordinals[low:high]))
            low = high
    return node


def _absent(node: _Node) -> Iterator[_Node]:
    """The leaves that have to be computed."""
    if node.part is not None:
        return
    if not node.children:
        yield node
    for child in node.children:
        yield from _absent(child)


def _whole(cache: FoldCache, shape: str, node: _Node) -> Part:
    """Merges upwards, and remembers."""
    if node.part is None:
        node.part = merged([_whole(cache, shape, child) for child in node.children])
        cache.put(shape, node.run, node.part)
    return node.part
