"""Which rows of a block match a dear filter, remembered: a block never changes, so neither does the answer.

A dashboard asks the same question every few seconds, and between two times only the newest blocks are new.
What is kept is the filter's own verdict, by (block, filter), before hidden entries and time ranges are
applied, which do change. Few matches are kept as positions, many as bits: at most an eighth of a byte a row,
so the matches of one search over 4 M rows take at most 500 kB, where the messages take 390 MB.

Source: the query condition cache of ClickHouse, there by granule; VictoriaLogs keeps filter results alike.
"""

from collections.abc import Sequence

import numpy as np

from records.predicates import Filter
from runtime.metrics import Metrics
from storage.holdings import BlockPlace
from storage.lru import CountedLru
from storage.scan_filter import cost_of

#: Bytes kept. 16 MiB hold 100 M rows' worth of one dense search, or thousands of sparse ones.
MATCH_BYTES = 16 << 20
#: Filters cheaper than a search through text are quicker evaluated than remembered.
_DEAR = 8
#: What an element takes beside its bytes.
_ITEM_BYTES = 200


class MatchCache:
    """Verdicts of filters by piece; the least recently used go first. Thread-safe."""

    def __init__(self, metrics: Metrics, limit_bytes: int = MATCH_BYTES) -> None:
        asked = metrics.counter(
            "quorumlog_hot_matches_total",
            "Pieces that a dear filter was evaluated on, its matches known or not",
            ("found",),
        )
        self._kept = CountedLru(limit_bytes, asked)

    @staticmethod
    def wants(tree: Filter) -> bool:
        """Whether the filter is dear enough."""
        return cost_of(tree) >= _DEAR

    def get(self, places: Sequence[BlockPlace], tree: Filter) -> list[np.ndarray | None]:
        """For each piece the mask of all its rows, None if it is not known."""
        text = repr(tree)  # not the tree: True is no 1 there
        found = [self._get(place, text) for place in places]
        missing = sum(one is None for one in found)
        self._kept.count(len(found) - missing, missing)
        return found

    def _get(self, place: BlockPlace, text: str) -> np.ndarray | None:
        kept = self._kept.get(_key(place, text))
        if kept is None:
            return None
        if kept.dtype == np.uint8:
            return np.unpackbits(kept, count=place.rows).view(bool)
        mask = np.zeros(place.rows, bool)
        mask[kept] = True
        return mask

    def put(self, place: BlockPlace, tree: Filter, mask: np.ndarray) -> None:
        """Remembers the mask of all rows of a piece."""
        kept = np.flatnonzero(mask).astype(np.uint32)
        if 32 * len(kept) > len(mask):
            kept = np.packbits(mask)
        text = repr(tree)
        self._kept.put(_key(place, text), kept, kept.nbytes + len(text) + _ITEM_BYTES)


def _key(place: BlockPlace, text: str) -> tuple[int, int, str]:
    return place.ordinal, getattr(place, "group", -1), text
