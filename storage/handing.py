"""A shard's fences and producers, given to a new owner and taken by one; and shards that are let go. Pure.

`give` first raises the ring epoch, so that no put of an older ring is judged here any more; its record is
durable after all puts before it, so what is listed afterwards is all that they brought. `shed` forgets the
entries of shards that this node does not own: from memory at once, from the catalog with its next flush, from
the disk when the blocks that are left are written anew. After a crash before the flush (or without a catalog)
they are there again, and are let go again.
"""

from collections.abc import Collection

import numpy as np

from records.errors import StaleRingEpoch, TooLarge
from records.handover import PRODUCERS_MAX, Handover
from storage.engine import Engine
from storage.entry_table import GONE
from storage.log_format import Record, RecordType

_TOLD_IN_RECORD = 1000


def raise_ring_epoch(engine: Engine, ring_epoch: int) -> Record:
    """Refuses puts of older rings from now on; the record must be durable before the answer.

    Raises:
        StaleRingEpoch: a newer ring is known here.
    """
    if ring_epoch < engine.ring_epoch:
        raise StaleRingEpoch("a newer ring is known here", epoch=engine.ring_epoch)
    engine.observe(ring_epoch, {})
    return Record(RecordType.RING_EPOCH, ring_epoch)


def give(engine: Engine, shard: int) -> Handover:
    """What a new owner of `shard` has to know.

    Raises:
        TooLarge: more producers than fit into a message.
    """
    book = engine.holdings.producers
    epoch, leader = engine.fences.get(shard, (0, ""))
    newest = tuple((key, n) for (owner, key), n in book.newest.items() if owner == shard)
    mine = {key for key, _ in newest}
    told = tuple((key, till) for key, till in book.told.items() if key[:3] in mine)
    if len(newest) + len(told) > PRODUCERS_MAX:
        raise TooLarge(f"shard {shard} has more than {PRODUCERS_MAX} producer epochs")
    return Handover(shard, epoch, leader, newest, told, engine.holdings.newest_vouched)


def ids_of(engine: Engine, shard: int) -> bytes:
    """The 16-byte ids of the present entries of `shard`, in the order of their blocks. One pass."""
    rows = engine.holdings.table.rows[: engine.holdings.table.count]
    chosen = (rows["shard"] == shard) & ((rows["flags"] & GONE) == 0)
    return np.ascontiguousarray(rows["id"][chosen]).tobytes()


def take(engine: Engine, handed: Handover) -> list[Record]:
    """Takes it over where it is higher than what is known; the records must be durable before the answer."""
    engine.holdings.vouch(handed.vouched)
    engine.load_fences([(handed.shard, handed.fence, handed.leader)])
    epoch, leader = engine.fences.get(handed.shard, (0, ""))
    records = [Record(RecordType.FENCE, [handed.shard, epoch, leader])] if epoch else []
    for producer, newest in handed.newest:
        records.append(engine.seal_producer(handed.shard, producer, newest))
    engine.holdings.producers.raise_told(handed.told)
    told = [[list(key), till] for key, till in handed.told]
    for start in range(0, len(told), _TOLD_IN_RECORD):
        records.append(Record(RecordType.TOLD, told[start : start + _TOLD_IN_RECORD]))
    return records


def shed(engine: Engine, shards: Collection[int], ring_epoch: int) -> tuple[int, list[int]]:
    """Forgets the entries of `shards`; (how many, ordinals of the blocks they were in).

    Args:
        ring_epoch: of the ring that says that this node owns none of them.

    Raises:
        StaleRingEpoch: a newer ring is known here, under which it may.
    """
    if engine.ring_epoch > ring_epoch:
        raise StaleRingEpoch("a newer ring is known here", epoch=engine.ring_epoch)
    engine.observe(
        ring_epoch, {}
    )  # answers to scans say so from now on: what they lack is elsewhere
    holdings = engine.holdings
    rows = holdings.table.rows[: holdings.table.count]
    chosen = np.isin(rows["shard"], np.fromiter(shards, np.int64, len(shards)))
    numbers = np.flatnonzero(chosen & ((rows["flags"] & GONE) == 0))
    ordinals = np.unique(rows["block"][numbers]).tolist()
    holdings.forget_shards(shards, numbers)
    return len(numbers), ordinals
