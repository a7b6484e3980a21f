"""A cluster of brute-force replicas in memory: the Replica port as a slow, plain Python model.

Nothing is shared with the product but the contract (records.*): filters are evaluated row by row, digests
are summed entry by entry. Faults: `dead`, `delay_seconds`, and `on_call`, which may change any store
between the calls of one query. Divergence is made by writing an entry to some owners only.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cluster.state_types import Member
from records.block import EntryHeader, ProducerKey, Spans
from records.block_codec import EncodedBlock, encode_block, open_body, parse_prefix
from records.columns import CORE_TYPES
from records.consistency import QuorumPolicy
from records.errors import ConnectionLost, NotFound, QuorumlogError
from records.ids import BlockId, EntryId, RingEpoch, ShardId, producer_run
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
    RowName,
    RowPlace,
    ScanReply,
    ScanRequest,
    SealRequest,
)
from records.predicates import Filter, Fold, RowKey, ScanPlan
from records.timestamps import WIDE_HOUR, hour_of
from records.visibility import EntryRef, Hidden, entry_ref, hidden_parts
from runtime.deadline import Deadline

Row = dict[str, Any]


@dataclass(frozen=True)
class FakeEntry:
    """An entry with its rows as dicts."""

    header: EntryHeader
    rows: tuple[Row, ...]

    @property
    def id(self) -> EntryId:
        """The entry's id."""
        return self.header.entry_id

    @property
    def ref(self) -> EntryRef:
        """As replicas compare it."""
        return entry_ref(self.header)


def make_entry(
    number: int,
    shard: int,
    rows: Iterable[Row],
    *,
    received_at: int | None = None,
    seqs: Spans = (),
    producer: str = "",
    epoch: int = 1,
    previous: bytes = b"",
) -> FakeEntry:
    """An entry named by a number, which is also when it was received, if nothing else is told."""
    rows = tuple(rows)
    stamps = [row["timestamp"] for row in rows] or [0]
    header = EntryHeader(
        entry_id=EntryId(hashlib.sha256(f"entry {number}".encode()).digest()[:16]),
        content_hash=hashlib.sha256(repr(rows).encode()).digest()[:16],
        shard=ShardId(shard),
        tenant="default",
        row_start=0,
        row_count=len(rows),
        min_ts=min(stamps),
        max_ts=max(stamps),
        received_at=number if received_at is None else received_at,
        service=rows[0]["service"] if rows and producer else "",
        producer=producer,
        producer_epoch=epoch if producer else 0,  # type: ignore[arg-type]
        seqs=seqs,
        previous=previous,
    )
    return FakeEntry(header, rows)


def table_of(rows: list[Row], with_all_core: bool = False) -> pa.Table:
    """Rows as columns, with the types of the contract; attribute columns are inferred."""
    names = dict.fromkeys(name for row in rows for name in row)
    arrays, fields = [], []
    for name in names:
        kind = CORE_TYPES.get(name)
        values = [row.get(name) for row in rows]
        if kind is not None and pa.types.is_dictionary(kind):
            array = pa.array(values, pa.string()).dictionary_encode()
        elif name == "_run":
            array = pa.array(values, pa.binary(16))
        else:
            array = pa.array(values, kind or (pa.int64() if name == "_number" else None))
        arrays.append(array)
        fields.append(pa.field(name, array.type))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def matches(tree: Filter, row: Row) -> bool:
    """Whether a row matches, by the words of records.predicates."""
    kind, *ops = tree
    if kind == "true":
        return True
    if kind == "and":
        return all(matches(one, row) for one in ops)
    if kind == "or":
        return any(matches(one, row) for one in ops)
    if kind == "not":
        return not matches(ops[0], row)
    if kind == "word":
        words = re.findall(r"[^\W_]+", str(row.get("message", "")).lower())
        return ops[0].lower() in words
    if kind == "phrase":
        return ops[0] in row.get("message", "")
    value = row.get(ops[0])
    if value is None:
        return False
    if kind == "exists":
        return True
    if kind == "eq":
        return _same(value, ops[1])
    if kind == "in":
        return any(_same(value, one) for one in ops[1])
    if kind == "regex":
        return re.search(ops[1], str(value)) is not None
    low, high = ops[1:]
    return (low is None or value >= low) and (high is None or value < high)


def _same(value: Any, wanted: Any) -> bool:
    return str(value) == str(wanted)


def row_key(entry: FakeEntry, index: int) -> RowKey:
    """The key of a row of an entry."""
    name = row_name(entry, index)
    return RowKey(entry.rows[index]["timestamp"], name.run, name.number)


def row_name(entry: FakeEntry, index: int) -> RowName:
    """The name of a row of an entry."""
    header = entry.header
    if not header.sequenced:
        return RowName(header.entry_id, index)
    seqs = [seq for first, last in header.seqs for seq in range(first, last + 1)]
    return RowName(producer_run(*header.producer_key, header.producer_epoch), seqs[index])


def key_tuple(key: RowKey) -> tuple[int, bytes, int]:
    """For comparing."""
    return key.timestamp, key.run, key.number


def rows_with(header: EntryHeader, spans: Spans) -> set[int]:
    """Rows of an entry, counted in it, that have a sequence in `spans`; row i has the i-th one."""
    seqs = (seq for first, last in header.seqs for seq in range(first, last + 1))
    return {i for i, seq in enumerate(seqs) if any(a <= seq <= b for a, b in spans)}


def visible(entries: list[FakeEntry]) -> list[tuple[FakeEntry, int]]:
    """The visible rows of a set of entries (distinct by id), as (entry, index)."""
    hidden = hidden_parts(entry.ref for entry in entries)
    found = []
    for entry in entries:
        part = hidden.get(entry.id, Hidden())
        if part.whole:
            continue
        gone = rows_with(entry.header, part.seqs)
        found += [(entry, index) for index in range(len(entry.rows)) if index not in gone]
    return found


def brute_rows(entries: Iterable[FakeEntry], plan: ScanPlan) -> list[tuple[RowKey, Row]]:
    """What a plan must answer over a set of entries, in order, up to its limit (0: all)."""
    distinct = {entry.id: entry for entry in entries}
    found = []
    for entry, index in visible(list(distinct.values())):
        key, row = row_key(entry, index), entry.rows[index]
        if wanted(plan, entry, key, row):
            found.append((key, row))
    found.sort(key=lambda pair: key_tuple(pair[0]), reverse=plan.descending)
    return found[: plan.limit] if plan.limit else found


def wanted(plan: ScanPlan, entry: FakeEntry, key: RowKey, row: Row) -> bool:
    """Whether the plan takes a visible row."""
    if not plan.time.start <= key.timestamp < plan.time.end:
        return False
    if plan.received_until is not None and entry.header.received_at > plan.received_until:
        return False
    if plan.after is not None:
        ours, mark = key_tuple(key), key_tuple(plan.after)
        if not (ours < mark if plan.descending else ours > mark):
            return False
    return matches(plan.filter, row)


@dataclass
class FakeStore:
    """One replica. `calls` lists what it was asked: (method, shards)."""

    node: str
    clock: Any = None
    entries_by_id: dict[EntryId, FakeEntry] = field(default_factory=dict)
    dead: bool = False
    delay_seconds: float = 0.0
    fail_with: QuorumlogError | None = None
    on_call: Callable[[str, str], None] | None = None
    calls: list[tuple[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    max_rows: int | None = None
    lost: int = 0
    #: The newest receipt it heard of besides those of its entries: of a duplicate it was sent.
    heard: int = 0

    def add(self, entry: FakeEntry) -> None:
        """Put-if-absent of one entry."""
        self.entries_by_id.setdefault(entry.id, entry)

    async def _called(self, method: str, what: Any) -> None:
        self.calls.append((method, what))
        if self.on_call:
            self.on_call(self.node, method)
        if self.delay_seconds:
            try:
                await asyncio.sleep(self.delay_seconds)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if self.dead:
            raise ConnectionLost(f"{self.node} is dead")
        if self.fail_with:
            raise self.fail_with
        await asyncio.sleep(0)

    def _of_hours(self, shard: int, start: int, end: int) -> list[FakeEntry]:
        low, high = hour_of(start), hour_of(max(start, end - 1))
        return [
            entry
            for entry in self.entries_by_id.values()
            if entry.header.shard == shard
            and any(low <= hour <= high or hour == WIDE_HOUR for hour in entry.header.hours)
        ]

    def digest_of(
        self, shard: int, start: int, end: int, until: int | None = None
    ) -> tuple[int, bytes]:
        """(count, sum of hashes) of the entries of some hours, received by `until`."""
        entries = self._of_hours(shard, start, end)
        if until is not None:
            entries = [one for one in entries if one.header.received_at <= until]
        total = sum(
            int.from_bytes(hashlib.sha256(e.id + e.header.content_hash).digest()[:16], "big")
            for e in entries
        )
        return len(entries), (total % (1 << 128)).to_bytes(16, "big")

    async def scan(self, request: ScanRequest, deadline: Deadline) -> tuple[ScanReply, pa.Table]:
        await self._called("scan", (request.data_shards, request.digest_shards))
        plan, time = request.plan, request.compared or request.plan.time
        held = [e for e in self.entries_by_id.values() if e.header.shard in request.data_shards]
        hide = dict(request.hide)
        only = None if request.only is None else set(request.only)
        rows = []
        named = [(e, i) for e in held if only and e.id in only for i in range(len(e.rows))]
        for entry, index in visible(held) if only is None else named:
            if entry.id in hide and self._hidden(entry, index, hide[entry.id]):
                continue
            key, row = row_key(entry, index), entry.rows[index]
            if wanted(plan, entry, key, row):
                rows.append((key, row))
        rows.sort(key=lambda pair: key_tuple(pair[0]), reverse=plan.descending)
        ends = time.start, time.end, plan.received_until
        digests = {s: self.digest_of(s, *ends) for s in request.digest_shards}
        newest = max([self.heard, *(e.header.received_at for e in self.entries_by_id.values())])
        truncated = False
        if request.outline:
            return ScanReply(digests, newest, 0, 0, 0), self._outline(held, plan)
        if plan.fold is not None:
            table = partials([row for _, row in rows], plan.fold)
        else:
            if self.max_rows is not None and min(len(rows), plan.limit) > self.max_rows:
                rows, truncated = rows[: self.max_rows], True
            table = self._row_table(rows[: plan.limit], plan)
        hidden = hidden_parts(entry.ref for entry in held)
        overlaps = request.compared is not None and any(
            entry.header.seqs and entry.id in hidden for entry in held
        )
        counts = (len(rows), 1, 0, truncated, overlaps)
        return ScanReply(digests, newest, *counts, lost=self.lost), table

    @staticmethod
    def _outline(held: list[FakeEntry], plan: ScanPlan) -> pa.Table:
        """Each entry is a piece."""
        start, end = plan.time.start, plan.time.end
        found = [e.header for e in held if e.header.min_ts < end and e.header.max_ts >= start]
        return pa.table(
            {
                "first": pa.array([max(one.min_ts, start) for one in found], pa.int64()),
                "last": pa.array([min(one.max_ts, end - 1) for one in found], pa.int64()),
                "rows": pa.array([one.row_count for one in found], pa.int64()),
            }
        )

    @staticmethod
    def _hidden(entry: FakeEntry, index: int, spans: Spans) -> bool:
        if not spans:
            return True
        return index in rows_with(entry.header, spans)

    @staticmethod
    def _row_table(rows: list[tuple[RowKey, Row]], plan: ScanPlan) -> pa.Table:
        listed = []
        for key, row in rows:
            chosen = row if plan.fields is None else {n: row[n] for n in plan.fields if n in row}
            chosen = {"timestamp": row["timestamp"], **chosen}
            listed.append({"_run": key.run, "_number": key.number, **chosen})
        return table_of(listed) if listed else pa.table({})

    async def entries(self, request: EntriesRequest, deadline: Deadline) -> EntriesReply:
        await self._called("entries", request.shard)
        found = self._of_hours(request.shard, request.start, request.end)
        return EntriesReply(tuple(entry.ref for entry in found))

    async def fetch(self, entry_ids: tuple[EntryId, ...], deadline: Deadline) -> list[EncodedBlock]:
        await self._called("fetch", len(entry_ids))
        return [encoded(self.entries_by_id[e]) for e in entry_ids if e in self.entries_by_id]

    async def locate(self, name: RowName, deadline: Deadline) -> RowPlace | None:
        await self._called("locate", name)
        for entry in self.entries_by_id.values():
            for index, row in enumerate(entry.rows):
                if row_name(entry, index) == name:
                    return RowPlace(row["timestamp"], row["service"], entry.header.tenant)
        return None

    async def put(self, block: EncodedBlock, options: PutOptions, deadline: Deadline) -> PutReply:
        await self._called("put", options.repair)
        statuses = []
        for entry in decoded(block):
            known = entry.id in self.entries_by_id
            statuses.append(EntryStatus.DUPLICATE if known else EntryStatus.STORED)
            self.add(entry)
        zeros = (0,) * len(statuses)
        return PutReply(tuple(statuses), zeros, tuple(() for _ in statuses), ())

    async def seal(self, request: SealRequest, deadline: Deadline) -> None:
        raise NotImplementedError

    async def producer_states(
        self, shard: int, producer: ProducerKey, deadline: Deadline
    ) -> ProducerStates:
        raise NotImplementedError

    async def producers(
        self, request: ProducersRequest, deadline: Deadline
    ) -> list[tuple[int, ProducerState]]:
        raise NotImplementedError

    async def seal_producer_epoch(
        self, shard: int, producer: ProducerKey, epoch: int, ring_epoch: int, deadline: Deadline
    ) -> EpochSealed:
        raise NotImplementedError


def encoded(entry: FakeEntry) -> EncodedBlock:
    """The entry as a block of its own."""
    return encode_block(
        BlockId(entry.id), RingEpoch(1), table_of(list(entry.rows)), (entry.header,)
    )


def decoded(block: EncodedBlock) -> list[FakeEntry]:
    """The entries of a block."""
    data = memoryview(block.data)
    start, end = parse_prefix(data).body
    table = open_body(data[start:end], block.header.columns).read()
    for name in ("timestamp", "received_at"):
        if name in table.column_names:
            index = table.schema.get_field_index(name)
            table = table.set_column(index, name, table.column(index).cast(pa.int64()))
    rows = [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]
    return [
        FakeEntry(header, tuple(rows[header.row_start : header.row_start + header.row_count]))
        for header in block.header.entries
    ]


def partials(rows: list[Row], fold: Fold) -> pa.Table:
    """Partial aggregates in the shape of the contract."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        bucket = (
            (row["timestamp"] // fold.step_micros * fold.step_micros,) if fold.step_micros else ()
        )
        groups.setdefault((*bucket, *(row.get(name) for name in fold.by)), []).append(row)
    names = (["_bucket"] if fold.step_micros else []) + list(fold.by)
    listed = []
    for group, members in groups.items():
        out: Row = dict(zip(names, group, strict=True))
        for one in fold.aggregates:
            values = [m[one.column] for m in members if m.get(one.column) is not None]
            if one.function == "count":
                out[one.name] = len(values) if one.column else len(members)
            elif one.function == "avg":
                out[f"{one.name}__sum"] = float(sum(values))
                out[f"{one.name}__count"] = len(values)
            elif one.function in ("count_distinct", "quantile"):
                out[f"{one.name}__values"] = values
            else:
                reduce = {"sum": sum, "min": min, "max": max}[one.function]
                out[one.name] = reduce(values) if values else None
        listed.append(out)
    return pa.Table.from_pylist(listed) if listed else pa.table({})


class FakeView:
    """A ClusterView over fixed nodes: each shard on `n` of them, by turns."""

    def __init__(self, nodes: list[str], n: int, w: int, r: int, shard_count: int) -> None:
        self.node_id = nodes[0]
        self.hidden_index = 0
        self.nodes = nodes
        self.quorum = QuorumPolicy(n, w, r)
        self.shard_count = shard_count
        self.ring_epoch = self.index = 1
        self.ready = True
        self.down: set[str] = set()
        self.hosts: dict[str, str] = {}

    def owners(self, shard: int) -> tuple[str, ...]:
        """The owners of a shard."""
        count = min(self.quorum.n, len(self.nodes))
        return tuple(self.nodes[(shard + i) % len(self.nodes)] for i in range(count))

    def is_alive(self, node: str) -> bool:
        """What the failure detector believes."""
        return node not in self.down

    def shards_holding(self, tenant: str, service: str) -> tuple[int, ...]:
        """Where rows of a service live."""
        return (sum(service.encode()) % self.shard_count,)

    def member(self, node: str) -> Member:
        """Where a node lives: `hosts` says, else all on one host."""
        return Member(node, ("storage",), 1, peer=f"{self.hosts.get(node, 'here')}:7001")

    def storage_nodes(self) -> tuple[str, ...]:
        """All nodes."""
        return tuple(self.nodes)


class FakeCluster:
    """Stores and a view of them; it is the ViewSource and the Replicas as well."""

    def __init__(
        self, nodes: int = 3, n: int = 3, w: int = 2, r: int = 2, shard_count: int = 4
    ) -> None:
        names = [f"n{i}" for i in range(nodes)]
        self.view = FakeView(names, n, w, r, shard_count)
        self.stores = {name: FakeStore(name) for name in names}
        self.written: list[FakeEntry] = []

    def current(self) -> Any:
        """The view."""
        return self.view

    async def changed(self, after_index: int, timeout: float) -> Any:
        """The view."""
        return self.view

    def get(self, node: str) -> Any:
        """A replica."""
        if node not in self.stores:
            raise NotFound(f"no member {node!r}")
        return self.stores[node]

    def write(self, entry: FakeEntry, on: Iterable[str | int] | None = None) -> FakeEntry:
        """Stores an entry on all owners, or on some: by name, or by place among the owners."""
        owners = self.view.owners(entry.header.shard)
        chosen = owners if on is None else [owners[o] if isinstance(o, int) else o for o in on]
        for node in chosen:
            self.stores[node].add(entry)
        self.written.append(entry)
        return entry

    def calls(self, method: str) -> int:
        """How often a method was called on any store."""
        return sum(name == method for store in self.stores.values() for name, _ in store.calls)
