"""Deltas: what moves, one replica of a shard at a time, ending at the target."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.errors import InvalidRequest
from records.ids import NodeId, RingEpoch
from ring.builder import RingBuilder, build_ring
from ring.delta import ReplicaMove, RingDelta
from ring.ring import Ring, RingMember

Row = tuple[NodeId, ...]


def nodes(names: str) -> Row:
    return tuple(NodeId(name) for name in names)


def ring(epoch: int, n: int, zones: dict[str, str], *rows: str) -> Ring:
    members = tuple(RingMember(name, zone) for name, zone in sorted(zones.items()))
    return Ring(RingEpoch(epoch), n, members, tuple(nodes(row) for row in rows))


FLAT = dict.fromkeys("abcdef", "")


def moves_of(delta: RingDelta) -> list[tuple[int, str | None, str | None]]:
    return [(move.shard, move.source, move.target) for move in delta.moves]


def test_delta_says_who_gives_and_who_gets() -> None:
    """One exchange, one change of order, one shard untouched."""
    old = ring(7, 2, FLAT, "ab", "ab", "cd")
    new = ring(8, 2, FLAT, "ac", "ba", "cd")

    delta = RingDelta.between(old, new)

    assert moves_of(delta) == [(0, "b", "c")]
    assert delta.reordered == (1,)
    assert (delta.copies, delta.gains(), delta.losses()) == (1, {"c": 1}, {"b": 1})


def test_equal_rings_have_nothing_to_move_but_still_a_next_epoch() -> None:
    """No rounds; the one ring that follows has the target's table under the next epoch."""
    old, new = ring(7, 2, FLAT, "ab"), ring(8, 2, FLAT, "ba")
    delta = RingDelta.between(old, new)

    assert (delta.moves, delta.rounds()) == ((), ())
    assert delta.rings() == (new,)


def test_a_shard_moves_one_replica_a_round() -> None:
    """Three replicas of shard 0 and one of shard 1 move: three rounds, shard 1 in the first."""
    old, new = ring(1, 3, FLAT, "abc", "abc"), ring(2, 3, FLAT, "def", "abd")

    delta = RingDelta.between(old, new)
    rounds, rings = delta.rounds(), delta.rings()

    assert [[move.shard for move in moves] for moves in rounds] == [[0, 1], [0], [0]]
    assert [r.epoch for r in rings] == [2, 3, 4]
    assert [r.table for r in rings] == [
        (nodes("dbc"), nodes("abd")),
        (nodes("dec"), nodes("abd")),
        (nodes("def"), nodes("abd")),
    ]


def test_added_replicas_come_first_and_dropped_ones_last() -> None:
    """Going from 1 to 3 nodes or back there is never a moment with fewer copies than at both ends."""
    one, three = ring(1, 3, FLAT, "a"), ring(2, 3, FLAT, "bcd")

    up = RingDelta.between(one, three)
    down = RingDelta.between(three, one)

    assert [(source is None) for _, source, _ in moves_of(up)] == [True, True, False]
    assert [(target is None) for _, _, target in moves_of(down)] == [False, True, True]
    assert [len(r.table[0]) for r in up.rings()] == [2, 3, 3]
    assert [len(r.table[0]) for r in down.rings()] == [3, 2, 1]


def test_exchanges_keep_zones_distinct_where_they_can() -> None:
    """x1 y1 z1 -> x2 y2 z2 goes zone by zone, though the target names them in another order."""
    zones = {"a": "x", "b": "y", "c": "z", "d": "x", "e": "y", "f": "z"}
    old, new = ring(1, 3, zones, "abc"), ring(2, 3, zones, "fde")

    delta = RingDelta.between(old, new)

    assert {(source, target) for _, source, target in moves_of(delta)} == {
        *(("a", "d"), ("b", "e"), ("c", "f"))
    }
    for step in delta.rings():
        assert len({step.zones[owner] for owner in step.owners(0)}) == 3


member_lists = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.tuples(st.sampled_from("xyz"), st.sampled_from([1.0, 2.0])),
    min_size=1,
)


@given(member_lists, member_lists, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=60)
def test_rounds_lead_from_any_ring_to_any_other(
    some: dict[str, tuple[str, float]], others: dict[str, tuple[str, float]], n: int, m: int
) -> None:
    """Each step: at most one replica of a shard differs, epochs rise by 1, never fewer copies than
    the poorer end has; at the end the target's table and members."""
    old = build_ring([RingMember(k, *v) for k, v in some.items()], n=n, shard_count=8)
    new = build_ring([RingMember(k, *v) for k, v in others.items()], n=m, shard_count=8)

    steps = RingDelta.between(old, new).rings()

    least = min(old.effective_n, new.effective_n)
    for before, after in zip((old, *steps), steps, strict=False):
        assert after.epoch == before.epoch + 1
        for was, now in zip(before.table, after.table, strict=True):
            assert len({*was} - {*now}) <= 1
            assert len({*now} - {*was}) <= 1
            assert len(now) >= least
    assert (steps[-1].table, steps[-1].members, steps[-1].n) == (new.table, new.members, new.n)


@given(st.integers(3, 8))
@settings(max_examples=6)
def test_one_node_more_is_one_round(count: int) -> None:
    """The usual change: the new node can take at most one replica of each shard, so one round."""
    old = build_ring([RingMember(f"n{i}") for i in range(count)])
    new = RingBuilder(old).add(RingMember("new")).build()

    assert len(RingDelta.between(old, new).rounds()) == 1
    assert RingDelta.between(old, new).rings() == (new,)


def test_rings_of_different_clusters_have_no_delta() -> None:
    """The shard count is fixed for a cluster's life."""
    with pytest.raises(InvalidRequest, match="a ring of 1 shards cannot become one of 2"):
        RingDelta.between(ring(1, 1, FLAT, "a"), ring(2, 1, FLAT, "a", "a"))


def test_move_to_itself_is_our_own_mistake() -> None:
    """Nor is there a move from nobody to nobody."""
    with pytest.raises(AssertionError):
        ReplicaMove(*(0, NodeId("a"), NodeId("a")))  # pyright: ignore[reportArgumentType]
    with pytest.raises(AssertionError):
        ReplicaMove(*(0, None, None))  # pyright: ignore[reportArgumentType]
