"""`POST /files`: a snapshot of this node's rows as Parquet files on its disk, complete by quorum.

Before the snapshot the node asks R-1 other owners of each shard for their digest, and fetches the entries
that it lacks; R + W > N, so the files hold every row acknowledged before the request came. Who lost entries
to damage does not count to R, this node neither. Shards for which fewer owners spoke are named, and
`complete` is false.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from cluster.http_front import json_response
from cluster.replica_client import Replica, Replicas
from cluster.view import ClusterView, ViewSource
from query.http import tenant_of
from records.errors import InvalidRequest, NotFound, NotReady, QuorumlogError, StaleRingEpoch
from records.ids import EntryId
from records.messages import EntriesRequest, PutOptions, ScanRequest
from records.predicates import ScanPlan
from records.timestamps import MAX_MICROS, MIN_MICROS
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.logs import get_logger
from storage.service import StorageService

log = get_logger(__name__)
#: Seconds for asking the other owners and fetching what is lacking.
CATCH_UP_SECONDS = 60.0
FETCH_ENTRIES = 1_000


@dataclass(frozen=True, slots=True)
class FilesApi:
    """The handler and what it reads from."""

    node_id: str
    storage: StorageService
    views: ViewSource
    replicas: Replicas
    clock: Clock

    def routes(self) -> list[web.RouteDef]:
        """The route of this module."""
        return [web.post("/files", self.files)]

    async def files(self, request: web.Request) -> web.Response:
        """Makes the snapshot; `shards=0,1,…` limits it to some of the node's own."""
        view = self.views.current()
        if not view.ready:
            raise NotReady("there is no ring yet")
        owned = [s for s in range(view.shard_count) if self.node_id in view.owners(s)]
        shards = _wanted(request.query.get("shards"), owned)
        lost = self.storage.blocks_set_aside
        unsure = await CatchUp(self, view).run(shards)
        made = await self.storage.export(tenant_of(request), shards)
        if made.lost > lost:  # damage that was found meanwhile
            unsure = sorted({*unsure, *made.holes})
        body = {
            "node": self.node_id,
            "complete": not unsure,
            "shards": shards,
            "incomplete_shards": unsure,
            "directory": str(made.directory.resolve()),
            "rows": made.rows,
            "files": [
                {"path": str(one.path.resolve()), "rows": one.rows, "bytes": one.length}
                for one in made.files
            ],
        }
        return json_response(body)


def _wanted(text: str | None, owned: list[int]) -> list[int]:
    """The shards asked for; all that the node owns by default."""
    if not text:
        return owned
    try:
        shards = sorted({int(part) for part in text.split(",")})
    except ValueError:
        shards = [-1]
    if not set(shards) <= set(owned):
        raise InvalidRequest("shards: numbers of shards this node owns", parameter="shards")
    return shards


class CatchUp:
    """Fetches what R-1 other owners have and this node lacks."""

    def __init__(self, api: FilesApi, view: ClusterView) -> None:
        self._api, self._view = api, view
        self._deadline = Deadline.after(api.clock, CATCH_UP_SECONDS)

    async def run(self, shards: Sequence[int]) -> list[int]:
        """Asks owners until R spoke for each shard, this node being one; the shards for which not.

        Who knows a newer ring than this node's view may be an owner of before: it does not count.
        """
        request = ScanRequest(ScanPlan(limit=0), (), tuple(shards))
        own, _ = await self._api.storage.scan(request)
        if own.ring_epoch > self._view.ring_epoch:
            return list(shards)
        left = {shard: self._view.quorum.r - (shard not in own.holes) for shard in shards}
        others = {n for s in shards for n in self._view.owners(s)} - {self._api.node_id}
        for node in sorted(others, key=lambda one: (not self._view.is_alive(one), one)):
            asked = [s for s in shards if left[s] > 0 and node in self._view.owners(s)]
            if not asked:
                continue
            try:
                holes = await self._from(self._api.replicas.get(node), asked)
            except QuorumlogError as error:
                log.warning("an owner could not be asked", target=node, error=error)
                continue
            for shard in asked:
                left[shard] -= shard not in holes
        return [shard for shard, owners in left.items() if owners > 0]

    async def _from(self, replica: Replica, shards: list[int]) -> tuple[int, ...]:
        """Fetches what an owner has and this node lacks; the shards of which damage took some there."""
        request = ScanRequest(ScanPlan(limit=0), (), tuple(shards))
        reply, _ = await replica.scan(request, self._deadline)
        if reply.ring_epoch > self._view.ring_epoch:
            raise StaleRingEpoch("a newer ring is known there", epoch=reply.ring_epoch)
        for shard in shards:
            if tuple(reply.digests[shard]) != self._api.storage.digest(shard):
                await self._fill(replica, shard)
        return reply.holes

    async def _fill(self, replica: Replica, shard: int) -> None:
        """Fetches what lacks here.

        Raises:
            NotFound: it lists entries that it cannot give: their block is damaged. Another may have them.
        """
        request = EntriesRequest(shard, MIN_MICROS, MAX_MICROS)
        theirs = await replica.entries(request, self._deadline)
        mine = await self._api.storage.entries(request)
        held = {ref.entry_id for ref in mine.entries}
        lacking = [ref.entry_id for ref in theirs.entries if ref.entry_id not in held]
        while lacking:
            got = await self._fetch(replica, tuple(lacking[:FETCH_ENTRIES]))
            lacking = [one for one in lacking if one not in got]

    async def _fetch(self, replica: Replica, ids: tuple[EntryId, ...]) -> set[EntryId]:
        """Stores what the owner gives of these."""
        blocks = await replica.fetch(ids, self._deadline)
        got: set[EntryId] = set()
        for block in blocks:
            await self._api.storage.put(block, PutOptions(self._view.ring_epoch, repair=True))
            got |= {entry.entry_id for entry in block.header.entries}
        if not got:
            raise NotFound(f"{len(ids)} entries that were listed are not there any more")
        return got
