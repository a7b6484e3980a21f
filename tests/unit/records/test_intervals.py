"""SeqIntervals against a plain set of ints: the slow, obvious model."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from records.intervals import SeqIntervals, counted_at_least

SPANS = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 12)).map(lambda t: (t[0], t[0] + t[1])),
    max_size=12,
)


def model(spans: list[tuple[int, int]]) -> set[int]:
    """The set that the spans stand for."""
    return {seq for a, b in spans for seq in range(a, b + 1)}


@given(SPANS)
def test_spans_stay_sorted_disjoint_and_apart(spans: list[tuple[int, int]]) -> None:
    """The invariant: what touches is merged, and nothing is lost or invented."""
    intervals = SeqIntervals(spans)

    found = intervals.spans()

    assert model(found) == model(spans)
    assert all(a <= b for a, b in found)
    assert all(end + 1 < start for (_, end), (start, _) in itertools.pairwise(found))
    assert len(intervals) == len(model(spans))


@given(SPANS, st.integers(1, 70), st.integers(0, 20))
def test_overlap_and_gaps_split_any_range(
    spans: list[tuple[int, int]], first: int, width: int
) -> None:
    """Every sequence of a range is either present (overlap) or absent (gaps), never both."""
    intervals, last = SeqIntervals(spans), first + width
    asked = set(range(first, last + 1))

    assert model(intervals.overlap(first, last)) == asked & model(spans)
    assert model(intervals.gaps(first, last)) == asked - model(spans)


@given(SPANS)
def test_contiguous_end_is_the_largest_k_with_all_up_to_it(spans: list[tuple[int, int]]) -> None:
    """The definition of ackTill, counted the slow way."""
    present, k = model(spans), 0
    while k + 1 in present:
        k += 1

    intervals = SeqIntervals(spans)

    assert intervals.contiguous_end == k
    assert intervals.largest == max(present, default=0)


@given(st.lists(SPANS, min_size=1, max_size=4), st.integers(1, 4))
def test_counted_at_least_counts_replicas_per_sequence(
    sets: list[list[tuple[int, int]]], needed: int
) -> None:
    """A sequence counts if that many replicas hold it."""
    models = [model(one) for one in sets]
    expected = {s for s in set().union(*models) if sum(s in m for m in models) >= needed}

    result = counted_at_least([SeqIntervals(one) for one in sets], needed)

    assert model(result.spans()) == expected


def test_a_copy_does_not_share_state() -> None:
    """Snapshots of the ack arithmetic must not move afterwards."""
    first = SeqIntervals([(1, 3)])
    second = first.copy()
    second.add(4, 9)

    assert first.spans() == [(1, 3)]
    assert second.spans() == [(1, 9)]
