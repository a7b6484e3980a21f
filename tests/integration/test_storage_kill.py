"""kill -9 of a real process while it writes, again and again: what was acked is there, and once."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from records.messages import EntriesRequest
from records.predicates import ScanPlan
from records.timestamps import MAX_MICROS, MIN_MICROS
from storage.segment_file import segment_files
from storage.service import StorageService
from tests.integration.storage_writer import ROWS
from tests.unit.storage.samples import scan_of, service_on

ROOT = Path(__file__).resolve().parents[2]
KILLS = 6

pytestmark = pytest.mark.integration


def run_and_kill(directory: Path, first: int, acks: int, segments: int) -> list[int]:
    """Kills a writer once it has printed `acks` numbers and left `segments` files; all that it printed."""
    command = [sys.executable, "-m", "tests.integration.storage_writer", str(directory), str(first)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        seen = []
        while len(seen) < acks or len(segment_files(directory / "segments")) < segments:
            seen.append(int(process.stdout.readline()))
        time.sleep(0.003 * (acks % 7))
        process.kill()
        rest = process.stdout.read().split(b"\n")
        seen += [int(line) for line in rest[:-1]]
        assert process.wait() == -9
    return seen


async def stored(service: StorageService) -> list[str]:
    """The messages (sequence numbers) of all visible rows."""
    plan = ScanPlan(limit=10**6, fields=("message",))
    reply, table = await service.scan(scan_of(plan))
    assert not reply.truncated
    return table["message"].to_pylist() if table.num_rows else []


@pytest.mark.timeout(120)
async def test_rows_acked_before_a_kill_are_there_after_it(tmp_path: Path) -> None:
    """Six kills in the middle of writes: three early, three after merges.

    Each start repeats blocks whose outcome it does not know. The acks went through a pipe.
    The rows are read once with the catalog as the kills left it, once
    rebuilt from log and segments: both hold every acked row, once, and agree.
    """
    acked: set[int] = set()
    for kill in range(KILLS):
        first = max(acked, default=-1) + 1 - min(len(acked), 8)
        merges = max(0, kill - 2)
        acked |= set(await asyncio.to_thread(run_and_kill, tmp_path, first, 10 + 9 * kill, merges))
    wanted = {str(n * ROWS + k) for n in acked for k in range(1, ROWS + 1)}
    assert len(acked) > KILLS * 8
    assert segment_files(tmp_path / "segments")

    digests = []
    for catalog in ("kept", "lost"):
        if catalog == "lost":
            (tmp_path / "catalog.sqlite").unlink()
        service = service_on(tmp_path)
        await service.start()
        found = await stored(service)
        entries = await service.entries(EntriesRequest(0, MIN_MICROS, MAX_MICROS))
        digests.append(service.digest(0))
        await service.stop()

        assert wanted <= set(found)
        assert len(found) == len(set(found))
        assert len(entries.entries) == len(found) // ROWS
    assert digests[0] == digests[1]
