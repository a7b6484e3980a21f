"""The tree of remembered parts: what is asked again, or over another range, is computed only where new."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from runtime.metrics import Metrics
from storage.fold_part import Part, Rows, counted
from storage.fold_tree import FoldCache, fold_runs


@dataclass(frozen=True)
class Place:
    """As much of a place as the tree asks for."""

    ordinal: int


@dataclass(frozen=True)
class Piece:
    """A block, of one row whose value is its ordinal."""

    place: Place


@dataclass
class Asking:
    """A cache, and the ordinals that were computed."""

    metrics: Metrics = field(default_factory=Metrics)
    computed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache = FoldCache(self.metrics)

    def ask(self, ordinals: Sequence[int], shape: str = "s") -> tuple[dict[int, int], list[int]]:
        """(how often each ordinal is in the answer, what was computed for it)."""
        self.computed = []
        pieces = [Piece(Place(one)) for one in ordinals]
        part = fold_runs(self.cache, shape, pieces, self._cut, self._compute)  # type: ignore[arg-type]
        found = part.histograms["v"]
        return dict(zip(found.value.tolist(), found.count.tolist(), strict=True)), self.computed

    @staticmethod
    def _cut(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
        for low in range(0, len(pieces), 5):
            yield list(pieces[low : low + 5])

    def _compute(self, windows: list[list[Piece]]) -> list[Part]:
        return [self._part([one.place.ordinal for one in window]) for window in windows]

    def _part(self, ordinals: list[int]) -> Part:
        self.computed += ordinals
        names = pa.array(["k"], pa.string())
        values = np.array(ordinals, np.int64)
        rows = Rows(
            len(values), ((np.zeros(len(values), np.int32), names),), None, {"v": (values, None)}
        )
        return counted([rows], ["v"], 0)  # fmt: skip


@given(st.lists(st.sets(st.integers(0, 600), min_size=1), min_size=1, max_size=6))
def test_any_runs_in_any_order_are_told_whole(asked: list[set[int]]) -> None:
    """Each block of a question once, whatever was asked before."""
    asking = Asking()
    for ordinals in asked:
        found, _ = asking.ask(sorted(ordinals))
        assert found == dict.fromkeys(ordinals, 1)


def test_asked_again_nothing_is_computed() -> None:
    """The second time all is remembered; another shape is another question."""
    asking = Asking()

    assert sorted(asking.ask(range(100))[1]) == list(range(100))
    assert asking.ask(range(100))[1] == []
    assert sorted(asking.ask(range(100), "other")[1]) == list(range(100))

    told = asking.metrics.snapshot()
    assert told['quorumlog_hot_folds_total{found="yes"}'] == 100
    assert told['quorumlog_hot_folds_total{found="no"}'] == 200


def test_new_blocks_and_another_range_compute_what_is_at_their_edges() -> None:
    """Leaves hold eight neighbours: those that lost or won a block are computed, no others."""
    asking = Asking()
    asking.ask(range(1000))

    assert sorted(asking.ask(range(1001))[1]) == [1000]
    assert sorted(asking.ask(range(20, 1000))[1]) == list(range(20, 24))
    assert sorted(asking.ask([n for n in range(1000) if n != 500])[1]) == [
        n for n in range(496, 504) if n != 500
    ]


def test_memory_is_bounded() -> None:
    """Old parts go; the answers stay right."""
    asking = Asking()
    asking.cache = FoldCache(asking.metrics, 5_000)

    for low in range(0, 400, 7):
        found, _ = asking.ask(range(low, low + 200))
        assert found == dict.fromkeys(range(low, low + 200), 1)
        assert asking.cache.nbytes <= 5_000
