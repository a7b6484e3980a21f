"""The rule in numbers: zones a shard, shares a node; and the check of a table against it."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.ids import NodeId, RingEpoch
from ring.placement import (
    Bounds,
    fair_shares,
    placement_rule,
    proportional,
    violations,
    zone_bounds,
)
from ring.ring import Ring, RingMember


def members(*zones: str, weights: tuple[float, ...] = ()) -> list[RingMember]:
    return [
        RingMember(f"n{i:02}", zone, weights[i] if weights else 1.0) for i, zone in enumerate(zones)
    ]


@pytest.mark.parametrize(
    ("zones", "n", "expected"),
    [
        ("abc", 3, {"a": (0, 1), "b": (0, 1), "c": (0, 1)}),
        ("aabbccdd", 3, {"a": (0, 1), "b": (0, 1), "c": (0, 1), "d": (0, 1)}),
        ("aaabbb", 3, {"a": (1, 2), "b": (1, 2)}),
        ("abbbbb", 3, {"a": (1, 1), "b": (1, 2)}),
        ("aaaaaa", 3, {"a": (2, 3)}),
        ("aaaabbbb", 5, {"a": (2, 3), "b": (2, 3)}),
        ("abbbbc", 5, {"a": (1, 1), "b": (2, 3), "c": (1, 1)}),
        ("", 3, {}),
    ],
)
def test_zones_are_used_as_evenly_as_their_nodes_allow(
    zones: str, n: int, expected: dict[str, tuple[int, int]]
) -> None:
    """Worked out by hand: fill all zones to one level; small zones give all they have."""
    nodes = members(*zones)
    bounds = zone_bounds(nodes, min(n, len(nodes)))

    assert bounds == {zone: Bounds(*pair) for zone, pair in expected.items()}


@pytest.mark.parametrize(
    ("weights", "n", "shares"),
    [
        ((1, 1, 1, 1), 3, (24, 24, 24, 24)),
        ((1, 1, 2), 1, (8, 8, 16)),
        ((0.1, 0.2, 0.3, 0.2), 1, (4, 8, 12, 8)),
        ((100, 1, 1, 1), 3, (32, Fraction(64, 3), Fraction(64, 3), Fraction(64, 3))),
        ((100, 100, 1, 1), 3, (32, 32, 16, 16)),
        ((5, 1), 2, (32, 32)),
    ],
)
def test_shares_are_by_weight_up_to_one_replica_a_shard(
    weights: tuple[float, ...], n: int, shares: tuple[Fraction, ...]
) -> None:
    """32 shards, one zone. What a heavy node can't take is shared by the others. Exact for 0.1."""
    nodes = members(*[""] * len(weights), weights=weights)
    zones = zone_bounds(nodes, n)

    assert tuple(fair_shares(nodes, n, zones, 32).values()) == shares


def test_zone_rule_comes_before_weight() -> None:
    """The lone node of the third zone has a replica of every shard, and 1/5 of the weight."""
    nodes = members(*"aabbc")
    shares = fair_shares(nodes, 3, zone_bounds(nodes, 3), 32)

    assert list(shares.values()) == [16, 16, 16, 16, 32]


def test_weight_beyond_a_zone_goes_to_nodes_with_room() -> None:
    """Zones of two with n = 3; the heavy node is full at 32 and zone b's nodes take their part.

    Without zones: heavy 32, the other three 64/3 each; zone a then has 160/3, within its 32..64.
    """
    nodes = members(*"aabb", weights=(100, 1, 1, 1))
    shares = fair_shares(nodes, 3, zone_bounds(nodes, 3), 32)

    assert list(shares.values()) == [32, Fraction(64, 3), Fraction(64, 3), Fraction(64, 3)]


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9), st.integers(0, 9)), min_size=1),
    st.integers(0, 100),
)
def test_proportional_parts_are_in_bounds_and_complete(
    parts: list[tuple[int, int, int]], percent: int
) -> None:
    """Any bounds: the parts sum to the total, and free parts stand in the ratio of their weights."""
    keys = [f"k{i}" for i in range(len(parts))]
    weights = {k: Fraction(part[0]) for k, part in zip(keys, parts, strict=True)}
    lows = {k: Fraction(part[1]) for k, part in zip(keys, parts, strict=True)}
    highs = {k: Fraction(part[1] + part[2]) for k, part in zip(keys, parts, strict=True)}
    low, high = sum(lows.values(), Fraction(0)), sum(highs.values(), Fraction(0))
    total = low + (high - low) * percent / 100

    result = proportional(total, weights, lows, highs)

    assert sum(result.values()) == total
    assert all(lows[k] <= result[k] <= highs[k] for k in keys)
    free = {result[k] / weights[k] for k in keys if lows[k] < result[k] < highs[k]}
    assert len(free) <= 1
    for unit in free:
        assert all(unit * weights[k] <= lows[k] for k in keys if result[k] == lows[k] < highs[k])
        assert all(unit * weights[k] >= highs[k] for k in keys if result[k] == highs[k] > lows[k])


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 9)), max_size=9), st.integers(1, 5))
@settings(max_examples=60)
def test_rule_can_always_be_met(nodes: list[tuple[str, float]], n: int) -> None:
    """For any members the bounds leave room for exactly the replicas there are."""
    rule = placement_rule(
        members(*(z for z, _ in nodes), weights=tuple(w for _, w in nodes)), n, 32
    )

    assert rule.replicas == min(n, sum(weight > 0 for _, weight in nodes))
    for bounds, total in ((rule.per_shard, rule.replicas), (rule.per_node, rule.replicas * 32)):
        assert sum(b.low for b in bounds.values()) <= total <= sum(b.high for b in bounds.values())
    assert all(0 <= b.low <= b.high <= 32 for b in rule.per_node.values())


def test_violations_name_each_broken_part_of_the_rule() -> None:
    """A ring in the middle of a move: too few replicas, one zone twice, a full and a drained node."""
    a, b, c, d = (NodeId(name) for name in "abcd")
    nodes = (
        *(RingMember("a", "x"), RingMember("b", "x")),
        *(RingMember("c", "y"), RingMember("d", "y", 0)),
    )

    good = Ring(RingEpoch(1), 2, nodes, ((a, c), (b, c)))
    bad = Ring(RingEpoch(1), 2, nodes, ((a, b), (a,), (a, d), (a, c)))

    assert violations(good) == []
    assert violations(bad) == [
        "shard 0: 2 replicas in zone 'x', not 0..1",
        "shard 1: 1 replicas, not 2",
        "node a: 4 replicas, not 2..2",
        "node b: 1 replicas, not 2..2",
        "node c: 1 replicas, not 4..4",
        "node d: has replicas, but weight 0",
    ]
