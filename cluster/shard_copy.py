"""Copies one shard to those who will own it: from a quorum of its owners, until they have what these list.

    1. hand_over from N-W+1 owners or more: none of them takes a put of the ring before from now on, and all
       that was put is listed. Each acknowledged entry is on W owners, so one of these has it.
    2. take_over at each new owner: fences, producers' epochs, what was told. Before its first accept as
       an owner that is read.
    3. Their entry lists, united. What a new owner lacks is fetched from a holder and put (put-if-absent).
    4. Lists again, until nothing of the union is lacking. What is written meanwhile goes to both owner sets
       by the double quorum and need not be waited for, so this ends under load.

An owner that lost entries to damage is none of the N-W+1 until they are back, and says so with each list:
what the copy itself finds damaged may be on no other of those. An entry that its holders have no more (a
watermark) drops out of the next union; one that a
new owner takes for a duplicate without listing it is below a watermark there, and is not waited for. Bytes
per second are bounded by `Pace`; each call has a deadline, by the bytes it carries where these are known, and
asks for less after a time-out where they are not (`Portion`); a failed copy is simply made again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from cluster.move_calls import ENTRY_ID
from cluster.pace import ASK_BYTES_MAX, LEAST_BYTES_PER_SECOND, Pace, Portion
from cluster.replica_client import Replicas
from records.block_codec import EncodedBlock
from records.errors import DeadlineExceeded, QuorumlogError, QuorumUnavailable, Unknown
from records.handover import Handover, united
from records.ids import EntryId
from records.messages import EntryStatus, PutOptions
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.logs import get_logger

log = get_logger(__name__)
T = TypeVar("T")
#: Seconds of one call, beside those for the bytes it carries: for so long does a lost answer hold a shard up.
#: Requests aim at ASK_SECONDS; an owner that needs longer gets it after a time-out.
CALL_SECONDS = 5.0
#: Entries asked for at once, at most.
FETCH_ENTRIES = 4096
#: Rounds of lists; more than two only if holders lose what they listed.
ROUNDS_MAX = 5


class Calls(Protocol):
    """What a copy asks beside entries; cluster.move_calls."""

    async def hand_over(
        self, node: str, shard: int, ring_epoch: int, deadline: Deadline
    ) -> Handover: ...

    async def entry_ids(
        self, node: str, shard: int, deadline: Deadline, whole: bool = False
    ) -> np.ndarray: ...

    async def take_over(
        self, node: str, handed: Handover, ring_epoch: int, deadline: Deadline
    ) -> None: ...


def _union(lists: list[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate(lists))


@dataclass(slots=True)
class CopyReport:
    """What one copy did. Entries and bytes that were put; entries that the owners listed."""

    shard: int
    listed: int = 0
    copied: int = 0
    bytes: int = 0
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class CopyTask:
    """One shard's copy. `targets` must have all that the `owners` (N-W+1 = `needed` of them) have."""

    shard: int
    owners: tuple[str, ...]
    needed: int
    targets: tuple[str, ...]
    bytes_per_second: int = 0


@dataclass(slots=True)
class ShardCopier:
    """Copies shards. `ring_epoch` is the newest known: it may rise while a copy runs, as others move.

    `told` is called with each report as it grows.
    """

    calls: Calls
    replicas: Replicas
    clock: Clock
    pace: Pace
    ring_epoch: Callable[[], int]
    told: Callable[[CopyReport], None] = field(default=lambda _: None)
    #: Whether an owner's heartbeats come. Who is silent is not asked where the others are enough.
    heard: Callable[[str], bool] = field(default=lambda _: True)
    #: How much each node is asked for at once, kept from copy to copy; few, as nodes are few.
    _portions: dict[str, Portion] = field(default_factory=dict)

    async def copy(self, task: CopyTask) -> CopyReport:
        """Returns when each target has all that N-W+1 owners list.

        Raises:
            QuorumUnavailable: fewer than N-W+1 owners answer.
            StaleRingEpoch, ConnectionLost, …: a target does not; look at the state and try again.
        """
        report = CopyReport(task.shard)
        answering = await self._fence(task)
        expired = dict.fromkeys(task.targets, np.empty(0, ENTRY_ID))
        for _ in range(ROUNDS_MAX):
            report.rounds += 1
            lists = await self._lists(task, answering)
            wanted = await asyncio.to_thread(_union, list(lists.values()))
            report.listed = len(wanted)
            lacking = 0
            for target in task.targets:
                left = await asyncio.to_thread(np.setdiff1d, wanted, expired[target])
                found, needless = await self._fill(task, target, left, lists, report)
                expired[target] = np.concatenate((expired[target], needless))
                lacking += found
            self.told(report)
            if not lacking:
                return report
        raise Unknown(f"shard {task.shard}: still not alike after {ROUNDS_MAX} rounds")

    async def _fence(self, task: CopyTask) -> list[str]:
        """Steps 1 and 2; the owners that answered."""
        handed: dict[str, Handover] = {}
        heard = [owner for owner in task.owners if self.heard(owner)]
        for owner in heard if len(heard) >= task.needed else task.owners:
            give = partial(self.calls.hand_over, owner, task.shard, self.ring_epoch())
            try:
                handed[owner] = await self._whole(f"what {owner} hands over", give)
            except QuorumlogError as error:
                log.warning("owner hands nothing over", shard=task.shard, owner=owner, error=error)
        self._check(task, handed)
        everything = united(handed.values())
        for target in task.targets:
            take = partial(self.calls.take_over, target, everything, self.ring_epoch())
            await self._whole(f"what {target} takes over", take)
        return list(handed)

    @staticmethod
    def _check(task: CopyTask, answered: Collection[str]) -> None:
        if len(answered) < task.needed:
            raise QuorumUnavailable(
                f"shard {task.shard}: {len(answered)} of {len(task.owners)} owners answered,"
                f" {task.needed} needed to copy it",
                acks=len(answered),
                needed=task.needed,
            )

    async def _lists(self, task: CopyTask, owners: Sequence[str]) -> dict[str, np.ndarray]:
        lists: dict[str, np.ndarray] = {}
        for owner in owners:
            try:
                lists[owner] = await self._list(owner, task.shard, whole=True)
            except QuorumlogError as error:
                log.warning("no list of entries", shard=task.shard, owner=owner, error=error)
        self._check(task, lists)
        return lists

    async def _list(self, node: str, shard: int, whole: bool = False) -> np.ndarray:
        """What a node lists; `whole`: see Calls."""

        def ask(deadline: Deadline) -> Awaitable[np.ndarray]:
            return self.calls.entry_ids(node, shard, deadline, whole)

        return await self._whole(f"list of {node}", ask)

    async def _whole(self, what: str, call: Callable[[Deadline], Awaitable[T]]) -> T:
        """A call that cannot be asked for less: after a time-out it gets longer, while needed."""
        portion, begun = self._portion(what, 1), self.clock.monotonic()
        try:
            found = await call(Deadline.after(self.clock, portion.seconds))
        except DeadlineExceeded:
            portion.timed_out()
            raise
        portion.came(1, 0, self.clock.monotonic() - begun)
        return found

    def _portion(self, what: str, things_max: int = FETCH_ENTRIES) -> Portion:
        return self._portions.setdefault(what, Portion(CALL_SECONDS, things_max))

    async def _fill(
        self,
        task: CopyTask,
        target: str,
        wanted: np.ndarray,
        lists: dict[str, np.ndarray],
        report: CopyReport,
    ) -> tuple[int, np.ndarray]:
        """Puts to `target` what it lacks of `wanted`; (how many, those that it took for duplicates)."""
        held = lists[target] if target in lists else await self._list(target, task.shard)
        lacking = await asyncio.to_thread(np.setdiff1d, wanted, held)
        left = lacking
        needless: set[EntryId] = set()
        for holder, entries in lists.items():
            chosen = entries[await asyncio.to_thread(np.isin, entries, left)]
            needless |= await self._carry(task, target, holder, chosen, report)
            left = await asyncio.to_thread(np.setdiff1d, left, chosen)
            if not len(left):
                break
        return len(lacking), np.array(sorted(needless), ENTRY_ID)

    async def _carry(
        self, task: CopyTask, target: str, holder: str, entries: np.ndarray, report: CopyReport
    ) -> set[EntryId]:
        """Some entries from a holder to the target; what the holder has no more is left out.

        Those that the target took for duplicates: it has them meanwhile, or will never have them.
        """
        needless, portion, at = set[EntryId](), self._portion(holder), 0
        while at < len(entries):
            part = entries[at : at + portion.things].tobytes()
            rest = [EntryId(part[k : k + 16]) for k in range(0, len(part), 16)]
            at += len(rest)
            while rest:
                asked = rest[: portion.things]
                blocks = await self._fetch(task, holder, asked, portion)
                if blocks is None:  # too much for the time: less of the same
                    continue
                done = {entry.entry_id for block in blocks for entry in block.header.entries}
                for block in blocks:
                    needless |= await self._put(task, target, block, report)
                left = [entry for entry in asked if entry not in done]
                rest = (left if len(left) < len(asked) else []) + rest[len(asked) :]
        return needless

    async def _fetch(
        self, task: CopyTask, holder: str, entries: list[EntryId], portion: Portion
    ) -> list[EncodedBlock] | None:
        """Blocks of some of `entries`; None after a time-out, with a smaller portion."""
        begun = self.clock.monotonic()
        deadline = Deadline.after(self.clock, portion.seconds)
        try:
            blocks = await self.replicas.get(holder).fetch(tuple(entries), deadline)
        except DeadlineExceeded:
            if not portion.timed_out():
                raise
            log.info("a copy asks for less", shard=task.shard, owner=holder, entries=portion.things)
            return None
        size = sum(len(block.data) for block in blocks)
        came = sum(len(block.header.entries) for block in blocks)
        most = task.bytes_per_second or ASK_BYTES_MAX
        portion.came(came, size, self.clock.monotonic() - begun, most)
        await self.pace.spend(size, task.bytes_per_second)
        return blocks

    async def _put(
        self, task: CopyTask, target: str, block: EncodedBlock, report: CopyReport
    ) -> set[EntryId]:
        """Puts a block to the target; those of its entries that this took for duplicates."""
        size = len(block.data)
        deadline = Deadline.after(self.clock, CALL_SECONDS + size / LEAST_BYTES_PER_SECOND)
        options = PutOptions(self.ring_epoch(), repair=True)
        reply = await self.replicas.get(target).put(block, options, deadline)
        report.copied += sum(one is EntryStatus.STORED for one in reply.statuses)
        report.bytes += size
        self.told(report)
        pairs = zip(block.header.entries, reply.statuses, strict=True)
        return {one.entry_id for one, status in pairs if status is EntryStatus.DUPLICATE}
