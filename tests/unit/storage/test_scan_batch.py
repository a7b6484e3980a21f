"""Batches, folds by codes and remembered matches answer as the model does; each is seen to be used."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.messages import ScanReply, ScanRequest
from records.predicates import Aggregate, Fold, ScanPlan
from records.timestamps import TimeRange
from runtime.metrics import Metrics
from storage import scan_batch, scan_dense
from storage.scan_batch import cut
from storage.scan_select import BlockSlice
from tests.unit.storage.samples import (
    OPTIONS,
    SECOND,
    SETTINGS,
    Entry,
    block_of,
    entry_id,
    plain,
    row,
    scan_of,
    service_on,
)
from tests.unit.storage.scan_model import folded, wanted_rows
from tests.unit.storage.test_scan import BLOCKS, FILTER, SLOW, TIME, as_groups, keys, stored

WHOLE = (
    Aggregate("n", "count"),
    Aggregate("n_ms", "count", "ms"),
    Aggregate("s", "sum", "ms"),
    Aggregate("lo", "min", "ms"),
    Aggregate("hi", "max", "ms"),
    Aggregate("a", "avg", "ms"),
    Aggregate("d", "count_distinct", "ms"),
    Aggregate("q", "quantile", "ms", 0.5),
)

#: Filters that are applied to groups.
KEYED = st.sampled_from([
    ("eq", "level", "ERROR"), ("not", ("in", "level", ["error", "info"])),
    ("and", ("eq", "host", "h1"), ("not", ("eq", "service", "web"))), ("eq", "host", None),
])  # fmt: skip


@dataclass
class Place:
    """As much of a place as cutting asks for."""

    rows: int


Answers = list[tuple[ScanReply, pa.Table]]


def answers(
    blocks: Sequence, requests: Sequence[ScanRequest], metrics: Metrics | None = None
) -> Answers:
    """Puts the blocks on a fresh service and scans it again and again."""

    async def run() -> Answers:
        with TemporaryDirectory() as directory:
            service = service_on(Path(directory), metrics=metrics or Metrics())
            await service.start()
            for block in blocks:
                await service.put(block, OPTIONS)
            try:
                return [await service.scan(request) for request in requests]
            finally:
                await service.stop()

    return asyncio.run(run())


def counted_values(table: pa.Table, name: str) -> pa.Table:
    """The table with each value as often as `__counts` says, in place of values and counts."""
    if f"{name}__counts" not in table.column_names:
        return table
    pairs = zip(
        table[f"{name}__values"].to_pylist(), table[f"{name}__counts"].to_pylist(), strict=True
    )
    repeated = [
        [value for value, count in zip(*pair, strict=True) for _ in range(count)] for pair in pairs
    ]
    rest = table.drop_columns([f"{name}__values", f"{name}__counts"])
    return rest.append_column(f"{name}__values", pa.array(repeated, pa.list_(pa.float64())))


@SLOW
@given(
    BLOCKS,
    FILTER,
    TIME,
    st.lists(st.sampled_from(["service", "level", "host"]), max_size=3, unique=True),
    st.sampled_from([0, 10 * SECOND]),
    st.booleans(),
)
def test_folds_by_codes_are_those_of_the_model(
    blocks: list, tree: tuple, time: TimeRange, by: list[str], step: int, counted: bool
) -> None:
    """Every aggregate of a whole-number column, by dictionary columns that some blocks lack."""
    encoded, rows = stored(blocks)
    fold = Fold(tuple(by), WHOLE, step)
    plan = ScanPlan(time=time, filter=tree, fold=fold)

    [(_, table)] = answers(encoded, [replace(scan_of(plan), counted=counted)])

    assert as_groups(counted_values(table, "q"), fold) == folded(plan, rows)


def test_a_whole_number_fold_counts_by_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The general fold is not asked, and equal values travel once."""
    monkeypatch.setattr("storage.scan_fold._partial", None)
    rows = [row(i, ms=ms, host=host) for i, (ms, host) in enumerate([(7, "a"), (7, "a"), (9, "b")])]
    block = block_of(0, Entry(rows))
    plan = ScanPlan(fold=Fold(("host",), (Aggregate("q", "quantile", "ms", 0.5),)))

    [(reply, table)] = answers([block], [replace(scan_of(plan), counted=True)])

    found = {row["host"]: (row["q__values"], row["q__counts"]) for row in table.to_pylist()}
    assert found == {"a": ([7.0], [2]), "b": ([9.0], [1])}
    assert reply.rows_scanned == 3


def test_what_codes_cannot_count_is_folded_in_the_general_way() -> None:
    """More distinct values than the cap: the general fold cuts them and says so."""
    rows = [row(i, ms=i) for i in range(10)]
    plan = ScanPlan(fold=Fold((), (Aggregate("d", "count_distinct", "ms"),)))

    async def run() -> tuple[ScanReply, pa.Table]:
        with TemporaryDirectory() as directory:
            service = service_on(Path(directory), replace(SETTINGS, max_values=4))
            await service.start()
            await service.put(block_of(0, Entry(rows)), OPTIONS)
            try:
                return await service.scan(scan_of(plan))
            finally:
                await service.stop()

    reply, table = asyncio.run(run())

    assert reply.truncated
    assert len(table["d__values"][0]) == 4
    assert reply.rows_scanned == 10


def test_many_small_blocks_are_evaluated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty blocks of three rows: one evaluation of the filter, forty blocks scanned."""
    evaluated: list[int] = []
    real = scan_batch.evaluate
    monkeypatch.setattr(
        scan_batch,
        "evaluate",
        lambda tree, view: (evaluated.append(view.rows), real(tree, view))[1],
    )
    blocks = [block_of(number, plain(number * 10, 3)) for number in range(40)]
    fold = Fold((), (Aggregate("n", "count"),))
    plan = ScanPlan(filter=("phrase", "row 1"), fold=fold)

    [(reply, table)] = answers(blocks, [scan_of(plan)])

    assert table["n"].to_pylist() == [
        sum(f"row {i * 10 + k}".startswith("row 1") for i in range(40) for k in range(3))
    ]
    assert evaluated == [120]
    assert reply.blocks_scanned == 40


def test_pieces_whose_columns_differ_in_type_are_read_one_by_one() -> None:
    """`x` is a number in one block and text in the other: a range of numbers reads both as numbers."""
    blocks = [
        block_of(0, Entry([row(0, x=5), row(1, x=50)])),
        block_of(1, Entry([row(2, x="7"), row(3, x="none")])),
        block_of(2, Entry([row(4)])),
    ]
    plan = ScanPlan(filter=("range", "x", 4, 10), descending=False)

    [(_, table)] = answers(blocks, [scan_of(plan)])

    assert [str(value) for value in table["x"].to_pylist()] == ["5", "7"]


@SLOW
@given(BLOCKS, st.sampled_from([("phrase", "card"), ("not", ("word", "ok"))]), TIME, st.data())
def test_remembered_matches_answer_like_the_model(
    blocks: list, tree: tuple, time: TimeRange, data: st.DataObject
) -> None:
    """The same search in other ranges and shards, the second time from what is remembered."""
    encoded, rows = stored(blocks)
    shards = data.draw(st.sets(st.integers(0, 3), min_size=1))
    plans = [ScanPlan(filter=tree), ScanPlan(filter=tree, time=time), ScanPlan(filter=tree)]
    wanted = [range(4), sorted(shards), sorted(shards)]

    found = answers(encoded, [scan_of(p, s) for p, s in zip(plans, wanted, strict=True)])

    for plan, chosen, (_, table) in zip(plans, wanted, found, strict=True):
        expected = wanted_rows(plan, [one for one in rows if one["shard"] in chosen])
        assert [key for _, *key in keys(table)] == [[r["_run"], r["_number"]] for r in expected]


def test_a_search_asked_again_reads_no_message() -> None:
    """The matches of a block are kept: the second count decodes nothing, and hidden entries are left out."""
    metrics = Metrics()
    first, second = plain(0, 3), plain(10, 3)
    plan = ScanPlan(filter=("phrase", "row"), fold=Fold((), (Aggregate("n", "count"),)))
    hiding = replace(scan_of(plan), hide=((entry_id(second), ()),))

    found = answers([block_of(0, first, second)], [scan_of(plan), scan_of(plan), hiding], metrics)

    assert [table["n"].to_pylist() for _, table in found] == [[6], [6], [3]]
    asked = metrics.snapshot()
    assert asked['quorumlog_hot_matches_total{found="yes"}'] == 1
    assert asked['quorumlog_hot_matches_total{found="no"}'] == 1


def test_pieces_are_cut_into_groups_of_about_so_many_rows() -> None:
    """A piece alone may be larger; the order stays."""
    parts = [BlockSlice(Place(rows), None, None, {}) for rows in (5, 5, 30, 1, 1)]  # type: ignore[arg-type]

    assert [[p.place.rows for p in group] for group in cut(parts, 10)] == [[5, 5], [30], [1, 1]]


@SLOW
@given(
    BLOCKS,
    st.lists(st.tuples(FILTER | KEYED, TIME), min_size=2, max_size=4),
    st.lists(st.sampled_from(["service", "level", "host"]), max_size=2, unique=True),
    st.sampled_from([0, 10 * SECOND]),
    st.sets(st.integers(0, 3), min_size=1),
)
def test_remembered_folds_answer_like_the_model(
    blocks: list, asked: list[tuple], by: list[str], step: int, shards: set[int]
) -> None:
    """Whole blocks are remembered; other ranges, filters and shards are asked of what is."""
    encoded, rows = stored(blocks)
    fold = Fold(tuple(by), WHOLE, step)
    plans = [ScanPlan(time=time, filter=tree, fold=fold) for tree, time in asked]
    plans += [ScanPlan(filter=tree, fold=fold) for tree, _ in asked]
    wanted = [range(4)] * len(plans) + [sorted(shards)] * len(plans)
    requests = [
        replace(scan_of(p, s), counted=True) for p, s in zip(plans * 2, wanted, strict=True)
    ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_dense, "KEEP_ROWS", 1)
        found = answers(encoded, requests)

    for plan, chosen, (_, table) in zip(plans * 2, wanted, found, strict=True):
        seen = [one for one in rows if one["shard"] in chosen]
        assert as_groups(counted_values(table, "q"), fold) == folded(plan, seen)


def test_a_fold_asked_again_reads_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one of another level: the filter is applied to groups. Hidden entries are left out as ever."""
    monkeypatch.setattr(scan_dense, "KEEP_ROWS", 1)
    first = Entry([row(i, host=host, level="info") for i, host in enumerate("aab")])
    second = Entry([row(10 + i, host="b", level="error") for i in range(2)])
    fold = Fold(("host",), (Aggregate("n", "count"),))
    plans = [ScanPlan(filter=("eq", "level", level), fold=fold) for level in ("info", "ERROR")]
    all_levels = ScanPlan(filter=("in", "level", ["info", "error"]), fold=fold)
    hiding = replace(scan_of(all_levels), hide=((entry_id(second), ()),))

    found = answers([block_of(0, first, second)], [*map(scan_of, [*plans, all_levels]), hiding])

    told = [dict(zip(t["host"].to_pylist(), t["n"].to_pylist(), strict=True)) for _, t in found]
    assert told == [{"a": 2, "b": 1}, {"b": 2}, {"a": 2, "b": 3}, {"a": 2, "b": 1}]
    assert [reply.rows_scanned for reply, _ in found] == [5, 0, 0, 5]


def test_a_host_that_is_no_key_is_filtered_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hosts are too many for a dictionary, or for cells, the filter goes to the rows."""
    monkeypatch.setattr(scan_dense, "KEEP_ROWS", 1)
    monkeypatch.setattr("storage.fold_part.CELLS", 8)
    monkeypatch.setattr("storage.scan_fold._partial", None)
    rows = [row(i, host=f"h{i}") for i in range(10)]
    plan = ScanPlan(
        filter=("eq", "host", "h3"), fold=Fold(("service",), (Aggregate("n", "count"),))
    )

    found = answers([block_of(0, Entry(rows))], [scan_of(plan), scan_of(plan)])

    assert [table["n"].to_pylist() for _, table in found] == [[1], [1]]
    assert [reply.rows_scanned for reply, _ in found] == [10, 0]
