"""A log file does not stay for the sake of one big block: it becomes a segment, and the file goes."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from records.ids import block_id
from storage.blocks import BlockPlace
from storage.compaction import carry_each
from storage.reclaim import blocks_to_move
from storage.recovery import log_files
from storage.segment_file import segment_files
from storage.service import StorageService
from storage.wal import Position
from tests.unit.storage.samples import OPTIONS, block_of, plain, sequenced, service_on
from tests.unit.storage.test_compaction import (
    QUIET,
    REPAIR,
    answers,
    live,
    lose_catalog,
    merge,
    running,
)


def place(ordinal: int, file: int, length: int, rows: int = 10) -> BlockPlace:
    return BlockPlace(ordinal, block_id(ordinal, bytes(10)), file, 0, length, rows, 0, 0)


SIZES = {1: 1000, 2: 1000, 3: 1000}
LATE = Position(3, 0)


@pytest.mark.parametrize(
    ("blocks", "flushed", "chosen"),
    [
        ([place(0, 1, 500)], LATE, (0,)),
        ([place(0, 1, 501)], LATE, ()),
        ([place(0, 1, 300), place(1, 2, 200), place(2, 1, 100)], LATE, (1,)),
        ([place(0, 1, 200), place(1, 1, 250)], LATE, (0, 1)),
        ([place(0, 3, 10)], LATE, ()),
        ([place(0, 1, 10)], Position(1, 99), ()),
        ([place(0, -7, 10)], LATE, ()),
        ([place(0, 1, 10, rows=0)], LATE, ()),
        ([], LATE, ()),
    ],
)
def test_the_file_that_wastes_most_is_emptied(
    blocks: list[BlockPlace], flushed: Position, chosen: tuple[int, ...]
) -> None:
    """From half on; not the file that is written, not segments, not what cannot be a Parquet file."""
    assert blocks_to_move(blocks, SIZES, flushed, 1000) == chosen


def test_a_step_moves_no_more_than_its_share() -> None:
    """At least one block, else it would never end."""
    blocks = [place(0, 1, 200), place(1, 1, 150), place(2, 1, 100)]

    assert blocks_to_move(blocks, SIZES, LATE, 360) == (0, 1)
    assert blocks_to_move(blocks, SIZES, LATE, 1) == (0,)


async def mixed(directory: Path) -> StorageService:
    """Small blocks with a big one among them, in several log files; the small ones merged."""
    service = await running(directory)
    for number in range(40):
        await service.put(block_of(100 + number, plain(number, 40, received_at=number)), OPTIONS)
        if number == 5:
            big = plain(90, 300), sequenced(1, 60), plain(2, 40, received_at=2)  # the last is held
            await service.put(block_of(50, *big), REPAIR)
        if number == 7:
            await service.put(block_of(51, plain(1000, 100)), OPTIONS)
    return service


def is_big(one: BlockPlace) -> bool:
    return one.rows >= 100 and one.file > 0


@pytest.mark.parametrize("catalog", ["kept", "lost"])
async def test_big_blocks_leave_a_file_that_is_not_needed_otherwise(
    tmp_path: Path, catalog: str
) -> None:
    """Their bytes stay as they are, or lose an entry that was refused; answers too, also from disk alone."""
    service = await mixed(tmp_path)
    blocks = service._engine.holdings.blocks
    big = {one.block_id: service._hot.raw(one) for one in blocks if is_big(one)}
    before = await answers(service)
    files = set(log_files(service._files.log))
    await merge(service, [n for n in live(service) if (p := blocks[n]) and not is_big(p)])
    assert await answers(service) == before
    assert service._compactor._movable

    for _ in range(5):
        if service._compactor._movable:
            await merge_moves(service)

    moved = {one.block_id: service._hot.raw(one) for one in blocks if one.block_id in big}
    assert all(one.file < 0 for one in blocks)
    whole, partial = (
        block_of(51, plain(1000, 100)).header.block_id,
        block_of(50, plain(0)).header.block_id,
    )
    assert moved[whole] == big[whole]
    assert moved[partial] != big[partial]
    assert not files & set(log_files(service._files.log)) - {max(files)}
    assert await answers(service) == before
    await service.stop()
    if catalog == "lost":
        lose_catalog(tmp_path)
    again = await running(tmp_path)
    assert await answers(again) == before
    await again.stop()


async def merge_moves(service: StorageService) -> None:
    """What a step does with what is to be moved, and the clean-up at once."""
    moving, service._compactor._movable = service._compactor._movable, ()
    await service._compactor.merge(moving, carry_each)
    service._compactor._superseded._next_log = 0.0
    await service._compactor._tidy(service._clock.monotonic())


async def test_the_loop_moves_when_nothing_is_to_be_merged(tmp_path: Path) -> None:
    """By steps alone, on a store that was opened with such a file."""
    service = await mixed(tmp_path)
    before = await answers(service)
    await merge(
        service,
        [n for n in live(service) if (p := service._engine.holdings.blocks[n]) and not is_big(p)],
    )
    await service.stop()
    alone = replace(
        QUIET, compact=True, compact_below_rows=0, segment_rows=0, compact_interval_seconds=3600.0
    )
    service = service_on(tmp_path, alone)
    await service.start()

    for _ in range(8):
        service._compactor._superseded._next_log = 0.0
        await service._compactor.step()
        await asyncio.sleep(0)

    assert all(one.file < 0 for one in service._engine.holdings.blocks)
    assert len(segment_files(service._files.segments)) >= 3
    assert await answers(service) == before
    await service.stop()
