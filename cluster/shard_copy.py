"""Copies one shard to those who will own it: from a quorum of its owners, until they have what these list.

    1. hand_over from N-W+1 owners or more: none of them takes a put of the ring before from now on, and all
       that was put is listed. Each acknowledged entry is on W owners, so one of these has it.
    2. take_over at each new owner: fences, producers' epochs, what was told. Before its first accept as
       an owner that is read.
    3. Their entry lists, united. What a new owner lacks is fetched from a holder and put (put-if-absent).
    4. Lists again, until nothing of the union is lacking. What is written meanwhile goes to both owner sets
       by the double quorum and need not be waited for, so this ends under load.

An entry that its holders have no more (a watermark, a damaged block) drops out of the next union; one that a
new owner takes for a duplicate without listing it is below a watermark there, and is not waited for. Bytes
per second are bounded by `Pacer`; each call has a deadline; a failed copy is simply made again.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cluster.move_calls import ENTRY_ID
from cluster.replica_client import Replicas
from records.errors import QuorumlogError, QuorumUnavailable, Unknown
from records.handover import Handover, united
from records.ids import EntryId
from records.messages import EntryStatus, PutOptions
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.logs import get_logger

log = get_logger(__name__)
#: Seconds of one call.
CALL_SECONDS = 10.0
#: Entries asked for at once; an answer has at most about 32 MiB of them.
FETCH_ENTRIES = 256
#: Rounds of lists; more than two only if holders lose what they listed.
ROUNDS_MAX = 5


class Calls(Protocol):
    """What a copy asks beside entries; cluster.move_calls."""

    async def hand_over(
        self, node: str, shard: int, ring_epoch: int, deadline: Deadline
    ) -> Handover: ...

    async def entry_ids(self, node: str, shard: int, deadline: Deadline) -> np.ndarray: ...

    async def take_over(
        self, node: str, handed: Handover, ring_epoch: int, deadline: Deadline
    ) -> None: ...


def _union(lists: list[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate(lists))


@dataclass(slots=True)
class Pacer:
    """Bytes per second over all copies of a node; 0: as fast as it goes."""

    clock: Clock
    _free_at: float = 0.0

    async def spend(self, count: int, rate: int) -> None:
        """Waits until `count` more bytes may have been sent."""
        if rate <= 0:
            return
        now = self.clock.monotonic()
        self._free_at = max(self._free_at, now) + count / rate
        if self._free_at > now:
            await self.clock.sleep(self._free_at - now)


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
    pacer: Pacer
    ring_epoch: Callable[[], int]
    told: Callable[[CopyReport], None] = field(default=lambda _: None)

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
        for owner in task.owners:
            deadline = Deadline.after(self.clock, CALL_SECONDS)
            try:
                handed[owner] = await self.calls.hand_over(
                    owner, task.shard, self.ring_epoch(), deadline
                )
            except QuorumlogError as error:
                log.warning("owner hands nothing over", shard=task.shard, owner=owner, error=error)
        self._check(task, handed)
        everything = united(handed.values())
        for target in task.targets:
            deadline = Deadline.after(self.clock, CALL_SECONDS)
            await self.calls.take_over(target, everything, self.ring_epoch(), deadline)
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
                lists[owner] = await self._list(owner, task.shard)
            except QuorumlogError as error:
                log.warning("no list of entries", shard=task.shard, owner=owner, error=error)
        self._check(task, lists)
        return lists

    async def _list(self, node: str, shard: int) -> np.ndarray:
        return await self.calls.entry_ids(node, shard, Deadline.after(self.clock, CALL_SECONDS))

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
            for start in range(0, len(chosen), FETCH_ENTRIES):
                part = chosen[start : start + FETCH_ENTRIES].tobytes()
                ids = [EntryId(part[at : at + 16]) for at in range(0, len(part), 16)]
                needless |= await self._carry(task, target, holder, ids, report)
            left = await asyncio.to_thread(np.setdiff1d, left, chosen)
            if not len(left):
                break
        return len(lacking), np.array(sorted(needless), ENTRY_ID)

    async def _carry(
        self, task: CopyTask, target: str, holder: str, entries: list[EntryId], report: CopyReport
    ) -> set[EntryId]:
        """Some entries from a holder to the target; what the holder has no more is left out.

        Those that the target took for duplicates: it has them meanwhile, or will never have them.
        """
        rest, needless = list(entries), set[EntryId]()
        while rest:
            deadline = Deadline.after(self.clock, CALL_SECONDS)
            blocks = await self.replicas.get(holder).fetch(tuple(rest), deadline)
            if not blocks:
                return needless
            for block in blocks:
                await self.pacer.spend(len(block.data), task.bytes_per_second)
                deadline = Deadline.after(self.clock, CALL_SECONDS)
                options = PutOptions(self.ring_epoch(), repair=True)
                reply = await self.replicas.get(target).put(block, options, deadline)
                report.copied += sum(one is EntryStatus.STORED for one in reply.statuses)
                pairs = zip(block.header.entries, reply.statuses, strict=True)
                needless |= {one.entry_id for one, s in pairs if s is EntryStatus.DUPLICATE}
                report.bytes += len(block.data)
                self.told(report)
            done = {entry.entry_id for block in blocks for entry in block.header.entries}
            left = [entry for entry in rest if entry not in done]
            if len(left) == len(rest):
                break
            rest = left
        return needless
