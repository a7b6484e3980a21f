"""A small block with fixed contents, for the tests of the block's codec."""

from dataclasses import replace

import pyarrow as pa

from records.block import EntryHeader
from records.block_codec import EncodedBlock, encode_block
from records.columns import CORE_TYPES
from records.ids import BlockId, EntryId, ProducerEpoch, RingEpoch, ShardEpoch, ShardId, block_id

T0 = 1_795_219_200_000_000
BLOCK_ID: BlockId = block_id(T0 // 1000, bytes(range(10)))


def rows(count: int = 6) -> pa.Table:
    """`count` rows a second apart, from two services."""
    columns = {
        "timestamp": pa.array([T0 + i * 1_000_000 for i in range(count)]).cast(
            CORE_TYPES["timestamp"]
        ),
        "service": pa.array(["pay" if i < count // 2 else "web" for i in range(count)]),
        "level": pa.array(["info" if i % 2 else "error" for i in range(count)]),
        "message": pa.array([f"message {i}" for i in range(count)]),
        "trace_id": pa.array([f"{i:032x}" for i in range(count)]),
    }
    for name in ("service", "level"):
        columns[name] = columns[name].dictionary_encode()
    return pa.table(columns)


def entries(count: int = 6) -> tuple[EntryHeader, ...]:
    """Two entries: the first half sequenced, the second not."""
    half = count // 2
    sequenced = EntryHeader(
        entry_id=EntryId(b"\x01" * 16),
        content_hash=b"\x11" * 16,
        shard=ShardId(3),
        tenant="default",
        row_start=0,
        row_count=half,
        min_ts=T0,
        max_ts=T0 + (half - 1) * 1_000_000,
        received_at=T0 + 5,
        service="pay",
        producer="pay-1",
        producer_epoch=ProducerEpoch(2),
        shard_epoch=ShardEpoch(7),
        seqs=((4, 4), (6, 7)),
        skips=((5, 5),),
    )
    plain = EntryHeader(
        entry_id=EntryId(b"\x02" * 16),
        content_hash=b"\x22" * 16,
        shard=ShardId(9),
        tenant="default",
        row_start=half,
        row_count=count - half,
        min_ts=T0 + half * 1_000_000,
        max_ts=T0 + (count - 1) * 1_000_000,
        received_at=T0 + 6,
        previous=b"\x03" * 16,
    )
    return sequenced, plain


def small_block() -> EncodedBlock:
    """The block of `rows` and `entries`."""
    return encode_block(BLOCK_ID, RingEpoch(5), rows(), entries())


def plain_entries(count: int) -> tuple[EntryHeader, ...]:
    """One unsequenced entry of all rows."""
    return (replace(entries(count)[1], row_start=0, row_count=count, min_ts=T0),)
