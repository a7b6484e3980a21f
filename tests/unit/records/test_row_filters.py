"""Which columns get filters, what they cover, and that forged ones are refused."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from records import envelope, sidecar, token_filter
from records.errors import BlockCorrupt
from records.row_filters import ID_COLUMNS_MAX, MIN_ROWS, RowFilters, build_filters

ROWS = 1000


def table(**more: list) -> pa.Table:
    """ROWS rows with a message and other columns."""
    columns = {"message": pa.array([f"row {i} of many" for i in range(ROWS)])}
    return pa.table({**columns, **{name: pa.array(values) for name, values in more.items()}})


def built(rows: pa.Table, mode: str = "on") -> RowFilters:
    """Filters of row groups of 400 rows, through bytes and back."""
    found = build_filters(rows, 400, mode)
    assert found is not None
    back = sidecar.from_bytes(sidecar.to_bytes((), (), None, found)).filters
    assert back is not None
    return back


def may_hold(filters: RowFilters, name: str, key: bytes) -> list[bool]:
    """The answer for each row group."""
    blocks = filters.blocks[name]
    args = (filters.bits[name], np.cumsum(blocks) - blocks, blocks)
    return token_filter.maybe(token_filter.hash_key(key), *args).tolist()


def test_each_row_group_has_its_own_filter() -> None:
    """Row 500 is in the second of three groups."""
    found = built(table(trace_id=[f"t{i}" for i in range(ROWS)]))

    assert found.groups == 3
    assert may_hold(found, "message", b"500") == [False, True, False]
    assert may_hold(found, "message", b"many") == [True, True, True]
    assert may_hold(found, "trace_id", b"t999") == [False, False, True]


def test_ids_are_told_from_other_columns_by_their_values() -> None:
    """Many different short texts; not few values, not long texts, not numbers, not dictionaries."""
    found = built(
        table(
            session=[f"s{i // 3}" for i in range(ROWS)],
            region=[f"r{i % 9}" for i in range(ROWS)],
            stack=[f"{i} " + "at line of code " * 9 for i in range(ROWS)],
            count=list(range(ROWS)),
        )
    )

    assert set(found.blocks) == {"message", "session"}
    assert found.columns == ("message", "session", "region", "stack", "count")


def test_the_number_of_id_columns_is_bounded() -> None:
    """Senders name the columns."""
    found = built(table(**{f"id{n}": [f"{n}-{i}" for i in range(ROWS)] for n in range(40)}))

    assert len(found.blocks) == ID_COLUMNS_MAX + 1


def test_a_group_whose_rows_keep_the_field_in_attributes_has_no_filter() -> None:
    """A condition on a field also looks into `attributes` where the column is null."""
    users: list = [f"u{i}" for i in range(ROWS)]
    extra: list = [json.dumps({"other": 1})] * ROWS
    users[450], extra[450] = None, json.dumps({"user": "bob"})
    users[900] = None  # attributes say nothing of a user there

    found = built(table(user=users, attributes=extra))

    assert found.blocks["user"].tolist()[1] == 0
    assert may_hold(found, "user", b"bob") == [False, True, False]


def test_groups_without_any_value_are_known() -> None:
    """For `exists`, and for any other condition on the column."""
    found = built(table(code=[i if i < 500 else None for i in range(ROWS)]))

    assert found.present["code"].tolist() == [True, True, False]


def test_small_blocks_and_switched_off_ones_have_none() -> None:
    """They are written as version 1."""
    assert build_filters(table().slice(0, MIN_ROWS - 1), 400, "on") is None
    assert build_filters(table(), 400, "off") is None
    assert envelope.unpackb(sidecar.to_bytes((), (), None, None))["v"] == 1


def test_without_the_kernel_words_are_left_out_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`auto` builds what is cheap: ids."""
    monkeypatch.setattr(token_filter, "kernel", None)
    rows = table(trace_id=[f"t{i}" for i in range(ROWS)])

    assert set(built(rows, "auto").blocks) == {"trace_id"}
    assert set(built(rows, "on").blocks) == {"trace_id", "message"}


@pytest.mark.parametrize(
    "change",
    [
        {"groups": 4},
        {"groups": 0},
        {"group_rows": 0},
        {"blocks": {"message": np.array([1, 1, 9])}},
        {"blocks": {"message": np.array([1, -1, 1])}},
        {"blocks": {"message": np.array([1])}},
        {"present": {"x": np.array([True])}},
    ],
)
def test_forged_filters_are_refused(change: dict) -> None:
    """No index past an array."""
    found = build_filters(table(), 400, "on")
    assert found is not None
    data = sidecar.to_bytes((), (), None, replace(found, **change))

    with pytest.raises(BlockCorrupt):
        sidecar.from_bytes(data)


@pytest.mark.parametrize("filters", [[], {"message": 3}, {"message": [[1], b"short"]}, {"m": []}])
def test_malformed_filters_are_refused(filters: object) -> None:
    """Any shape but the right one."""
    fields = {"v": 2, "services": [], "levels": [], "filters": filters, "present": {},
              "columns": [], "groups": 1, "group_rows": 5}  # fmt: skip
    with pytest.raises(BlockCorrupt):
        sidecar.from_bytes(envelope.packb(fields))
