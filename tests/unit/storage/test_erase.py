"""Blanking: what a row keeps, what is gone, and what the sidecar says afterwards."""

import numpy as np
import pyarrow as pa

from records.sidecar import build_rollup
from storage.erase import KEPT, blanked
from tests.unit.storage.samples import T0, row, table_of

ROWS = [
    row(1, "keep", host="h1", trace_id="t1", code=1, received_at=T0),
    row(61, "secret", "web", host="h2", trace_id="t2", code=2, received_at=T0),
    row(2, "keep too", code=3, received_at=T0),
]
SECOND_ROW = np.array([False, True, False])


def test_a_blanked_row_keeps_its_place_and_nothing_else() -> None:
    """Time, service, level and receipt stay; the message is empty, all else null; others are untouched."""
    table = table_of(ROWS)

    after = blanked(table, SECOND_ROW)

    kept, gone, too = after.to_pylist()
    assert {name for name, value in gone.items() if value is not None} <= KEPT | {"message"}
    assert (gone["message"], gone["service"], gone["_erased"]) == ("", "web", 1)
    before = table.to_pylist()
    assert [{n: v for n, v in one.items() if n != "_erased"} for one in (kept, too)] == [
        before[0],
        before[2],
    ]
    assert after.schema.field("host").type == table.schema.field("host").type


def test_no_dictionary_remembers_a_value() -> None:
    """A dictionary column is made anew, or it would still list what only the blanked row had."""
    after = blanked(table_of(ROWS), SECOND_ROW).combine_chunks()

    host = after["host"].chunk(0)
    assert isinstance(host, pa.DictionaryArray)
    assert host.dictionary.to_pylist() == ["h1"]


def test_what_all_rows_lost_is_no_column() -> None:
    """A column that is null in a whole block is absent from it. Blanking twice marks both."""
    first = blanked(table_of(ROWS), SECOND_ROW)
    both = blanked(first, np.array([True, False, False]))

    assert "trace_id" not in both.schema.names
    assert both["_erased"].to_pylist() == [1, 1, None]


def test_the_rollup_counts_what_is_left() -> None:
    """Counts come from it without a look at rows; with all rows blanked it has no cell."""
    rollup = build_rollup(blanked(table_of(ROWS), SECOND_ROW), [0, 2])
    nothing = build_rollup(blanked(table_of(ROWS), np.ones(3, bool)), [0, 2])

    assert rollup is not None
    assert nothing is not None
    assert (rollup.services, rollup.count.tolist(), rollup.entry.tolist()) == (
        ("pay",),
        [1, 1],
        [0, 1],
    )
    assert len(nothing.count) == 0
