"""Retiring: what watermarks and deletes hide is removed from this node's disk, little by little. A shell.

Entries below the watermark are dropped, and blocks that have none left with them, a segment as a file; other
hidden rows are blanked (storage.erase). It runs in turn with the compactor, whose tools it uses: both hold
entry numbers over an await.
"""

from storage.compaction import Compactor
from storage.engine import Engine
from storage.erase import due, erasing, next_blocks
from storage.retention import Retention, expired_entries
from storage.retiring_gauges import RetiringGauges

#: Entries that are dropped at a time: 3 ms of the event loop.
DROP_MAX = 1000


class Retiring:
    """Carries out the retention of one node. `step` is called again and again, on the event loop."""

    def __init__(self, engine: Engine, compactor: Compactor, gauges: RetiringGauges) -> None:
        self._engine, self._compactor, self._gauges = engine, compactor, gauges
        #: What was looked at when there was nothing to do: it is not looked at again.
        self._idle: tuple[object, ...] = ()

    def observe(self, retention: Retention) -> None:
        """From now on this is hidden. An older state than the one known changes nothing."""
        holdings = self._engine.holdings
        if retention.index < holdings.retention.index:
            return
        holdings.retention = retention
        names = {rule.name for rule in retention.all_rules}
        for name in [one for one in holdings.clean if one not in names]:
            del holdings.clean[name]
        self._gauges.deletes.set(len(retention.deletes))

    @property
    def busy(self) -> bool:
        """Whether the last step left something to do."""
        return not self._idle

    async def step(self, writable: bool = True) -> None:
        """Drops some entries, or else blanks rows of some blocks.

        Args:
            writable: blanking writes; without room for it only entries are dropped.
        """
        holdings = self._engine.holdings
        now = (holdings.retention, holdings.table.count, holdings.generation, writable)
        if now == self._idle or not holdings.retention.all_rules:
            return
        self._idle = ()
        if await self._drop():
            return
        if writable and await self._erase():
            return
        self._idle = now

    async def _drop(self) -> bool:
        holdings = self._engine.holdings
        numbers = expired_entries(holdings.retention, holdings.table)[:DROP_MAX]
        if not len(numbers):
            return False
        rows = int(holdings.table.rows["row_count"][numbers].sum())
        await self._compactor.give_up(holdings.expire(numbers))
        self._gauges.dropped.inc(rows)
        return True

    async def _erase(self) -> bool:
        holdings = self._engine.holdings
        ordinals, rules = next_blocks(holdings)
        if not ordinals:
            return False
        how = erasing(rules, self._gauges.erased.inc)
        written = await self._compactor.merge(ordinals, how, patient=True)
        for rule in rules:
            for ordinal in (*ordinals, *(place.ordinal for place in written)):
                holdings.mark_clean(rule.name, ordinal)
        return True

    def left(self) -> dict[str, int]:
        """By delete, how many blocks may still hold contents of its rows."""
        holdings = self._engine.holdings
        deletes = {one.id for one in holdings.retention.deletes}
        rules = [one for one in holdings.retention.all_rules if one.name in deletes]
        return {rule.name: len(due(holdings, rule)) for rule in rules}
