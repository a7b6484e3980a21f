"""A search for rows of a service and level opens the blocks that hold them, told by rollups, no others."""

import pytest

from records.predicates import Filter, RowKey, ScanPlan
from records.timestamps import TimeRange
from tests.unit.storage.samples import SECOND, T0, Entry, block_of, row, scan_of
from tests.unit.storage.test_scan_batch import answers

PAYS = ("eq", "service", "pay")
ERRORS = ("and", PAYS, ("eq", "level", "ERROR"))
MINUTE = 60


def block(number: int, errors: int, service: str = "pay"):
    """A minute of 64 rows of one service, of which some are errors."""
    rows = [
        row(
            number * MINUTE + i % MINUTE,
            f"{number}/{i}",
            service,
            "error" if i < errors else "info",
        )
        for i in range(64)
    ]
    return block_of(number, Entry(rows, name=b"%d" % number))


def read(blocks: list, tree: Filter, limit: int, **more) -> tuple[int, int, int]:
    """(blocks read, rows read, rows found)."""
    plan = ScanPlan(filter=tree, fields=("message",), limit=limit, **more)
    [(reply, table)] = answers(blocks, [scan_of(plan)])
    return reply.blocks_scanned, reply.rows_scanned, table.num_rows


@pytest.mark.parametrize("descending", [True, False])
def test_as_many_blocks_are_read_as_hold_the_rows_wanted(descending: bool) -> None:
    """Ten blocks with four errors each: twelve errors are in three of them."""
    blocks = [block(n, 4) for n in range(10)]

    found = read(blocks, ERRORS, 12, descending=descending)

    assert found == (3, 192, 12)


def test_blocks_without_such_rows_are_not_read_at_all() -> None:
    """They name the service and the level, but no row has both."""
    blocks = []
    for number in range(8):
        rows = [
            row(number * MINUTE + i, "x", *(("pay", "info") if i % 2 else ("web", "error")))
            for i in range(20)
        ]
        blocks.append(block_of(number, Entry(rows, name=b"%d" % number)))

    assert read(blocks, ERRORS, 5) == (0, 0, 0)
    assert read([*blocks, block(9, 1)], ERRORS, 5) == (1, 64, 1)


def test_what_rollups_do_not_tell_still_bounds_what_is_read() -> None:
    """A condition on the message too: blocks without an error are left out, the others are read."""
    blocks = [block(n, 4 if n % 2 else 0) for n in range(10)]

    blocks_read, _, found = read(blocks, ("and", *ERRORS[1:], ("phrase", "/3")), 5)

    assert (blocks_read, found) == (5, 5)


def test_a_minute_that_the_range_cuts_is_not_counted_on() -> None:
    """Of the newest minute the errors come first and lie before the range; the next block has the rows."""
    blocks = [block(n, 4) for n in range(4)]
    time = TimeRange(T0, T0 + 3 * MINUTE * SECOND + SECOND)  # one second of the newest block

    plan = ScanPlan(filter=ERRORS, fields=("message",), limit=6, time=time)
    [(reply, table)] = answers(blocks, [scan_of(plan)])

    messages = table["message"].to_pylist()
    assert [text.split("/")[0] for text in messages] == ["3", "2", "2", "2", "2", "1"]
    assert reply.blocks_scanned == 3


def test_a_cursor_makes_nothing_sure() -> None:
    """Rows beyond a page's end: counts include those before it."""
    blocks = [block(n, 4) for n in range(6)]
    first = ScanPlan(filter=ERRORS, fields=("message",), limit=6)
    [(_, page)] = answers(blocks, [scan_of(first)])
    last = page.to_pylist()[-1]
    stamp = page["timestamp"].cast("int64")[-1].as_py()

    plan = ScanPlan(
        filter=ERRORS, fields=("message",), limit=100,
        after=RowKey(stamp, last["_run"], last["_number"]),
    )  # fmt: skip
    [(_, rest)] = answers(blocks, [scan_of(plan)])

    texts = [*page["message"].to_pylist(), *rest["message"].to_pylist()]
    assert len(texts) == 24
    assert len(set(texts)) == 24
