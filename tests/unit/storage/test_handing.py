"""A shard that moves, seen from the stores: what is handed over, what is refused, what is let go."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from records.errors import BlockCorrupt, DiskFull, StaleRingEpoch
from records.handover import Handover, united
from records.messages import EntriesRequest, EntryStatus, PutOptions, SealRequest
from records.predicates import ScanPlan
from records.timestamps import MAX_MICROS, MIN_MICROS
from storage.log_format import RecordType
from storage.reclaim import state_records
from storage.service import StorageService
from tests.unit.storage.samples import (
    SECOND,
    SETTINGS,
    block_of,
    entry_id,
    messages,
    plain,
    scan_of,
    sequenced,
    service_on,
)

KEY = ("default", "pay", "p")


async def running(directory: Path) -> StorageService:
    service = service_on(directory)
    await service.start()
    return service


async def listed(service: StorageService, shard: int) -> set[bytes]:
    reply = await service.entries(EntriesRequest(shard, MIN_MICROS, MAX_MICROS))
    return {bytes(one.entry_id) for one in reply.entries}


async def test_a_new_owner_knows_fences_producers_and_what_they_were_told(tmp_path: Path) -> None:
    """Also after a restart: what is taken over is durable before the answer."""
    old, new = await running(tmp_path / "old"), await running(tmp_path / "new")
    told = (((*KEY, 1), 5),)
    await old.put(block_of(1, sequenced(1, 5)), PutOptions(3))
    await old.put(block_of(2, sequenced(6, 7)), PutOptions(3, told=told))
    await old.seal(SealRequest(0, 9, "a"))
    await old.seal_producer_epoch(0, KEY, 4, 9)

    handed = await old.moves.hand_over(0, 4)
    await new.moves.take_over(Handover.from_head(handed.to_head()), 4)
    await new.stop()
    await old.stop()
    again = await running(tmp_path / "new")

    assert again.status()["fences"] == {0: 9}
    states = (await again.producer_states(0, KEY)).states
    assert [(one.newest_epoch, one.told) for one in states][-1][0] == 4
    assert max(one.told for one in states) == 5
    reply = await again.put(block_of(3, sequenced(8, 9, epoch=1, shard_epoch=9)), PutOptions(4))
    assert reply.statuses == (EntryStatus.FENCED,)
    await again.stop()


async def test_a_new_owner_vouches_for_what_the_one_before_vouched_for(tmp_path: Path) -> None:
    """The old owner answered a duplicate that another stored: the new one never sees that receipt itself."""
    old, new = await running(tmp_path / "old"), await running(tmp_path / "new")
    ahead = old._clock.wall_micros() + 60 * SECOND
    await old.put(block_of(1, plain(5)), PutOptions(3))
    await old.put(block_of(2, plain(5, received_at=ahead)), PutOptions(3))

    handed = united([Handover(0), await old.moves.hand_over(0, 4)])
    await new.moves.take_over(Handover.from_head(handed.to_head()), 4)
    (block,) = await old.fetch((entry_id(plain(5)),))
    await new.put(block, PutOptions(4, repair=True))

    assert (await new.scan(scan_of()))[0].received_max == ahead
    assert new.status()["received_max"] < ahead
    await new.stop()
    await old.stop()


async def test_after_the_handover_no_put_of_the_ring_before_is_taken(tmp_path: Path) -> None:
    """So what is listed then is all that was acknowledged under it, here."""
    store = await running(tmp_path)
    await store.put(block_of(1, plain(1)), PutOptions(3))

    await store.moves.hand_over(0, 4)

    with pytest.raises(StaleRingEpoch):
        await store.put(block_of(2, plain(2)), PutOptions(3))
    with pytest.raises(StaleRingEpoch):
        await store.moves.hand_over(0, 3)
    assert len(await listed(store, 0)) == 1
    await store.stop()


def test_several_owners_hand_over_the_greatest_of_each() -> None:
    one = Handover(7, 3, "a", ((KEY, 2),), (((*KEY, 1), 10),))
    other = Handover(7, 4, "", ((KEY, 1), (("t", "s", "q"), 5)), (((*KEY, 1), 8),))

    both = united([one, other])

    assert (both.fence, both.leader) == (4, "")
    assert dict(both.newest) == {KEY: 2, ("t", "s", "q"): 5}
    assert dict(both.told) == {(*KEY, 1): 10}


async def test_a_shard_that_left_is_gone_from_lists_digests_and_rows(tmp_path: Path) -> None:
    """Blocks hold entries of several shards; the others stay, and can still be fetched."""
    store = await running(tmp_path)
    kept, left = plain(1, 3, shard=1), plain(9, 2, shard=2)
    await store.put(block_of(1, kept, left, sequenced(1, 4, shard=2)), PutOptions(5))
    await store.put(block_of(2, plain(20, shard=2)), PutOptions(5))

    assert store.moves.let_go((2,), 5) == 3

    assert await listed(store, 2) == set()
    assert store.digest(2)[0] == 0
    assert set(store.status()["shards"]) == {1}
    assert store.status()["rows"] == 3
    assert store.moves.entry_ids(1) == bytes(entry_id(kept))
    (block,) = await store.fetch((entry_id(kept), entry_id(left)))
    assert block.header.rows == 3
    assert (await store.producer_states(2, KEY)).states == () or all(
        one.spans == () for one in (await store.producer_states(2, KEY)).states
    )
    await store.stop()


async def test_a_shard_that_comes_back_is_stored_again(tmp_path: Path) -> None:
    """Nothing of what was let go stands in the way of its rows."""
    store = await running(tmp_path)
    block = block_of(1, plain(9, 2, shard=2), sequenced(1, 4, shard=2))
    await store.put(block, PutOptions(5))
    store.moves.let_go((2,), 5)

    reply = await store.put(block, PutOptions(6, repair=True))

    assert reply.statuses == (EntryStatus.STORED, EntryStatus.STORED)
    assert store.status()["rows"] == 6
    await store.stop()


async def test_nothing_is_let_go_under_an_older_ring(tmp_path: Path) -> None:
    """Under the newer one the shard may be this node's again."""
    store = await running(tmp_path)
    await store.put(block_of(1, plain(9, shard=2)), PutOptions(7))

    with pytest.raises(StaleRingEpoch):
        store.moves.let_go((2,), 6)

    assert len(await listed(store, 2)) == 1
    await store.stop()


async def test_blocks_around_what_was_let_go_are_written_anew(tmp_path: Path) -> None:
    """After a step of the compactor the disk, and so a restart, knows the other shards alone."""
    store = await running(tmp_path)
    await store.put(block_of(1, plain(1, 3, shard=1), plain(9, 2, shard=2)), PutOptions(5))
    await store.put(block_of(2, plain(20, shard=2)), PutOptions(5))
    store.moves.let_go((2,), 5)

    await store._compactor._let_go()
    await store.stop()
    again = await running(tmp_path)

    assert set(again.status()["shards"]) == {1}
    assert again.status()["rows"] == 3
    await again.stop()


async def test_a_shard_that_came_back_is_there_once_after_a_restart(tmp_path: Path) -> None:
    """Though the blocks around what was let go were never written anew: rows, tree and sequences agree."""
    store = service_on(tmp_path, replace(SETTINGS, compact=False))
    await store.start()
    gone = (plain(9, 2, shard=2), sequenced(1, 4, shard=2))
    await store.put(block_of(1, plain(1, 3, shard=1), *gone), PutOptions(5))
    await store._flusher.flush_all()
    store.moves.let_go((2,), 5)
    await store.put(block_of(2, *gone), PutOptions(6, repair=True))
    seen, digest = await messages(store), store.digest(2)

    await store.stop()
    again = await running(tmp_path)

    assert await messages(again) == seen
    assert again.status()["rows"] == 9
    assert again.digest(2) == digest
    assert [one.spans for one in (await again.producer_states(2, KEY)).states] == [((1, 4),)]
    await again.stop()


async def test_what_was_let_go_stays_gone_after_a_restart_and_leaves_the_disk(
    tmp_path: Path,
) -> None:
    """The catalog says so; the compactor goes on with the blocks around it."""
    store = service_on(tmp_path, replace(SETTINGS, compact=False))
    await store.start()
    await store.put(block_of(1, plain(1, 3, shard=1), plain(9, 2, shard=2)), PutOptions(5))
    await store._flusher.flush_all()
    store.moves.let_go((2,), 5)

    await store.stop()
    again = await running(tmp_path)

    assert set(again.status()["shards"]) == {1}
    assert again._compactor.waiting_to_thin == 1
    await again._compactor._let_go()
    assert again._compactor.waiting_to_thin == 0
    await again.stop()
    third = await running(tmp_path)
    assert third.status()["rows"] == 3
    assert third._compactor.waiting_to_thin == 0
    await third.stop()


async def test_a_full_node_gives_shards_away_and_takes_none(tmp_path: Path) -> None:
    """Else nobody could make room on it by adding nodes. What leaves is written off the disk."""
    store = await running(tmp_path)
    await store.put(block_of(1, plain(1, 3, shard=1), plain(9, 2, shard=2)), PutOptions(5))
    store._disk.low = True

    handed = await store.moves.hand_over(2, 6)
    await store.moves.raise_ring(7)
    with pytest.raises(DiskFull):
        await store.moves.take_over(handed, 7)

    assert store.moves.let_go((2,), 7) == 1
    await store._compactor.step()
    assert store._compactor.waiting_to_thin == 0
    assert store._engine.holdings.blocks[0] is None
    await store.stop()


async def test_a_raised_ring_outlives_its_log_file(tmp_path: Path) -> None:
    """What is written again before a log file goes has it, though no put came by that ring."""
    store = await running(tmp_path)
    await store.put(block_of(1, plain(1)), PutOptions(3))

    await store.moves.raise_ring(8)

    (epoch,) = [
        one.meta for one in state_records(store._engine) if one.type == RecordType.RING_EPOCH
    ]
    assert epoch == 8
    await store.stop()


async def test_blocks_whose_rewriting_failed_are_written_anew_later(tmp_path: Path) -> None:
    """An error of the disk leaves what was let go on it only for a while."""
    store = await running(tmp_path)
    await store.put(block_of(1, plain(1, 3, shard=1), plain(9, 2, shard=2)), PutOptions(5))
    store.moves.let_go((2,), 5)
    step, broken = store._compactor._step, [True]

    def failing(name: str) -> None:
        if broken:
            broken.pop()
            raise OSError("no space")
        step(name)

    store._compactor._step = failing
    with pytest.raises(OSError, match="no space"):
        await store._compactor._let_go()
    assert store._compactor.waiting_to_thin == 1

    await store._compactor._let_go()
    assert store._compactor.waiting_to_thin == 0
    await store.stop()


async def test_what_is_let_go_while_its_block_is_merged_leaves_the_disk_too(tmp_path: Path) -> None:
    """The segment has it by then, so the segment is written anew."""
    store = await running(tmp_path)
    await store.put(block_of(1, plain(1, 3, shard=1), plain(9, 2, shard=2)), PutOptions(5))
    await store.put(block_of(2, plain(5, 3, shard=1), plain(20, 2, shard=2)), PutOptions(5))
    step = store._compactor._step

    def leaving(name: str) -> None:
        step(name)
        if name == "apply":
            store.moves.let_go((2,), 5)

    store._compactor._step = leaving
    (place,) = await store._compactor.merge([0, 1])

    assert place.ordinal in store._compactor._thinned
    await store.stop()


async def test_a_scan_that_begins_anew_tells_the_ring_of_its_last_snapshot(tmp_path: Path) -> None:
    """A shard may have left since its first: whoever reads by the ring of before must be told."""
    store = await running(tmp_path)
    await store.put(block_of(1, plain(9, 2)), PutOptions(5))
    reading, tries = store._scans._reading, [0]

    async def merged_away(*args: Any) -> Any:
        tries[0] += 1
        if tries[0] == 1:
            store.moves.let_go((0,), 8)
            raise BlockCorrupt("no such file", ordinal=7)
        return await reading(*args)

    store._scans._reading = merged_away  # type: ignore[assignment]
    reply, table = await store.scan(scan_of(ScanPlan()))

    assert (tries[0], table.num_rows, reply.ring_epoch) == (2, 0, 8)
    await store.stop()
