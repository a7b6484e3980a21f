"""Retiring: what watermarks and deletes hide is removed from this node's disk, little by little. A shell.

Entries below the watermark are dropped, and blocks that have none left with them, a segment as a file; blocks
that keep others are written anew without them. Other hidden rows are blanked (storage.erase). It runs in turn
with the compactor, whose tools it uses: both hold entry numbers over an await.
"""

import asyncio
from typing import Any

from records.errors import NotReady
from records.timestamps import MIN_MICROS
from runtime.clock import Clock
from runtime.failpoints import failpoint
from storage.compaction import Compactor
from storage.engine import Engine
from storage.entry_table import GONE
from storage.erase import due, erasing, next_blocks, thinnable
from storage.retention import Retention, expired_entries
from storage.retiring_gauges import RetiringGauges

#: Entries that are dropped at a time: 3 ms of the event loop.
DROP_MAX = 1000
#: Seconds between two steps while hidden rows wait to be removed.
BUSY_SECONDS = 0.02
#: Seconds between two looks when nothing was left to do: rows may come that are hidden already. A look is
#: a few passes over the entry table for each rule, 10 ms for a million entries, on the compactor's worker.
LOOK_SECONDS = 5.0


class Retiring:
    """Carries out the retention of one node. `step` is called again and again, on the event loop."""

    def __init__(
        self, engine: Engine, compactor: Compactor, clock: Clock, gauges: RetiringGauges
    ) -> None:
        self._engine, self._compactor, self._gauges = engine, compactor, gauges
        self._clock = clock
        #: The newest applied index of the replicated state that was told, and who waits for a newer one.
        self._seen = -1
        self._told = asyncio.Event()
        #: Nothing is left to do of this, as of the last look; the next is at `_look_again`.
        self._done: Retention | None = None
        self._look_again = 0.0

    def observe(self, retention: Retention) -> None:
        """From now on this is hidden. An older state than the one known changes nothing."""
        holdings = self._engine.holdings
        self.seen(retention.index)
        if retention.index < holdings.retention.index:
            return
        before, holdings.retention = holdings.retention, retention
        if (retention.marks, retention.deletes) != (before.marks, before.deletes):
            failpoint("retire.observed")
        names = {rule.name for rule in retention.all_rules}
        for name in [one for one in holdings.clean if one not in names]:
            del holdings.clean[name]
        self._gauges.deletes.set(len(retention.deletes))

    def seen(self, index: int) -> None:
        """The replicated state up to `index` is known here."""
        if index > self._seen:
            self._seen = index
            self._told.set()
            self._told = asyncio.Event()

    async def wait_for(self, index: int, seconds: float) -> None:
        """Returns when the replicated state up to `index` is known here.

        Raises:
            NotReady: it is not, after `seconds`.
        """
        if self._seen >= index:
            return
        try:
            async with asyncio.timeout(seconds):
                while self._seen < index:
                    await self._told.wait()
        except TimeoutError:
            text = f"newer deletes or watermarks than these are known: {self._seen}, not {index}"
            raise NotReady(text) from None

    @property
    def busy(self) -> bool:
        """Whether the last step left something to do, or more is hidden since."""
        return self._done is not self._engine.holdings.retention

    def pause(self, usual: float) -> float:
        """Seconds until the next step, given the compactor's: while there is work, only its rest."""
        if not self.busy:
            return usual
        return max(BUSY_SECONDS, usual - self._compactor.interval_seconds)

    async def step(self, writable: bool = True) -> None:
        """Drops some entries, or else blanks rows of some blocks.

        Args:
            writable: blanking writes; without room for it only entries are dropped.
        """
        retention, now = self._engine.holdings.retention, self._clock.monotonic()
        if retention is self._done and now < self._look_again:
            return
        self._done = None
        if await self._drop():
            return
        if writable and await self._erase():
            return
        if retention.marks:
            self._compactor.thinned(await self._compactor.apart(thinnable, self._engine.holdings))
        self._done, self._look_again = retention, now + LOOK_SECONDS

    async def _drop(self) -> bool:
        holdings = self._engine.holdings
        found = await self._compactor.apart(expired_entries, holdings.retention, holdings.table)
        numbers = found[:DROP_MAX]
        if not len(numbers):
            return False
        # A shard may have been let go, or a block set aside, meanwhile.
        numbers = numbers[(holdings.table.rows["flags"][numbers] & GONE) == 0]
        rows = int(holdings.table.rows["row_count"][numbers].sum())
        expired = holdings.expire(numbers)
        failpoint("retire.drop")
        await self._compactor.give_up(expired)
        self._gauges.dropped.inc(rows)
        return True

    async def _erase(self) -> bool:
        holdings = self._engine.holdings
        ordinals, rules = await self._compactor.apart(next_blocks, holdings)
        if not ordinals:
            return False
        ordinals = [one for one in ordinals if holdings.blocks[one] is not None]
        if not ordinals:  # set aside meanwhile
            return True
        how = erasing(rules, self._gauges.erased.inc)
        written = await self._compactor.merge(ordinals, how, patient=True)
        failpoint("retire.erased")
        for rule in rules:
            for ordinal in (*ordinals, *(place.ordinal for place in written)):
                holdings.mark_clean(rule.name, ordinal)
        return True

    def progress(self, delete: str) -> dict[str, Any]:
        """See StorageService.retention_progress."""
        holdings = self._engine.holdings
        index = holdings.retention.index
        left = self._left(delete) if delete else {}
        received, latest = holdings.received_max, self._latest()
        return {"index": index, "left": left, "received_max": received, "latest": latest}

    def _latest(self) -> int:
        """The time of the latest row, microseconds. One pass."""
        table = self._engine.holdings.table
        return int(table.rows["max_ts"][: table.count].max()) if table.count else MIN_MICROS

    def _left(self, delete: str) -> dict[str, int]:
        """By its id, how many blocks may still hold contents of its rows; {} if it is not known."""
        holdings = self._engine.holdings
        if all(one.id != delete for one in holdings.retention.deletes):
            return {}
        rules = (rule for rule in holdings.retention.all_rules if rule.name == delete)
        return {rule.name: len(due(holdings, rule)) for rule in rules}
