"""Settle: where owners of a shard disagree, find the union and get what the data owner lacks.

1. Entry lists from the owners that spoke (a replacement for each that fails); `compare` them.
2. An entry may have reached the data owner between its scan and its list. If its digest is still that of the
   scan, the scan saw just the listed entries. Else, or if the union hides rows that it showed, or if another
   owner holds far more, the scan is repeated, with all that the list lacks told to `hide`: so an entry
   that arrives meanwhile is counted once, by the supplement.
   The first answer is then dropped whole: it shows rows by what was visible before.
3. The entries that the base lacks, from a holder, by the same plan with `only`: shown as the union says.
4. An entry that reaches the base only now may hold rows of a supplement (overlapping sequences, or the same
   bytes of the window before or after): they would be shown twice. If the base's digest changed, its list is
   looked at once more; if it happened, the read begins anew.
5. An owner that sets a damaged block aside meanwhile may no longer have what it listed. Its answers say so
   (`lost`), and do not count: another holder is asked, or the read begins anew.

Other entries that a holder no longer knows are ignored: they expired.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from query.compare import Comparison, Hides, compare, fullest, hold_the_same
from query.scatter import Digest, Owners, Part, Scatter, Scattered
from query.settings import QuerySettings
from query.together import together
from records.errors import InvalidRequest, QuorumlogError, TooLarge
from records.ids import EntryId
from records.messages import EntriesRequest, ScanReply
from records.visibility import EntryRef
from runtime.deadline import Deadline
from runtime.logs import get_logger
from runtime.tasks import Workers

if TYPE_CHECKING:
    from cluster.replica_client import Replicas

log = get_logger(__name__)
#: Entry ids in one request; 16 bytes each, far below the 8 MiB of a head.
ONLY_MAX = 100_000
Lists = dict[str, tuple[EntryRef, ...]]


class ReadAgain(Exception):
    """What was compared has changed under our hands: read again."""


class BaseLost(ReadAgain):
    """The data owner went away while its answer was being settled: read again without it."""

    def __init__(self, node: str, why: str = "failed") -> None:
        super().__init__(f"{node} {why}")
        self.node = node


class Overtaken(ReadAgain):
    """An entry that overlaps a supplement arrived while the supplement was fetched."""


@dataclass(slots=True)
class Settled:
    """The tables to merge, and what could not be settled: shard -> reason."""

    tables: list[pa.Table] = field(default_factory=list)
    replies: list[ScanReply] = field(default_factory=list)
    incomplete: dict[int, str] = field(default_factory=dict)
    supplemented: int = 0
    comparisons: dict[int, Comparison] = field(default_factory=dict)


class Settler:
    """Settles one scattered read."""

    def __init__(
        self,
        view: Owners,
        replicas: "Replicas",
        scatter: Scatter,
        needed: dict[int, int],
        deadline: Deadline,
        settings: QuerySettings,
        workers: Workers,
    ) -> None:
        self._view = view
        self._replicas = replicas
        self._scatter = scatter
        self._needed = needed
        self._deadline = deadline
        self._settings = settings
        self._workers = workers
        self._out = Settled()
        self._moved: set[int] = set()
        self._lists_of: dict[int, Lists] = {}
        self._answered: dict[tuple[int, str], Digest] = {}
        self._lost: dict[str, int] = {}
        #: (shard, owner): lists that may lack what damage took.
        self._holed: set[tuple[int, str]] = set()

    async def run(self, found: Scattered, lists: Mapping[int, Lists] | None = None) -> Settled:
        """The tables of all parts, repeated and supplemented where owners differ.

        Args:
            lists: those of all slices of the read, if it has several; else they are got.

        Raises:
            ReadAgain: a data owner failed meanwhile, or an overlapping entry arrived.
        """
        base, self._lost = found.base, found.lost
        told = await self.lists(found) if lists is None else lists
        await together(self._compare(s, base[s], told[s]) for s in told if s in base)
        await together(self._part(part) for part in found.parts)
        await self._supplement()
        await together(self._verify(s, found.digests[s]) for s in self._out.comparisons)
        return self._out

    async def lists(self, found: Scattered) -> dict[int, Lists]:
        """The entry lists, by owner, of the shards with data whose owners differ."""
        base = found.base
        shards = [shard for shard in found.differing() if shard in base]
        told = await together(self._lists(s, list(found.digests[s])) for s in shards)
        return dict(zip(shards, told, strict=True))

    async def _compare(self, shard: int, base: str, lists: Lists) -> None:
        if not lists:
            raise BaseLost(base)
        whole = sum((shard, node) not in self._holed for node in lists)
        if whole < self._needed[shard]:
            told = f"{whole} of {self._needed[shard]} owners listed all their entries"
            self._out.incomplete[shard] = told
        self._lists_of[shard] = lists
        until = self._scatter.until
        chosen = base if base in lists else fullest(lists, base, until)
        result = await self._workers.run(compare, chosen, lists, until)
        if result.lacking > self._settings.rebase_entries:
            result = await self._workers.run(compare, fullest(lists, chosen, until), lists, until)
        if result.base != base:
            self._moved.add(shard)
        self._out.comparisons[shard] = result

    async def _lists(self, shard: int, spoken: list[str]) -> Lists:
        """Entry lists of the owners that spoke; another owner's for each that fails."""
        time = self._scatter.compared
        request = EntriesRequest(shard, time.start, time.end)
        waiting = [n for n in self._view.owners(shard) if n not in spoken]
        lists: Lists = {}
        asked = spoken
        while asked:
            replies = await together(self._entries(node, request) for node in asked)
            lists |= {n: refs for n, refs in zip(asked, replies, strict=True) if refs is not None}
            failed = sum(refs is None for refs in replies)
            failed += sum((shard, node) in self._holed for node in asked)
            asked, waiting = waiting[:failed], waiting[failed:]
        return lists

    async def _entries(self, node: str, request: EntriesRequest) -> tuple[EntryRef, ...] | None:
        try:
            replica = self._replicas.get(node)
            reply = await self._deadline.wait(replica.entries(request, self._deadline))
        except QuorumlogError as error:
            log.warning("entry list failed", target=node, shard=request.shard, error=error)
            return None
        if reply.hole:
            self._holed.add((request.shard, node))
        return tuple({ref.entry_id: ref for ref in reply.entries}.values())

    # -- the data owners' answers

    async def _part(self, part: Part) -> None:
        """Keeps a part's table, or repeats its scan."""
        compared = [self._out.comparisons[s] for s in part.shards if s in self._out.comparisons]
        moved = self._moved.intersection(part.shards)
        keep = not moved and not any(one.overlaps for one in compared)
        if keep and not await self._unstable(part):
            self._keep(part.node, part.reply, part.table)
        else:
            await self._repeat(part)

    def _keep(self, node: str, reply: ScanReply, table: pa.Table) -> None:
        self._out.tables.append(table)
        self._out.replies.append(reply)
        self._answered |= {(shard, node): digest for shard, digest in reply.digests.items()}

    async def _unstable(self, part: Part) -> bool:
        """Whether the data owner has got more since its scan, in shards that were compared."""
        watched = [s for s in part.shards if s in self._out.comparisons]
        if not watched:
            return False
        reply, _ = await self._scan(part.node, self._scatter, (), watched)
        now, then = reply.digests, part.reply.digests
        return any(now.get(shard) != then.get(shard) for shard in watched)

    async def _repeat(self, part: Part) -> None:
        by_base: dict[str, list[int]] = {}
        for shard in part.shards:
            known = self._out.comparisons.get(shard)
            by_base.setdefault(known.base if known else part.node, []).append(shard)
        await together(self._rescan(node, group) for node, group in by_base.items())

    async def _rescan(self, node: str, shards: list[int]) -> None:
        hide: Hides = {}
        for shard in shards:
            if known := self._out.comparisons.get(shard):
                hide |= known.base_hide
        reply, table = await self._scan(node, self._scatter, shards, (), hide=hide)
        self._keep(node, reply, table)

    async def _scan(
        self,
        node: str,
        scatter: Scatter,
        data: Iterable[int],
        digest: Iterable[int],
        only: tuple[EntryId, ...] | None = None,
        hide: Hides | None = None,
    ) -> tuple[ScanReply, pa.Table]:
        request = scatter.request(tuple(data), tuple(digest), only, hide)
        try:
            reply, table = await scatter.scan(node, request)
        except (InvalidRequest, TooLarge):
            raise
        except QuorumlogError as error:
            log.warning("scan failed while owners are compared", target=node, error=error)
            raise BaseLost(node) from error
        if reply.lost != self._lost.get(node, reply.lost):
            raise BaseLost(node, "set a damaged block aside")
        return reply, table

    # -- supplements

    async def _supplement(self) -> None:
        """Fetches the rows of what the bases lack, each entry from one holder.

        Raises:
            BaseLost: all holders of an entry failed. Read again without them: R others may well agree,
                since what was acknowledged is on one of them.
        """
        wanted: dict[EntryId, tuple[int, tuple[str, ...]]] = {}
        for shard, one in self._out.comparisons.items():
            wanted |= {entry: (shard, holders) for entry, holders in one.wanted.items()}
        self._out.supplemented = len(wanted)
        lost: set[str] = set()
        while wanted:
            groups: dict[str, list[EntryId]] = {}
            for entry, (_, holders) in wanted.items():
                holder = next((node for node in holders if node not in lost), None)
                if holder is None:
                    raise BaseLost(holders[0])
                groups.setdefault(holder, []).append(entry)
            done = await together(self._ask(node, ids, wanted) for node, ids in groups.items())
            for (node, ids), ok in zip(groups.items(), done, strict=True):
                if not ok:
                    lost.add(node)
                for entry in ids if ok else ():
                    del wanted[entry]

    async def _ask(
        self, node: str, ids: list[EntryId], wanted: dict[EntryId, tuple[int, tuple[str, ...]]]
    ) -> bool:
        """Whether `node` answered for all of `ids`; the tables are kept only then."""
        tables: list[tuple[ScanReply, pa.Table]] = []
        for start in range(0, len(ids), ONLY_MAX):
            piece = ids[start : start + ONLY_MAX]
            shards = sorted({wanted[entry][0] for entry in piece})
            try:
                tables.append(
                    await self._scan(
                        node,
                        self._scatter,
                        shards,
                        (),
                        tuple(piece),
                        self._wanted_hide(shards, piece),
                    )
                )
            except BaseLost:
                return False
        for reply, table in tables:
            self._keep(node, reply, table)
        return True

    async def _verify(self, shard: int, spoken: dict[str, Digest]) -> None:
        """Looks for entries that reached the base after the lists and hold rows of a supplement.

        Raises:
            Overtaken: there is one, so rows may be shown twice.
        """
        one, lists = self._out.comparisons[shard], self._lists_of[shard]
        answered = self._answered.get((shard, one.base))
        if not one.wanted or answered is None or answered == spoken.get(one.base):
            return
        known = {ref.entry_id: ref for refs in lists.values() for ref in refs}
        time = self._scatter.compared
        request = EntriesRequest(shard, time.start, time.end)
        listed = await self._entries(one.base, request) or ()
        new = [ref for ref in listed if ref.entry_id not in known]
        if hold_the_same(new, [known[entry] for entry in one.wanted]):
            raise Overtaken(f"{one.base} got an overlapping entry meanwhile")

    def _wanted_hide(self, shards: list[int], ids: list[EntryId]) -> Hides:
        compared = [self._out.comparisons[shard] for shard in shards]
        chosen = set(ids)
        return {
            entry: spans
            for one in compared
            for entry, spans in one.wanted_hide.items()
            if entry in chosen
        }
