"""Scans equal a brute-force model, over random blocks, filters, ranges, cursors and folds."""

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from records.messages import ScanReply, ScanRequest
from records.predicates import Aggregate, Fold, RowKey, ScanPlan
from records.timestamps import TimeRange
from tests.unit.storage.samples import (
    OPTIONS,
    SECOND,
    T0,
    Entry,
    block_of,
    entry_id,
    scan_of,
    service_on,
)
from tests.unit.storage.scan_model import folded, key_of, wanted_rows

SERVICES, LEVELS = ("pay", "web"), ("info", "warn", "error")
WORDS = ("card", "Card", "declined", "x1", "ok")
SECONDS = st.integers(0, 150)
ATTRIBUTES = st.fixed_dictionaries({}, optional={"code": st.sampled_from([1, 2, "7", "z"])})
ROW = st.fixed_dictionaries(
    {
        "timestamp": SECONDS.map(lambda at: T0 + at * SECOND),
        "service": st.sampled_from(SERVICES),
        "level": st.sampled_from(LEVELS),
        "message": st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join),
    },
    optional={
        "ms": st.integers(-5, 5),
        "ratio": st.sampled_from([0.5, 1.0, 2.5]),
        "user": st.sampled_from(["ann", "bob", "7"]),
        "flag": st.booleans(),
        "host": st.sampled_from(["h1", "h2"]),
        "attributes": ATTRIBUTES.map(json.dumps),
    },
)
BLOCK = st.lists(st.tuples(st.lists(ROW, min_size=1, max_size=5), st.integers(0, 3)), max_size=3)
BLOCKS = st.lists(BLOCK.filter(bool), min_size=1, max_size=4)
VALUE = st.sampled_from([1, 2, 2.5, "7", "ann", "pay", "INFO", "h1", True, "true", "z", None])
FIELD = st.sampled_from(["service", "level", "ms", "ratio", "user", "flag", "host", "code", "none"])
BOUND = st.sampled_from([None, -2, 1, 1.5, 3, "2", "ann", "b"])
LEAF = st.one_of(
    st.just(("true",)),
    st.tuples(st.just("eq"), FIELD, VALUE),
    st.tuples(st.just("in"), FIELD, st.lists(VALUE.filter(lambda v: v is not None)).map(tuple)),
    st.tuples(st.just("exists"), FIELD),
    st.tuples(st.just("range"), FIELD.filter(lambda f: f != "flag"), BOUND, BOUND),
    st.tuples(st.just("word"), st.sampled_from(["card", "ok", "x", "X1"])),
    st.tuples(st.just("phrase"), st.sampled_from(["card d", "ok", "Card"])),
    st.tuples(
        st.just("regex"),
        st.sampled_from(["message", "user", "ms", "host"]),
        st.sampled_from(["^c", "[1-3]$", "n+"]),
    ),
)
FILTER = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.tuples(st.just("and"), inner, inner),
        st.tuples(st.just("or"), inner, inner),
        st.tuples(st.just("not"), inner),
    ),
    max_leaves=4,
)
TIME = st.one_of(
    st.just(TimeRange()),
    st.tuples(SECONDS, SECONDS).map(lambda p: TimeRange(T0 + p[0] * SECOND, T0 + p[1] * SECOND)),
    st.just(TimeRange(T0 + 60 * SECOND, T0 + 120 * SECOND)),
)
#: Without shrinking: each example starts a service, and thousands of them take minutes.
SLOW = settings(max_examples=40, phases=(Phase.reuse, Phase.generate))


def stored(blocks: list) -> tuple[list, list[dict]]:
    """Encoded blocks, and all their rows with `_run`, `_number` and `shard`."""
    encoded, rows = [], []
    for number, entries in enumerate(blocks):
        parts = [
            Entry(rows_, shard=shard, name=f"{number}.{index}".encode())
            for index, (rows_, shard) in enumerate(entries)
        ]
        encoded.append(block_of(number, *parts))
        for part in parts:
            name = bytes(entry_id(part))
            rows += [
                {**row, "_run": name, "_number": i, "shard": part.shard}
                for i, row in enumerate(part.rows)
            ]
    return encoded, rows


def answer(blocks: list, request: ScanRequest) -> tuple[ScanReply, pa.Table]:
    """Puts the blocks on a fresh service and scans it."""

    async def run() -> tuple[ScanReply, pa.Table]:
        with TemporaryDirectory() as directory:
            service = service_on(Path(directory))
            await service.start()
            for block in blocks:
                await service.put(block, OPTIONS)
            try:
                return await service.scan(request)
            finally:
                await service.stop()

    return asyncio.run(run())


def keys(table: pa.Table) -> list[tuple[int, bytes, int]]:
    stamps = table["timestamp"].cast(pa.int64()).to_pylist()
    return list(zip(stamps, table["_run"].to_pylist(), table["_number"].to_pylist(), strict=True))


@SLOW
@given(BLOCKS, FILTER, TIME, st.booleans(), st.integers(0, 8), st.data())
def test_rows_are_those_of_the_model_in_its_order(
    blocks: list, tree: tuple, time: TimeRange, descending: bool, limit: int, data: st.DataObject
) -> None:
    """Any filter, range, order, limit, cursor and choice of shards; all columns come back as put."""
    encoded, rows = stored(blocks)
    after = data.draw(st.none() | st.sampled_from(rows).map(lambda r: RowKey(*key_of(r))))
    shards = data.draw(st.sets(st.integers(0, 3), min_size=1))
    plan = ScanPlan(time=time, filter=tree, descending=descending, limit=limit, after=after)

    _, table = answer(encoded, scan_of(plan, sorted(shards)))

    expected = wanted_rows(plan, [row for row in rows if row["shard"] in shards])
    assert keys(table) == [key_of(row) for row in expected]
    for name in table.schema.names[3:]:
        got = table[name].to_pylist()
        assert [None if v is None else str(v) for v in got] == [
            None if row.get(name) is None else str(row[name]) for row in expected
        ], name


AGGREGATES = (
    Aggregate("n", "count"),
    Aggregate("n_ms", "count", "ms"),
    Aggregate("s", "sum", "ms"),
    Aggregate("lo", "min", "ms"),
    Aggregate("hi", "max", "ratio"),
    Aggregate("a", "avg", "ratio"),
    Aggregate("d", "count_distinct", "user"),
    Aggregate("q", "quantile", "ratio", 0.5),
)


def as_groups(table: pa.Table, fold: Fold) -> dict[tuple, dict[str, Any]]:
    """The partial aggregates as the model writes them."""
    names = [*fold.by, "_bucket"] if fold.step_micros else list(fold.by)
    result = {}
    for row in table.to_pylist():
        values: dict[str, Any] = {}
        for one in fold.aggregates:
            if one.function == "avg":
                values[one.name] = (row[f"{one.name}__sum"], row[f"{one.name}__count"])
            elif one.function in ("count_distinct", "quantile"):
                values[one.name] = sorted(row[f"{one.name}__values"])
            else:
                values[one.name] = row[one.name]
        key = tuple(row[name] for name in names)
        assert key not in result
        result[key] = values
    return result


@SLOW
@given(
    BLOCKS,
    FILTER,
    TIME,
    st.lists(st.sampled_from(["service", "level", "host", "user", "ms"]), max_size=2, unique=True),
    st.sampled_from([0, 10 * SECOND, 60 * SECOND]),
)
def test_folds_are_those_of_the_model(
    blocks: list, tree: tuple, time: TimeRange, by: list[str], step: int
) -> None:
    """All aggregates, grouped by any columns and by time."""
    encoded, rows = stored(blocks)
    fold = Fold(tuple(by), AGGREGATES, step)
    plan = ScanPlan(time=time, filter=tree, fold=fold)

    _, table = answer(encoded, scan_of(plan))

    assert as_groups(table, fold) == folded(plan, rows)


PAIR = st.one_of(
    st.just(("true",)),
    st.tuples(st.just("eq"), st.just("service"), st.sampled_from(["pay", "other"])),
    st.tuples(st.just("in"), st.just("level"), st.sampled_from([("INFO", "warn"), ("error",)])),
    st.just(("not", ("and", ("eq", "service", "web"), ("eq", "level", "info")))),
)


@SLOW
@given(
    BLOCKS,
    PAIR,
    TIME,
    st.sampled_from([(), ("service",), ("level",), ("level", "service")]),
    st.sampled_from([0, 60 * SECOND, 120 * SECOND]),
    st.sets(st.integers(0, 3), min_size=1),
)
def test_counts_from_rollups_are_those_of_the_model(
    blocks: list, tree: tuple, time: TimeRange, by: tuple, step: int, shards: set[int]
) -> None:
    """Counts by service and level in whole minutes; with ranges that cut a minute as well."""
    encoded, rows = stored(blocks)
    fold = Fold(by, (Aggregate("n", "count"),), step)
    plan = ScanPlan(time=time, filter=tree, fold=fold)

    reply, table = answer(encoded, scan_of(plan, sorted(shards)))

    assert as_groups(table, fold) == folded(plan, [r for r in rows if r["shard"] in shards])
    if time.start % (60 * SECOND) == 0 and time.end % (60 * SECOND) == 0:
        assert reply.rows_scanned == 0
