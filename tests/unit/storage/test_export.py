"""An export holds each visible row once, whatever it lies in, and other tools count what a scan counts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import polars as pl
import pytest

from records.errors import DiskFull, Overloaded
from records.messages import PutOptions
from records.predicates import ScanPlan
from storage.export import Exported
from storage.segment_file import segment_files
from storage.service import StorageService
from tests.unit.storage.samples import (
    OPTIONS,
    SETTINGS,
    Entry,
    block_of,
    messages,
    plain,
    row,
    scan_of,
    sequenced,
    service_on,
)

REPAIR = PutOptions(ring_epoch=1, repair=True)
SHARDS = range(64)


async def filled(directory: Path) -> StorageService:
    """Two merged blocks; log blocks: whole, with hidden rows, with another tenant's, with other columns."""
    service = service_on(directory, replace(SETTINGS, compact=False))
    await service.start()
    await service.put(block_of(90, plain(10, 3), plain(20, 2, shard=1)), OPTIONS)
    await service.put(block_of(91, plain(30, 3)), OPTIONS)
    await service._compactor.merge([0, 1])
    await service.put(block_of(50, sequenced(1, 6, "old ")), REPAIR)
    await service.put(block_of(40, sequenced(4, 8, "new ")), REPAIR)
    await service.put(block_of(92, plain(40, 2), plain(50, 2, tenant="other")), OPTIONS)
    await service.put(block_of(93, Entry([row(60, "more", code=7, user="it's")])), OPTIONS)
    await service.put(block_of(94, Entry((), producer="p", skips=((20, 21),))), OPTIONS)
    return service


def texts(exported: Exported) -> list[str]:
    """All messages in the files, by Polars."""
    return sorted(m for file in exported.files for m in pl.read_parquet(file.path)["message"])


def count(exported: Exported, sql: str = "count(*)") -> object:
    """What DuckDB finds in all files together."""
    paths = [str(file.path) for file in exported.files]
    query = f"SELECT {sql} FROM read_parquet(?, union_by_name=true, hive_partitioning=false)"
    found = duckdb.connect().execute(query, [paths]).fetchone()
    return found[0] if found else None


async def test_other_tools_find_the_rows_that_a_scan_finds(tmp_path: Path) -> None:
    """Overlapping sequences once, the other tenant not at all, new columns united by name."""
    service = await filled(tmp_path)

    exported = await service.export("default", SHARDS)

    wanted = sorted(await messages(service))
    assert texts(exported) == wanted
    assert exported.rows == count(exported) == len(wanted) == 19
    assert count(exported, "sum(code)") == 7
    assert [file.rows for file in exported.files] == [
        pl.read_parquet(file.path).height for file in exported.files
    ]
    assert (await service.export("other", SHARDS)).rows == 2
    assert (await service.export("nobody", SHARDS)).files == ()
    await service.stop()


async def test_shards_are_told_apart(tmp_path: Path) -> None:
    """Each shard's rows are in its own export only: replicas can share the work without doubling rows."""
    service = await filled(tmp_path)

    first, second = await service.export("default", [0]), await service.export("default", [1])

    assert texts(second) == ["row 20", "row 21"]
    assert sorted(texts(first) + texts(second)) == sorted(await messages(service))
    assert first.digests[0] == service.digest(0)
    await service.stop()


async def test_whole_segments_are_linked(tmp_path: Path) -> None:
    """They take no room, and stay readable when a later merge removes the segment."""
    service = await filled(tmp_path)
    (segment,) = segment_files(tmp_path / "segments").values()

    exported = await service.export("default", SHARDS)

    (link,) = (file.path for file in exported.files if file.path.samefile(segment))
    segment.unlink()
    assert pl.read_parquet(link).height == 8
    await service.stop()


async def test_the_export_before_last_is_removed(tmp_path: Path) -> None:
    """Two are kept: a list just printed stays valid while the next one is made."""
    service = await filled(tmp_path)

    made = [await service.export("default", SHARDS) for _ in range(4)]

    assert [one.directory.exists() for one in made] == [False, False, True, True]
    await service.stop()


async def test_a_full_disk_and_a_second_export_are_refused(tmp_path: Path) -> None:
    """Nothing is written beyond the floor; one export runs at a time."""
    service = await filled(tmp_path)
    service._exports._room = lambda: 100
    with pytest.raises(DiskFull):
        await service.export("default", SHARDS)
    service._exports._room = lambda: 1 << 30

    async def meanwhile(*args: Sequence) -> object:
        with pytest.raises(Overloaded):
            await service.export("default", SHARDS)
        return await reading(*args)  # type: ignore[arg-type]

    reading = service._exports._reading
    service._exports._reading = meanwhile  # type: ignore[assignment]
    assert (await service.export("default", SHARDS)).rows == 19
    await service.stop()


async def test_a_damaged_block_is_left_out_and_set_aside(tmp_path: Path) -> None:
    """The export begins again without it, as a scan does."""
    service = await filled(tmp_path)
    place = service._engine.holdings.blocks[3]
    assert place is not None
    with service._files.path(place).open("r+b") as file:
        file.seek(place.offset + place.length - 30)
        file.write(b"\xff\xff\xff")

    exported = await service.export("default", SHARDS)

    _, table = await service.scan(scan_of(ScanPlan(limit=100)))
    assert exported.rows == table.num_rows < 19
    assert len(list((tmp_path / "export").iterdir())) == 1
    await service.stop()


async def test_nothing_is_left_of_an_export_for_which_no_file_could_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would count as one of the exports that are kept, and push out one that somebody reads."""
    service = await filled(tmp_path)
    made = await service.export("default", SHARDS)

    def out_of_descriptors(*_: object) -> bytes:
        raise Overloaded("nothing can be read now", retry_after_seconds=1.0)

    with monkeypatch.context() as patch:
        patch.setattr(service._hot, "raw", out_of_descriptors)
        for _ in range(2):
            with pytest.raises(Overloaded, match="nothing can be read"):
                await service.export("default", SHARDS)

    assert list((tmp_path / "export").iterdir()) == [made.directory]
    await service.stop()
