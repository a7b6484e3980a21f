"""`sync_shards`: copies what a peer has of some shards and this store lacks. When and from whom: callers.

One session (cluster.anti_entropy) names the differences; what is still absent after a pause is fetched in
the order of the peer's blocks, so that a block which lacks here as a whole travels verbatim, once for all
its shards, and is put (put-if-absent, marked as repair). Entries travel, never files. The peer verifies
each block before it sends it, this store before it keeps it. Repeating a call after any failure goes on
where it ended: the trees tell.

The ring may step on meanwhile, as it does for minutes while many shards move: each question goes by the ring
of its moment, and shards that the two do not share any more drop out of what is still to be copied.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import ParamSpec, Protocol, TypeVar

from cluster.anti_entropy import LACKING_MAX, AntiEntropySession, Lacking
from cluster.pace import Pace
from records.block import EntryHeader
from records.block_codec import EncodedBlock
from records.errors import StaleRingEpoch
from records.ids import EntryId
from records.messages import EntryStatus, PutOptions, PutReply
from records.sync import SUM_BYTES, Level, Question, TreeRequest, roots_question
from runtime.clock import Clock
from runtime.deadline import Deadline

#: Bytes that a fetch aims at: more would keep the event loop busy with one answer.
FETCH_BYTES = 4 << 20
#: Entries asked for in one fetch. A block of more is fetched in parts.
FETCH_ENTRIES_MAX = 20_000
#: Bytes of answers, or of ids, that are worked through on the event loop, in some 5 ms; more on a thread.
LOOP_BYTES = 32 << 10
#: Look-ups between two chances for other work on the event loop.
_LOOKUPS = 1_000
#: How often, and after how many seconds, the newer ring that somebody knows is looked for here.
RING_LOOKS, RING_LOOK_SECONDS = 20, 0.05
_MICROS = 1_000_000
P = ParamSpec("P")
T = TypeVar("T")


class Peer(Protocol):
    """The replica that is copied from; `cluster.replica_client.Replica` is one."""

    async def tree(self, request: TreeRequest, deadline: Deadline) -> list[bytes]: ...

    async def fetch(
        self, entry_ids: tuple[EntryId, ...], deadline: Deadline
    ) -> list[EncodedBlock]: ...


class Store(Protocol):
    """The store that is copied to; `storage.service.StorageService` is one."""

    async def tree(self, request: TreeRequest) -> list[bytes]: ...

    def absent(self, entry_ids: Sequence[EntryId]) -> list[EntryId]: ...

    async def put(self, block: EncodedBlock, options: PutOptions) -> PutReply: ...


@dataclass(frozen=True, slots=True)
class SyncLimits:
    """How one call goes about it."""

    #: Entries received in the last so many seconds are left out: they may still be on their way.
    settled_after_seconds: float = 3.0
    #: Seconds until what lacks is looked for again; only what lacks then as well is copied.
    second_look_seconds: float = 1.0
    #: Seconds for an answer about trees, and for a fetch: so long does a lost answer hold up the others. A
    #: fetch asks for one block first, then for FETCH_BYTES; who gives a peer behind a slow link more
    #: time after a time-out is the caller (`SyncLoop`).
    answer_seconds: float = 10.0
    fetch_seconds: float = 10.0
    #: Entries named, at most; the rest is for the next call.
    entries_max: int = LACKING_MAX
    #: Seconds after which no further fetch begins; the rest is for the next call. A slow peer must not keep
    #: a faster one, that may have the same, from its turn.
    copy_seconds: float = 60.0


@dataclass(slots=True)
class SyncReport:
    """What a call found and did; filled in as it goes, so it tells of a call that failed as well."""

    #: Whether all of it was compared (False: there is more, or the call failed).
    compared: bool = False
    #: Whether the roots of all shards were equal.
    equal: bool = False
    differing: set[int] = field(default_factory=set)
    #: Entries that lacked here at both looks, by shard.
    lacking_by_shard: dict[int, int] = field(default_factory=dict)
    #: Of those: entries put by this call, and bytes of blocks by shard (shared out by rows).
    stored_by_shard: dict[int, int] = field(default_factory=dict)
    bytes_by_shard: dict[int, int] = field(default_factory=dict)
    #: Differences that were gone at the second look.
    settled: int = 0
    #: Entries fetched though they had come by another way meanwhile: the cost of a mistake.
    needless: int = 0
    #: Entries that `admit` refused.
    refused: int = 0
    #: Entries named and not given by the peer any more.
    vanished: int = 0
    #: Entries that were named, and turned out to be here with other contents.
    conflicts: int = 0
    #: Places that seem to hold the same ids with other contents (`AntiEntropySession.conflicting`).
    conflicting: set[bytes] = field(default_factory=set)
    #: Entries that only we hold.
    surplus: int = 0
    rounds: int = 0
    block_bytes: int = 0
    tree_bytes: int = 0

    @property
    def lacking(self) -> int:
        """Entries that lacked here."""
        return sum(self.lacking_by_shard.values())

    @property
    def stored(self) -> int:
        """Entries put."""
        return sum(self.stored_by_shard.values())

    @property
    def complete(self) -> bool:
        """Whether this store now holds all that the peer held of the settled entries (refused ones aside)."""
        left = self.lacking - self.stored - self.needless - self.refused - self.vanished
        return self.compared and left <= 0


def admit_all(_: EntryHeader) -> bool:
    """The default of `admit`."""
    return True


def shares_all(_: int) -> bool:
    """The default of `shares`."""
    return True


async def sync_shards(
    peer: Peer,
    store: Store,
    shards: Sequence[int],
    *,
    ring_epoch: Callable[[], int],
    clock: Clock,
    pace: Pace,
    shares: Callable[[int], bool] = shares_all,
    limits: SyncLimits | None = None,
    admit: Callable[[EntryHeader], bool] = admit_all,
    report: SyncReport | None = None,
) -> SyncReport:
    """Copies to `store` what `peer` has of `shards` and it lacks; at most `limits.entries_max` entries,
    for about `limits.copy_seconds`.

    `ring_epoch` is that of the ring of now, `shares` tells whether store and peer both own a shard by it.
    `admit` may refuse an entry by its header, before it is put (watermarks, deletes). Repeat the call until
    `report.equal`, or `report.complete` if the peer lacks something too. Memory: the names, and FETCH_BYTES
    or a block, whichever is more.

    Raises:
        StaleRingEpoch: the peer or this store knows a newer ring than `ring_epoch` tells in time.
        QuorumlogError: the peer cannot be reached, or the store cannot be written; what was put stays.
    """
    chosen = limits or SyncLimits()
    result = report or SyncReport()
    sync = _Sync(peer, store, ring_epoch, clock, pace, shares, chosen, admit, result)
    await sync.run(tuple(sorted(shards)))
    return result


@dataclass(slots=True)
class _Sync:
    peer: Peer
    store: Store
    ring_epoch: Callable[[], int]
    clock: Clock
    pace: Pace
    shares: Callable[[int], bool]
    limits: SyncLimits
    admit: Callable[[EntryHeader], bool]
    report: SyncReport

    async def run(self, shards: tuple[int, ...]) -> None:
        session = await self._descend(shards)
        report, whole = self.report, True
        report.equal, report.differing = session.equal, session.differing
        report.conflicting, report.surplus = session.conflicting, session.surplus
        lacking = await self._absent(list(session.lacking))
        if lacking:
            await self.clock.sleep(self.limits.second_look_seconds)
            stable = await self._absent(lacking)
            report.settled = len(lacking) - len(stable)
            size = SUM_BYTES * len(stable)
            ordered, counts = await _aside(size, _in_order, stable, session.lacking)
            report.lacking_by_shard.update(counts)
            whole = await self._copy(ordered, session.lacking)
        report.compared = whole and not session.more

    async def _descend(self, shards: tuple[int, ...]) -> AntiEntropySession:
        until = self.clock.wall_micros() - int(self.limits.settled_after_seconds * _MICROS)
        roots = await self._own((roots_question(shards, b"\0" * 16),), until)
        session = AntiEntropySession(shards, roots[0], self.limits.entries_max)
        asked = session.next()
        while asked:
            theirs = await self._theirs(asked, until)
            ours: list[bytes] = []
            rest = [one for one in asked[: len(theirs)] if one.level is not Level.ROOTS]
            while len(ours) < len(rest):
                ours += await self._own(tuple(rest[len(ours) :]), until)
            roots = [b""] * (min(len(asked), len(theirs)) - len(rest))
            size = sum(map(len, theirs))
            self.report.tree_bytes += size + sum(24 + len(q.mask) for q in asked)
            size += sum(map(len, ours))
            asked = await _aside(size, _next, session, asked, roots + ours, theirs)
            self.report.rounds = session.rounds
        return session

    async def _own(self, asked: tuple[Question, ...], until: int) -> list[bytes]:
        return await self._by_ring(lambda epoch: self.store.tree(TreeRequest(asked, until, epoch)))

    async def _theirs(self, asked: tuple[Question, ...], until: int) -> list[bytes]:
        def ask(epoch: int) -> Awaitable[list[bytes]]:
            deadline = Deadline.after(self.clock, self.limits.answer_seconds)
            return self.peer.tree(TreeRequest(asked, until, epoch), deadline)

        return await self._by_ring(ask)

    async def _by_ring(self, call: Callable[[int], Awaitable[T]]) -> T:
        """What `call` gives by the ring of now; again, by a newer one, if somebody knows that."""
        looks = 0
        while True:
            epoch = self.ring_epoch()
            try:
                return await call(epoch)
            except StaleRingEpoch:
                while (looks := looks + 1) <= RING_LOOKS and self.ring_epoch() == epoch:
                    await self.clock.sleep(RING_LOOK_SECONDS)
                if looks > RING_LOOKS:
                    raise

    async def _absent(self, ids: list[EntryId]) -> list[EntryId]:
        found: list[EntryId] = []
        for at in range(0, len(ids), _LOOKUPS):
            found += self.store.absent(ids[at : at + _LOOKUPS])
            await self.clock.sleep(0)
        return found

    async def _copy(self, waiting: list[EntryId], places: dict[EntryId, Lacking]) -> bool:
        """Fetches and puts `waiting`, in its order; whether all was asked for in its time.

        What a ring step has taken from either of the two is not.
        """
        until = Deadline.after(self.clock, self.limits.copy_seconds)
        entries_wanted, by_epoch, left_out = 1, 0, False
        while waiting:
            if until.expired:
                return False
            if (epoch := self.ring_epoch()) != by_epoch:
                kept = [one for one in waiting if self.shares(places[one].shard)]
                left_out, by_epoch, waiting = left_out or len(kept) < len(waiting), epoch, kept
                continue
            chunk = _whole_blocks(waiting, places, entries_wanted)
            deadline = Deadline.after(self.clock, self.limits.fetch_seconds)
            blocks = await self.peer.fetch(tuple(chunk), deadline)
            size = sum(len(block.data) for block in blocks)
            got = await self._put_all(blocks)
            got.intersection_update(chunk)  # whatever else came, this is what is waited for
            if not got:
                self.report.vanished += len(chunk)
                got.update(chunk)
            self.report.block_bytes += size
            entries_wanted = max(1, len(got) * FETCH_BYTES // max(size, 1))
            waiting = [one for one in chunk if one not in got] + waiting[len(chunk) :]
            await self.pace.spend(size)
        return not left_out

    async def _put_all(self, blocks: Sequence[EncodedBlock]) -> set[EntryId]:
        """Puts what one fetch brought, together, so that they share their syncs."""
        done = await asyncio.gather(*map(self._put, blocks), return_exceptions=True)
        for one in done:
            if isinstance(one, BaseException):
                raise one
        return {entry_id for one in done if isinstance(one, set) for entry_id in one}

    async def _put(self, block: EncodedBlock) -> set[EntryId]:
        """Puts a block; the ids that are done with. One with refused entries is left to be fetched without
        them.
        """
        entries = block.header.entries
        refused = {one.entry_id for one in entries if not self.admit(one)}
        if refused:
            self.report.refused += len(refused)
            return refused
        reply = await self._by_ring(
            lambda epoch: self.store.put(block, PutOptions(epoch, repair=True))
        )
        rows = max(1, block.header.rows)
        for entry, status in zip(entries, reply.statuses, strict=True):
            shard = int(entry.shard)
            if status is EntryStatus.STORED:
                _add(self.report.stored_by_shard, shard, 1)
            elif status is EntryStatus.DUPLICATE:
                self.report.needless += 1
            else:
                self.report.conflicts += 1
            _add(self.report.bytes_by_shard, shard, len(block.data) * entry.row_count // rows)
        return {one.entry_id for one in entries}


async def _aside(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `work` on `size` bytes: at once if they are few, else from a thread."""
    if size <= LOOP_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


def _next(
    session: AntiEntropySession,
    asked: Sequence[Question],
    ours: Sequence[bytes],
    theirs: Sequence[bytes],
) -> tuple[Question, ...]:
    """Takes answers; what to ask then."""
    session.take(asked, ours, theirs)
    return session.next()


def _in_order(
    ids: list[EntryId], places: dict[EntryId, Lacking]
) -> tuple[list[EntryId], Counter[int]]:
    """(`ids` in the order of the peer's blocks, how many of each shard)."""
    ordered = sorted(ids, key=lambda one: places[one].block)
    return ordered, Counter(places[one].shard for one in ids)


def _add(totals: dict[int, int], key: int, count: int) -> None:
    totals[key] = totals.get(key, 0) + count


def _whole_blocks(
    waiting: list[EntryId], places: dict[EntryId, Lacking], entries_wanted: int
) -> list[EntryId]:
    """The first of `waiting`: about so many entries, up to the end of a block, at most FETCH_ENTRIES_MAX."""
    end = min(entries_wanted, FETCH_ENTRIES_MAX, len(waiting))
    last = places[waiting[end - 1]].block
    rest = takewhile(lambda one: places[one].block == last, waiting[end:FETCH_ENTRIES_MAX])
    return [*waiting[:end], *rest]
