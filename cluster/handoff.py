"""Hinted handoff: an owner that was away gets what it missed as soon as it answers again.

    ingestor: an acknowledged block, and an owner whose last try failed
      -> `missed`: a hint at an owner that holds the block (this node, or one call away)
    keeper, twice a second, for each target that answers:
      oldest file of hints -> `sift` (pure) -> entries from our own store -> put(repair) -> remove the file

A hint is never an ack, and nothing waits for one. Delivery is put-if-absent like every repair: cut off
anywhere, the file is delivered again, and costs bytes only. Whatever a hint cannot do is left to
anti-entropy and counted: entries that the keeper no longer holds, and shards that have left the target.
These need no delivery: whoever took the shard over holds what N-W+1 owners listed, so all that was
acknowledged (cluster.shard_copy); to send entries to the owners of now would bring them what they have.
Rows under a watermark leave the keeper's store by themselves, and the target refuses them like any repair.
An owner is whom a write of now would be sent to, so the new one of a shard that moves is one already. One
target at a time, and after each put a rest in proportion to the time it took: with a share of 0.25 the
handoff uses a quarter of the link, however fast that is.

Source: DeCandia et al., "Dynamo" (SOSP 2007), section 4.6; why hints name entries: docs/adr/0022.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.replica_client import Replicas
from cluster.server import Answer, Operation
from cluster.transport import Transport
from cluster.view import ClusterView, ViewSource
from records.block import BlockHeader
from records.errors import InvalidRequest, QuorumlogError
from records.hint import Hint
from records.ids import EntryId
from records.messages import EntryStatus, PutOptions
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.logs import get_logger
from runtime.metrics import Metrics
from runtime.tasks import Supervisor
from storage.hinting import dropped_counter
from storage.service import StorageService

log = get_logger(__name__)
#: Seconds between two looks for owners that are back.
STEP_SECONDS = 0.5
#: Seconds for the call that leaves a hint with another node, and for one put of a delivery.
LEAVE_SECONDS, PUT_SECONDS = 2.0, 10.0
#: Calls under way that leave a hint with another node; beyond, the hint is dropped and counted.
LEAVING_MAX = 64
#: Entries asked of the own store at a time; blocks of up to 32 MiB come back.
FETCH_ENTRIES = 1000
#: Seconds to wait after a delivery that failed: doubled from first to max.
PAUSE_FIRST, PAUSE_MAX = 0.5, 30.0
#: Seconds of deliveries to one target, from file to file, after which the others have their turn.
TURN_SECONDS = 10.0
#: Seconds of rest after one put, at most.
REST_MAX = 5.0


@dataclass(slots=True)
class Sifted:
    """What of some hints is to be delivered, and how many entries are not, by reason."""

    wanted: list[EntryId] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str, entries: int) -> None:
        """Counts entries that are not delivered."""
        self.dropped[reason] = self.dropped.get(reason, 0) + entries


def sift(hints: Iterable[Hint], owns: Callable[[str, int], bool]) -> Sifted:
    """What to deliver, each entry once. Pure.

    Args:
        owns: whether a node owns a shard under the ring as it is now.
    """
    found, seen = Sifted(), set[EntryId]()
    for hint in hints:
        for shard, _ in hint.shards:
            ids = list(hint.ids(shard))
            if not owns(hint.target, shard):
                found.drop("moved", len(ids))
                continue
            found.wanted += [one for one in ids if one not in seen]
            seen.update(ids)
    return found


def owns_in(view: ClusterView) -> Callable[[str, int], bool]:
    """Whether a node is one that a write to a shard is sent to; False of a shard that there is not."""

    def owns(node: str, shard: int) -> bool:
        if not 0 <= shard < view.shard_count:
            return False
        return any(node in group for group in view.write_groups(shard))

    return owns


@dataclass(slots=True)
class _Backoff:
    """When a target is tried again after a failure."""

    pause: float = PAUSE_FIRST
    not_before: float = float("-inf")


class Handoff:
    """Leaves hints and delivers those kept here. `storage` is None where this node keeps no rows."""

    def __init__(
        self,
        node_id: str,
        storage: StorageService | None,
        views: ViewSource,
        replicas: Replicas,
        transport: Transport,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._node_id, self._storage = node_id, storage
        self._views, self._replicas, self._transport = views, replicas, transport
        self._clock = clock
        self._tasks = Supervisor("handoff")
        self._backoffs: dict[str, _Backoff] = {}
        self._stopped = False
        self._entries = metrics.counter(
            "quorumlog_handoff_entries_total",
            "Entries delivered to an owner that was back",
            ("target",),
        )
        self._held = metrics.counter(
            "quorumlog_handoff_held_entries_total", "Entries delivered that the owner held already"
        )
        self._bytes = metrics.counter(
            "quorumlog_handoff_bytes_total", "Bytes of blocks that hints delivered"
        )
        self._failures = metrics.counter(
            "quorumlog_handoff_failures_total", "Deliveries that failed, by error code", ("code",)
        )
        self._dropped = dropped_counter(metrics)

    # -- leaving hints ----------------------------------------------------------------------------

    def missed(self, owner: str, header: BlockHeader, holders: Sequence[str]) -> None:
        """`owner` lacks an acknowledged block that `holders` have. Never waits.

        The hint goes to this node's store if that is among them, else to one of them.
        """
        hint = Hint.of(owner, header)
        if self._storage is not None and self._node_id in holders:
            self._storage.hints.add(hint)
        elif self._stopped or len(self._tasks) >= LEAVING_MAX:
            self._dropped.labels("queue").inc(hint.entries)
        else:
            self._tasks.spawn("leave", self._leave(hint, tuple(holders)))

    async def _leave(self, hint: Hint, holders: Sequence[str]) -> None:
        deadline = Deadline.after(self._clock, LEAVE_SECONDS)
        for holder in holders:
            try:
                head = {"hint": hint.to_list()}
                await self._transport.call(holder, "hint", head, b"", deadline)
            except QuorumlogError as error:
                log.debug("a hint could not be left", target=holder, error=error)
            else:
                return
        self._dropped.labels("unreachable").inc(hint.entries)

    def operations(self) -> dict[str, Operation]:
        """What peers may call; nothing where this node keeps no rows."""
        return {} if self._storage is None else {"hint": self._take}

    async def _take(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        hint = Hint.from_list(head.get("hint"))
        if self._views.current().member(hint.target) is None:
            raise InvalidRequest(f"a hint for {hint.target!r}, which is no member")
        assert self._storage is not None
        self._storage.hints.add(hint)
        return {}, b""

    # -- delivering -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Delivers until it is cancelled; returns at once where there is nothing to keep."""
        if self._storage is not None:
            await self._tasks.forever(lambda: STEP_SECONDS, self.step)

    async def stop(self) -> None:
        """Gives up what is under way; hints that are kept stay."""
        self._stopped = True
        await self._tasks.stop()

    async def step(self) -> None:
        """One round: for each target that answers everything, or what it takes in its turn."""
        view = self._views.current()
        if self._storage is None or not view.ready:
            return
        hints = self._storage.hints
        for target in hints.targets():
            if view.member(target) is None:
                log.info("hints for a node that is no member are dropped", target=target)
                await hints.forget(target)
                continue
            backoff = self._backoffs.setdefault(target, _Backoff())
            if view.is_alive(target) and self._clock.monotonic() >= backoff.not_before:
                await self._deliver_all(target, backoff)

    async def _deliver_all(self, target: str, backoff: _Backoff) -> None:
        assert self._storage is not None
        hints, delivered = self._storage.hints, 0
        turn = Deadline.after(self._clock, TURN_SECONDS)
        try:
            while not turn.expired and (batch := await hints.oldest(target)) is not None:
                delivered += await self._deliver(target, batch.hints)
                await hints.done(target, batch.sequence)
        except Exception as error:  # noqa: BLE001 - of one target; the others must be served
            known = isinstance(error, QuorumlogError)
            self._failures.labels(error.code if known else "INTERNAL").inc()
            backoff.not_before = self._clock.monotonic() + backoff.pause
            backoff.pause = min(2 * backoff.pause, PAUSE_MAX)
            tell = log.warning if known else log.error
            tell("hint delivery failed", target=target, entries=delivered, error=error)
            return
        backoff.pause = PAUSE_FIRST
        log.info("hints were delivered", target=target, entries=delivered)

    async def _deliver(self, target: str, hints: Sequence[Hint]) -> int:
        """Puts what `hints` name to the target; how many entries it took or had."""
        sifted = sift(hints, owns_in(self._views.current()))
        for reason, count in sifted.dropped.items():
            self._dropped.labels(reason).inc(count)
        delivered, rest = 0, sifted.wanted
        while rest:
            asked, rest = rest[:FETCH_ENTRIES], rest[FETCH_ENTRIES:]
            assert self._storage is not None
            blocks = await self._storage.fetch(tuple(asked))
            got = {entry.entry_id for block in blocks for entry in block.header.entries}
            if not got:
                self._dropped.labels("not held").inc(len(asked))
                continue
            for block in blocks:
                # Of now: a file may take longer than the steps of a change of the ring.
                options = PutOptions(self._views.current().ring_epoch, repair=True)
                begun = self._clock.monotonic()
                deadline = Deadline.after(self._clock, PUT_SECONDS)
                reply = await self._replicas.get(target).put(block, options, deadline)
                self._count(target, reply.statuses, len(block.data))
                await self._rest(self._clock.monotonic() - begun)
            delivered += len(got)
            rest = [one for one in asked if one not in got] + rest
        return delivered

    def _count(self, target: str, statuses: Sequence[EntryStatus], size: int) -> None:
        stored = statuses.count(EntryStatus.STORED)
        held = statuses.count(EntryStatus.DUPLICATE)
        self._entries.labels(target).inc(stored)
        self._held.inc(held)
        self._bytes.inc(size)
        if refused := len(statuses) - stored - held:
            self._dropped.labels("refused").inc(refused)

    async def _rest(self, seconds: float) -> None:
        """Leaves the link to others after `seconds` of a put."""
        assert self._storage is not None
        share = self._storage.settings.handoff_share
        await self._clock.sleep(min(REST_MAX, seconds * (1 / share - 1)))
