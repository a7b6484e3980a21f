"""The catalog's ordinals: those of blocks that are gone leave nothing behind, and never run out."""

import contextlib
import os
import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from records.errors import Overloaded
from storage import catalog
from storage.blocks import BlockPlace, Blocks
from storage.catalog import Catalog, CatalogUnusable
from storage.engine import Engine
from tests.unit.storage.samples import OPTIONS, block_of, plain, sequenced
from tests.unit.storage.test_compaction import REPAIR, answers, live, merge, running


def ordinals(directory: Path) -> list[int]:
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as db:
        return [n for (n,) in db.execute("SELECT ordinal FROM blocks ORDER BY 1")]


async def merged_store(directory: Path) -> list:
    """Twelve blocks of overlapping sequences merged to one, and one block more; what the store answers."""
    service = await running(directory)
    for number in range(12):
        entries = plain(number, 2), sequenced(number * 2 + 1, number * 2 + 4, f"b{number} ")
        await service.put(block_of(50 - number, *entries), REPAIR)
    await merge(service)
    await service.put(block_of(70, plain(90)), OPTIONS)
    found = await answers(service)
    await service.stop()
    return found


async def test_a_block_that_is_gone_leaves_no_row(tmp_path: Path) -> None:
    """Twelve blocks, merged: the catalog names the segment and the block that came after it."""
    await merged_store(tmp_path)

    assert ordinals(tmp_path) == [12, 13]


async def test_ordinals_with_many_gaps_are_given_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 12 and 13 to 0 and 1, with what is hidden in them; not when there are few."""
    before = await merged_store(tmp_path)
    for most, expected in ((10, [12, 13]), (9, [0, 1])):
        monkeypatch.setattr(catalog, "GAPS_MAX", most)
        read = Catalog(tmp_path / "catalog.sqlite")
        read.load(Engine())  # it is usable: what follows does not come from the log
        read.close()
        service = await running(tmp_path)
        assert live(service) == expected
        assert await answers(service) == before
        await service.stop()
        assert ordinals(tmp_path) == expected


async def test_a_catalog_that_still_has_rows_of_gone_blocks_is_read(tmp_path: Path) -> None:
    """As an older node wrote them: no entries, `gone` set; without reading the log anew."""
    before = await merged_store(tmp_path)
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as db, db:
        row = (0, b"", 0, 0, 0, 0, 0, 0, 1, b"", b"\x80")
        db.execute("INSERT INTO blocks VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)

    engine = Engine()
    read = Catalog(tmp_path / "catalog.sqlite")
    read.load(engine)
    read.close()
    service = await running(tmp_path)

    assert [place.ordinal for place in engine.holdings.blocks] == [12, 13]
    assert await answers(service) == before
    await service.stop()


def test_hidden_rows_of_a_block_that_is_not_there_make_a_catalog_unusable(tmp_path: Path) -> None:
    """It contradicts itself: the log decides."""
    made = Catalog(tmp_path / "catalog.sqlite")
    made.create()
    made.write(catalog.Batch(catalog.Position(0, 0), 1, hidden=[(5, 0, 4, b"\x90")]))
    made.close()

    with pytest.raises(CatalogUnusable):
        Catalog(tmp_path / "catalog.sqlite").load(Engine())


def test_a_full_disk_is_what_a_failed_write_tells(tmp_path: Path) -> None:
    """SQLite takes such a transaction back by itself; what is told is why, not that it has."""
    made = Catalog(tmp_path / "catalog.sqlite")
    made.create()
    assert made._db is not None
    pages = made._db.execute("PRAGMA page_count").fetchone()[0]
    made._db.execute(f"PRAGMA max_page_count={pages}")
    names = [("tenant", number, b"x" * 4096) for number in range(100)]

    with pytest.raises(sqlite3.OperationalError, match="full"):
        made.write(catalog.Batch(catalog.Position(0, 0), 1, names=names))
    made.close()


def test_present_blocks_are_listed_by_ordinal_with_gaps() -> None:
    """`since` gives the newest without a walk over the others; a copy does not follow."""
    blocks = Blocks()
    for ordinal in (0, 3, 4, 9):
        blocks.add(BlockPlace(ordinal, block_of(1, plain(0)).header.block_id, 1, 0, 1, 1, 0, 0))
    copy = blocks.copy()
    blocks.remove(3)

    assert [place.ordinal for place in blocks] == [0, 4, 9]
    assert [place.ordinal for place in blocks.since(4)] == [4, 9]
    assert blocks.since(10) == []
    assert (len(blocks), blocks.end, blocks[3], len(copy)) == (3, 10, None, 4)
    assert blocks.mask().nonzero()[0].tolist() == [0, 4, 9]


def test_a_sound_catalog_is_found_so_whatever_its_folder_is_called(tmp_path: Path) -> None:
    """Names go into a URI when it is looked through; a damaged one is told."""
    directory = tmp_path / "50% #1?"
    directory.mkdir()
    made = Catalog(directory / "catalog.sqlite")
    made.create()
    assert made.damage() == ""
    made.close()

    made.path.write_bytes(b"no database" * 1000)
    assert "not a database" in made.damage()


def test_want_of_descriptors_is_no_damage_of_the_catalog(tmp_path: Path) -> None:
    """SQLite says that it cannot open the file; one that is not there is damage."""
    made = Catalog(tmp_path / "catalog.sqlite")
    made.create()
    made.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(Overloaded):
            made.damage()
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert made.damage() == ""
    made.path.unlink()
    assert "unable to open" in made.damage()
