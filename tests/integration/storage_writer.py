"""A storage node alone in a process, for the kill test: puts blocks for ever, prints each acked number.

    python -m tests.integration.storage_writer DIRECTORY FIRST

Small blocks are merged all the time. A line `N` on stdout means: block N's put has returned. The parent kills
this process at any moment.
"""

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

from records.messages import EntryStatus
from tests.unit.storage.samples import OPTIONS, SETTINGS, block_of, sequenced, service_on

#: Rows of a block; block N holds the sequences N * ROWS + 1 and following.
ROWS = 20
_AT_ONCE = 8


async def write(directory: Path, first: int) -> None:
    """Puts blocks from `first` on, several at once."""
    quick = {"compact_interval_seconds": 0.001, "compact_cpu_share": 1.0, "log_file_bytes": 65_536}
    service = service_on(directory, replace(SETTINGS, **quick))
    await service.start()

    async def put(number: int) -> None:
        start = number * ROWS + 1
        reply = await service.put(block_of(number, sequenced(start, start + ROWS - 1)), OPTIONS)
        assert reply.statuses[0] in (EntryStatus.STORED, EntryStatus.DUPLICATE), reply
        os.write(1, b"%d\n" % number)

    number = first
    while True:
        await asyncio.gather(*(put(number + k) for k in range(_AT_ONCE)))
        number += _AT_ONCE


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
