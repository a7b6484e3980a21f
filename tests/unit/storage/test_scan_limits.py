"""What a scan skips, cuts, refuses and hides: pruning is counted, nothing is cut silently."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from records.errors import DeadlineExceeded, InvalidRequest
from records.messages import PutOptions
from records.predicates import Aggregate, Fold, ScanPlan
from records.timestamps import TimeRange
from storage import scan_rows
from storage.service import StorageService
from tests.unit.storage.samples import (
    OPTIONS,
    SECOND,
    SETTINGS,
    T0,
    Entry,
    block_of,
    entry_id,
    messages,
    plain,
    row,
    scan_of,
    sequenced,
    service_on,
)

COUNT = Fold((), (Aggregate("n", "count"),))
REPAIR = PutOptions(1, repair=True)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[StorageService]:
    """An empty, running service."""
    one = service_on(tmp_path)
    await one.start()
    yield one
    await one.stop()


async def test_blocks_outside_the_time_range_are_not_read(service: StorageService) -> None:
    """Ten blocks, an hour apart; the range meets two."""
    for hour in range(10):
        await service.put(block_of(hour, plain(hour * 3600, 3)), OPTIONS)
    time = TimeRange(T0 + 3600 * SECOND, T0 + 3 * 3600 * SECOND)

    reply, table = await service.scan(scan_of(ScanPlan(time=time)))

    assert table.num_rows == 6
    assert (reply.blocks_scanned, reply.blocks_pruned) == (2, 8)


async def test_an_outline_tells_what_would_be_read(service: StorageService) -> None:
    """Four blocks, an hour apart, in any order; two are cut off. Nothing is read; few lines on demand."""
    for hour in (2, 0, 3, 1):
        await service.put(block_of(hour, plain(hour * 3600, 3), plain(hour * 3600 + 9, 2)), OPTIONS)
    time = TimeRange(T0 + 3601 * SECOND, T0 + 3 * 3600 * SECOND)
    fold = Fold((), (Aggregate("n", "count_distinct", "message"),))

    reply, told = await service.scan(scan_of(ScanPlan(time=time, fold=fold), outline=100))
    _, short = await service.scan(scan_of(ScanPlan(fold=fold), outline=2))
    _, rollup = await service.scan(scan_of(ScanPlan(fold=COUNT), outline=100))

    starts = [3601, 7200]
    assert told.to_pylist() == [
        {"first": T0 + at * SECOND, "last": T0 + end * SECOND, "rows": 5}
        for at, end in zip(starts, [3610, 7210], strict=True)
    ]
    assert reply.rows_scanned == 0
    assert short.to_pylist() == [
        {"first": T0, "last": T0 + 3610 * SECOND, "rows": 10},
        {"first": T0 + 7200 * SECOND, "last": T0 + 10810 * SECOND, "rows": 10},
    ]
    assert rollup.num_rows == 0


async def test_an_outline_leaves_out_what_filters_exclude(service: StorageService) -> None:
    """A service that one block alone has: that block alone is told."""
    for hour in range(3):
        await service.put(block_of(hour, plain(hour * 3600, 3)), OPTIONS)
    await service.put(block_of(3, Entry([row(5, "x", service="rare")])), OPTIONS)
    plan = ScanPlan(filter=("eq", "service", "rare"), fold=Fold((), (Aggregate("n", "max", "x"),)))

    _, told = await service.scan(scan_of(plan, outline=100))

    assert told["rows"].to_pylist() == [1]


async def test_a_slice_is_digested_over_the_whole_range(service: StorageService) -> None:
    """Digests are those of `compared`; and it is told whether sequences overlap in the shards and range."""
    await service.put(block_of(1, sequenced(1, 4)), OPTIONS)
    await service.put(block_of(2, plain(9 * 3600, 2, shard=1)), OPTIONS)
    whole, slice_ = TimeRange(), TimeRange(T0 + 3600 * SECOND)
    wanted, _ = await service.scan(scan_of(ScanPlan(time=whole)))

    async def asked(compared: TimeRange, *shards: int) -> tuple:
        plan = ScanPlan(time=slice_)
        reply, _ = await service.scan(scan_of(plan, shards or range(64), compared=compared))
        return reply.digests, reply.overlaps

    assert await asked(whole) == (wanted.digests, False)
    await service.put(block_of(3, sequenced(3, 6)), REPAIR)
    assert (await asked(whole))[1]
    assert (await asked(whole, 0))[1]
    assert not (await asked(whole, 1))[1]
    assert not (await asked(slice_))[1]


async def test_the_last_rows_are_found_without_reading_older_blocks(
    service: StorageService,
) -> None:
    """Top-K: three rows from the newest block end the search, either way round."""
    for hour in range(10):
        await service.put(block_of(hour, plain(hour * 3600, 3)), OPTIONS)

    for descending in (True, False):
        plan = ScanPlan(limit=3, descending=descending)
        reply, table = await service.scan(scan_of(plan))

        assert table.num_rows == 3
        assert reply.blocks_scanned == 1
        assert reply.blocks_pruned == 9


async def test_sidecars_prune_services_and_levels(service: StorageService) -> None:
    """A level or a service that a block lacks is known without reading its rows."""
    await service.put(block_of(1, Entry([row(1, level="info")])), OPTIONS)
    await service.put(block_of(2, Entry([row(2, level="error", service="web")])), OPTIONS)

    for plan in (
        ScanPlan(filter=("and", ("eq", "level", "ERROR"), ("word", "hello"))),
        ScanPlan(filter=("in", "level", ("error", "fatal"))),
        ScanPlan(services=("web",)),
    ):
        reply, table = await service.scan(scan_of(plan))
        assert table.num_rows == 1
        assert (reply.blocks_scanned, reply.blocks_pruned) == (1, 1)


async def test_other_tenants_rows_stay_unseen(service: StorageService) -> None:
    """Also those that stand in the same block."""
    await service.put(
        block_of(1, plain(1, text="ours"), plain(2, text="theirs", tenant="b")), OPTIONS
    )

    assert await messages(service) == ["ours 1"]
    for tenant, count in (("b", 1), ("nobody", 0)):
        _, table = await service.scan(scan_of(ScanPlan(tenant=tenant)))
        assert table.num_rows == count


async def test_rows_received_later_than_the_snapshot_are_left_out(service: StorageService) -> None:
    """A long read pages over one snapshot: `received_until` is its border, and included."""
    await service.put(
        block_of(1, plain(1, received_at=T0 + 5), plain(2, received_at=T0 + 6)), OPTIONS
    )

    _, table = await service.scan(scan_of(ScanPlan(received_until=T0 + 5)))

    assert table.num_rows == 1


async def test_overlapping_rows_are_seen_once_as_received_first(service: StorageService) -> None:
    """Whatever was stored first; folds and pages agree. (Only a repair may bring rows that differ.)"""
    await service.put(block_of(9, sequenced(3, 6, "c")), REPAIR)
    await service.put(block_of(1, sequenced(1, 4, "a")), REPAIR)
    await service.put(block_of(5, sequenced(4, 4, "b")), REPAIR)

    assert await messages(service) == ["a1", "a2", "a3", "a4", "c5", "c6"]
    _, counted = await service.scan(scan_of(ScanPlan(fold=COUNT)))
    assert counted["n"].to_pylist() == [6]


async def test_a_retry_from_the_window_before_is_hidden(service: StorageService) -> None:
    """An entry whose `previous` is here is not seen, in either order of arrival."""
    for shard, order in enumerate(((0, 1), (1, 0))):
        first = plain(1, shard=shard, name=b"first")
        retry = plain(1, shard=shard, name=b"retry", previous=bytes(entry_id(first)))
        for index in order:
            await service.put(block_of(index, (first, retry)[index]), OPTIONS)

        assert await messages(service, only=None) == ["row 1"] * (shard + 1)


async def test_only_and_hide_come_from_the_coordinator(service: StorageService) -> None:
    """A supplement reads some entries; rows that another replica shows are left out."""
    first, second, third = sequenced(1, 3), plain(10, 2), plain(20, 2)
    await service.put(block_of(1, first, second, third), OPTIONS)

    some = (entry_id(first), entry_id(third), entry_id(plain(999)))
    assert await messages(service, only=some) == ["1", "2", "3", "row 20", "row 21"]
    hide = ((entry_id(first), ((2, 3),)), (entry_id(second), ()))
    assert await messages(service, hide=hide) == ["1", "row 20", "row 21"]
    _, counted = await service.scan(scan_of(ScanPlan(fold=COUNT), hide=hide))
    assert counted["n"].to_pylist() == [3]


async def test_entries_asked_for_by_name_show_all_but_what_the_coordinator_hides(
    service: StorageService,
) -> None:
    """Of an overlap, and of a retry: whom this replica hides does not count, only `hide` does."""
    old, new = sequenced(1, 4), sequenced(3, 6)
    first = plain(10, name=b"first")
    retry = plain(10, name=b"retry", previous=bytes(entry_id(first)))
    await service.put(block_of(1, old, first), OPTIONS)
    await service.put(block_of(2, new, retry), OPTIONS)

    assert await messages(service, only=(entry_id(new),)) == ["3", "4", "5", "6"]
    assert await messages(service, only=(entry_id(retry),)) == ["row 10"]
    hide = ((entry_id(new), ((3, 3),)),)
    assert await messages(service, only=(entry_id(new),), hide=hide) == ["4", "5", "6"]
    assert await messages(service) == ["1", "2", "3", "4", "5", "6", "row 10"]


async def test_rows_of_refused_entries_are_not_seen(service: StorageService) -> None:
    """A block is stored verbatim; the entries that were refused in it do not exist."""
    await service.put(block_of(1, sequenced(1, 2)), OPTIONS)
    await service.put(block_of(2, sequenced(2, 3, "other "), plain(50)), OPTIONS)

    assert await messages(service) == ["1", "2", "row 50"]
    _, counted = await service.scan(scan_of(ScanPlan(fold=Fold(("level",), COUNT.aggregates))))
    assert counted.to_pylist() == [{"level": "info", "n": 3}]


@pytest.mark.parametrize("pattern", ["(", "(?=a)", "[z-a]", r"a{99999999}"])
async def test_a_bad_regex_is_refused_with_the_reason(
    service: StorageService, pattern: str
) -> None:
    """Even if no row would be asked."""
    with pytest.raises(InvalidRequest, match=r"regular expression: \w"):
        await service.scan(scan_of(ScanPlan(filter=("regex", "message", pattern))))


async def test_an_unknown_aggregate_is_refused(service: StorageService) -> None:
    """And one that needs a column and has none."""
    for one in (Aggregate("x", "median", "ms"), Aggregate("x", "sum")):
        with pytest.raises(InvalidRequest):
            await service.scan(scan_of(ScanPlan(fold=Fold((), (one,)))))


async def test_a_scan_out_of_time_ends(service: StorageService) -> None:
    """The deadline is looked at between blocks."""
    await service.put(block_of(1, plain(1)), OPTIONS)

    with pytest.raises(DeadlineExceeded):
        await service.scan(scan_of(ScanPlan(filter=("word", "x")), deadline_ms=0))


async def test_caps_are_said(tmp_path: Path) -> None:
    """Groups, values and bytes over their caps: the answer is shorter, and `truncated`."""
    tight = replace(SETTINGS, max_groups=3, max_values=4, max_scan_bytes=600)
    service = service_on(tmp_path, tight)
    await service.start()
    await service.put(block_of(1, plain(0, 50)), OPTIONS)

    for fold, rows in (
        (Fold(("message",), COUNT.aggregates), 3),
        (Fold((), (Aggregate("d", "count_distinct", "message"),)), 1),
    ):
        reply, table = await service.scan(scan_of(ScanPlan(fold=fold)))
        assert reply.truncated
        assert table.num_rows == rows
    reply, table = await service.scan(scan_of(ScanPlan(descending=False)))
    assert reply.truncated
    assert 0 < table.num_rows < 50
    assert table["message"].to_pylist() == [f"row {k}" for k in range(table.num_rows)]
    await service.stop()


@pytest.mark.parametrize("wide_from", [0, 30, 2_500])
async def test_rows_wider_than_the_cap_are_not_gathered_first(
    tmp_path: Path, wide_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 rows to a block, narrow up to somewhere, then 20 kB each: what is read stays near the cap."""
    cap, most, total = 200_000, 0, 0
    settings = replace(SETTINGS, max_scan_bytes=cap, log_file_bytes=1 << 28, compact=False)
    service = service_on(tmp_path, settings)
    await service.start()
    for number in range(60):
        rows = [
            row(at, f"{at} " + "x" * (20_000 if at >= wide_from else 5))
            for at in range(number * 60, number * 60 + 60)
        ]
        await service.put(block_of(number, Entry(rows)), OPTIONS)
    real = scan_rows._gathered

    def gathered(scanner: Any, parts: Any, keys: Any, may_give_up: bool) -> Any:
        nonlocal most, total
        read = 0

        def rows_of(*args: Any) -> Any:
            nonlocal read
            table = take(*args)
            read += table.nbytes
            return table

        take = scan_rows._rows
        with monkeypatch.context() as patch:
            patch.setattr(scan_rows, "_rows", rows_of)
            table = real(scanner, parts, keys, may_give_up)
        most, total = max(most, read), total + read
        return table

    monkeypatch.setattr(scan_rows, "_gathered", gathered)
    reply, table = await service.scan(scan_of(ScanPlan(descending=False, limit=3_600)))

    assert reply.truncated
    assert table.nbytes <= cap
    wanted = [str(at) for at in range(table.num_rows)]
    assert [text.split()[0] for text in table["message"].to_pylist()] == wanted
    assert table.num_rows >= min(wide_from, 1_000)
    assert most < 2 * cap + 60 * 21_000, "what one block adds is the most over twice the cap"
    assert total < 4 * most
    await service.stop()


async def test_columns_unite_by_name_over_blocks(service: StorageService) -> None:
    """An integer here, a float or text there, an attribute elsewhere: one column in the answer."""
    await service.put(block_of(1, Entry([row(1, code=5)])), OPTIONS)
    await service.put(block_of(2, Entry([row(2, code="x")])), OPTIONS)
    await service.put(block_of(3, Entry([row(3, attributes='{"code": 7}')])), OPTIONS)
    await service.put(block_of(4, Entry([row(4)])), OPTIONS)

    plan = ScanPlan(fields=("code", "absent"), descending=False)
    _, table = await service.scan(scan_of(plan))

    assert table["code"].to_pylist() == ["5", "x", "7", None]
    assert "absent" not in table.schema.names
    fold = Fold(("code",), COUNT.aggregates)
    _, groups = await service.scan(scan_of(ScanPlan(fold=fold)))
    found = {one["code"]: one["n"] for one in groups.to_pylist()}
    assert found == {"5": 1, "x": 1, "7": 1, None: 1}


async def test_integers_too_large_for_a_float_survive(service: StorageService) -> None:
    """Compared exactly, shown exactly, and united with floats without an error."""
    big = (1 << 60) + 1
    await service.put(block_of(1, Entry([row(1, n=big), row(2, n=big - 1)])), OPTIONS)

    for value, count in ((big, 1), (str(big), 1), (big + 1, 0), (1 << 80, 0)):
        _, table = await service.scan(scan_of(ScanPlan(filter=("eq", "n", value))))
        assert table.num_rows == count
    await service.put(block_of(2, Entry([row(3, n=0.5)])), OPTIONS)
    _, table = await service.scan(scan_of(ScanPlan(fields=("n",))))
    assert table.num_rows == 3
    sums = Fold((), (Aggregate("s", "sum", "n"),))
    _, table = await service.scan(scan_of(ScanPlan(fold=sums)))
    assert table["s"].to_pylist() == [pytest.approx(2.0 * big)]
