"""Parts: counted from rows, merged and narrowed they say what a plain loop over the rows says."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import fold_part
from storage.fold_part import NOTHING, Part, Rows, Unfit, counted, merged, narrowed

NAMES = [None, "a", "b", "c"]
STEP = 10


@dataclass(frozen=True)
class Row:
    """A row of two keys, a time and a value that may be absent."""

    one: str | None
    two: str | None
    stamp: int
    value: int | None


ROWS = st.lists(
    st.builds(
        Row,
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
        st.integers(-50, 50),
        st.none() | st.integers(-5, 5) | st.sampled_from([1 << 40, -(1 << 40)]),
    ),
    max_size=12,
)
BATCHES = st.lists(ROWS, max_size=5)
Told = tuple[dict[tuple, int], dict[tuple, int]]


def batch(rows: Sequence[Row], order: Sequence[str | None]) -> Rows:
    """Rows as a batch hands them over; the names in an order of its own."""
    names = [name for name in order if name is not None]
    codes = [
        np.array([names.index(x) if x is not None else len(names) for x in column], np.int32)
        for column in ([row.one for row in rows], [row.two for row in rows])
    ]
    valid = np.array([row.value is not None for row in rows], bool)
    return Rows(
        len(rows),
        tuple((one, pa.array(names, pa.string())) for one in codes),
        np.array([row.stamp for row in rows], np.int64),
        {"v": (np.array([row.value or 0 for row in rows], np.int64), None if valid.all() else valid)},
    )  # fmt: skip


def part_of(batches: Sequence[Sequence[Row]], step: int = STEP) -> Part:
    """Each batch with its names in another order."""
    orders = [NAMES, NAMES[::-1], ["c", None, "a", "b"]]
    return counted([batch(r, orders[i % 3]) for i, r in enumerate(batches)], ["v"], step)


def told(part: Part) -> Told:
    """(rows by group, occurrences by group and value) of a part; each group and pair once, in order."""
    keys = [key.values().to_pylist() for key in part.keys]
    if part.bucket is not None:
        keys.append(part.bucket.tolist())
    groups = list(zip(*keys, strict=True)) if len(part.rows) else []
    assert len(set(groups)) == len(groups)
    pairs: dict[tuple, int] = {}
    if "v" in part.histograms:
        found = part.histograms["v"]
        listed = list(zip(found.group.tolist(), found.value.tolist(), strict=True))
        assert listed == sorted(set(listed))
        for (group, value), count in zip(listed, found.count.tolist(), strict=True):
            pairs[(*groups[group], value)] = count
    return dict(zip(groups, part.rows.tolist(), strict=True)), pairs


def model(rows: Sequence[Row], keys: int = 2, step: int = STEP) -> Told:
    """The same by a loop."""
    groups, pairs = Counter(), Counter()
    for row in rows:
        group = (*(row.one, row.two)[:keys], *([row.stamp // step] if step else []))
        groups[group] += 1
        if row.value is not None:
            pairs[(*group, row.value)] += 1
    return dict(groups), dict(pairs)


@given(BATCHES, st.sampled_from([0, STEP]))
def test_rows_are_counted_by_group_and_value(batches: list[list[Row]], step: int) -> None:
    """Several batches at once, names in different orders, with nulls."""
    rows = [row for one in batches for row in one]

    assert told(part_of(batches, step)) == model(rows, step=step)


@given(st.lists(BATCHES, max_size=4), st.sampled_from([fold_part.CELLS, 4]))
def test_merging_parts_is_counting_all_rows(runs: list[list[list[Row]]], cells: int) -> None:
    """With a cell for each group that may be, and by sorting where these would be too many."""
    rows = [row for run in runs for one in run for row in one]
    parts = [part_of(run) for run in runs]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_part, "CELLS", cells)
        found = merged(parts)

    assert told(found) == model(rows)


@given(BATCHES, st.sampled_from(NAMES), st.sampled_from([0, STEP]))
def test_narrowing_is_filtering_the_rows_by_a_key(
    batches: list[list[Row]], wanted: str | None, step: int
) -> None:
    """The second key is filtered by, then left out: its groups become one."""
    part = part_of(batches, step)
    kept = [row for one in batches for row in one if row.two == wanted]
    if not len(part.rows):
        return
    mask = np.array([value == wanted for value in part.keys[1].values().to_pylist()])

    assert told(narrowed(part, mask, 1)) == model(kept, 1, step)


def test_nothing_merges_to_nothing() -> None:
    """No parts, and parts without rows."""
    assert merged([]) is NOTHING
    assert merged([NOTHING, part_of([[]])]) is NOTHING


def test_a_part_of_small_numbers_takes_four_bytes_for_each() -> None:
    """It is kept in memory, so that counts."""
    part = part_of([[Row("a", "b", stamp, stamp) for stamp in range(100)]], 0)

    assert part.histograms["v"].nbytes == 100 * 3 * 4
    assert part.nbytes < 100 * 3 * 4 + 2000


def test_too_many_groups_or_too_large_numbers_are_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are left to the general fold."""
    far = [Row("a", "a", 0, 1), Row("a", "a", 1 << 50, 1)]
    with pytest.raises(Unfit):
        part_of([far])
    with pytest.raises(Unfit):
        part_of([[Row("a", "a", 0, 1 << 62)]])
    monkeypatch.setattr(fold_part, "CELLS", 15)
    with pytest.raises(Unfit):
        part_of([[Row("a", "a", 0, 1)]], 0)  # four names, four names
