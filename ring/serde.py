"""A ring as plain values, and as bytes: the same ring, the same bytes, on each node and version.

`to_dict` is for the replicated state and for people (`GET /cluster/ring`); `to_bytes` for what is
stored or compared alone. Both carry a format version. Reading trusts nothing: an unknown field, a
wrong type or an owner that is no member is refused with its name, before a Ring exists.

    QLRING1 5f3c09aa\\n                          magic and version, CRC-32 of the rest in hex
    {"epoch":3,"format":1,"members":[["a","z1",1.0]],"n":1,"owners":[[0],[0]]}

JSON with sorted keys and no white space; owners are indexes into the members, one row a shard. A
form that would be written differently is refused, so bytes may be compared, or hashed, for equality.
"""

import json
import reprlib
import zlib
from typing import Any

from records.errors import InvalidRequest
from records.ids import NodeId, RingEpoch
from ring.ring import Ring, RingMember
from ring.shards import MAX_SHARD_COUNT

FORMAT = 1
_MAGIC = b"QLRING1 "
_HEAD_BYTES = len(_MAGIC) + 8 + 1
_KEYS = {"epoch", "format", "members", "n", "owners"}
#: No ring is longer: 4096 shards of 16 owners, 1,000 members with the longest names in "\\u" escapes.
SIZE_BYTES_MAX = 4 << 20
EPOCH_MAX = (1 << 63) - 1


def to_dict(ring: Ring) -> dict[str, Any]:
    """The ring in plain JSON and msgpack values; `from_dict` is its inverse."""
    index = {member.id: number for number, member in enumerate(ring.members)}
    return {
        "format": FORMAT,
        "epoch": int(ring.epoch),
        "n": ring.n,
        "members": [[member.id, member.zone, member.weight] for member in ring.members],
        "owners": [[index[owner] for owner in owners] for owners in ring.table],
    }


def from_dict(value: Any) -> Ring:
    """The ring in plain values, checked in full; tuples are taken for lists (msgpack gives both).

    Raises:
        InvalidRequest: says which part is not as it should be.
    """
    if not isinstance(value, dict):
        raise InvalidRequest(f"a ring is an object, not {type(value).__name__}")
    version = value.get("format")
    if type(version) is not int or version != FORMAT:
        raise InvalidRequest(f"ring format {reprlib.repr(version)} is unknown, this is {FORMAT}")
    if set(value) != _KEYS:
        odd = sorted(reprlib.repr(key) for key in _KEYS.symmetric_difference(value))
        raise InvalidRequest(f"ring fields missing or unknown: {', '.join(odd[:9])}")
    epoch = _whole(value["epoch"], "epoch", EPOCH_MAX)
    members = tuple(_member(row) for row in _rows(value["members"], "members"))
    rows = _rows(value["owners"], "owners")
    if len(rows) > MAX_SHARD_COUNT:
        raise InvalidRequest(f"ring owners: {len(rows)} shards, at most {MAX_SHARD_COUNT}")
    table = tuple(_owners(row, members, shard) for shard, row in enumerate(rows))
    return Ring(RingEpoch(epoch), _whole(value["n"], "n", EPOCH_MAX), members, table)


#: Values read last, with their rings: (value, ring). Replaced as a whole, so threads may share it.
_read: tuple[tuple[dict[str, Any], Ring], ...] = ()
_READ_MAX = 8


def ring_of(value: dict[str, Any]) -> Ring:
    """`from_dict` of a value that nobody ever changes, as those of the replicated state: read once.

    A ring of 4096 shards takes 10 ms to read, and a change of the ring looks at the same one many times.

    Raises:
        InvalidRequest: as `from_dict`.
    """
    global _read
    for known, ring in _read:
        if known is value:
            return ring
    ring = from_dict(value)
    _read = ((value, ring), *_read[: _READ_MAX - 1])
    return ring


def to_bytes(ring: Ring) -> bytes:
    """The ring's one and only byte form."""
    body = json.dumps(
        to_dict(ring), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")
    return _MAGIC + b"%08x\n" % zlib.crc32(body) + body


def from_bytes(data: bytes) -> Ring:
    """The ring in `data`.

    Raises:
        InvalidRequest: not a ring, cut, changed, or not in the one form that `to_bytes` gives.
    """
    if len(data) > SIZE_BYTES_MAX:
        raise InvalidRequest(f"ring of {len(data)} bytes, at most {SIZE_BYTES_MAX}")
    if data[: len(_MAGIC)] != _MAGIC:
        raise InvalidRequest(f"not a ring of format {FORMAT}: starts with {data[:8]!r}")
    body = data[_HEAD_BYTES:]
    if data[len(_MAGIC) : _HEAD_BYTES] != b"%08x\n" % zlib.crc32(body):
        raise InvalidRequest("ring bytes do not match their checksum")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"ring is not JSON: {error}") from error
    ring = from_dict(value)
    if to_bytes(ring) != data:
        raise InvalidRequest("ring is not in its canonical form")
    return ring


def _whole(value: Any, name: str, highest: int) -> int:
    if type(value) is not int or not 0 <= value <= highest:
        raise InvalidRequest(
            f"ring {name} must be a whole number in 0..{highest}, got {reprlib.repr(value)}"
        )
    return value


def _rows(value: Any, name: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidRequest(f"ring {name} must be a list, not {type(value).__name__}")
    return value


def _member(row: Any) -> RingMember:
    parts = _rows(row, "member")
    if len(parts) != 3:
        raise InvalidRequest(f"a ring member is [id, zone, weight], got {reprlib.repr(row)}")
    return RingMember(*parts)


def _owners(row: Any, members: tuple[RingMember, ...], shard: int) -> tuple[NodeId, ...]:
    indexes = _rows(row, f"owners of shard {shard}")
    name, highest = f"owner of shard {shard}", len(members) - 1
    return tuple(NodeId(members[_whole(index, name, highest)].id) for index in indexes)
