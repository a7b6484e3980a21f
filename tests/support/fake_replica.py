"""A small faithful model of storage nodes, in memory, with scripted faults; and of the cluster's view.

`FakeReplica` is put-if-absent by entry id and by sequence, compares rows as dicts, and knows the three
fences (ring, shard, producer epoch). It is written for clarity, row by row, so that it is an independent
check on the write path, not a copy of the storage package.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from records.block import EntryHeader, ProducerKey
from records.block_codec import EncodedBlock, decode_block, encode_block, open_body, parse_prefix
from records.columns import plain
from records.consistency import QuorumPolicy
from records.errors import ConnectionLost, NotFound, NotReady, StaleRingEpoch, StaleShardEpoch
from records.ids import BlockId, EntryId, RingEpoch
from records.intervals import SeqIntervals
from records.messages import (
    EntriesReply,
    EntriesRequest,
    EntryStatus,
    EpochSealed,
    ProducersRequest,
    ProducerState,
    ProducerStates,
    PutOptions,
    PutReply,
    SealRequest,
)
from records.visibility import entry_ref, hidden_parts
from ring.generations import UNSPLIT, Generation, generation_of
from ring.shards import shard_of, shards_of_service, shards_of_services
from runtime.deadline import Deadline


@dataclass
class Fault:
    """What befalls one put (or another call): wait, then fail, or act and lose the reply."""

    delay: float = 0.0
    gate: asyncio.Event | None = None
    error: Exception | None = None
    lose_reply: bool = False
    call: str = "put"


@dataclass
class Held:
    """One entry as stored."""

    entry: EntryHeader
    block_id: BlockId
    table: pa.Table
    rows: list[dict[str, Any]]


def comparable(row: dict[str, Any], entry: EntryHeader) -> dict[str, Any]:
    """A row as two copies of it must agree on."""
    facts = ("tenant", "received_at", "producer", "producer_epoch")
    kept = {
        name: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in row.items()
        if value is not None and not name.startswith("_") and name not in facts
    }
    if kept.get("timestamp") == row.get("received_at"):
        kept.pop("timestamp", None)
    return kept


def rows_of(block: EncodedBlock) -> pa.Table:
    """All rows of a block, dictionaries decoded."""
    start, end = parse_prefix(block.data).body
    if start == end:
        return pa.table({})
    body = memoryview(block.data)[start:end]
    return plain(open_body(body, block.header.columns).read())


@dataclass
class FakeReplica:
    """One storage node. `down`: refuses connections; `frozen`: takes calls and never answers.

    `broken`: the error that every call of that name meets; `always`: that all calls meet.
    `gate`: what all calls wait for. `hole`: it says that it lost entries to damage. `passed`: its watermark
    hides what repairs bring: duplicates, not stored.
    """

    node: str
    held: dict[EntryId, Held] = field(default_factory=dict)
    ring_epoch: int = 1
    shard_epochs: dict[int, int] = field(default_factory=dict)
    producer_epochs: dict[tuple[int, ProducerKey], int] = field(default_factory=dict)
    told: dict[tuple, int] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    down: bool = False
    frozen: bool = False
    always: Exception | None = None
    broken: dict[str, Exception] = field(default_factory=dict)
    delay: float = 0.0
    gate: asyncio.Event | None = None
    hole: bool = False
    passed: bool = False
    calls: list[str] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    put_sizes: list[int] = field(default_factory=list)

    async def _meet_fault(self, deadline: Deadline) -> Fault:
        fault = Fault(self.delay, error=self.broken.get(self.calls[-1], self.always))
        if self.faults and self.faults[0].call == self.calls[-1]:
            fault = self.faults.popleft()
        if self.down:
            raise ConnectionLost(f"{self.node} refused the connection", definite=True)
        if self.frozen:
            await deadline.wait(asyncio.Event().wait())
        for gate in (self.gate, fault.gate):
            if gate is not None:
                await deadline.wait(gate.wait())
        if fault.delay:
            await deadline.wait(asyncio.sleep(fault.delay))
        else:
            await asyncio.sleep(0)
        if fault.error is not None:
            raise fault.error
        return fault

    async def put(self, block: EncodedBlock, options: PutOptions, deadline: Deadline) -> PutReply:
        self.calls.append("put")
        fault = await self._meet_fault(deadline)
        reply = self.put_now(block, options)
        if fault.lose_reply:
            raise ConnectionLost(f"the reply of {self.node} is lost")
        return reply

    def put_now(self, block: EncodedBlock, options: PutOptions) -> PutReply:
        """The effect of a put."""
        if options.ring_epoch < self.ring_epoch:
            raise StaleRingEpoch("an old ring", epoch=self.ring_epoch)
        block = decode_block(bytes(block.data))
        self.blocks.append(bytes(block.data))
        for key, value in options.told:
            self.told[key] = max(self.told.get(key, 0), value)
        table = rows_of(block)
        self.put_sizes.append(table.num_rows)
        answers = [self._put_entry(block, e, table, options.repair) for e in block.header.entries]
        keys = {e.producer_key: e.shard for e in block.header.entries if e.sequenced}
        states = [state for key, shard in keys.items() for state in self._states(shard, key)]
        return PutReply(
            tuple(one[0] for one in answers),
            tuple(one[1] for one in answers),
            tuple(one[2] for one in answers),
            tuple(states),
        )

    def _put_entry(
        self, block: EncodedBlock, entry: EntryHeader, table: pa.Table, repair: bool
    ) -> tuple[EntryStatus, int, tuple]:
        if entry.sequenced and not repair:
            known = self.shard_epochs.get(entry.shard, 0)
            if entry.shard_epoch < known:
                return EntryStatus.STALE, 0, ()
            self.shard_epochs[entry.shard] = int(entry.shard_epoch)
            key = (int(entry.shard), entry.producer_key)
            if entry.producer_epoch < self.producer_epochs.get(key, 0):
                return EntryStatus.FENCED, 0, ()
            self.producer_epochs[key] = int(entry.producer_epoch)
        mine = table.slice(entry.row_start, entry.row_count)
        rows = [comparable(row, entry) for row in mine.to_pylist()]
        known_entry = self.held.get(entry.entry_id)
        if known_entry is not None:
            same = known_entry.entry.content_hash == entry.content_hash or known_entry.rows == rows
            conflicts = () if same else entry.seqs
            status = EntryStatus.DUPLICATE if same else EntryStatus.CONFLICT
            return status, entry.row_count if same else 0, conflicts
        if repair and self.passed:
            return EntryStatus.DUPLICATE, entry.row_count, ()
        held_rows, conflicts = self._overlaps(entry, rows)
        if conflicts:
            return EntryStatus.CONFLICT, held_rows, tuple(SeqIntervals(conflicts))
        self.held[entry.entry_id] = Held(entry, block.header.block_id, mine, rows)
        return EntryStatus.STORED, held_rows, ()

    def _overlaps(self, entry: EntryHeader, rows: list[dict]) -> tuple[int, list]:
        if not entry.sequenced:
            return 0, []
        by_seq = {int(row["seq"]): row for row in rows}
        held, conflicts = 0, []
        for other in self.held.values():
            same = (other.entry.producer_key, other.entry.producer_epoch)
            if same == (entry.producer_key, entry.producer_epoch):
                for row in other.rows:
                    seq = int(row["seq"])
                    if seq in by_seq:
                        held += 1
                        if by_seq[seq] != row:
                            conflicts.append((seq, seq))
        return held, conflicts

    def _states(self, shard: int, producer: ProducerKey) -> list[ProducerState]:
        spans: dict[int, SeqIntervals] = {}
        for one in self.held.values():
            if one.entry.producer_key == producer and one.entry.shard == shard:
                found = spans.setdefault(int(one.entry.producer_epoch), SeqIntervals())
                found.update(one.entry.seqs)
                found.update(one.entry.skips)
        newest = self.producer_epochs.get((shard, producer), 0)
        epochs = {*spans, newest} - {0}
        return [
            ProducerState(
                (*producer, epoch),
                tuple(spans.get(epoch, SeqIntervals())),
                self.told.get((*producer, epoch), 0),
                newest,
            )
            for epoch in sorted(epochs)
        ]

    async def entries(self, request: EntriesRequest, deadline: Deadline) -> EntriesReply:
        self.calls.append("entries")
        await self._meet_fault(deadline)
        listed = [
            entry_ref(one.entry)
            for one in self.held.values()
            if one.entry.shard == request.shard
            and one.entry.min_ts < request.end
            and one.entry.max_ts >= request.start
        ]
        return EntriesReply(tuple(listed))

    async def fetch(self, entry_ids: tuple[EntryId, ...], deadline: Deadline) -> list[EncodedBlock]:
        self.calls.append("fetch")
        await self._meet_fault(deadline)
        found: list[EncodedBlock] = []
        for entry_id in entry_ids:
            one = self.held.get(entry_id)
            if one is not None:
                entry = replace(one.entry, row_start=0)
                found.append(
                    encode_block(
                        one.block_id, RingEpoch(self.ring_epoch), _typed(one.table), (entry,)
                    )
                )
        return found

    async def seal(self, request: SealRequest, deadline: Deadline) -> None:
        self.calls.append("seal")
        await self._meet_fault(deadline)
        known = self.shard_epochs.get(request.shard, 0)
        if request.epoch < known:
            raise StaleShardEpoch("sealed by a newer leader", shard=request.shard, epoch=known)
        self.shard_epochs[request.shard] = request.epoch

    async def producer_states(
        self, shard: int, producer: ProducerKey, deadline: Deadline
    ) -> ProducerStates:
        self.calls.append("producer_states")
        await self._meet_fault(deadline)
        return ProducerStates(tuple(self._states(shard, producer)), self.hole)

    async def producers(
        self, request: ProducersRequest, deadline: Deadline
    ) -> list[tuple[int, ProducerState]]:
        self.calls.append("producers")
        await self._meet_fault(deadline)
        keys = {(int(one.entry.shard), one.entry.producer_key) for one in self.held.values()}
        found = [
            (shard, state) for shard, key in sorted(keys) for state in self._states(shard, key)
        ]
        return [
            (shard, state)
            for shard, state in found
            if shard in request.shards
            and (shard, *state.producer) > request.after
            and request.tenant in ("", state.producer[0])
            and request.service in ("", state.producer[1])
            and not (request.gaps and [span[0] for span in state.spans] in ([], [1]))
        ][: request.most]

    async def seal_producer_epoch(
        self, shard: int, producer: ProducerKey, epoch: int, ring_epoch: int, deadline: Deadline
    ) -> EpochSealed:
        self.calls.append("seal_producer_epoch")
        fault = await self._meet_fault(deadline)
        if ring_epoch < self.ring_epoch:
            raise StaleRingEpoch("an old ring", epoch=self.ring_epoch)
        known = self.producer_epochs.get((shard, producer), 0)
        newest = self.producer_epochs[shard, producer] = max(known, epoch)
        if fault.lose_reply:
            raise ConnectionLost(f"the reply of {self.node} is lost")
        return EpochSealed(newest, newest > known)

    async def raise_ring(self, ring_epoch: int, deadline: Deadline) -> None:
        self.calls.append("raise_ring")
        await self._meet_fault(deadline)
        if ring_epoch < self.ring_epoch:
            raise StaleRingEpoch("a newer ring", epoch=self.ring_epoch)
        self.ring_epoch = ring_epoch

    async def absent(
        self, shard: int, entry_ids: Sequence[EntryId], deadline: Deadline
    ) -> list[EntryId]:
        self.calls.append("absent")
        await self._meet_fault(deadline)
        return [one for one in entry_ids if one not in self.held]

    async def scan(self, request: Any, deadline: Deadline) -> Any:
        raise NotImplementedError("the write path does not scan")

    def seqs_of(self, producer: ProducerKey, epoch: int = 1) -> SeqIntervals:
        """What it holds of one producer epoch."""
        found = SeqIntervals()
        for one in self.held.values():
            if (one.entry.producer_key, one.entry.producer_epoch) == (producer, epoch):
                found.update(one.entry.seqs)
                found.update(one.entry.skips)
        return found


def _typed(table: pa.Table) -> pa.Table:
    if table.num_rows == 0:
        return pa.table({})
    for name in ("service", "level", "tenant", "producer"):
        index = table.schema.get_field_index(name)
        if index >= 0:
            table = table.set_column(index, name, table.column(index).dictionary_encode())
    return table


class FakeReplicas:
    """Replicas by name."""

    def __init__(self, *nodes: str) -> None:
        self.by_node = {node: FakeReplica(node) for node in nodes}

    def get(self, node: str) -> FakeReplica:
        if node not in self.by_node:
            raise NotFound(f"no member {node!r} is known")
        return self.by_node[node]

    def __getitem__(self, node: str) -> FakeReplica:
        return self.by_node[node]

    def visible(self, *nodes: str) -> list[dict[str, Any]]:
        """The rows a reader of `nodes` (default: all) sees, by records.visibility alone."""
        union: dict[EntryId, Held] = {}
        for node in nodes or tuple(self.by_node):
            for entry_id, one in self.by_node[node].held.items():
                kept = union.get(entry_id)
                if kept is None or one.entry.received_at < kept.entry.received_at:
                    union[entry_id] = one
        hidden = hidden_parts(entry_ref(one.entry) for one in union.values())
        found: list[dict[str, Any]] = []
        for entry_id, one in union.items():
            part = hidden.get(entry_id)
            if part is None:
                found += one.rows
            elif not part.whole:
                gone = SeqIntervals(part.seqs)
                found += [row for row in one.rows if int(row["seq"]) not in gone]
        return found


@dataclass(frozen=True)
class FakeMember:
    """A member's addresses."""

    id: str
    http: str


@dataclass(frozen=True)
class FakeView:
    """A ClusterView with everything said outright. Owners: all of `nodes` unless `placed` says else."""

    node_id: str = "a"
    nodes: tuple[str, ...] = ("a", "b", "c")
    index: int = 1
    ring_epoch: int = 1
    quorum: QuorumPolicy = QuorumPolicy(3, 2, 2)  # noqa: RUF009
    shard_count: int = 32
    ready: bool = True
    placed: tuple[tuple[int, tuple[str, ...]], ...] = ()
    leaders: tuple[tuple[int, tuple[str, int]], ...] = ()
    everything_led_by: tuple[str, int] | None = ("a", 1)
    moving: tuple[tuple[int, tuple[tuple[str, ...], ...]], ...] = ()
    w_floor: int = 0
    splits: tuple[tuple[tuple[str, str], tuple[Generation, ...]], ...] = ()

    @property
    def acked_on(self) -> int:
        return self.w_floor or self.quorum.w

    def owners(self, shard: int) -> tuple[str, ...]:
        return dict(self.placed).get(shard, self.nodes)

    def write_groups(self, shard: int) -> tuple[tuple[str, ...], ...]:
        return dict(self.moving).get(shard, (self.owners(shard),))

    def leader(self, shard: int) -> tuple[str, int] | None:
        return dict(self.leaders).get(shard, self.everything_led_by)

    @property
    def has_splits(self) -> bool:
        return bool(self.splits)

    def generations(self, tenant: str, service: str) -> tuple[Generation, ...]:
        return dict(self.splits).get((tenant, service), UNSPLIT)

    def shard_of(self, tenant: str, service: str, producer: str, epoch: int) -> int:
        known, generation = self.generations(tenant, service), generation_of(epoch)
        if generation >= len(known):
            raise NotReady("a generation that is not known here")
        factor = known[generation].factor
        return int(shard_of(tenant, service, factor, producer, self.shard_count))

    def shard_under(self, tenant: str, service: str, producer: str, generation: int) -> int:
        return self.shard_of(tenant, service, producer, generation << 20)

    def shards_of_services(self, tenant: str, services: Any) -> list[int]:
        return [int(one) for one in shards_of_services(tenant, services, self.shard_count)]

    def shards_holding(self, tenant: str, service: str) -> tuple[int, ...]:
        factor = self.generations(tenant, service)[-1].factor
        held = shards_of_service(tenant, service, factor, self.shard_count)
        return tuple(int(one) for one in held)

    def member(self, node: str) -> FakeMember | None:
        return FakeMember(node, f"http://{node}:7171")

    def storage_nodes(self) -> tuple[str, ...]:
        return self.nodes

    def is_alive(self, node: str) -> bool:
        return True


class FakeViews:
    """A ViewSource that the test moves on with `put`."""

    def __init__(self, view: FakeView | None = None) -> None:
        self._view = view or FakeView()
        self._changed = asyncio.Event()

    def put(self, view: FakeView) -> None:
        self._view = view
        self._changed.set()
        self._changed = asyncio.Event()

    def current(self) -> Any:
        return self._view

    async def changed(self, after_index: int, timeout: float) -> Any:
        if self._view.index <= after_index:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout)
        return self._view
