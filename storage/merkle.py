"""The Merkle tree over entries: per shard, root -> hour -> 256 buckets by entry id.

A node is (count, sum of H(entry id || content hash) mod 2^128). A sum, not XOR: the same entry twice does
not cancel, and adding, removing and merging are one addition. It stands over entries, not files, so replicas
that stored the same entries in other blocks, in another order, agree. An entry is filed under each hour
that its rows touch (a function of its header alone), or under WIDE_HOUR, which every range includes.

Memory: one int a node, nodes made when first touched. Sources: reliability.md 2.2; Bellare and Micciancio,
"A New Paradigm for Collision-free Hashing: Incrementality at Reduced Cost" (AdHash), Eurocrypt 1997.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from records.ids import ID_BYTES
from records.timestamps import WIDE_HOUR, hour_of

BUCKETS = 256
_BITS = 128
_MASK = (1 << _BITS) - 1
Digest = tuple[int, bytes]
EMPTY: Digest = (0, bytes(ID_BYTES))


def leaf(entry_id: bytes, content_hash: bytes) -> int:
    """H(entry id || content hash) as a number below 2^128."""
    return int.from_bytes(hashlib.sha256(entry_id + content_hash).digest()[:ID_BYTES], "big")


def bucket_of(entry_id: bytes) -> int:
    """The bucket of an entry: the first byte of its id, which is a hash."""
    return entry_id[0]


def _added(node: int, count: int, total: int) -> int:
    return ((node >> _BITS) + count) << _BITS | ((node + total) & _MASK)


def _digest(node: int) -> Digest:
    return node >> _BITS, (node & _MASK).to_bytes(ID_BYTES, "big")


class MerkleTree:
    """The tree of one shard. A node is one int: the count above 128 bits of sum."""

    __slots__ = ("_buckets", "_hours", "_root")

    def __init__(self) -> None:
        self._root = 0
        self._hours: dict[int, int] = {}
        self._buckets: dict[int, int] = {}

    def add(self, entry_id: bytes, content_hash: bytes, hours: Iterable[int]) -> None:
        """Files an entry under `hours`. Adding it twice is the caller's mistake, and shows in the count."""
        self._change(entry_id, leaf(entry_id, content_hash), hours, 1)

    def remove(self, entry_id: bytes, content_hash: bytes, hours: Iterable[int]) -> None:
        """Undoes `add`."""
        self._change(entry_id, -leaf(entry_id, content_hash), hours, -1)

    def add_many(self, ids: Sequence[bytes], hashes: Sequence[bytes], hours: np.ndarray) -> None:
        """Files many entries at once, each under one hour. Sums are taken in four limbs of 32 bits."""
        leaves = b"".join(
            hashlib.sha256(i + h).digest()[:ID_BYTES] for i, h in zip(ids, hashes, strict=True)
        )
        limbs = np.frombuffer(leaves, ">u4").reshape(-1, 4).astype(np.uint64)
        keys = hours.astype(np.int64) * BUCKETS + np.array([one[0] for one in ids], np.int64)
        order = np.argsort(keys, kind="stable")
        first = np.flatnonzero(np.append(True, np.diff(keys[order]) != 0))
        sums = np.add.reduceat(limbs[order], first, axis=0).tolist()
        counts = np.diff(np.append(first, len(order))).tolist()
        for key, count, (a, b, c, d) in zip(keys[order][first].tolist(), counts, sums, strict=True):
            total = ((a << 96) + (b << 64) + (c << 32) + d) & _MASK
            self._root = _added(self._root, count, total)
            self._store(self._hours, key >> 8, count, total)
            self._store(self._buckets, key, count, total)

    def _change(self, entry_id: bytes, value: int, hours: Iterable[int], count: int) -> None:
        for hour in hours:
            self._root = _added(self._root, count, value)
            self._store(self._hours, hour, count, value)
            self._store(self._buckets, (hour << 8) | bucket_of(entry_id), count, value)

    @staticmethod
    def _store(nodes: dict[int, int], key: int, count: int, value: int) -> None:
        node = _added(nodes.get(key, 0), count, value)
        if node:
            nodes[key] = node
        else:
            nodes.pop(key, None)

    @property
    def root(self) -> Digest:
        """The digest of everything."""
        return _digest(self._root)

    def hours(self) -> dict[int, Digest]:
        """The digest of each hour that holds entries."""
        return {hour: _digest(node) for hour, node in sorted(self._hours.items())}

    def buckets(self, hour: int) -> dict[int, Digest]:
        """The digests of the buckets of one hour that hold entries."""
        keys = ((bucket, self._buckets.get((hour << 8) | bucket, 0)) for bucket in range(BUCKETS))
        return {bucket: _digest(node) for bucket, node in keys if node}

    def digest(self, start: int, end: int) -> Digest:
        """The digest of the hours that start <= t < end touches (microseconds), and of WIDE_HOUR."""
        if end <= start:
            return _digest(self._hours.get(WIDE_HOUR, 0))
        first, last = hour_of(start), hour_of(end - 1)
        if last - first >= len(self._hours):
            wanted = [n for h, n in self._hours.items() if first <= h <= last or h == WIDE_HOUR]
        else:
            hours = (WIDE_HOUR, *(h for h in range(first, last + 1) if h != WIDE_HOUR))
            wanted = [self._hours.get(hour, 0) for hour in hours]
        total = 0
        for node in wanted:
            total = _added(total, node >> _BITS, node & _MASK)
        return _digest(total)
