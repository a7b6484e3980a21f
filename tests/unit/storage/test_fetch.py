"""Blocks for repair: a bit that flips on this disk is never copied to a peer."""

import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from records.block_codec import EncodedBlock, open_body, parse_prefix
from records.messages import PutOptions
from tests.unit.storage.samples import (
    OPTIONS,
    SETTINGS,
    Entry,
    block_of,
    entry_id,
    row,
    service_on,
)

COLD = replace(SETTINGS, compact=False, warm_cpu_share=0.0, scrub_period_seconds=0.0, cache_bytes=0)


def rows_of(block: EncodedBlock) -> pa.Table:
    body = memoryview(block.data)[parse_prefix(block.data).body[0] :]
    return open_body(body, block.header.columns).read()


async def test_a_part_of_a_block_that_was_read_before_is_verified_anew(tmp_path: Path) -> None:
    """Bits flipped all over its body after it was read whole: the right rows are given, or none.

    Without the look at the checksums every fourth flip came out as rows with a good checksum.
    """
    lot = random.Random(3)
    wanted = Entry([row(k, f"alpha {lot.random()} {k}") for k in range(100)])
    other = Entry([row(k, f"beta {lot.random()} {k}") for k in range(100)], shard=1)
    block = block_of(1, wanted, other)
    service = service_on(tmp_path, COLD)
    await service.start()
    await service.put(block, OPTIONS)
    start, end = parse_prefix(block.data).body
    caught = 0
    for at in range(start, end, (end - start) // 60):
        (right,) = await service.fetch((entry_id(wanted),))
        place = list(service._engine.holdings.blocks)[-1]
        path = service._files.path(place)
        with path.open("r+b") as file:
            file.seek(place.offset + at)
            (byte,) = file.read(1)
            file.seek(place.offset + at)
            file.write(bytes([byte ^ 0x10]))

        found = await service.fetch((entry_id(wanted),))

        assert all(rows_of(one).equals(rows_of(right)) for one in found), at
        if not found:
            caught += 1
            await service.put(block, PutOptions(1, repair=True))
    assert caught >= 60
    await service.stop()
