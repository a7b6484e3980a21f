"""Names of things: nodes, shards, epochs, blocks, entries.

Ids are plain `str`, `int` and `bytes` under `NewType`, so they cost nothing and pack as they are.
`BlockId`, `EntryId` and `RunId` are 16 bytes. Block ids sort by creation time (48 bits of milliseconds,
as in ULID), then by the 80 bits that the maker supplies.

A *run* is what numbers rows: a producer epoch, whose rows have sequences, or an entry without a producer,
whose rows are counted from 0. (run, number) names a row, whichever entry holds the copy that is seen.
"""

import hashlib
from collections.abc import Iterable
from typing import NewType

NodeId = NewType("NodeId", str)
ShardId = NewType("ShardId", int)
BlockId = NewType("BlockId", bytes)
EntryId = NewType("EntryId", bytes)
RunId = NewType("RunId", bytes)
RingEpoch = NewType("RingEpoch", int)
ShardEpoch = NewType("ShardEpoch", int)
ProducerEpoch = NewType("ProducerEpoch", int)

NO_SHARD_EPOCH = ShardEpoch(0)
NO_PRODUCER_EPOCH = ProducerEpoch(0)
ID_BYTES = 16
DEFAULT_TENANT = "default"
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def block_id(unix_ms: int, tail: bytes) -> BlockId:
    """A block id from its creation time (milliseconds) and 10 bytes unique to the maker."""
    if len(tail) != 10:
        raise ValueError(f"the tail of a block id is 10 bytes, got {len(tail)}")
    return BlockId(unix_ms.to_bytes(6, "big") + tail)


def ulid(id_bytes: bytes) -> str:
    """The 26-character Crockford text of 16 bytes (the ULID specification's encoding)."""
    value = int.from_bytes(id_bytes, "big")
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def digest_id(*parts: bytes) -> bytes:
    """16 bytes of SHA-256 over length-prefixed `parts`: no two lists of parts look alike."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.digest()[:ID_BYTES]


def sequenced_entry_id(
    shard: int,
    tenant: str,
    service: str,
    producer: str,
    epoch: int,
    seqs: Iterable[tuple[int, int]],
) -> EntryId:
    """The id of a sequenced entry: its producer, epoch and (closed) seq intervals name it for ever."""
    spans = b"".join(a.to_bytes(8, "big") + b.to_bytes(8, "big") for a, b in seqs)
    head = [b"seq", str(shard).encode(), tenant.encode(), service.encode(), producer.encode()]
    return EntryId(digest_id(*head, str(epoch).encode(), spans))


def producer_run(tenant: str, service: str, producer: str, epoch: int) -> RunId:
    """The run of a producer epoch. That of an entry without a producer is its entry id."""
    names = (tenant.encode(), service.encode(), producer.encode(), str(epoch).encode())
    return RunId(digest_id(b"run", *names))


def digest_entry_id(shard: int, scope: bytes, content: bytes, window: int) -> EntryId:
    """The id of an unsequenced entry: who sent which bytes, in which dedupe window.

    `scope` names tenant, surface, principal and peer; `content` is the digest of the request's
    decoded body; `window` is the number of the window, 0 for identities that never age.
    """
    return EntryId(digest_id(b"dig", str(shard).encode(), scope, content, str(window).encode()))
