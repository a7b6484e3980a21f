"""The ring's own invariants, and what it answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.errors import InvalidRequest
from records.ids import NodeId, RingEpoch
from ring.ring import NAME_LENGTH_MAX, REPLICATION_MAX, WEIGHT_MAX, Ring, RingMember
from ring.shards import shard_of_token
from ring.tokens import RING_SIZE

A, B, C = (NodeId(name) for name in "abc")
MEMBERS = (RingMember("a", "z1"), RingMember("b", "z2"), RingMember("c", "z3", 0))


def small(*table: tuple[NodeId, ...], n: int = 2) -> Ring:
    return Ring(RingEpoch(4), n, MEMBERS, table)


def test_ring_answers_who_owns_what() -> None:
    """Owners, loads, and groups of shards, of a table written by hand."""
    ring = small((A, B), (B, A), (A, C), (B, A))

    assert ring.shard_count == 4
    assert ring.owners(1) == (B, A)
    assert ring.shards_of("a") == (0, 1, 2, 3)
    assert ring.shards_of("c") == (2,)
    assert ring.shards_of("stranger") == ()
    assert ring.loads() == {A: 4, B: 3, C: 1}
    assert ring.loads(0) == {A: 2, B: 2, C: 0}
    assert ring.zones == {A: "z1", B: "z2", C: "z3"}
    assert ring.effective_n == 2
    assert ring.replica_sets() == {frozenset({A, B}): (0, 1, 3), frozenset({A, C}): (2,)}


def test_virtual_nodes_are_the_claims_in_order_of_token() -> None:
    """One for each replica: where the arc begins, which shard, who, and at which place."""
    nodes = small((A, B), (B,)).virtual_nodes()

    assert nodes == ((0, 0, A, 0), (0, 0, B, 1), (RING_SIZE // 2, 1, B, 0))


@given(st.integers(1, 70), st.integers(0, RING_SIZE - 1))
def test_token_map_agrees_with_the_arithmetic(count: int, token: int) -> None:
    """The sorted map of arcs and the shift give one answer, also where the count is no power of 2."""
    ring = Ring.empty(shard_count=count)

    assert ring.shard_at(token) == shard_of_token(token, count)
    assert token in ring.arc(ring.shard_at(token))


def test_empty_ring_has_shards_but_no_owners() -> None:
    """Before the first storage node everything can be asked, and nobody owns anything."""
    ring = Ring.empty()

    assert (ring.epoch, ring.n, ring.shard_count, ring.effective_n) == (0, 3, 32, 0)
    assert ring.owners(31) == ()
    assert ring.loads() == {}


@pytest.mark.parametrize("shard", [-1, 4])
def test_owners_of_a_shard_that_is_not_there_are_refused(shard: int) -> None:
    """A negative shard would quietly be another one's owners."""
    with pytest.raises(ValueError, match=r"shard must be in 0\.\.3"):
        small((A,), (A,), (A,), (A,)).owners(shard)


def test_ring_is_a_value() -> None:
    """Equal by content, usable as a key, not to be changed."""
    assert small((A, B)) == small((A, B))
    assert hash(small((A, B))) == hash(small((A, B)))
    assert small((A, B)) != small((B, A))
    with pytest.raises(AttributeError):
        small((A, B)).n = 3  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("epoch", "n", "members", "table", "message"),
    [
        (-1, 2, MEMBERS, ((A, B),), "epoch must not be negative"),
        (1, 0, MEMBERS, ((A, B),), r"n must be in 1\.\.16"),
        (1, REPLICATION_MAX + 1, MEMBERS, ((A, B),), r"n must be in 1\.\.16"),
        (1, 2, MEMBERS, (), r"1\.\.4096 shards, this one 0"),
        (1, 2, MEMBERS, ((A, B),) * 4097, r"1\.\.4096 shards, this one 4097"),
        (1, 2, MEMBERS[::-1], ((A, B),), "sorted by id"),
        (1, 2, (MEMBERS[0], MEMBERS[0]), ((A,),), "each once"),
        (1, 2, MEMBERS, ((A, B), (B, B)), "shard 1 has an owner twice"),
        (1, 2, MEMBERS, ((A, NodeId("d")),), "shard 0 has an owner that is no member"),
        (1, 2, MEMBERS, ((A, B), ()), r"shard 1 must have 1\.\.2 owners, has 0"),
        (1, 2, MEMBERS, ((A, B, C),), r"shard 0 must have 1\.\.2 owners, has 3"),
        (1, 2, (), ((A,),), "no member"),
        (1, 2, tuple(RingMember(f"{i:04}") for i in range(1001)), ((A,),), "at most 1000 members"),
    ],
)
def test_ring_that_breaks_an_invariant_cannot_be_made(
    epoch: int,
    n: int,
    members: tuple[RingMember, ...],
    table: tuple[tuple[NodeId, ...], ...],
    message: str,
) -> None:
    """Each invariant of the module's docstring, broken alone."""
    with pytest.raises(InvalidRequest, match=message):
        Ring(RingEpoch(epoch), n, members, table)


@pytest.mark.parametrize(
    ("name", "zone", "weight", "message"),
    [
        ("", "z", 1, r"id must be text of 1\.\.128"),
        ("x" * (NAME_LENGTH_MAX + 1), "z", 1, "id must be text"),
        (7, "z", 1, "id must be text"),
        ("a\ud800", "z", 1, "id is not Unicode"),
        ("a", None, 1, r"zone must be text of 0\.\.128"),
        ("a", "z" * (NAME_LENGTH_MAX + 1), 1, "zone must be text"),
        ("a", "z", -0.5, "weight of ring member 'a'"),
        ("a", "z", float("nan"), "weight of ring member 'a'"),
        ("a", "z", float("inf"), "weight of ring member 'a'"),
        ("a", "z", WEIGHT_MAX * 1.01, "weight of ring member 'a'"),
        ("a", "z", True, "weight of ring member 'a'"),
        ("a", "z", "1", "weight of ring member 'a'"),
        ("a", "z", 10**400, "weight of ring member 'a'"),
    ],
)
def test_member_out_of_bounds_is_refused(
    name: object, zone: object, weight: object, message: str
) -> None:
    """What an operator, or a peer, may get wrong about a member."""
    with pytest.raises(InvalidRequest, match=message):
        RingMember(name, zone, weight)  # pyright: ignore[reportArgumentType]


def test_member_weights_that_are_equal_are_written_alike() -> None:
    """1 and 1.0, 0 and -0.0 are one weight, so they must be one text in the ring's bytes."""
    assert [repr(RingMember("a", "", weight).weight) for weight in (1, 1.0, 0, -0.0)] == [
        *("1.0", "1.0", "0.0", "0.0")
    ]
