"""The rollup answers counts exactly as the rows would."""

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records import sidecar
from records.columns import CORE_TYPES
from records.errors import BlockCorrupt

MINUTE = 60_000_000
ROW = st.tuples(
    st.integers(-2, 2), st.integers(0, MINUTE - 1), st.sampled_from("abc"), st.sampled_from("xy")
)


@settings(max_examples=50)
@given(st.lists(ROW, min_size=1, max_size=40), st.integers(0, 40), st.sampled_from([1, 3, 9]))
def test_the_rollup_counts_what_the_rows_count(rows: list, cut: int, times: int) -> None:
    """By entry, minute (also before 1970), service and level; through bytes and back.

    Both ways of counting: with more possible cells than rows, and (rows repeated) with fewer.
    """
    rows = rows * times
    cut = min(cut, len(rows))
    stamps = [minute * MINUTE + micros for minute, micros, _, _ in rows]
    table = pa.table(
        {
            "timestamp": pa.array(stamps).cast(CORE_TYPES["timestamp"]),
            "service": pa.array([row[2] for row in rows]).dictionary_encode(),
            "level": pa.array([row[3] for row in rows]).dictionary_encode(),
        }
    )
    expected = Counter(
        (int(i >= cut), stamp // MINUTE, row[2], row[3])
        for i, (stamp, row) in enumerate(zip(stamps, rows, strict=True))
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sidecar, "MIN_ROWS_PER_CELL", 0)  # whether it pays or not
        rollup = sidecar.build_rollup(table, [0, cut])
    assert rollup is not None
    rollup = sidecar.from_bytes(sidecar.to_bytes((), (), rollup)).rollup
    assert rollup is not None

    found = {
        (int(e), int(m), rollup.services[s], rollup.levels[v]): int(c)
        for e, m, s, v, c in zip(
            rollup.entry, rollup.minute, rollup.service, rollup.level, rollup.count, strict=True
        )
    }
    assert found == dict(expected)


def test_a_rollup_that_would_not_pay_is_left_out() -> None:
    """One row a minute gives as many cells as rows: scanning is as cheap."""
    count = 1000
    table = pa.table(
        {
            "timestamp": pa.array([i * MINUTE for i in range(count)]).cast(CORE_TYPES["timestamp"]),
            "service": pa.array(["a"] * count).dictionary_encode(),
            "level": pa.array(["x"] * count).dictionary_encode(),
        }
    )

    assert sidecar.build_rollup(table, [0]) is None
    empty = sidecar.from_bytes(sidecar.to_bytes(("a",), ("x",), None))
    assert empty.rollup is None
    assert empty.services == ("a",)


def test_arrays_of_different_lengths_are_refused() -> None:
    """A forged sidecar must not index past an array."""
    from records import envelope

    fields = {"v": 1, "services": [], "levels": [], "entry": b"", "minute": b"", "service": b"",
              "level": b"", "count": b"\x01\x00\x00\x00"}  # fmt: skip
    with pytest.raises(BlockCorrupt):
        sidecar.from_bytes(envelope.packb(fields))
