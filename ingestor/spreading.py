"""Which way an unnumbered request goes: today's, or that of an earlier copy. Shell; the rules are in `ways`.

For two windows after a split an agent may repeat what it sent before it. Such a request is looked up under
the names that it had then, at so many owners that they meet every acknowledgement; if one of them holds any
of it, all of it goes that way, and put-if-absent says "duplicate".
"""

import asyncio
from collections.abc import Callable

from cluster.view import ClusterView, ViewSource
from ingestor.batch import Batch
from ingestor.elsewhere import Elsewhere
from ingestor.shards import Piece
from ingestor.waiting import newer_ring
from ingestor.ways import HOME, Way, services_of, ways_of
from ingestor.write_metrics import WriteMetrics
from records.errors import NotReady, QuorumUnavailable, StaleRingEpoch
from records.ids import EntryId
from runtime.deadline import Deadline
from runtime.tasks import Workers

#: Rows of which the services are found on the event loop.
INLINE_ROWS = 1_000
#: A request's pieces if it goes a way.
PiecesOf = Callable[[Way], list[Piece]]
#: Names of entries by shard.
Names = set[tuple[int, EntryId]]


class Spreading:
    """Chooses ways, and sees to it that enough owners know of a split before rows go a new way."""

    def __init__(
        self, views: ViewSource, elsewhere: Elsewhere, workers: Workers, metrics: WriteMetrics
    ) -> None:
        self._views = views
        self._elsewhere = elsewhere
        self._workers = workers
        self._metrics = metrics
        self._told: set[tuple[str, str, int]] = set()

    async def way(
        self,
        batch: Batch,
        view: ClusterView,
        received_at: int,
        pieces_of: PiecesOf,
        deadline: Deadline,
    ) -> Way:
        """The way for all of a request's life.

        Raises:
            NotReady: too few owners can say whether a copy came before the split, or know of the split.
        """
        table = batch.table
        if not view.has_splits or not batch.identity.ages or not table.num_rows:
            return HOME
        if table.num_rows <= INLINE_ROWS:
            services = services_of(table)
        else:
            services = await self._workers.run(services_of, table)
        ways = ways_of(view, batch.tenant, services, batch.identity.content, received_at)
        doubt = "whether these rows came before the split is not known"
        try:
            chosen = ways[0]
            if len(ways) > 1:
                chosen = await self._gone_before(ways, view, pieces_of, deadline)
            for service in chosen:
                doubt = f"too few owners know that {service} is split"
                await self._tell(view, batch.tenant, service, deadline)
        except QuorumUnavailable as error:
            raise NotReady(f"{doubt}: {error.message}", retry_after_seconds=1) from error
        return chosen

    async def _gone_before(
        self, ways: list[Way], view: ClusterView, pieces_of: PiecesOf, deadline: Deadline
    ) -> Way:
        """The latest way of which an owner holds something; else today's."""
        named = [await self._workers.run(_names, pieces_of, way) for way in ways]
        by_shard: dict[int, list[EntryId]] = {}
        for shard, name in set.union(*named[1:]) - named[0]:
            by_shard.setdefault(shard, []).append(name)
        answers = await asyncio.gather(
            *(self._elsewhere.held(view, shard, ids, deadline) for shard, ids in by_shard.items())
        )
        held = set[EntryId]().union(*answers)
        for way, names in zip(ways[1:], named[1:], strict=True):
            if any(name in held for _, name in names):
                self._metrics.split_lookups.labels("held").inc()
                return way
        self._metrics.split_lookups.labels("new").inc()
        return ways[0]

    async def _tell(self, view: ClusterView, tenant: str, service: str, deadline: Deadline) -> None:
        """Enough owners of the home shard know of the service's newest split; asked once of each split."""
        split = (tenant, service, len(view.generations(tenant, service)))
        while split not in self._told:
            try:
                home = view.shard_of(tenant, service, "", 0)
                await self._elsewhere.tell(view, home, deadline)
                self._told.add(split)
            except StaleRingEpoch as stale:
                view = await newer_ring(self._views, view, stale, deadline)


def _names(pieces_of: PiecesOf, way: Way) -> Names:
    """What the entries of a request are called if it goes `way`, in this window and in the one before."""
    return {
        (int(entry.shard), name)
        for piece in pieces_of(way)
        for entry in piece.entries
        for name in (entry.entry_id, EntryId(entry.previous))
        if name
    }
