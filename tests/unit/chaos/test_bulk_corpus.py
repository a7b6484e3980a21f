"""Bulk rows: the same for the same numbers, whole in both formats, and no difference goes unseen."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest

from chaos.bulk_corpus import (
    FIELDS,
    GROUP_ROWS,
    STEP_MICROS,
    BulkCorpus,
    arrow_stream,
    ndjson,
)

pc: Any = pyarrow.compute
CORPUS = BulkCorpus(3, 1_790_000_000_000_000)
NUMBERS = np.arange(1, 401)
ROWS = CORPUS.table("bulk1", NUMBERS, "svc")


def test_a_row_is_the_same_in_whatever_batch_it_is() -> None:
    """Alone, in another order, in another corpus of the same seed; another client's rows differ."""
    some = np.array([400, 7, 1])

    found = BulkCorpus(3, 1_790_000_000_000_000).table("bulk1", some, "svc")

    assert found.to_pylist() == [ROWS.to_pylist()[one - 1] for one in some]
    assert CORPUS.table("bulk2", some, "svc")["chaos_big"] != found["chaos_big"]
    assert (
        BulkCorpus(4, CORPUS.start_micros).table("bulk1", some, "svc")["chaos_big"]
        != (found["chaos_big"])
    )


def test_rows_are_awkward() -> None:
    """Integers beyond 2**53, equal times, texts with ends of lines and quotes."""
    assert pc.max(ROWS["chaos_big"]).as_py() > 1 << 53
    assert len(ROWS["timestamp"].unique()) < len(ROWS)
    joined = "".join(ROWS["message"].to_pylist())
    assert all(one in joined for one in ('"', "\n", "\\", "支", "\u2028"))


def test_a_range_of_times_is_a_range_of_groups() -> None:
    """Each row's time is in its group's step, which ends where the next begins."""
    numbers = np.array([1, GROUP_ROWS, GROUP_ROWS + 1])
    first, last, other = CORPUS.time_of(numbers)
    times = CORPUS.table("bulk1", numbers, "svc")["timestamp"].cast(pa.int64()).to_pylist()

    assert first == last
    assert other == first + STEP_MICROS
    assert first <= min(times[:2])
    assert max(times[:2]) < other <= times[2]


def test_json_lines_and_arrow_say_the_same() -> None:
    """Read by other readers than ours."""
    lines = [json.loads(line) for line in ndjson(ROWS).split(b"\n") if line]
    stream = pa.ipc.open_stream(arrow_stream(ROWS)).read_all()

    assert stream.equals(ROWS)
    micros = ROWS["timestamp"].cast(pa.int64()).to_pylist()
    plain = ROWS.drop_columns(["timestamp"]).to_pylist()
    assert lines == [{"timestamp": at, **row} for at, row in zip(micros, plain, strict=True)]


@pytest.mark.parametrize("name", [one for one in FIELDS if one != "chaos_number"])
def test_a_difference_in_any_column_is_seen(name: str) -> None:
    """One value changed, or null, or the column gone: those rows, and no others."""
    assert not CORPUS.altered(ROWS, "bulk1", "svc").any()
    where = pa.array(NUMBERS == 7)
    other = "else" if pa.types.is_string(ROWS[name].type) else ROWS[name][11]
    others = pc.if_else(where, other, ROWS[name])
    position = ROWS.schema.get_field_index(name)

    changed = ROWS.set_column(position, name, others)
    emptied = ROWS.set_column(position, name, pc.if_else(where, None, ROWS[name]))

    assert np.flatnonzero(CORPUS.altered(changed, "bulk1", "svc")).tolist() == [6]
    assert np.flatnonzero(CORPUS.altered(emptied, "bulk1", "svc")).tolist() == [6]
    assert CORPUS.altered(ROWS.drop_columns([name]), "bulk1", "svc").all()


def test_a_value_of_another_type_is_another_value() -> None:
    """A number as text, or as a float that has fewer digits."""
    for kind in (pa.string(), pa.float64()):
        column = ROWS["chaos_big"].cast(kind, safe=False)
        position = ROWS.schema.get_field_index("chaos_big")

        found = CORPUS.altered(ROWS.set_column(position, "chaos_big", column), "bulk1", "svc")

        assert found.all()
