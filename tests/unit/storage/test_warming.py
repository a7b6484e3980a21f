"""After a start filters and rollups are read in the background: the first questions read no sidecar."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from records.block_codec import PREFIX_BYTES, decode_sidecar, parse_prefix
from records.errors import InvalidSettings
from records.messages import ScanRequest
from records.predicates import Aggregate, Fold, ScanPlan
from storage import hot, warming
from storage.service import StorageService
from storage.settings import StorageSettings
from tests.unit.storage.samples import OPTIONS, block_of, plain, scan_of, service_on
from tests.unit.storage.test_compaction import QUIET

COUNT = ScanPlan(fold=Fold(("service",), (Aggregate("n", "count"),)))
BLOCKS = 40


async def filled(directory: Path, blocks: int = BLOCKS) -> None:
    """Blocks with filters: 300 rows each."""
    service = service_on(directory, QUIET)
    await service.start()
    for number in range(blocks):
        await service.put(block_of(100 + number, plain(number * 400, 300)), OPTIONS)
    await service.stop()


async def warmed(service: StorageService, blocks: int) -> None:
    """Waits until the metric says so; bounded."""
    for _ in range(500):
        if service._metrics.snapshot()["quorumlog_storage_warmed_blocks_total"] >= blocks:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it was not warmed in five seconds")


class Counting:
    """`decode_sidecar`, counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        monkeypatch.setattr(hot, "decode_sidecar", self)

    def __call__(self, data: bytes) -> object:
        self.calls += 1
        return decode_sidecar(data)


async def asked(service: StorageService) -> list:
    found = []
    for plan in (COUNT, ScanPlan(limit=5, filter=("word", "nowhere"))):
        request: ScanRequest = scan_of(plan)
        found.append((await service.scan(request))[1].to_pylist())
    return found


async def test_the_first_questions_after_a_start_read_no_sidecar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each was read once by the loop, and the answers are those of a node that was not warmed."""
    await filled(tmp_path)
    cold = service_on(tmp_path, replace(QUIET, warm_cpu_share=0.0))
    await cold.start()
    await asyncio.sleep(0.05)
    expected = await asked(cold)
    assert cold._metrics.snapshot()["quorumlog_storage_warmed_blocks_total"] == 0
    await cold.stop()
    decoded = Counting(monkeypatch)
    service = service_on(tmp_path, replace(QUIET, warm_cpu_share=1.0))

    await service.start()
    await warmed(service, BLOCKS)
    before = decoded.calls
    found = await asked(service)

    assert found == expected
    assert (before, decoded.calls) == (BLOCKS, BLOCKS)
    await service.stop()


async def test_blocks_that_come_later_are_read_ahead_unless_many_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few in a second: read. Many: left to the questions, until fewer come."""
    monkeypatch.setattr(warming, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(warming, "QUIET_BLOCKS", 3)
    await filled(tmp_path, 2)
    service = service_on(tmp_path, replace(QUIET, warm_cpu_share=1.0))
    await service.start()
    await warmed(service, 2)
    for number in range(2):
        await service.put(
            block_of(300 + number, plain(number * 7, 300, name=b"b%d" % number)), OPTIONS
        )
    await warmed(service, 4)

    holdings = service._engine.holdings
    holdings.blocks.end += 4
    await service.put(block_of(400, plain(3, 300, name=b"late")), OPTIONS)
    for _ in range(60):  # as if so many had come: only ordinals count
        holdings.blocks.end += 4
        await asyncio.sleep(0.005)
    assert service._metrics.snapshot()["quorumlog_storage_warmed_blocks_total"] == 4
    await warmed(service, 5)
    await service.stop()


async def test_a_damaged_block_does_not_end_the_warming(tmp_path: Path) -> None:
    """It is set aside like any that is read; the others of later chunks are warmed all the same."""
    await filled(tmp_path)
    service = service_on(tmp_path, replace(QUIET, warm_cpu_share=0.0))
    await service.start()
    place = service._engine.holdings.blocks[BLOCKS - 1]
    assert place is not None
    path = service._files.path(place)
    await service.stop()
    with path.open("r+b") as file:
        file.seek(place.offset)
        file.seek(place.offset + parse_prefix(file.read(PREFIX_BYTES)).sidecar[0] + 20)
        file.write(b"\xff" * 40)
    service = service_on(tmp_path, replace(QUIET, warm_cpu_share=1.0))

    await service.start()
    await warmed(service, BLOCKS)

    assert service.status()["quarantined_blocks"] == 1
    rows = (await service.scan(scan_of(COUNT)))[1].to_pylist()
    assert sum(row["n"] for row in rows) == (BLOCKS - 1) * 300
    await service.stop()


async def test_a_stop_does_not_wait_for_the_warming(tmp_path: Path) -> None:
    """With a tiny share it rests for long between chunks; the node stops at once and starts again."""
    await filled(tmp_path)
    service = service_on(tmp_path, replace(QUIET, warm_cpu_share=0.0001))
    await service.start()
    await warmed(service, 1)

    await asyncio.wait_for(service.stop(), 3)


def test_a_share_is_at_most_a_core() -> None:
    """More is a mistake."""
    with pytest.raises(InvalidSettings):
        StorageSettings(warm_cpu_share=1.5)
