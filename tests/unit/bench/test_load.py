"""What the driver makes of counts that are too small or too large."""

from collections.abc import Iterator

import pytest

from bench.load import wait_for


def counts(*values: int) -> Iterator[int]:
    """Each value once, the last for ever."""
    yield from values
    while True:
        yield values[-1]


def test_it_waits_until_all_rows_are_seen_and_notes_answers_that_saw_too_many() -> None:
    """A count of more than was sent is wrong even if the next one is right."""
    few, many = counts(0, 5, 10), counts(4, 12, 11, 10)

    assert wait_for(lambda: next(few), 10) == 0
    assert wait_for(lambda: next(many), 10) == 2


@pytest.mark.parametrize("seen", [9, 11])
def test_a_count_that_stays_wrong_ends_the_run(seen: int) -> None:
    """Missing rows and doubled rows alike."""
    with pytest.raises(RuntimeError, match=f"10 rows were acknowledged, {seen} are seen"):
        wait_for(lambda: seen, 10, seconds=0.05)
