"""Digests of the entries received by a moment: of what a page over an older snapshot is read from. Pure.

Replicas may have one entry with two times of receipt: an owner that missed it got it when it was sent again.
So of entries that both hold, one replica's snapshot may have some that the other's lacks, and trees, which
have all of them, cannot tell. Here the entries themselves are added up: one pass over the entry table in
pieces that stay in the processor's cache, as long as choosing the entries to read takes.

The sum is that of the ids mod 2^128: they are hashes already, and equal ids count as equal entries.
"""

from collections.abc import Sequence

import numpy as np

from records.ids import ID_BYTES
from records.timestamps import TimeRange
from storage.entry_table import GONE
from storage.merkle import EMPTY, Digest

#: Rows of the table looked at in one go: 115 bytes each.
_PIECE = 8_192
_LIMBS = ID_BYTES // 4


def digests_as_of(
    rows: np.ndarray, flags: np.ndarray, shards: Sequence[int], time: TimeRange, until: int
) -> dict[int, Digest]:
    """The digest of each shard: its entries that touch `time` and were received by `until`, microseconds.

    Args:
        rows, flags: the entry table (storage.entry_table), and its flags as of a snapshot.
    """
    wanted = np.zeros(1 << 16, bool)
    wanted[list(shards)] = True
    counts: dict[int, int] = {}
    totals: dict[int, np.ndarray] = {}
    for start in range(0, len(rows), _PIECE):
        part = rows[start : start + _PIECE]
        keep = wanted[part["shard"]] & ((flags[start : start + _PIECE] & GONE) == 0)
        keep &= part["received"] <= until
        keep &= (part["min_ts"] < time.end) & (part["max_ts"] >= time.start)
        numbers = np.flatnonzero(keep)
        if not len(numbers):
            continue
        numbers = numbers[np.argsort(part["shard"][numbers], kind="stable")]
        found, first = np.unique(part["shard"][numbers], return_index=True)
        ids = np.ascontiguousarray(part["id"][numbers])
        limbs = np.frombuffer(ids.tobytes(), ">u4").reshape(-1, _LIMBS).astype(np.uint64)
        sizes = np.diff(np.append(first, len(numbers))).tolist()
        sums = np.add.reduceat(limbs, first, axis=0)
        for shard, size, total in zip(found.tolist(), sizes, sums, strict=True):
            counts[shard] = counts.get(shard, 0) + size
            totals[shard] = totals.get(shard, np.zeros(_LIMBS, np.uint64)) + total
    told = {shard: (count, _bytes_of(totals[shard])) for shard, count in counts.items()}
    return {shard: told.get(shard, EMPTY) for shard in shards}


def _bytes_of(limbs: np.ndarray) -> bytes:
    """The sum mod 2^128 of limbs that have carries above their 32 bits."""
    total = 0
    for limb in limbs.tolist():
        total = (total << 32) + limb
    return (total % (1 << 8 * ID_BYTES)).to_bytes(ID_BYTES, "big")
