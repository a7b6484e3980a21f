"""Blocks with contents that a test chooses, and a storage service on a directory, for the storage tests."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from records.block import EntryHeader, Spans
from records.block_codec import EncodedBlock, encode_block
from records.columns import CORE_TYPES
from records.ids import (
    BlockId,
    EntryId,
    ProducerEpoch,
    RingEpoch,
    ShardEpoch,
    ShardId,
    block_id,
    digest_entry_id,
    sequenced_entry_id,
)
from records.messages import PutOptions, ScanRequest
from records.predicates import ScanPlan
from runtime.clock import SystemClock
from runtime.metrics import Metrics
from storage.service import StorageService
from storage.settings import StorageSettings

#: 2026-11-21T00:00:00Z, a whole hour.
T0 = 1_795_219_200_000_000
SECOND = 1_000_000
OPTIONS = PutOptions(ring_epoch=1)
SETTINGS = StorageSettings(log_file_bytes=1 << 20, disk_floor_bytes=0, disk_hysteresis_bytes=0)


def row(
    at: int, message: str = "hello", service: str = "pay", level: str = "info", **more: Any
) -> dict:
    """One row `at` seconds after T0."""
    return {
        "timestamp": T0 + at * SECOND,
        "service": service,
        "level": level,
        "message": message,
        **more,
    }


@dataclass(frozen=True)
class Entry:
    """What becomes an entry: rows, and how they are named."""

    rows: Sequence[dict]
    shard: int = 0
    tenant: str = "default"
    producer: str = ""
    epoch: int = 1
    shard_epoch: int = 1
    seqs: Spans = ()
    skips: Spans = ()
    #: None: that of the block, which is later the larger its number.
    received_at: int | None = None
    name: bytes = b""
    previous: bytes = b""
    header: dict = field(default_factory=dict)


def table_of(rows: Sequence[dict]) -> pa.Table:
    """Rows as a table of the store's types: columns that are all null are left out."""
    names = [n for n in CORE_TYPES if any(r.get(n) is not None for r in rows)]
    names += sorted({n for r in rows for n in r if n not in CORE_TYPES and r[n] is not None})
    columns = {}
    for name in names:
        values = [r.get(name) for r in rows]
        kind = CORE_TYPES.get(name)
        if kind is None:
            columns[name] = pa.array(values)
        elif pa.types.is_dictionary(kind):
            columns[name] = pa.array(values, pa.string()).dictionary_encode()
        elif pa.types.is_timestamp(kind):
            columns[name] = pa.array(values, pa.int64()).cast(kind)
        else:
            columns[name] = pa.array(values, kind)
    return pa.table(columns)


def header_of(entry: Entry, row_start: int, number: int = 0) -> EntryHeader:
    """The header of an entry whose rows begin at `row_start` of the block."""
    received_at = T0 + number if entry.received_at is None else entry.received_at
    stamps = [r["timestamp"] for r in entry.rows] or [received_at]
    content = hashlib.sha256(repr(sorted(map(repr, entry.rows))).encode()).digest()[:16]
    service = entry.rows[0]["service"] if entry.rows else "pay"
    if entry.producer:
        spans = (*entry.seqs, *entry.skips)
        entry_id = sequenced_entry_id(
            entry.shard, entry.tenant, service, entry.producer, entry.epoch, spans
        )
    else:
        entry_id = digest_entry_id(entry.shard, b"test", entry.name or content, 0)
    header = EntryHeader(
        entry_id=entry_id,
        content_hash=content,
        shard=ShardId(entry.shard),
        tenant=entry.tenant,
        row_start=row_start,
        row_count=len(entry.rows),
        min_ts=min(stamps),
        max_ts=max(stamps),
        received_at=received_at,
        service=service if entry.producer else "",
        producer=entry.producer,
        producer_epoch=ProducerEpoch(entry.epoch if entry.producer else 0),
        shard_epoch=ShardEpoch(entry.shard_epoch if entry.producer else 0),
        seqs=entry.seqs,
        skips=entry.skips,
        previous=entry.previous,
    )
    return replace(header, **entry.header)


def block_of(number: int, *entries: Entry, ring_epoch: int = 1) -> EncodedBlock:
    """A block; a larger `number` gives a larger block id and a later receipt."""
    headers, rows = [], []
    for entry in entries:
        headers.append(header_of(entry, len(rows), number))
        rows += entry.rows
    name: BlockId = block_id(T0 // 1000 + number, bytes(10))
    return encode_block(name, RingEpoch(ring_epoch), table_of(rows), tuple(headers))


def sequenced(first: int, last: int, text: str = "", **more: Any) -> Entry:
    """Rows first..last of producer p: row k is k seconds after T0 and says `<text>k`."""
    rows = [row(k, f"{text}{k}") for k in range(first, last + 1)]
    return Entry(rows, producer="p", seqs=((first, last),), **more)


def plain(at: int, count: int = 1, text: str = "row", **more: Any) -> Entry:
    """`count` unsequenced rows, a second apart."""
    return Entry([row(at + k, f"{text} {at + k}") for k in range(count)], **more)


def entry_id(entry: Entry) -> EntryId:
    """The id the entry gets."""
    return header_of(entry, 0).entry_id


def scan_of(
    plan: ScanPlan | None = None, shards: Sequence[int] = range(64), **more: Any
) -> ScanRequest:
    """A scan over all shards."""
    return ScanRequest(plan or ScanPlan(limit=1000), tuple(shards), tuple(shards), **more)


def service_on(
    directory: Path, settings: StorageSettings = SETTINGS, node: str = "n1", **more: Any
) -> StorageService:
    """A storage service that is not started yet."""
    return StorageService(
        directory, node, settings, SystemClock(), more.pop("metrics", Metrics()), **more
    )


async def messages(service: StorageService, **more: Any) -> list[str]:
    """The messages of all visible rows, oldest first."""
    plan = ScanPlan(limit=100_000, descending=False, fields=("message",))
    _, table = await service.scan(scan_of(plan, **more))
    return table["message"].to_pylist() if "message" in table.schema.names else []
