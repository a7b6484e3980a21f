"""Digests of a snapshot are equal exactly where what was received by then is; what a node has heard of."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.predicates import ScanPlan
from records.timestamps import TimeRange
from storage import digest_as_of as module
from storage.digest_as_of import digests_as_of
from storage.entry_table import ENTRY_TYPE, GONE
from storage.service import StorageService
from tests.unit.storage.samples import (
    OPTIONS,
    SECOND,
    T0,
    block_of,
    plain,
    scan_of,
    sequenced,
    service_on,
)

ENTRY = st.tuples(
    st.integers(0, 2**128 - 1),  # id
    st.integers(0, 3),  # shard
    st.integers(0, 20),  # received
    st.integers(0, 20),  # first time
    st.integers(0, 5),  # length of time
    st.booleans(),  # gone
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ENTRY, max_size=40), st.integers(-1, 21), st.integers(0, 20), st.integers(0, 9))
def test_the_digest_is_count_and_sum_of_what_was_received_by_then(
    entries: list[tuple], until: int, start: int, length: int
) -> None:
    """By shard, over any cut of the table into pieces."""
    rows = np.zeros(len(entries), ENTRY_TYPE)
    for at, (name, shard, received, first, long, gone) in enumerate(entries):
        rows["id"][at] = np.void(name.to_bytes(16, "big"))
        rows["shard"][at], rows["received"][at] = shard, received
        rows["min_ts"][at], rows["max_ts"][at] = first, first + long
        rows["flags"][at] = GONE if gone else 0
    time = TimeRange(start, start + length)
    wanted = {}
    for shard in (0, 1, 3):
        names = [
            name
            for name, of, received, first, long, gone in entries
            if of == shard and received <= until and not gone
            if first < time.end and first + long >= time.start
        ]
        wanted[shard] = (len(names), (sum(names) % 2**128).to_bytes(16, "big"))

    with pytest.MonkeyPatch.context() as patch:
        for piece in (1, 7, 1000):
            patch.setattr(module, "_PIECE", piece)
            assert digests_as_of(rows, rows["flags"].copy(), (0, 1, 3), time, until) == wanted


async def started(directory: Path) -> StorageService:
    """A node with an empty directory."""
    service = service_on(directory)
    service._clock = SimpleNamespace(  # type: ignore[assignment]
        wall_micros=lambda: 0, monotonic=service._clock.monotonic, sleep=service._clock.sleep
    )
    await service.start()
    return service


async def test_nodes_with_other_receipts_agree_but_for_snapshots_in_between(tmp_path: Path) -> None:
    """One entry, received at T0 + 1 here and T0 + 9 there: digests of data and of digests alone."""
    nodes = [await started(tmp_path / name) for name in ("a", "b")]
    for service, number in zip(nodes, (1, 9), strict=True):
        await service.put(block_of(number, plain(5, shard=2)), OPTIONS)

    async def equal(until: int | None) -> bool:
        plan = ScanPlan(limit=10, received_until=until)
        told = []
        for service in nodes:
            for request in (scan_of(plan, (2,)), replace(scan_of(plan, (2,)), data_shards=())):
                told.append((await service.scan(request))[0].digests)
        assert told[0] == told[1]
        assert told[2] == told[3]
        return told[0] == told[2]

    try:
        assert await equal(None)
        assert await equal(T0 + 9)
        assert await equal(T0)
        assert not await equal(T0 + 1)
        assert not await equal(T0 + 8)
    finally:
        for service in nodes:
            await service.stop()


async def test_a_node_tells_of_the_newest_receipt_of_what_it_vouched_for(tmp_path: Path) -> None:
    """A duplicate's is later than that of the copy it has; a restart goes by log and clock."""
    service = await started(tmp_path)

    async def newest(of: StorageService) -> int:
        return (await of.scan(scan_of()))[0].received_max

    try:
        assert await newest(service) == 0
        await service.put(block_of(1, plain(5)), OPTIONS)
        assert await newest(service) == T0 + 1
        await service.put(block_of(7, plain(5)), OPTIONS)
        assert await newest(service) == T0 + 7
    finally:
        await service.stop()

    again = await started(tmp_path)
    try:
        assert await newest(again) == T0 + 1
    finally:
        await again.stop()

    again = service_on(tmp_path)
    before = again._clock.wall_micros()
    await again.start()
    try:
        assert T0 + SECOND < before <= await newest(again)
        assert again.status()["received_max"] == T0 + 1
    finally:
        await again.stop()


async def test_who_tells_a_producers_state_vouches_for_what_others_received_by_then(
    tmp_path: Path,
) -> None:
    """W owners that tell of the same sequences acknowledge them, though one never heard of the other copy.

    n1 got the rows at T0 + 1 alone; sent again they reached n2 alone. The leader asks both: acknowledged.
    """
    service = await started(tmp_path)
    try:
        await service.put(block_of(1, sequenced(1, 5)), OPTIONS)
        told = T0 + SECOND
        service._clock.wall_micros = lambda: told  # type: ignore[method-assign]

        await service.producer_states(0, ("default", "pay", "p"))

        assert (await service.scan(scan_of()))[0].received_max == told
    finally:
        await service.stop()
