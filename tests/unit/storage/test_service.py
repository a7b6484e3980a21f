"""One storage node from outside: what is acked is there after any restart; failures are told as they are."""

import asyncio
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from records.block_codec import EncodedBlock, decode_block
from records.errors import (
    BlockCorrupt,
    DiskFull,
    InvalidSettings,
    NotReady,
    Overloaded,
    StaleShardEpoch,
    StorageFailed,
)
from records.ids import EntryId
from records.messages import EntriesRequest, EntryStatus, PutOptions, SealRequest
from runtime.metrics import Metrics
from storage.service import StorageService
from storage.wal import LogHooks
from tests.support.write_path import until
from tests.unit.storage.samples import (
    OPTIONS,
    SECOND,
    SETTINGS,
    T0,
    block_of,
    entry_id,
    messages,
    plain,
    scan_of,
    sequenced,
    service_on,
)

KEY = ("default", "pay", "p")
#: Facts that a restart must not change.
KEPT = (
    "rows",
    "entries",
    "blocks",
    "bytes",
    "ring_epoch",
    "fences",
    "received_max",
    "shards",
    "incarnation",
)


async def running(directory: Path, **more: object) -> StorageService:
    """A started service."""
    service = service_on(directory, **more)  # type: ignore[arg-type]
    await service.start()
    return service


def kept(service: StorageService) -> dict:
    """What a restart must not change."""
    status = service.status()
    return {name: status[name] for name in KEPT}


async def put_a_bit_of_everything(service: StorageService) -> None:
    """Entries of every kind, fences, epochs, acks told, overlaps, hidden entries and refusals."""
    await service.put(block_of(5, sequenced(1, 5), plain(9, 3, shard=2)), PutOptions(4))
    await service.put(block_of(3, sequenced(4, 8, skips=((9, 9),))), PutOptions(4))
    await service.put(block_of(6, sequenced(7, 12, "other "), plain(20)), PutOptions(4))
    told = (((*KEY, 1), 7),)
    await service.put(block_of(7, sequenced(20, 21, shard_epoch=3)), PutOptions(4, told=told))
    retry = plain(9, 3, shard=2, name=b"again", previous=bytes(entry_id(plain(9, 3, shard=2))))
    await service.put(block_of(8, retry), PutOptions(4))
    await service.seal(SealRequest(7, 3, "a"))
    await service.seal_producer_epoch(0, KEY, 6, 9)


async def observed(service: StorageService) -> tuple:
    """All that a coordinator can learn from the node."""
    _, rows = await service.scan(scan_of())
    states = (await service.producer_states(0, KEY)).states
    listed = [await service.entries(EntriesRequest(s, T0, T0 + 3600 * SECOND)) for s in (0, 2)]
    entries = [sorted(one.entries, key=lambda ref: ref.entry_id) for one in listed]
    return kept(service), rows.to_pylist(), states, entries


@pytest.mark.parametrize("lost", ["nothing", "catalog", "half", "garbage", "version"])
async def test_a_restart_gives_back_everything(tmp_path: Path, lost: str) -> None:
    """From the catalog, from the log alone, from an older catalog and the log's tail, or a damaged one."""
    service = await running(tmp_path)
    if lost == "half":
        await service.put(block_of(1, plain(77)), PutOptions(4))
        await service._flusher.flush()
        service._checkpointer.batch = lambda: pytest.fail("no more flushes")  # type: ignore[method-assign]
    await put_a_bit_of_everything(service)
    before = await observed(service)
    if lost == "half":
        shutil.copy(tmp_path / "catalog.sqlite", tmp_path / "kept")
        shutil.copy(tmp_path / "catalog.sqlite-wal", tmp_path / "kept-wal")
        service._checkpointer.batch = type(service._checkpointer).batch.__get__(
            service._checkpointer
        )  # type: ignore[method-assign]
    await service.stop()
    catalog = tmp_path / "catalog.sqlite"
    if lost == "catalog":
        catalog.unlink()
    elif lost == "half":
        (tmp_path / "kept").rename(catalog)
        (tmp_path / "kept-wal").rename(tmp_path / "catalog.sqlite-wal")
    elif lost == "garbage":
        catalog.write_bytes(b"SQLite format 3\0" + os.urandom(8192))
    elif lost == "version":
        import sqlite3

        with sqlite3.connect(catalog) as db:
            db.execute("UPDATE meta SET value = 99 WHERE key = 'version'")
        db.close()

    service = await running(tmp_path)

    assert await observed(service) == before
    assert (
        await service.put(block_of(5, sequenced(1, 5)), PutOptions(4, repair=True))
    ).statuses == (EntryStatus.DUPLICATE,)
    await service.stop()


async def test_restarting_often_leaves_few_files(tmp_path: Path) -> None:
    """A run that wrote nothing leaves no log file behind."""
    for number in range(4):
        service = await running(tmp_path)
        if number < 2:
            await service.put(block_of(number, plain(number)), OPTIONS)
        await service.stop()

    assert len(list((tmp_path / "log").iterdir())) == 2


async def test_puts_of_the_same_block_at_once_store_it_once(tmp_path: Path) -> None:
    """Twenty copies race: one is stored, nineteen wait for its sync and are duplicates."""
    service = await running(tmp_path)
    block = block_of(1, sequenced(1, 5), plain(9))

    replies = await asyncio.gather(*(service.put(block, OPTIONS) for _ in range(20)))

    statuses = [reply.statuses for reply in replies]
    assert statuses.count((EntryStatus.STORED,) * 2) == 1
    assert statuses.count((EntryStatus.DUPLICATE,) * 2) == 19
    assert service.status()["rows"] == 6
    assert all(reply.producers[0].spans == ((1, 5),) for reply in replies)
    await service.stop()


async def test_overlaps_on_one_node(tmp_path: Path) -> None:
    """design.md "Identity": equal rows are masked; other rows are named and not stored."""
    service = await running(tmp_path)
    await service.put(block_of(1, sequenced(1, 5)), OPTIONS)

    equal = await service.put(block_of(2, sequenced(4, 8)), OPTIONS)
    other = await service.put(block_of(3, sequenced(7, 9, "x")), OPTIONS)
    same_id = await service.put(block_of(4, sequenced(1, 5, "x")), OPTIONS)

    assert (equal.statuses, equal.duplicate_rows) == ((EntryStatus.STORED,), (2,))
    assert equal.producers[0].spans == ((1, 8),)
    assert (other.statuses, other.conflict_seqs) == ((EntryStatus.CONFLICT,), (((7, 8),),))
    assert other.producers[0].spans == ((1, 8),)
    assert (same_id.statuses, same_id.conflict_seqs) == ((EntryStatus.CONFLICT,), (((1, 5),),))
    assert await messages(service) == [str(k) for k in range(1, 9)]
    await service.stop()


async def test_a_seal_sees_every_put_before_it(tmp_path: Path) -> None:
    """raft.md 9.2: after the answer, nothing lower is stored, and the states hold what was."""
    service = await running(tmp_path)

    put, _ = await asyncio.gather(
        service.put(block_of(1, sequenced(1, 5)), OPTIONS), service.seal(SealRequest(0, 4, "new"))
    )
    (state,) = (await service.producer_states(0, KEY)).states
    late = await service.put(block_of(2, sequenced(6, 7)), OPTIONS)

    assert put.statuses == (EntryStatus.STORED,)
    assert state.spans == ((1, 5),)
    assert late.statuses == (EntryStatus.STALE,)
    with pytest.raises(StaleShardEpoch):
        await service.seal(SealRequest(0, 3, "old"))
    await service.stop()


async def test_a_failed_sync_is_not_acked_and_not_visible(tmp_path: Path) -> None:
    """EIO once: the put is unknown (not definite), its rows are not shown, the same put again is stored."""
    calls = 0

    def sync(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.EIO, "bad disk")
        os.fdatasync(fd)

    service = await running(tmp_path, hooks=LogHooks(sync=sync))
    await service.put(block_of(1, plain(1)), OPTIONS)

    with pytest.raises(StorageFailed) as error:
        await service.put(block_of(2, sequenced(1, 3)), OPTIONS)
    assert not error.value.definite
    assert await messages(service) == ["row 1"]
    assert (await service.put(block_of(2, sequenced(1, 3)), OPTIONS)).statuses == (
        EntryStatus.STORED,
    )
    await service.stop()

    service = await running(tmp_path)
    assert await messages(service) == ["row 1", "1", "2", "3"] or await messages(service) == [
        "1", "row 1", "2", "3",
    ]  # fmt: skip
    await service.stop()


async def test_a_disk_that_keeps_failing_makes_the_node_read_only(tmp_path: Path) -> None:
    """After two failures in a row puts are refused; reads go on."""
    broken = False

    def sync(fd: int) -> None:
        if broken:
            raise OSError(errno.EIO, "bad disk")
        os.fdatasync(fd)

    service = await running(tmp_path, hooks=LogHooks(sync=sync))
    await service.put(block_of(1, plain(1)), OPTIONS)
    broken = True

    for number in range(2, 6):
        with pytest.raises(StorageFailed):
            await service.put(block_of(number, plain(number)), OPTIONS)

    assert service.read_only
    assert service.status()["read_only"]
    assert await messages(service) == ["row 1"]
    await service.stop()


async def test_below_the_disk_floor_puts_are_refused_until_there_is_room(tmp_path: Path) -> None:
    """507 below the floor; writable again only above floor + hysteresis."""
    free = 1000
    settings = replace(
        SETTINGS, disk_floor_bytes=500, disk_hysteresis_bytes=100, disk_interval_seconds=0.01
    )
    service = await running(tmp_path, settings=settings, free=lambda _: free)

    async def writable(expected: bool) -> None:
        for _ in range(200):
            await asyncio.sleep(0.01)
            if service.read_only is not expected:
                return
        pytest.fail(f"read_only stayed {service.read_only}")

    await service.put(block_of(1, plain(1)), OPTIONS)
    free = 499
    await writable(False)
    for refused in (
        service.put(block_of(2, plain(2)), OPTIONS),
        service.seal(SealRequest(0, 9, "a")),
    ):
        with pytest.raises(DiskFull) as error:
            await refused
        assert error.value.definite
    assert await messages(service) == ["row 1"]
    free = 550
    await asyncio.sleep(0.05)
    assert service.read_only
    free = 601
    await writable(True)
    await service.put(block_of(2, plain(2)), OPTIONS)
    await service.stop()


async def test_too_many_waiting_bytes_are_refused(tmp_path: Path) -> None:
    """429 with a time to come back, before memory runs out; what was refused left no trace."""
    settings = replace(SETTINGS, waiting_bytes_max=2000)
    service = await running(tmp_path, settings=settings)
    blocks = [block_of(number, plain(number)) for number in range(30)]

    outcomes = await asyncio.gather(
        *(service.put(block, OPTIONS) for block in blocks), return_exceptions=True
    )

    refused = [one for one in outcomes if isinstance(one, Overloaded)]
    assert refused
    assert all(one.definite and one.retry_after_seconds for one in refused)
    assert service.status()["rows"] == 30 - len(refused)
    for block in blocks:
        await service.put(block, OPTIONS)
    assert service.status()["rows"] == 30
    await service.stop()


async def test_damaged_blocks_are_not_taken(tmp_path: Path) -> None:
    """Any flipped byte of a put is found before it is stored."""
    service = await running(tmp_path)
    block = block_of(1, plain(1))

    for at in range(0, len(block.data), 7):
        data = bytearray(block.data)
        data[at] ^= 1
        with pytest.raises(BlockCorrupt):
            await service.put(EncodedBlock(block.header, bytes(data)), OPTIONS)

    assert service.status()["blocks"] == 0
    await service.stop()


def flip_body(directory: Path, block: EncodedBlock) -> None:
    """Flips a byte near the end of a block in the log."""
    (path,) = (directory / "log").glob("*.qlog")
    data = bytearray(path.read_bytes())
    at = data.index(bytes(block.data[-200:])) + 150
    data[at] ^= 0x10
    path.write_bytes(data)


async def test_a_damaged_block_is_set_aside_and_can_be_repaired(tmp_path: Path) -> None:
    """A flipped bit on disk: the scan goes on without the block, its digest says that entries are missing,
    a repair put brings them back; after restarts it stays so."""
    metrics = Metrics()
    service = await running(tmp_path)
    bad, good = block_of(1, sequenced(1, 3)), block_of(2, plain(50, 2))
    await service.put(bad, OPTIONS)
    await service.put(good, OPTIONS)
    whole = service.digest(0)
    await service.stop()
    flip_body(tmp_path, bad)
    service = await running(tmp_path, metrics=metrics)

    reply, table = await service.scan(scan_of())

    assert table.num_rows == 2
    assert reply.digests[0] == service.digest(0) != whole
    assert reply.lost == 1
    found = await service.producer_states(0, KEY)
    assert found.hole
    assert found.states[0].spans == ()
    assert await service.fetch((entry_id(sequenced(1, 3)),)) == []
    assert service.status()["quarantined_blocks"] == 1
    assert metrics.snapshot()['quorumlog_storage_quarantine_total{kind="block"}'] == 1
    await until(lambda: len(list((tmp_path / "quarantine").iterdir())) == 1)
    reply = await service.put(bad, PutOptions(1, repair=True))
    assert reply.statuses == (EntryStatus.STORED,)
    assert service.digest(0) == whole
    for lost in ("nothing", "catalog"):
        await service.stop()
        if lost == "catalog":
            (tmp_path / "catalog.sqlite").unlink()
        service = await running(tmp_path)
        assert service.digest(0) == whole
        assert sorted(await messages(service)) == ["1", "2", "3", "row 50", "row 51"]
    await service.stop()


async def test_a_damaged_block_met_by_a_comparison_counts_as_absent(tmp_path: Path) -> None:
    """The put that overlaps it is stored; the replica is merely missing the damaged one."""
    service = await running(tmp_path)
    await service.put(block_of(1, sequenced(1, 3)), OPTIONS)
    await service.stop()
    flip_body(tmp_path, block_of(1, sequenced(1, 3)))
    service = await running(tmp_path)

    reply = await service.put(block_of(2, sequenced(2, 5)), OPTIONS)

    assert (reply.statuses, reply.duplicate_rows) == ((EntryStatus.STORED,), (0,))
    assert await messages(service) == ["2", "3", "4", "5"]
    await service.stop()


async def test_fetch_gives_blocks_restricted_to_entries(tmp_path: Path) -> None:
    """Same block id, only these entries; verbatim if that is the whole block; unknown ids left out."""
    service = await running(tmp_path)
    a, b, c = sequenced(1, 3), plain(10, 2, shard=1), plain(20, 4, shard=2)
    both, alone = block_of(1, a, b, c), block_of(2, plain(99))
    await service.put(both, OPTIONS)
    await service.put(alone, OPTIONS)

    wanted = (entry_id(c), entry_id(a), EntryId(b"?" * 16), entry_id(plain(99)))
    blocks = await service.fetch(wanted)

    assert [one.header.block_id for one in blocks] == [both.header.block_id, alone.header.block_id]
    assert [e.entry_id for e in decode_block(blocks[0].data).header.entries] == [
        entry_id(a),
        entry_id(c),
    ]
    assert bytes(blocks[1].data) == bytes(alone.data)
    await service.stop()
    other = await running(tmp_path / "other", node="n2")
    for block in blocks:
        await other.put(block, PutOptions(1, repair=True))
    assert await messages(other) == [
        "1",
        "2",
        "3",
        *(f"row {k}" for k in (20, 21, 22, 23)),
        "row 99",
    ]
    await other.stop()


async def test_fetch_is_bounded(tmp_path: Path) -> None:
    """About `max_fetch_bytes` a call, at least one block; the rest is asked for again."""
    service = await running(tmp_path, settings=replace(SETTINGS, max_fetch_bytes=1))
    for number in range(3):
        await service.put(block_of(number, plain(number)), OPTIONS)
    ids = [entry_id(plain(number)) for number in range(3)]

    got: list[bytes] = []
    while len(got) < 3:
        blocks = await service.fetch(tuple(one for one in ids if one not in got))
        assert len(blocks) == 1
        got += [entry.entry_id for block in blocks for entry in block.header.entries]

    assert sorted(got) == sorted(ids)
    await service.stop()


async def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    """Neither a second process, nor another node, nor a log without a name."""
    service = await running(tmp_path)
    with pytest.raises(InvalidSettings, match="in use"):
        await running(tmp_path)
    incarnation = service.incarnation
    await service.put(block_of(1, plain(1)), OPTIONS)
    await service.stop()

    with pytest.raises(InvalidSettings, match="belongs to node n1"):
        await running(tmp_path, node="n2")
    facts = json.loads((tmp_path / "node.json").read_text())
    assert facts == {"node": "n1", "incarnation": incarnation}
    (tmp_path / "node.json").unlink()
    with pytest.raises(InvalidSettings, match=r"no node\.json"):
        await running(tmp_path)


async def test_nothing_is_answered_before_start_and_after_stop(tmp_path: Path) -> None:
    """NotReady, definite."""
    service = service_on(tmp_path)
    with pytest.raises(NotReady):
        await service.put(block_of(1, plain(1)), OPTIONS)
    await service.start()
    await service.stop()
    with pytest.raises(NotReady):
        await service.scan(scan_of())


async def test_a_cancelled_put_is_applied_all_the_same(tmp_path: Path) -> None:
    """The bytes are on their way: whoever asks later sees them, once."""
    service = await running(tmp_path)
    task = asyncio.ensure_future(service.put(block_of(1, plain(1)), OPTIONS))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    reply = await service.put(block_of(1, plain(1)), OPTIONS)

    assert reply.statuses == (EntryStatus.DUPLICATE,)
    assert await messages(service) == ["row 1"]
    await service.stop()


async def test_a_catalog_that_cannot_be_written_is_made_anew(tmp_path: Path) -> None:
    """A failed flush loses nothing: the next one carries everything."""
    service = await running(tmp_path)
    await put_a_bit_of_everything(service)
    write = service._catalog.write
    service._catalog.write = lambda batch: (_ for _ in ()).throw(OSError("full"))  # type: ignore[method-assign]
    await service._flusher.flush()
    service._catalog.write = write  # type: ignore[method-assign]
    before = await observed(service)
    await service.stop()

    service = await running(tmp_path)

    assert await observed(service) == before
    await service.stop()
