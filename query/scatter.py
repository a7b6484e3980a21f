"""Scatter: for each shard data from one owner and digests from R-1 others, one request a node.

A read may be cut into slices of time, each a Scatter of its own with other data owners (see spread); the
digests are about the whole range all the same, so that slices that agree are one read.

A node that fails is replaced by the shard's next owner; a node that is slow (see limits.Latencies) is
raced by the next ones: the first whole answer wins, the loser is cancelled. What is left over is told,
never hidden: shards without data, and shards that fewer than R owners spoke for.

Source: DeCandia et al., "Dynamo" (SOSP 2007), 4.5; hedging: Dean, Barroso, "The Tail at Scale".
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from query.limits import Latencies, kind_of
from query.together import end, together
from records.errors import InvalidRequest, QuorumlogError, TooLarge
from records.ids import EntryId
from records.messages import ScanReply, ScanRequest
from records.predicates import ScanPlan
from records.timestamps import TimeRange
from runtime.deadline import Deadline
from runtime.logs import get_logger

if TYPE_CHECKING:
    from cluster.replica_client import Replicas

log = get_logger(__name__)
Digest = tuple[int, bytes]


class Owners(Protocol):
    """What scatter needs of a ClusterView."""

    node_id: str
    #: Where in the replicated state watermarks or deletes changed last; 0 if not known.
    hidden_index: int

    @property
    def ring_epoch(self) -> int:
        """The epoch of the ring that says who owns what."""
        ...

    def owners(self, shard: int) -> tuple[str, ...]:
        """Storage nodes of a shard in preference order."""
        ...

    def is_alive(self, node: str) -> bool:
        """A hint."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """One node's answer: the rows (or partial aggregates) of `shards`, from one snapshot."""

    node: str
    shards: tuple[int, ...]
    reply: ScanReply
    table: pa.Table


@dataclass(slots=True)
class Scattered:
    """All that came back. `digests[shard][node]`: what each owner said of the shard.

    `restless`: shards of which an owner told one slice other than another (see `merged`).
    `ring_epoch`: the newest ring that one of the owners knew.
    `lost`: how many blocks each owner had set aside when it spoke first.
    `holes[shard]`: owners that lost entries of it to damage: what they say is used, and does not count to R.
    """

    parts: list[Part] = field(default_factory=list)
    digests: dict[int, dict[str, Digest]] = field(default_factory=dict)
    received_max: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    restless: set[int] = field(default_factory=set)
    ring_epoch: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    holes: dict[int, set[str]] = field(default_factory=dict)

    def add_reply(self, node: str, reply: ScanReply) -> None:
        """Notes what a node said of its shards."""
        self.ring_epoch = max(self.ring_epoch, reply.ring_epoch)
        self.received_max = max(self.received_max, reply.received_max)
        self.lost[node] = min(reply.lost, self.lost.get(node, reply.lost))
        for shard, digest in reply.digests.items():
            self.digests.setdefault(shard, {})[node] = digest
        for shard in reply.holes:
            self.holes.setdefault(shard, set()).add(node)

    def counted(self, shard: int) -> int:
        """How many owners spoke for a shard that have lost nothing of it."""
        return len(self.digests.get(shard, ())) - len(self.holes.get(shard, ()))

    @property
    def base(self) -> dict[int, str]:
        """The owner that gave each shard's data."""
        return {shard: part.node for part in self.parts for shard in part.shards}

    def differing(self) -> list[int]:
        """Shards whose owners do not all say the same."""
        split = {s for s, said in self.digests.items() if len(set(said.values())) > 1}
        return sorted(split | self.restless)


def merged(founds: Sequence[Scattered]) -> Scattered:
    """What several slices of one read brought, as far as owners are compared: parts and digests."""
    if len(founds) == 1:
        return founds[0]
    whole = Scattered([part for found in founds for part in found.parts])
    whole.ring_epoch = max(found.ring_epoch for found in founds)
    for found in founds:
        for shard, said in found.digests.items():
            known = whole.digests.setdefault(shard, {})
            if any(known.get(node, digest) != digest for node, digest in said.items()):
                whole.restless.add(shard)
            known |= said
        for shard, nodes in found.holes.items():
            whole.holes.setdefault(shard, set()).update(nodes)
    return whole


def rank(view: Owners, shard: int, turn: int, avoid: frozenset[str]) -> list[str]:
    """The owners of a shard, likely ones first; equals rotate with `turn`, alike for equal owner sets."""
    owners = sorted(view.owners(shard))
    turned = [owners[(turn + i) % len(owners)] for i in range(len(owners))]
    return sorted(turned, key=lambda node: (node in avoid, not view.is_alive(node)))


def likely(view: Owners, shard: int, avoid: frozenset[str]) -> list[str]:
    """The owners that may well answer, in order of their names; all of them if none may."""
    owners = sorted(view.owners(shard))
    return [one for one in owners if one not in avoid and view.is_alive(one)] or owners


def assign(
    view: Owners, shards: Sequence[int], turn: int, avoid: frozenset[str], slice_: int | None = None
) -> dict[int, str]:
    """The data owner of each shard: the least loaded likely owner, this node among equals.

    Shards with the same owners go to the same node, as a block holds the rows of a whole owner set: on
    several nodes it would be opened, decoded and masked on each. Slices of one read go to different
    owners, the same slice to the same one whoever asks: what it remembers is of use when asked again.
    """
    load: Counter[str] = Counter()
    chosen: dict[int, str] = {}
    alike: dict[tuple[str, ...], list[int]] = {}
    ordered: dict[tuple[str, ...], tuple[str, ...]] = {}
    for shard in shards:
        owners = view.owners(shard)
        if owners not in ordered:
            ordered[owners] = tuple(sorted(owners))
        alike.setdefault(ordered[owners], []).append(shard)
    for index, group in enumerate(alike.values()):
        if slice_ is not None and (able := likely(view, group[0], avoid)):
            chosen |= dict.fromkeys(group, able[(slice_ + index) % len(able)])
            continue
        ranked = rank(view, group[0], turn + index, avoid)
        if not ranked:
            continue

        def cost(node: str, ranked: list[str] = ranked) -> tuple[Any, ...]:
            unlikely = (node in avoid, not view.is_alive(node))
            return (*unlikely, load[node], node != view.node_id, ranked.index(node))

        node = min(ranked, key=cost)
        chosen |= dict.fromkeys(group, node)
        load[node] += len(group)
    return chosen


class Scatter:
    """One scatter of one plan. `needed[shard]`: how many owners have to speak for it."""

    def __init__(
        self,
        view: Owners,
        replicas: "Replicas",
        plan: ScanPlan,
        needed: dict[int, int],
        deadline: Deadline,
        latencies: Latencies,
        metrics: "ScatterMetrics",
        turn: int = 0,
        avoid: frozenset[str] = frozenset(),
        slice_: int | None = None,
        compared: TimeRange | None = None,
    ) -> None:
        """`slice_`, `compared`: this is the nth slice of a read of the range `compared`."""
        self._view = view
        self._replicas = replicas
        self.plan = plan
        self._needed = needed
        self.deadline = deadline
        self._latencies = latencies
        self._metrics = metrics
        self._turn = turn
        self._avoid = avoid
        self._slice = slice_
        self.compared = compared or plan.time
        self._kind = kind_of(plan)
        self._data_of: dict[int, str] = {}
        self._ranked: dict[tuple[str, ...], list[str]] = {}
        self._too_large: TooLarge | None = None
        self.result = Scattered()

    @property
    def ring_epoch(self) -> int:
        """The ring by which owners are asked."""
        return self._view.ring_epoch

    @property
    def until(self) -> int | None:
        """The snapshot that is read, microseconds; None: all there is."""
        return self.plan.received_until

    async def run(self, shards: Sequence[int], with_data: bool = True) -> Scattered:
        """Asks for `shards`; without data only what R owners say of each.

        Raises:
            InvalidRequest: an owner cannot evaluate the plan.
            TooLarge: an owner cannot send its answer, and this node has no store that could give it.
        """
        if with_data:
            self._data_of = assign(self._view, shards, self._turn, self._avoid, self._slice)
        digests = self._digest_owners(shards)
        await together(
            self._unit(node, data, digest, frozenset())
            for node, (data, digest) in _by_node(self._data_of, digests).items()
        )
        if self._too_large and self.result.base.keys() != self._data_of.keys():
            raise self._too_large
        await self._top_up(shards, with_data)
        return self.result

    def _rank(self, shard: int) -> list[str]:
        """See `rank`; worked out once for each set of owners."""
        owners = self._view.owners(shard)
        if owners not in self._ranked:
            self._ranked[owners] = rank(self._view, shard, self._turn, self._avoid)
        return self._ranked[owners]

    def _digest_owners(self, shards: Iterable[int]) -> list[tuple[int, str]]:
        chosen: list[tuple[int, str]] = []
        alike: dict[tuple, list[str]] = {}
        for shard in shards:
            data = self._data_of.get(shard)
            count = max(0, self._needed[shard] - (1 if data else 0))
            kind = (self._view.owners(shard), data, count)
            if kind not in alike:
                alike[kind] = [node for node in self._rank(shard) if node != data][:count]
            chosen += [(shard, node) for node in alike[kind]]
        return chosen

    async def scan(self, node: str, request: ScanRequest) -> tuple[ScanReply, pa.Table]:
        """One request to one node, timed; `deadline_ms` is filled in."""
        clock = self.deadline.clock
        started = clock.monotonic()
        try:
            reply, table = await self.deadline.wait(
                self._replicas.get(node).scan(request, self.deadline)
            )
        except QuorumlogError as error:
            self._metrics.scan_failures.labels(error.code).inc()
            raise
        seconds = clock.monotonic() - started
        self._metrics.scan_seconds.observe(seconds)
        self._latencies.observe(self._kind, seconds)
        return reply, table

    def request(
        self,
        data: tuple[int, ...],
        digest: tuple[int, ...] = (),
        only: tuple[EntryId, ...] | None = None,
        hide: dict[EntryId, Any] | None = None,
    ) -> ScanRequest:
        """A request of this plan with what is left of the deadline; data shards are digested as well."""
        left = max(1, int(self.deadline.remaining() * 1000))
        hidden = tuple((hide or {}).items())
        compared = None if self._slice is None else self.compared
        digests = (*data, *digest)
        return ScanRequest(
            self.plan,
            data,
            digests,
            only,
            hidden,
            left,
            True,
            compared,
            hidden_index=self._view.hidden_index,
        )

    async def _unit(
        self, node: str, data: tuple[int, ...], digest: tuple[int, ...], tried: frozenset[str]
    ) -> bool:
        """Gets data and digests from `node`, or from others if it is slow or fails.

        Returns whether every data shard was answered. A result counts only once it is whole.
        """
        answers = await self._answers(node, data, digest, tried)
        for part, digest_reply_node, reply in answers:
            if part is not None:
                self.result.parts.append(part)
            self.result.add_reply(digest_reply_node, reply)
        return _covered(answers) >= set(data)

    async def _answers(
        self, node: str, data: tuple[int, ...], digest: tuple[int, ...], tried: frozenset[str]
    ) -> "list[Answer]":
        primary = asyncio.ensure_future(self._ask(node, data, digest))
        tasks: list[asyncio.Future[Any]] = [primary]
        try:
            if await self._slow(primary, node, data, digest, tried):
                self._metrics.hedges.inc()
                self._latencies.suspect(node, self.deadline.clock.monotonic())
                backup = asyncio.ensure_future(self._elsewhere(data, digest, tried | {node}))
                tasks.append(backup)
                return await self._race(primary, backup, data)
            found = await primary
            return [found] if found else await self._elsewhere(data, digest, tried | {node})
        finally:
            await end(tasks)

    async def _slow(
        self,
        primary: "asyncio.Future[Answer | None]",
        node: str,
        data: tuple[int, ...],
        digest: tuple[int, ...],
        tried: frozenset[str],
    ) -> bool:
        """Whether `node` is slow, others can do all of its work, and a hedge may be spent on it."""
        await asyncio.wait({primary}, timeout=self._latencies.hedge_seconds(self._kind))
        if primary.done():
            return False
        others = self._next_owners(data, digest, tried | {node})
        alive = all(self._view.is_alive(one) for one in others)
        covered = sum(len(shards) for shards, _ in others.values()) == len(data)
        if not others or not alive or not covered:
            return False
        if not self._latencies.spend():
            await asyncio.wait({primary}, timeout=self._latencies.PATIENCE_SECONDS)
        return not primary.done()

    async def _race(
        self,
        primary: "asyncio.Future[Answer | None]",
        backup: "asyncio.Future[list[Answer]]",
        data: tuple[int, ...],
    ) -> "list[Answer]":
        """The first whole answer."""
        await asyncio.wait({primary, backup}, return_when=asyncio.FIRST_COMPLETED)
        if primary.done():
            found = primary.result()
            return [found] if found else await backup
        others = backup.result()
        if _covered(others) >= set(data):
            self._metrics.hedges_won.inc()
            return others
        found = await primary
        return [found] if found else others

    async def _ask(
        self, node: str, data: tuple[int, ...], digest: tuple[int, ...]
    ) -> "Answer | None":
        """One node's answer; None if it failed in a way that another owner may not."""
        try:
            reply, table = await self.scan(node, self.request(data, digest))
        except InvalidRequest:
            raise
        except (
            TooLarge
        ) as error:  # of any peer; the own store sends nothing, so it has no such bound
            self._too_large = error
            return None
        except QuorumlogError as error:
            self.result.failures[node] = error.code
            self._latencies.suspect(node, self.deadline.clock.monotonic())
            log.warning("scan failed", target=node, shards=len(data), error=error)
            return None
        return (Part(node, data, reply, table) if data else None, node, reply)

    async def _elsewhere(
        self, data: tuple[int, ...], digest: tuple[int, ...], tried: frozenset[str]
    ) -> "list[Answer]":
        """The same shards from their next owners."""
        groups = self._next_owners(data, digest, tried)
        found = await together(
            self._answers(node, part, said, tried) for node, (part, said) in groups.items()
        )
        return [one for answers in found for one in answers]

    def _next_owners(
        self, data: Iterable[int], digest: Iterable[int], tried: frozenset[str]
    ) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Who to ask when all of `tried` were asked; owners that have not spoken for a shard first."""
        moved: dict[int, str] = {}
        for shard in data:
            ranked = [n for n in self._rank(shard) if n not in tried]
            if self._too_large:
                ranked = [n for n in ranked if n == self._view.node_id]
            spoken = self.result.digests.get(shard, {})
            alive = self._view.is_alive
            ranked.sort(key=lambda n, said=spoken: (not alive(n), n in said))
            if ranked:
                moved[shard] = ranked[0]
        said: list[tuple[int, str]] = []
        for shard in digest:
            ranked = self._rank(shard)
            others = [n for n in ranked if n not in tried and n != self._data_of.get(shard)]
            said += [(shard, node) for node in others[:1]]
        return _by_node(moved, said)

    async def _top_up(self, shards: Sequence[int], with_data: bool) -> None:
        """Digests from further owners, until R have spoken for each shard or none is left."""
        asked: dict[int, set[str]] = {shard: set() for shard in shards}
        base = self.result.base
        while not self.deadline.expired:
            wanted: list[tuple[int, str]] = []
            for shard in shards:
                said = self.result.digests.get(shard, {})
                short = self._needed[shard] - self.result.counted(shard)
                if short <= 0 or (with_data and shard not in base):
                    continue
                spent = said.keys() | asked[shard] | self.result.failures.keys()
                ranked = self._rank(shard)
                rest = [n for n in ranked if n not in spent]
                wanted += [(shard, node) for node in rest[:short]]
            if not wanted:
                return
            for shard, node in wanted:
                asked[shard].add(node)
            answers = await together(
                self._ask(node, (), said) for node, (_, said) in _by_node({}, wanted).items()
            )
            for answer in answers:
                if answer:
                    self.result.add_reply(answer[1], answer[2])


#: (the data if any was asked, who answered, its reply)
Answer = tuple[Part | None, str, ScanReply]


def _covered(answers: "list[Answer]") -> set[int]:
    return {shard for part, _, _ in answers if part for shard in part.shards}


def _by_node(
    data: dict[int, str], digests: Iterable[tuple[int, str]]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """node -> (data shards, digest shards)."""
    grouped: dict[str, tuple[list[int], list[int]]] = {}
    for shard, node in data.items():
        grouped.setdefault(node, ([], []))[0].append(shard)
    for shard, node in digests:
        grouped.setdefault(node, ([], []))[1].append(shard)
    return {node: (tuple(a), tuple(b)) for node, (a, b) in grouped.items()}


class ScatterMetrics:
    """The metrics of scatter; one per coordinator."""

    def __init__(self, metrics: Any) -> None:
        self.scan_seconds = metrics.histogram(
            "quorumlog_query_scan_seconds", "Time of one scan of one replica."
        )
        self.scan_failures = metrics.counter(
            "quorumlog_query_scan_failures_total", "Scans that failed, by error code.", ["code"]
        )
        self.hedges = metrics.counter(
            "quorumlog_query_hedges_total", "Scans repeated on another owner as one was slow."
        )
        self.hedges_won = metrics.counter(
            "quorumlog_query_hedges_won_total", "Hedges that answered first."
        )
