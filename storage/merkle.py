"""The Merkle tree over entries: per shard, root -> hour -> 256 buckets by entry id -> entries.

A node is (count, sum of H(entry id || content hash) mod 2^128). A sum, not XOR: the same entry twice does
not cancel, and adding, removing and merging are one addition. It stands over entries, not files, so replicas
that stored the same entries in other blocks, in another order, agree. An entry is filed under each hour
that its rows touch (a function of its header alone), or under WIDE_HOUR, which every range includes.

Memory: one int for the root and each hour that holds entries. The buckets of an hour are made from its
entries when two replicas differ there and ask (`buckets_of`): kept, they would take 125 bytes each for ever
and be read by nobody while replicas agree. Sources: reliability.md 2.2; Bellare and Micciancio,
"A New Paradigm for Collision-free Hashing: Incrementality at Reduced Cost" (AdHash), Eurocrypt 1997.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from records.ids import ID_BYTES
from records.timestamps import WIDE_HOUR, hour_of

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


def sums(
    ids: Sequence[bytes], hashes: Sequence[bytes], keys: np.ndarray
) -> Iterator[tuple[int, int, int]]:
    """(key, count, sum of leaves) of each distinct key, ascending. Summed in four limbs of 32 bits."""
    if not len(keys):
        return
    leaves = b"".join(
        hashlib.sha256(i + h).digest()[:ID_BYTES] for i, h in zip(ids, hashes, strict=True)
    )
    limbs = np.frombuffer(leaves, ">u4").reshape(-1, 4).astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(keys[order]) != 0))
    sums = np.add.reduceat(limbs[order], first, axis=0).tolist()
    counts = np.diff(np.append(first, len(order))).tolist()
    for key, count, (a, b, c, d) in zip(keys[order][first].tolist(), counts, sums, strict=True):
        yield key, count, ((a << 96) + (b << 64) + (c << 32) + d) & _MASK


def buckets_of(ids: Sequence[bytes], hashes: Sequence[bytes]) -> dict[int, Digest]:
    """The digests of the buckets that these entries make; they add up to the digest of their hour."""
    buckets = np.array([bucket_of(one) for one in ids], np.int64)
    return {
        bucket: (count, total.to_bytes(ID_BYTES, "big"))
        for bucket, count, total in sums(ids, hashes, buckets)
    }


class MerkleTree:
    """The tree of one shard. A node is one int: the count above 128 bits of sum."""

    __slots__ = ("_hours", "_root")

    def __init__(self) -> None:
        self._root = 0
        self._hours: dict[int, int] = {}

    def add(self, entry_id: bytes, content_hash: bytes, hours: Iterable[int]) -> None:
        """Files an entry under `hours`. Adding it twice is the caller's mistake, and shows in the count."""
        self._change(leaf(entry_id, content_hash), hours, 1)

    def remove(self, entry_id: bytes, content_hash: bytes, hours: Iterable[int]) -> None:
        """Undoes `add`."""
        self._change(-leaf(entry_id, content_hash), hours, -1)

    def add_many(self, ids: Sequence[bytes], hashes: Sequence[bytes], hours: np.ndarray) -> None:
        """Files many entries at once, each under one hour."""
        for hour, count, total in sums(ids, hashes, hours.astype(np.int64)):
            self._root = _added(self._root, count, total)
            self._store(self._hours, hour, count, total)

    def _change(self, value: int, hours: Iterable[int], count: int) -> None:
        for hour in hours:
            self._root = _added(self._root, count, value)
            self._store(self._hours, hour, count, value)

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

    def nodes(self) -> dict[int, int]:
        """A copy of the nodes of the hours that hold entries: the count above 128 bits of sum."""
        return dict(self._hours)

    def count(self, hour: int) -> int:
        """How many entries are filed under an hour."""
        return self._hours.get(hour, 0) >> _BITS

    def hours(self) -> dict[int, Digest]:
        """The digest of each hour that holds entries."""
        return {hour: _digest(node) for hour, node in sorted(self._hours.items())}

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
