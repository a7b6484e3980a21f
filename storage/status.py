"""A storage node's figures for operators: what is held, by shard. Pure."""

from typing import Any

from records.timestamps import MAX_MICROS, MIN_MICROS
from storage.engine import Engine


def engine_figures(engine: Engine) -> dict[str, Any]:
    """Rows, blocks, entries, digests and fences. Cost: a pass over the entries' columns."""
    holdings = engine.holdings
    entries = holdings.entries_by_shard()
    places = list(holdings.blocks)
    shards = {
        shard: {
            "entries": count,
            "digest": holdings.digest(shard, MIN_MICROS, MAX_MICROS)[1].hex(),
        }
        for shard, count in entries.items()
    }
    return {
        "rows": holdings.rows,
        "entries": sum(entries.values()),
        "blocks": len(places),
        "segments": sum(place.file < 0 for place in places),
        "quarantined_blocks": holdings.quarantined,
        "bytes": holdings.bytes,
        "index_bytes": holdings.table.memory_bytes,
        "ring_epoch": engine.ring_epoch,
        "fences": {shard: epoch for shard, (epoch, _) in sorted(engine.fences.items())},
        "received_max": holdings.received_max,
        "shards": shards,
    }
