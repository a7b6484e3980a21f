"""Reading blocks: what the disk cannot give is damage, what this process is short of is not."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from records.errors import Overloaded
from storage import block_files
from storage.service import StorageService
from tests.unit.storage.samples import OPTIONS, block_of, messages, plain, service_on


async def cold(directory: Path) -> StorageService:
    """A store with one block, of which nothing is in memory."""
    service = service_on(directory)
    await service.start()
    await service.put(block_of(1, plain(1, 30)), OPTIONS)
    await service.stop()
    service = service_on(directory)
    await service.start()
    return service


def failing_open(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """From now on no file of blocks can be opened."""
    real = os.open

    def fail(path: Any, *args: Any) -> int:
        if str(path).endswith((".qlog", ".parquet")):
            raise OSError(number, os.strerror(number))
        return real(path, *args)

    monkeypatch.setattr(block_files.os, "open", fail)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_want_of_descriptors_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whoever reads or fetches is told to come back; no block is set aside, all is there afterwards.

    On three nodes at once it would be the end of acknowledged rows.
    """
    service = await cold(tmp_path)
    ids = tuple(entry.entry_id for entry in block_of(1, plain(1, 30)).header.entries)
    with monkeypatch.context() as patch:
        failing_open(patch, number)
        with pytest.raises(Overloaded):
            await messages(service)
        with pytest.raises(Overloaded):
            await service.fetch(ids)

    assert service.status()["quarantined_blocks"] == 0
    assert len(await messages(service)) == 30
    await service.stop()


async def test_a_disk_that_gives_an_error_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO: the block is set aside, the answer is without it."""
    service = await cold(tmp_path)
    failing_open(monkeypatch, errno.EIO)

    assert await messages(service) == []
    assert service.status()["quarantined_blocks"] == 1
    await service.stop()
