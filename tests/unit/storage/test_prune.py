"""Answers with filters equal the model's, over blocks of small row groups; and little is read for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from records import block_codec, row_filters
from records.errors import BlockCorrupt
from records.predicates import Fold, RowKey, ScanPlan
from runtime.metrics import Metrics
from storage.hot import GroupPlace, HotSet
from storage.service import StorageService
from tests.unit.storage.samples import (
    OPTIONS,
    Entry,
    block_of,
    plain,
    row,
    scan_of,
    sequenced,
    service_on,
)
from tests.unit.storage.scan_model import folded, key_of, wanted_rows
from tests.unit.storage.test_hot import on_disk
from tests.unit.storage.test_scan import (
    AGGREGATES,
    BLOCKS,
    FILTER,
    SLOW,
    TIME,
    answer,
    as_groups,
    keys,
    stored,
)

GROUP_ROWS = 3
PRUNABLE = st.one_of(
    st.tuples(st.just("word"), st.sampled_from(["card", "declined", "X1", "none"])),
    st.tuples(st.just("eq"), st.just("user"), st.sampled_from(["ann", "bob", "7", "eve"])),
    st.tuples(st.just("exists"), st.sampled_from(["ms", "user", "code", "ratio"])),
    st.tuples(st.just("phrase"), st.sampled_from([" card ", "card x1 ok", "Card Card"])),
)


@contextmanager
def small_row_groups() -> Iterator[None]:
    """Blocks get filters whatever their size, in row groups of three."""

    def build(table: object, _rows: int, _mode: str) -> object:
        return row_filters.build_filters(table, GROUP_ROWS, "on")  # type: ignore[arg-type]

    with (
        patch.object(row_filters, "MIN_ROWS", 1),
        patch.object(block_codec, "ROW_GROUP_ROWS", GROUP_ROWS),
        patch.object(block_codec, "build_filters", build),
    ):
        yield


@SLOW
@given(BLOCKS, PRUNABLE, FILTER, TIME, st.booleans(), st.integers(0, 8), st.data())
def test_pruned_rows_are_those_of_the_model(
    blocks: list,
    first: tuple,
    tree: tuple,
    time: object,
    descending: bool,
    limit: int,
    data: st.DataObject,
) -> None:
    """With a condition that filters know and any other beside it, limits and cursors."""
    with small_row_groups():
        encoded, rows = stored(blocks)
    after = data.draw(st.none() | st.sampled_from(rows).map(lambda r: RowKey(*key_of(r))))
    tree = data.draw(st.sampled_from([first, ("and", first, tree), ("or", first, tree)]))
    plan = ScanPlan(time=time, filter=tree, descending=descending, limit=limit, after=after)  # type: ignore[arg-type]

    _, table = answer(encoded, scan_of(plan))

    assert keys(table) == [key_of(row) for row in wanted_rows(plan, rows)]


@SLOW
@given(BLOCKS, PRUNABLE, TIME, st.sampled_from([(), ("service",), ("user", "level")]))
def test_pruned_folds_are_those_of_the_model(
    blocks: list, tree: tuple, time: object, by: tuple
) -> None:
    """Aggregates over what the filters left."""
    with small_row_groups():
        encoded, rows = stored(blocks)
    plan = ScanPlan(time=time, filter=tree, fold=Fold(by, AGGREGATES))  # type: ignore[arg-type]

    _, table = answer(encoded, scan_of(plan))

    assert plan.fold is not None
    assert as_groups(table, plan.fold) == folded(plan, rows)


async def found(service: StorageService, tree: tuple) -> tuple[list[str], int, int]:
    """(messages, rows scanned, blocks pruned)."""
    plan = ScanPlan(filter=tree, limit=100, descending=False, fields=("message",))
    reply, table = await service.scan(scan_of(plan))
    texts = table["message"].to_pylist() if table.num_rows else []
    return texts, reply.rows_scanned, reply.blocks_pruned


async def test_one_word_reads_one_row_group(tmp_path: Path) -> None:
    """Three blocks of ten rows: the row is in the last, shorter row group of the second."""
    service = service_on(tmp_path)
    await service.start()
    with small_row_groups():
        for number in range(3):
            await service.put(block_of(number, plain(number * 10, 10)), OPTIONS)

    assert await found(service, ("word", "19")) == (["row 19"], 1, 2)
    assert await found(service, ("phrase", " 99 row")) == ([], 0, 3)
    assert await found(service, ("word", "99")) == ([], 0, 3)
    await service.stop()


async def test_hidden_rows_stay_hidden_in_a_row_group(tmp_path: Path) -> None:
    """Rows 4..8 came twice; entries begin and end inside row groups; each row is seen once."""
    service = service_on(tmp_path)
    await service.start()
    with small_row_groups():
        await service.put(block_of(1, sequenced(1, 8, "r x")), OPTIONS)
        await service.put(block_of(2, plain(50, 2), sequenced(4, 13, "r x")), OPTIONS)

    for number in range(1, 14):
        assert (await found(service, ("word", f"x{number}")))[0] == [f"r x{number}"]
    await service.stop()


async def test_blocks_without_filters_beside_others(tmp_path: Path) -> None:
    """An old store goes on answering."""
    service = service_on(tmp_path)
    await service.start()
    await service.put(block_of(1, plain(0, 10)), OPTIONS)
    with small_row_groups():
        await service.put(block_of(2, plain(5, 10)), OPTIONS)

    assert (await found(service, ("word", "7")))[0] == ["row 7", "row 7"]
    await service.stop()


async def test_a_damaged_sidecar_is_set_aside_and_the_rest_answers(tmp_path: Path) -> None:
    """Found when its filters are first read; never "no match" from damaged bytes."""
    service = service_on(tmp_path)
    await service.start()
    with small_row_groups():
        for number in range(2):
            await service.put(block_of(number, plain(number * 10, 10)), OPTIONS)
    place = service._engine.holdings.blocks[0]
    assert place is not None
    path = next(file for file in (tmp_path / "log").iterdir())
    data = bytearray(path.read_bytes())
    start, end = block_codec.parse_prefix(bytes(data[place.offset :])).sidecar
    data[place.offset + (start + end) // 2] ^= 1
    path.write_bytes(data)

    assert await found(service, ("word", "row")) == ([f"row {n}" for n in range(10, 20)], 10, 0)
    assert service.status()["quarantined_blocks"] == 1
    await service.stop()


def group(place: object, number: int) -> GroupPlace:
    """A row group of a block of ten rows."""
    first = number * GROUP_ROWS
    known = {name: getattr(place, name) for name in type(place).__dataclass_fields__}  # type: ignore[attr-defined]
    known["rows"] = min(GROUP_ROWS, 10 - first)
    return GroupPlace(**known, group=number, first_row=first)


def test_only_the_bytes_of_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    """Once a block was verified, a column of a row group costs its own bytes, and then none."""
    with small_row_groups():
        entry = Entry([row(n, f"row {n}", trace_id=f"{n:032x}") for n in range(10)])
        (place,) = on_disk(tmp_path, block_of(1, entry))
    metrics = Metrics()
    hot = HotSet(tmp_path, 1 << 20, metrics)
    hot.columns(place, ["timestamp"])
    hot.sidecar(place)
    before = metrics.snapshot()["quorumlog_hot_read_bytes_total"]

    last = hot.columns(group(place, 3), ["message", "trace_id"])
    read = metrics.snapshot()["quorumlog_hot_read_bytes_total"] - before
    hot.columns(group(place, 3), ["message"])

    assert last["message"].to_pylist() == ["row 9"]
    assert 0 < read < place.length / 8
    assert metrics.snapshot()["quorumlog_hot_read_bytes_total"] == before + read


def test_a_row_group_is_cut_from_a_whole_column_in_memory(tmp_path: Path) -> None:
    """Nothing is read again for it, and forgetting the block drops both."""
    with small_row_groups():
        (place,) = on_disk(tmp_path, block_of(1, plain(0, 10)))
    metrics = Metrics()
    hot = HotSet(tmp_path, 1 << 20, metrics)
    hot.columns(place, ["message", "service"])
    before = metrics.snapshot()["quorumlog_hot_read_bytes_total"]

    part = hot.columns(group(place, 1), ["message", "service"])

    assert part["message"].to_pylist() == ["row 3", "row 4", "row 5"]
    assert part["service"].to_pylist() == ["pay"] * 3
    assert metrics.snapshot()["quorumlog_hot_read_bytes_total"] == before
    hot.columns(group(place, 2), ["level"])
    hot.forget(0)
    assert hot._columns.known() == []


def test_row_groups_other_than_the_filters_say_are_damage(tmp_path: Path) -> None:
    """Never rows of another place."""
    (place,) = on_disk(tmp_path, block_of(1, plain(0, 10)))
    hot = HotSet(tmp_path, 1 << 20, Metrics())

    for number in (0, 1):
        with pytest.raises(BlockCorrupt):
            hot.columns(group(place, number), ["message"])
