"""Bytes of a ring: golden, both ways, and each byte cut and flipped."""

import json
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.errors import InvalidRequest
from records.ids import NodeId, RingEpoch
from ring.builder import RingBuilder, build_ring
from ring.ring import Ring, RingMember
from ring.serde import SIZE_BYTES_MAX, from_bytes, from_dict, to_bytes, to_dict

A, B = NodeId("a"), NodeId("é")
SMALL = Ring(
    RingEpoch(7), 2, (RingMember("a", "z1", 1), RingMember("é", "", 0.5)), ((A, B), (B, A), (A,))
)
GOLDEN_BODY = (
    b'{"epoch":7,"format":1,"members":[["a","z1",1.0],["\\u00e9","",0.5]],'
    b'"n":2,"owners":[[0,1],[1,0],[0]]}'
)
GOLDEN = b"QLRING1 2bd63101\n" + GOLDEN_BODY


def crc32(data: bytes) -> int:
    """CRC-32 (IEEE 802.3) bit by bit, from its definition."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0xEDB88320 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_bytes_are_the_golden_ones() -> None:
    """The format, written by hand. A change of it is a new format number, and reads this one too."""
    assert to_bytes(SMALL) == GOLDEN
    assert from_bytes(GOLDEN) == SMALL
    assert GOLDEN[8:16] == b"%08x" % crc32(GOLDEN_BODY)


def test_dict_is_plain_values() -> None:
    """What the replicated state and `GET /cluster/ring` carry."""
    assert to_dict(SMALL) == {
        "format": 1,
        "epoch": 7,
        "n": 2,
        "members": [["a", "z1", 1.0], ["é", "", 0.5]],
        "owners": [[0, 1], [1, 0], [0]],
    }


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
members = st.dictionaries(
    names, st.tuples(names | st.just(""), st.floats(0.001, 1000)), max_size=6
).map(lambda found: [RingMember(key, *rest) for key, rest in found.items()])


@given(members, st.integers(1, 4), st.integers(1, 9))
@settings(max_examples=60)
def test_ring_survives_its_bytes_and_its_dict(
    nodes: list[RingMember], n: int, shard_count: int
) -> None:
    """Round trips; msgpack gives tuples or lists, integers for whole weights: all are one ring."""
    ring = build_ring(nodes, n=n, shard_count=shard_count)
    plain = to_dict(ring)
    packed = {**plain, "members": tuple(map(tuple, plain["members"]))}

    assert from_bytes(to_bytes(ring)) == ring
    assert from_dict(plain) == from_dict(packed) == ring
    assert to_bytes(from_dict(json.loads(json.dumps(plain)))) == to_bytes(ring)


def test_ring_read_back_builds_the_same_next_ring() -> None:
    """Nothing that the builder needs is lost on the way."""
    ring = build_ring([RingMember(f"n{i}", f"z{i % 3}") for i in range(5)])
    again = from_bytes(to_bytes(ring))

    assert to_bytes(RingBuilder(again).remove("n2").build()) == to_bytes(
        RingBuilder(ring).remove("n2").build()
    )


def test_each_cut_is_refused() -> None:
    """Every prefix, and a byte too many."""
    for length in range(len(GOLDEN)):
        with pytest.raises(InvalidRequest):
            from_bytes(GOLDEN[:length])
    with pytest.raises(InvalidRequest):
        from_bytes(GOLDEN + b"\n")


def test_each_flipped_bit_is_refused() -> None:
    """Each bit of each byte, magic and checksum included."""
    for at in range(len(GOLDEN)):
        for bit in range(8):
            damaged = GOLDEN[:at] + bytes([GOLDEN[at] ^ (1 << bit)]) + GOLDEN[at + 1 :]
            with pytest.raises(InvalidRequest):
                from_bytes(damaged)


def framed(body: bytes) -> bytes:
    return b"QLRING1 %08x\n" % zlib.crc32(body) + body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "a ring is an object, not list"),
        (GOLDEN_BODY.replace(b'"n":2', b'"n":2,"n":2'), "canonical"),
        (GOLDEN_BODY.replace(b"1.0", b"1"), "canonical"),
        (GOLDEN_BODY.replace(b"\\u00e9", "é".encode()), "canonical"),
        (GOLDEN_BODY.replace(b":7", b": 7"), "canonical"),
        (GOLDEN_BODY.replace(b"0.5", b"NaN"), "weight of ring member"),
        (GOLDEN_BODY.replace(b"\\u00e9", b"\\ud800"), "id is not Unicode"),
    ],
)
def test_bytes_with_a_good_checksum_are_still_not_trusted(body: bytes, message: str) -> None:
    """Not JSON, or a second way of writing the same ring."""
    with pytest.raises(InvalidRequest, match=message):
        from_bytes(framed(body))


def test_too_many_bytes_are_refused_unread() -> None:
    """Before any checksum is computed."""
    with pytest.raises(InvalidRequest, match="at most"):
        from_bytes(b"x" * (SIZE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "ring format 2 is unknown"),
        ({"format": None}, "ring format None is unknown"),
        ({"extra": 1}, "missing or unknown: 'extra'"),
        ({"format": True}, "ring format True is unknown"),
        ({"epoch": -1}, "epoch must be a whole number"),
        ({"epoch": 1 << 63}, "epoch must be a whole number"),
        ({"epoch": True}, "epoch must be a whole number"),
        ({"epoch": 1.0}, "epoch must be a whole number"),
        ({"n": "2"}, "n must be a whole number"),
        ({"n": 0}, "n must be in"),
        ({"members": {}}, "members must be a list, not dict"),
        ({"members": [["a", "z"]]}, "a ring member is"),
        ({"members": ["abc"]}, "member must be a list, not str"),
        ({"members": [["a", "z", "1"], ["b", "z", 1]]}, "weight of ring member"),
        ({"members": [["b", "z", 1], ["a", "z", 1]]}, "sorted by id"),
        ({"owners": None}, "owners must be a list"),
        ({"owners": []}, "shards, this one 0"),
        ({"owners": [[0]] * 4097}, "4097 shards"),
        ({"owners": [0]}, "owners of shard 0 must be a list"),
        ({"owners": [[0], [2]]}, "owner of shard 1 must be a whole number in 0..1, got 2"),
        ({"owners": [[-1]]}, "owner of shard 0 must be a whole number"),
        ({"owners": [[0, 0]]}, "owner twice"),
        ({"owners": [[]]}, "must have"),
    ],
)
def test_malformed_dict_is_refused_with_the_part_that_is_wrong(
    change: dict[str, Any], message: str
) -> None:
    """A good dict with one thing changed."""
    with pytest.raises(InvalidRequest, match=message):
        from_dict({**to_dict(SMALL), **change})


@pytest.mark.parametrize("missing", ["epoch", "format", "members", "n", "owners"])
def test_each_field_is_needed(missing: str) -> None:
    """No field has a default: a ring that was cut short is not a ring."""
    plain = to_dict(SMALL)
    del plain[missing]

    with pytest.raises(InvalidRequest, match="format" if missing == "format" else missing):
        from_dict(plain)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_value_is_a_ring_or_refused(value: Any) -> None:
    """No other exception, whatever comes: alone, or in the place of any field."""
    for candidate in (value, *({**to_dict(SMALL), key: value} for key in to_dict(SMALL))):
        with suppress(InvalidRequest):
            assert isinstance(from_dict(candidate), Ring)


def test_size_limit_leaves_room_for_the_largest_ring() -> None:
    """What can be made can be read: 1,000 members whose names are all escapes, 4096 shards of 16."""
    nodes = tuple(RingMember(f"{chr(0x10000 + i) * 128}", "\U0010ffff" * 128) for i in range(1000))
    owners = tuple(NodeId(member.id) for member in nodes[-16:])
    ring = Ring(RingEpoch((1 << 63) - 1), 16, nodes, (owners,) * 4096)

    assert 0.5 * SIZE_BYTES_MAX < len(to_bytes(ring)) <= SIZE_BYTES_MAX
    assert from_bytes(to_bytes(ring)) == ring


def test_errors_about_huge_values_are_short() -> None:
    """A refusal must not carry, or choke on, what was refused."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for key, value in (("epoch", deep), ("n", "x" * 10_000), ("members", [["a", "", 10**400]])):
        with pytest.raises(InvalidRequest) as caught:
            from_dict({**to_dict(SMALL), key: value})
        assert len(caught.value.message) < 300
