"""Holes: who lost entries to damage says so until they are back, however often it is started anew."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.replica_client import LocalReplica
from records.errors import NotReady
from records.messages import EntriesRequest, ScanRequest
from records.predicates import ScanPlan
from records.timestamps import MAX_MICROS, MIN_MICROS, TimeRange
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from storage.holes import EVERYWHERE, IDS_MAX, Holes
from storage.service import StorageService
from tests.unit.storage.samples import OPTIONS, SETTINGS, block_of, plain, service_on
from tests.unit.storage.test_scrub import REPAIR, flip, log_file, part, place_in_log, whole_pass

QUIET = replace(
    SETTINGS, compact=False, warm_cpu_share=0.0, scrub_period_seconds=0.0, catalog_interval_seconds=3600.0
)  # fmt: skip
BLOCKS = [block_of(1, plain(1, 40)), block_of(2, plain(100, 30), plain(200, 5, shard=3))]
A, B = b"a" * 16, b"b" * 16


def test_a_hole_closes_when_all_that_is_known_to_lack_has_arrived() -> None:
    """Not before; and a second damage makes it larger."""
    holes = Holes()
    assert not holes
    holes.add(1, [A], 5)
    holes.add(1, [B], 4)

    holes.arrived(1, A)
    holes.arrived(2, B)
    assert holes.within((1, 2)) == (1,)

    holes.arrived(1, B)
    assert holes.within((1, 2)) == ()
    assert not holes


@pytest.mark.parametrize("ids", [None, [n.to_bytes(16, "big") for n in range(IDS_MAX + 1)]])
def test_a_hole_of_unknown_or_very_many_entries_closes_by_comparison_alone(
    ids: list[bytes] | None,
) -> None:
    """What arrives says nothing of the rest."""
    holes = Holes()
    holes.add(1, ids, 5)
    holes.settle(lambda _: True)
    assert holes.within((1,)) == (1,)
    holes.forget((1,))
    assert holes.within((1,)) == ()


def test_a_hole_everywhere_closes_shard_by_shard_and_opens_again_with_the_next_damage() -> None:
    """Another damage is another number, so that what was compared before it does not count."""
    holes = Holes()
    holes.add_everywhere(5)
    before = holes.numbers((1, 2), 5)
    holes.forget((1,))
    assert holes.within((1, 2)) == (2,)

    holes.add_everywhere(5)

    assert holes.within((1, 2)) == (1, 2)
    assert holes.numbers((2,), 5) != {2: before[2]}


def test_a_comparison_as_of_before_the_last_receipt_is_none() -> None:
    """Newer entries are left out of comparisons: they may be what was lost."""
    holes = Holes()
    holes.add(1, None, 50)
    assert holes.numbers((1,), 49) == {}
    assert holes.numbers((1,), 50).keys() == {1}


def test_rows_and_load_are_inverse() -> None:
    """With known ids, unknown ones, and a hole everywhere of which one shard is whole."""
    holes = Holes()
    holes.add(1, [A, B], 5)
    holes.add(2, None, 6)
    holes.add_everywhere(7)
    holes.forget((9,))
    loaded = Holes()

    loaded.load(holes.rows())

    assert not loaded.dirty
    assert loaded.within((1, 2, 8, 9)) == (1, 2, 8)
    assert sorted(row[:3] for row in loaded.rows()) == [(EVERYWHERE, 7, 0), (1, 5, 1), (2, 6, 0)]
    loaded.arrived(1, A)
    loaded.arrived(1, B)
    assert 1 not in {row[0] for row in loaded.rows()}


# -- in a store


async def store_on(directory: Path) -> StorageService:
    service = service_on(directory, QUIET)
    await service.start()
    await service._scrub.start()
    return service


async def damaged(directory: Path) -> StorageService:
    """A store that has set BLOCKS[1] aside: entries of shards 0 and 3."""
    service = await store_on(directory)
    for block in BLOCKS:
        await service.put(block, OPTIONS)
    flip(log_file(directory), place_in_log(directory, BLOCKS[1]) + part(BLOCKS[1], "body"))
    assert await told(service) == (0, 0)
    assert await whole_pass(service) == 1
    return service


def lose_catalog(directory: Path) -> None:
    for path in directory.glob("catalog.sqlite*"):
        path.unlink()


async def told(service: StorageService) -> tuple[int, ...]:
    """How many of shards 0 to 4 have a hole, by scans and by lists."""
    plan = ScanPlan("default", TimeRange(MIN_MICROS, MAX_MICROS))
    reply, _ = await service.scan(ScanRequest(plan, (), tuple(range(5))))
    lists = [await service.entries(EntriesRequest(n, MIN_MICROS, MAX_MICROS)) for n in range(5)]
    assert list(reply.holes) == [n for n, one in enumerate(lists) if one.hole]
    return len(reply.holes), sum(one.hole for one in lists)


async def test_a_block_set_aside_is_told_until_it_is_back_also_after_a_kill(tmp_path: Path) -> None:
    """Of its own shards alone; it is killed after the damage, and after the repair, before any flush."""
    service = await damaged(tmp_path / "n")
    assert await told(service) == (2, 2)
    shutil.copytree(tmp_path / "n", tmp_path / "killed")

    again = await store_on(tmp_path / "killed")
    assert await told(again) == (2, 2)
    await again.put(BLOCKS[1], REPAIR)
    assert await told(again) == (0, 0)
    shutil.copytree(tmp_path / "killed", tmp_path / "healed")
    healed = await store_on(tmp_path / "healed")

    assert await told(healed) == (0, 0)
    for one in (service, again, healed):
        await one.stop()


async def test_an_owner_with_a_hole_hands_nothing_over(tmp_path: Path) -> None:
    """It is none of the N-W+1 that a shard is copied from; other shards it gives."""
    service = await damaged(tmp_path)
    shard = service.holes.within(range(5))[0]
    with pytest.raises(NotReady, match="damage"):
        await service.moves.hand_over(shard, 2)
    with pytest.raises(NotReady, match="damage"):
        service.moves.entry_ids(shard, whole=True)
    service.moves.entry_ids(shard)
    await service.moves.hand_over(2, 2)
    await service.stop()


async def test_an_owner_with_a_hole_does_not_say_what_is_absent_to_who_goes_by_that(
    tmp_path: Path,
) -> None:
    """A request sent again after a split would be stored a second time; anti-entropy asks all the same."""
    service = await damaged(tmp_path)
    ids = [entry.entry_id for entry in BLOCKS[1].header.entries]
    there = LocalReplica(service)
    deadline = Deadline.after(SystemClock(), 5)

    with pytest.raises(NotReady, match="damage"):
        await there.absent(0, ids, deadline)

    assert await there.absent(2, ids, deadline) == ids
    assert service.absent(ids) == ids
    await service.put(BLOCKS[1], REPAIR)
    assert await there.absent(0, ids, deadline) == []
    await service.stop()


async def test_damage_that_hides_which_entries_it_took_is_a_hole_everywhere(tmp_path: Path) -> None:
    """The catalog is gone and a block's header cannot be read: of which shards it was nobody knows."""
    service = await store_on(tmp_path)
    for block in BLOCKS:
        await service.put(block, OPTIONS)
    await service.stop()
    flip(log_file(tmp_path), place_in_log(tmp_path, BLOCKS[0]) + part(BLOCKS[0], "prefix"))
    lose_catalog(tmp_path)

    service = await store_on(tmp_path)

    assert await told(service) == (5, 5)
    service.holes.forget(range(5))
    await service.stop()
    service = await store_on(tmp_path)
    assert await told(service) == (0, 0)
    await service.stop()


async def test_a_hole_outlives_a_catalog_that_could_not_be_written(tmp_path: Path) -> None:
    """The new catalog is empty but for the holes, until its first flush: nothing else tells of them."""
    service = await damaged(tmp_path / "n")
    write = service._catalog.write
    service._catalog.write = broken  # type: ignore[method-assign]
    await service.put(block_of(3, plain(300, 1, shard=2)), OPTIONS)
    assert not await service._flusher.flush_all()
    shutil.copytree(tmp_path / "n", tmp_path / "killed")
    log_file(tmp_path / "killed").unlink()  # as once its blocks are in segments: it shows no damage

    again = await store_on(tmp_path / "killed")

    assert await told(again) == (2, 2)
    service._catalog.write = write  # type: ignore[method-assign]
    for one in (service, again):
        await one.stop()


def broken(_: object) -> None:
    raise OSError("planted")


async def test_without_a_catalog_earlier_damage_is_a_hole_everywhere(tmp_path: Path) -> None:
    """Only it knew what of the damage was back. A torn end of the log is no damage."""
    service = await damaged(tmp_path / "n")
    await service.stop()
    lose_catalog(tmp_path / "n")
    log_file(tmp_path / "n").unlink()  # as above
    service = await store_on(tmp_path / "n")
    assert await told(service) == (5, 5)
    await service.stop()

    service = await store_on(tmp_path / "sound")
    (tmp_path / "sound" / "quarantine" / "00000001-000000000123.torn").write_bytes(b"torn")
    await service.stop()
    lose_catalog(tmp_path / "sound")
    service = await store_on(tmp_path / "sound")
    assert await told(service) == (0, 0)
    await service.stop()
