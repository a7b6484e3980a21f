"""Reads sidecars in the background, the newest first, so that the first question need not.

A start reads no block: what counts and searches need of each (rollups, filters of words and ids) is read
when first asked for, some 0.5 ms of CPU a block. This loop asks first, a few blocks at a time, with a share
of one core; a node is ready before it begins. It reads what comes later too, but not while rows come at
full rate: then ingest has the cores. What it did not reach, or could not read, is read by the question that
needs it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from records.errors import QuorumlogError
from runtime.logs import get_logger
from runtime.tasks import Workers
from storage.blocks import BlockPlace
from storage.engine import Engine
from storage.hot import HotSet

log = get_logger(__name__)
#: Blocks read at a time, about 8 ms: a search that needs one of their neighbours waits for no longer.
CHUNK_BLOCKS = 16
#: Seconds between two looks for new blocks, and how many since the last look are few: 10 % of full rate.
LOOK_SECONDS, QUIET_BLOCKS = 1.0, 8


@dataclass(frozen=True, slots=True)
class Seen:
    """The entry table, a mask of the blocks that are present, and the numbers' generation, of one moment."""

    rows: np.ndarray
    present: np.ndarray
    generation: int


def warm(hot: HotSet, places: list[BlockPlace], holdings: Seen) -> float:
    """Reads filters and rollups of some blocks of one shelf, on a worker; the seconds of CPU it took.

    Args:
        places: ascending by ordinal.
        holdings: as they were when `places` was read.

    Raises:
        BlockCorrupt: one is damaged (details: `ordinal`).
        Overloaded: no file can be opened now.
    """
    began = time.thread_time()
    hot.filters.warm(places)
    by_ordinal = {place.ordinal: place for place in places}
    hot.rollups.covering(
        np.array(list(by_ordinal), np.int64),
        holdings.rows,
        lambda ordinal: hot.sidecar(by_ordinal[ordinal]).rollup,
        lambda: holdings.present,
        holdings.generation,
    )
    return time.thread_time() - began


class Warmer:
    """All blocks that were there at the start, then those that came, whenever few come."""

    def __init__(
        self,
        engine: Engine,
        hot: HotSet,
        pool: Workers,
        reading: Callable[..., Awaitable[float]],
        count: Callable[[int], None],
    ) -> None:
        """`reading` runs work on `pool` and sets damaged blocks aside; `count` is told of blocks done."""
        self._engine, self._hot, self._pool = engine, hot, pool
        self._reading, self._count = reading, count

    async def run(self, cpu_share: float) -> None:
        """Runs until it is cancelled; returns at once if the share of a core is 0."""
        if not cpu_share:
            return
        blocks = self._engine.holdings.blocks
        done = seen = 0
        while True:
            if blocks.end > done and (not done or blocks.end - seen <= QUIET_BLOCKS):
                first, done = done, blocks.end
                await self._pass(first, cpu_share)
            seen = blocks.end
            await asyncio.sleep(LOOK_SECONDS)

    async def _pass(self, first: int, cpu_share: float) -> None:
        """The blocks from ordinal `first` on, the newest first."""
        holdings = self._engine.holdings
        ordinals = [place.ordinal for place in holdings.blocks.since(first)]
        while ordinals:
            low = ordinals[-1] // CHUNK_BLOCKS * CHUNK_BLOCKS  # no chunk spans two shelves
            chunk: list[int] = []
            while ordinals and ordinals[-1] >= low:
                chunk.append(ordinals.pop())
            places = [place for n in reversed(chunk) if (place := holdings.blocks[n]) is not None]
            rows = holdings.table.rows[: holdings.table.count]
            seen = Seen(rows, holdings.blocks.mask(), holdings.generation)
            spent = 0.0
            try:
                spent = await self._reading(self._pool, warm, self._hot, places, seen)
            except QuorumlogError as error:  # set aside by now, or merged; its neighbours stay cold
                log.info("a block could not be read ahead", reason=error.message)
            self._count(len(chunk))
            await asyncio.sleep(spent * (1 / cpu_share - 1))
