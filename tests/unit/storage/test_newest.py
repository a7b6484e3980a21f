"""The rows received after a moment, found behind a mark, are those that a look at all rows finds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from records.sync import RECENT_MICROS
from storage import newest as module
from storage.newest import Newest, received_after

FAR = 10 * RECENT_MICROS
#: Times of rows as they come: mostly ascending, some late, some from a clock that is ahead.
STEP = st.tuples(st.integers(0, 50), st.sampled_from([0, 0, 0, 0, -40, -3_000, FAR, RECENT_MICROS]))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(STEP, max_size=12), min_size=1, max_size=12),
    st.lists(st.integers(-100, 100), min_size=12, max_size=12),
)
def test_marks_change_no_answer(batches: list[list[tuple[int, int]]], lags: list[int]) -> None:
    """Rows arrive, questions follow, about moments that go forth and a little back."""
    marks, times, now = Newest(), [], 1_000_000
    for batch, lag in zip(batches, lags, strict=False):
        for step, shift in batch:
            now += step
            times.append(now + shift)
        received, until = np.array(times, np.int64), now - 100 + lag

        found, mark = received_after(received, until, marks.begin(0, until))
        marks.keep(0, mark)

        wanted = (received > until) & (received <= until + RECENT_MICROS)
        assert sorted(found.tolist()) == np.flatnonzero(wanted).tolist()


def test_a_later_question_looks_at_what_came_since() -> None:
    """The mark says where to begin; about an earlier moment it is of no use."""
    marks = Newest()
    received = np.arange(1000, dtype=np.int64)
    _, mark = received_after(received, 900, marks.begin(0, 900))
    marks.keep(0, mark)

    assert marks.begin(0, 999).count == 1000
    assert marks.begin(0, 998).count == 0


def test_another_generation_begins_anew() -> None:
    """Rows have other numbers then; a mark of the old ones is not kept."""
    marks = Newest()
    _, mark = received_after(np.arange(10, dtype=np.int64), 100, marks.begin(0, 100))
    marks.keep(0, mark)
    assert marks.begin(0, 100).count == 10

    assert marks.begin(1, 100).count == 0
    marks.keep(0, mark)
    assert marks.begin(1, 100).count == 0


def test_marks_and_what_they_keep_are_bounded(monkeypatch) -> None:
    """Sixteen of them; with too many rows of a wrong clock, none."""
    marks = Newest()
    for at in range(50):
        marks.begin(0, at)
        marks.keep(0, received_after(np.arange(at, dtype=np.int64), at, marks.begin(0, at))[1])
    assert len(marks._marks) == module.MARKS_MAX

    monkeypatch.setattr(module, "ODD_MAX", 5)
    many = np.full(6, FAR, np.int64)
    found, mark = received_after(many, 0, Newest().begin(0, 0))
    assert mark is None
    assert not len(found)
