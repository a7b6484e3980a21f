"""What merging small blocks buys: the same questions to a store that merges and to one that does not.

    python -m bench.tiny_blocks [--blocks 2400] [--rows 50] [--rounds 3]

One storage node in this process, blocks of a few rows (half a second apart); the two stores answer in turn,
and their answers must be equal. Figures are CPU milliseconds of a scan, median of the rounds.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from records.block import EntryHeader
from records.block_codec import EncodedBlock, encode_block
from records.columns import DICTIONARY
from records.ids import RingEpoch, ShardId, block_id, digest_entry_id
from records.messages import PutOptions, ScanRequest
from records.predicates import Aggregate, Fold, ScanPlan
from records.timestamps import MICROS_PER_MINUTE, MICROS_PER_SECOND
from runtime.clock import SystemClock
from runtime.metrics import Metrics
from storage.service import StorageService, StorageSettings

SHARDS = tuple(range(32))
START = 1_795_219_200_000_000
COUNT = (Aggregate("n", "count"),)
QUESTIONS = {
    "rare word": ScanPlan(filter=("word", "needle"), limit=10),
    "regex, counted": ScanPlan(filter=("regex", "message", "w1[0-9]* w7"), fold=Fold((), COUNT)),
    "histogram by minute": ScanPlan(fold=Fold((), COUNT, MICROS_PER_MINUTE)),
    "count by level": ScanPlan(fold=Fold(("level",), COUNT)),
    "newest 100": ScanPlan(limit=100),
}


def block(number: int, rows: int, chance: random.Random) -> EncodedBlock:
    """Block `number`: one entry of `rows` rows, half a second apart."""
    stamps = [START + number * MICROS_PER_SECOND + k * MICROS_PER_SECOND // 2 for k in range(rows)]
    words = [f"w{chance.randrange(2000)}" for _ in range(8 * rows)]
    texts = [" ".join(words[8 * k : 8 * k + 8]) for k in range(rows)]
    if number % 1000 == 777:
        texts[0] += " needle"
    columns = {
        "timestamp": pa.array(stamps, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        "service": pa.array([chance.choice(["pay", "cart", "web"]) for _ in texts]).cast(
            DICTIONARY
        ),
        "level": pa.array([chance.choice(["info", "error"]) for _ in texts]).cast(DICTIONARY),
        "message": pa.array(texts),
    }
    name = number.to_bytes(8, "big")
    entry = EntryHeader(
        entry_id=digest_entry_id(number % 32, b"bench", name, 0),
        content_hash=name * 2,
        shard=ShardId(number % 32),
        tenant="default",
        row_start=0,
        row_count=rows,
        min_ts=stamps[0],
        max_ts=stamps[-1],
        received_at=stamps[-1],
    )
    made = block_id(START // 1000 + number, bytes(10))
    return encode_block(made, RingEpoch(1), pa.table(columns), (entry,))


async def fill(service: StorageService, blocks: int, rows: int) -> None:
    """Puts all blocks; the same ones each time."""
    chance = random.Random(1)
    for number in range(blocks):
        await service.put(block(number, rows, chance), PutOptions(1))


async def settled(service: StorageService, pieces: int, seconds: float = 120.0) -> None:
    """Waits until at most `pieces` blocks and segments are left."""
    until = time.monotonic() + seconds
    while service.status()["blocks"] > pieces:
        if time.monotonic() > until:
            raise TimeoutError(f"{service.status()['blocks']} pieces are left")
        await asyncio.sleep(0.2)


async def ask(service: StorageService, plan: ScanPlan) -> tuple[float, list]:
    """(CPU milliseconds, answer) of one scan."""
    before = time.process_time()
    _, table = await service.scan(ScanRequest(plan, SHARDS, ()))
    spent = (time.process_time() - before) * 1e3
    rows = table.select([n for n in table.schema.names if n != "_run"]).to_pylist()
    return spent, sorted(map(repr, rows))


async def compare(blocks: int, rows: int, rounds: int, folder: Path) -> dict[str, Sequence[float]]:
    """By question: median CPU milliseconds without and with merging. The first round is not counted.

    Raises:
        AssertionError: the two stores answer differently.
    """
    stores: list[StorageService] = []
    for name, compact in (("plain", False), ("merged", True)):
        settings = StorageSettings(compact=compact, disk_floor_bytes=0, compact_cpu_share=1.0)
        stores.append(StorageService(folder / name, "n1", settings, SystemClock(), Metrics()))
        await stores[-1].start()
        await fill(stores[-1], blocks, rows)
    await settled(stores[1], max(8, blocks // 100))
    found: dict[str, Sequence[float]] = {}
    for question, plan in QUESTIONS.items():
        spent: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds + 1):
            answers = []
            for store, times in zip(stores, spent, strict=True):
                milliseconds, answer = await ask(store, plan)
                times.append(milliseconds)
                answers.append(answer)
            assert answers[0] == answers[1], question
        found[question] = [statistics.median(times[1:]) for times in spent]
    found["blocks and segments"] = [float(store.status()["blocks"]) for store in stores]
    for store in stores:
        await store.stop()
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=2400)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = options.blocks, options.rows, options.rounds
        found = asyncio.run(compare(*size, Path(folder)))
    print(f"{options.blocks} blocks of {options.rows} rows, CPU ms of a scan")
    print(f"{'':22}{'not merged':>12}{'merged':>10}{'ratio':>8}")
    for name, (plain, merged) in found.items():
        print(f"{name:22}{plain:12.1f}{merged:10.1f}{plain / max(merged, 0.01):8.1f}")


if __name__ == "__main__":
    main()
