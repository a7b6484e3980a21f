"""A disk that is really full (a tmpfs of 2 MiB): the node refuses, keeps what it acked, and comes back."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from records.errors import DiskFull, StorageFailed
from storage.settings import StorageSettings
from tests.unit.storage.samples import OPTIONS, block_of, messages, plain, service_on

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("mount"), reason="needs root to mount"
    ),
]
FULL = StorageSettings(
    log_file_bytes=256 << 10,
    disk_floor_bytes=0,
    disk_hysteresis_bytes=0,
    disk_interval_seconds=0.02,
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], check=False
    )
    if done.returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_full_disk_refuses_keeps_and_recovers(small_disk: Path) -> None:
    """ENOSPC in the log: unacked puts fail, acked rows stay readable, and after room is made it goes on."""
    service = service_on(small_disk / "node", FULL)
    await service.start()
    ballast = small_disk / "ballast"
    acked = []
    await service.put(block_of(0, plain(0)), OPTIONS)
    ballast.write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096 - 100_000))

    failure: Exception | None = None
    for number in range(1, 2000):
        try:
            await service.put(block_of(number, plain(number, 5, "x" * 2000)), OPTIONS)
            acked.append(number)
        except (StorageFailed, DiskFull) as error:
            failure = error
            break
    assert failure is not None
    assert len(await messages(service)) == 1 + 5 * len(acked)

    ballast.unlink()
    for _ in range(200):
        await asyncio.sleep(0.02)
        if not service.read_only:
            break
    await service.put(block_of(5000, plain(50_000)), OPTIONS)
    assert len(await messages(service)) == 2 + 5 * len(acked)
    await service.stop()

    service = service_on(small_disk / "node", replace(FULL))
    await service.start()
    assert len(await messages(service)) == 2 + 5 * len(acked)
    await service.stop()
