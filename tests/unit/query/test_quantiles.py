"""Quantiles of counted lists against NumPy's, over the values written out."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.quantiles import quantiles

COUNTED = st.lists(
    st.tuples(st.floats(-100, 100), st.integers(1, 4)), max_size=6, unique_by=lambda one: one[0]
)


@given(st.lists(COUNTED, max_size=5), st.floats(0, 1), st.booleans(), st.integers(0, 2))
def test_each_list_has_the_quantile_of_its_values(
    lists: list[list[tuple[float, int]]], quantile: float, ordered: bool, skipped: int
) -> None:
    """In order or not, some lists empty, and as a slice of longer columns."""
    told = [sorted(one) if ordered else one for one in lists]
    values = pa.array([[v for v, _ in one] for one in told], pa.list_(pa.float64()))
    counts = pa.array([[n for _, n in one] for one in told], pa.list_(pa.int64()))

    found = quantiles(values.slice(skipped), counts.slice(skipped), quantile).to_pylist()

    for answer, one in zip(found, lists[skipped:], strict=True):
        repeated = [value for value, count in one for _ in range(count)]
        if not repeated:
            assert answer is None
        else:
            assert answer == pytest.approx(np.quantile(repeated, quantile), rel=1e-9, abs=1e-9)


def test_a_single_value_is_every_quantile() -> None:
    """Exactly: no interpolation between equal values."""
    values, counts = pa.array([[0.1]]), pa.array([[3]])

    assert [quantiles(values, counts, q).to_pylist() for q in (0.0, 0.3, 1.0)] == [[0.1]] * 3


def test_lists_of_different_lengths_are_refused() -> None:
    """Counts of other values would be a wrong answer."""
    values, counts = pa.array([[1.0], [2.0, 3.0]]), pa.array([[1, 1], [1]])

    with pytest.raises(ValueError, match="length"):
        quantiles(values, counts, 0.5)
