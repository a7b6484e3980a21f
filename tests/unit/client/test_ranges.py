"""`Ranges` against a plain set of numbers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from quorumlog.ranges import Ranges

steps = st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(-1, 8)), max_size=20)


@settings(max_examples=200)
@given(steps, st.integers(0, 30))
def test_ranges_hold_what_a_set_holds(steps: list[tuple[bool, int, int]], start: int) -> None:
    """Adding, removing, gaps and runs agree with the model, and intervals stay apart."""
    ranges, model = Ranges(), set[int]()
    for is_add, first, extra in steps:
        numbers = set(range(first, first + extra))
        if is_add:
            ranges.add(first, first + extra - 1)
            model |= numbers
        else:
            ranges.remove(first, first + extra - 1)
            model -= numbers

    held = [number for first, last in ranges for number in range(first, last + 1)]
    assert held == sorted(model)
    assert len(ranges) == len(model)
    assert all(b[0] - a[1] > 1 for a, b in zip(list(ranges), list(ranges)[1:], strict=False))
    assert all((number in ranges) == (number in model) for number in range(40))
    absent = [number for gap in ranges.gaps(start, 40) for number in range(gap[0], gap[1] + 1)]
    assert absent == [number for number in range(start, 41) if number not in model]
    end = start
    while end + 1 in model:
        end += 1
    assert ranges.run_end(start) == end
