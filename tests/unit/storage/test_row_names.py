"""A row's name, (run, number), is the same on every node, whatever entry holds it there: so is its place in
the order, and a cursor of one node is good on another (I17).
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from records.ids import producer_run
from records.messages import PutOptions, RowName, RowPlace
from records.predicates import RowKey, ScanPlan
from storage.service import StorageService
from tests.unit.storage.samples import (
    SECOND,
    T0,
    Entry,
    block_of,
    entry_id,
    plain,
    row,
    scan_of,
    service_on,
)

RUN = producer_run("default", "pay", "p", 1)
REPAIR = PutOptions(1, repair=True)
NOON = T0 + SECOND


def at_once(*spans: tuple[int, int]) -> Entry:
    """Rows of producer p with these sequences, all of one moment: only their names order them."""
    rows = [row(1, f"{seq}", seq=seq) for first, last in spans for seq in range(first, last + 1)]
    return Entry(rows, producer="p", seqs=spans)


async def node_with(directory: Path, batches: Sequence[Sequence[Entry]]) -> StorageService:
    """A running service that holds these batches, a block each."""
    service = service_on(directory)
    await service.start()
    for number, entries in enumerate(batches):
        await service.put(block_of(number, *entries), REPAIR)
    return service


def keys(table: pa.Table) -> list[RowKey]:
    """The rows' keys."""
    stamps = table["timestamp"].cast(pa.int64()).to_pylist()
    names = zip(table["_run"].to_pylist(), table["_number"].to_pylist(), strict=True)
    return [RowKey(stamp, *name) for stamp, name in zip(stamps, names, strict=True)]


@pytest.mark.parametrize("descending", [True, False])
async def test_a_cursor_is_good_on_a_node_that_got_the_batches_cut_otherwise(
    tmp_path: Path, descending: bool
) -> None:
    """Pages of three in turn from three nodes: each row once, by sequence."""
    cuts = (
        [[at_once((1, 4))], [at_once((5, 12))]],
        [[at_once((1, 2))], [at_once((3, 12))]],
        [[at_once((9, 12))], [at_once((2, 10))], [at_once((1, 3))]],
    )
    nodes = [await node_with(tmp_path / str(n), cut) for n, cut in enumerate(cuts)]
    found: list[str] = []
    after = None
    for turn in range(5):
        plan = ScanPlan(descending=descending, limit=3, after=after)
        _, page = await nodes[turn % 3].scan(scan_of(plan))
        found += page["message"].to_pylist() if page.num_rows else []
        after = keys(page)[-1] if page.num_rows else after
    for node in nodes:
        await node.stop()

    expected = [f"{seq}" for seq in range(1, 13)]
    assert found == (expected[::-1] if descending else expected)


@pytest.mark.parametrize("restarted", [False, True])
async def test_sequences_name_rows_and_positions_those_without(
    tmp_path: Path, restarted: bool
) -> None:
    """Sequences with gaps between them, and after a restart."""
    loose = plain(2, 2)
    node = await node_with(tmp_path, [[at_once((3, 4), (7, 7)), loose, at_once((1, 1))]])
    if restarted:
        await node.stop()
        node = service_on(tmp_path)
        await node.start()

    _, table = await node.scan(scan_of(ScanPlan(descending=False)))
    await node.stop()

    run = bytes(entry_id(loose))
    stamps = [one["timestamp"] for one in loose.rows]
    assert keys(table) == [
        *(RowKey(NOON, RUN, seq) for seq in (1, 3, 4, 7)),
        RowKey(stamps[0], run, 0),
        RowKey(stamps[1], run, 1),
    ]


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_row_is_located_by_its_name(tmp_path: Path, restarted: bool) -> None:
    """Of two copies that which was received first; what is not held is not there."""
    first = Entry([row(60, "5", seq=5)], producer="p", seqs=((5, 5),), received_at=T0 - 1)
    loose = Entry([row(7), row(8, service="shop")])
    node = await node_with(tmp_path, [[at_once((1, 3), (5, 6)), loose], [first]])
    if restarted:
        await node.stop()
        node = service_on(tmp_path)
        await node.start()
    run = bytes(entry_id(loose))

    assert await node.locate(RowName(RUN, 2)) == RowPlace(NOON, "pay", "default")
    assert await node.locate(RowName(RUN, 5)) == RowPlace(T0 + 60 * SECOND, "pay", "default")
    assert await node.locate(RowName(RUN, 6)) == RowPlace(NOON, "pay", "default")
    assert await node.locate(RowName(run, 1)) == RowPlace(
        loose.rows[1]["timestamp"], "shop", "default"
    )
    for absent in (RowName(RUN, 4), RowName(RUN, 7), RowName(run, 2), RowName(b"x" * 16, 0)):
        assert await node.locate(absent) is None
    await node.stop()
