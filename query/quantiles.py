"""Exact quantiles of counted values, list by list. Pure, by column: no pass over a list of its own.

A replica sends each distinct value once, with how often it occurs, in order. The quantile lies between the
values at rank floor(h) and the next, where h = (n - 1) * q counts from 0: linear interpolation between the
closest ranks, NumPy's default, and DuckDB's `quantile_cont`.
"""

import numpy as np
import pyarrow as pa


def quantiles(values: pa.ListArray, counts: pa.ListArray, quantile: float) -> pa.Array:
    """The quantile of each list, null where a list is empty or null.

    Args:
        values: lists of doubles without nulls, in any order.
        counts: lists of the same lengths: how often each value occurs, at least once.
    """
    lengths = _lengths(values)
    if (lengths != _lengths(counts)).any():
        raise ValueError("lists of values and of counts that differ in length")
    edges = np.append(0, np.cumsum(lengths))
    flat = values.flatten().to_numpy(zero_copy_only=False)
    times = counts.flatten().to_numpy(zero_copy_only=False)
    flat, times = _ordered(flat, times, edges)
    until = np.append(0, np.cumsum(times))
    before, totals = until[edges[:-1]], until[edges[1:]] - until[edges[:-1]]
    height = (totals - 1) * quantile
    rank = np.floor(height).astype(np.int64)
    last = edges[1:] - 1
    low = np.minimum(np.searchsorted(until[1:], before + rank, "right"), last)
    high = np.minimum(np.searchsorted(until[1:], before + rank + 1, "right"), last)
    padded = np.append(flat, 0.0)  # an empty list at the end has no value to look at
    a, b = padded[low], padded[high]
    found = np.where(a == b, a, a + (b - a) * (height - rank))
    return pa.array(found, mask=totals == 0)


def _lengths(lists: pa.ListArray) -> np.ndarray:
    return lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


def _ordered(
    values: np.ndarray, counts: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values and counts in order within each list; as they are, if they were."""
    falls = values[1:] >= values[:-1]
    inner = edges[(edges > 0) & (edges < len(values))]
    falls[inner - 1] = True
    if falls.all():
        return values, counts
    lists = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    order = np.lexsort((values, lists))
    return values[order], counts[order]
