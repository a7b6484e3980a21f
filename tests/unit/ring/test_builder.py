"""The builder's promises: balance, distinct nodes and zones, fewest moves, the same on each node."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.errors import InvalidRequest
from ring.builder import RingBuilder, build_ring
from ring.delta import RingDelta
from ring.placement import violations
from ring.ring import Ring, RingMember
from ring.serde import to_bytes

SIZES = st.integers(3, 8)
ZONES = ["one zone", "zone a node"]


def equal(count: int, zones: str = "one zone") -> list[RingMember]:
    return [member(i, zones) for i in range(count)]


def member(number: int, zones: str = "one zone", weight: float = 1.0) -> RingMember:
    return RingMember(f"n{number:02}", "" if zones == "one zone" else f"z{number % 100:02}", weight)


def spread(ring: Ring, position: int | None = None) -> tuple[int, int]:
    loads = ring.loads(position).values()
    return min(loads), max(loads)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from([0, 0.5, 1, 1, 1, 3, 50])),
        min_size=1,
        max_size=9,
    ).filter(lambda nodes: any(weight for _, weight in nodes)),
    st.integers(1, 4),
)
@settings(max_examples=60)
def test_any_members_give_distinct_nodes_distinct_zones_and_fair_shares(
    nodes: list[tuple[str, float]], n: int
) -> None:
    """Any weights and zones: distinct owners; distinct zones if there are n; whole shares."""
    members = [RingMember(f"n{i}", zone, weight) for i, (zone, weight) in enumerate(nodes)]
    ring = build_ring(members, n=n)

    live = [m for m in members if m.weight > 0]
    zones = {m.zone for m in live}
    for shard in range(32):
        owners = ring.owners(shard)
        assert len(set(owners)) == len(owners) == min(n, len(live))
        assert len({ring.zones[owner] for owner in owners}) == min(n, len(zones))
    assert violations(ring) == []


@pytest.mark.parametrize("zones", ZONES)
@pytest.mark.parametrize("count", range(3, 9))
def test_equal_nodes_carry_equal_loads(count: int, zones: str) -> None:
    """32 shards, n = 3: max/mean at most 1.1, or the best that whole shards allow; firsts as well.

    The mean is 96/count replicas and 32/count first positions; the best whole maximum is its ceiling.
    """
    ring = build_ring(equal(count, zones))
    replicas, firsts = 96 / count, 32 / count

    assert spread(ring) == (math.floor(replicas), math.ceil(replicas))
    assert spread(ring)[1] / replicas <= 1.1
    for position in range(3):
        assert spread(ring, position) == (math.floor(firsts), math.ceil(firsts))


@given(st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 4.0]), min_size=3, max_size=8))
@settings(max_examples=30)
def test_weights_are_respected_to_within_one_shard(weights: list[float]) -> None:
    """n = 1, so that no node is full: each has its exact share, rounded down or up."""
    ring = build_ring([member(i, weight=w) for i, w in enumerate(weights)], n=1)

    for weight, load in zip(weights, ring.loads().values(), strict=True):
        share = 32 * weight / sum(weights)
        assert abs(load - share) < 1


def test_first_positions_follow_the_loads() -> None:
    """A node of double weight holds twice the replicas and is first to be read twice as often.

    Of 64 replicas 64 * 2/6 = 21.3 and 10.7 each; of 32 first positions 10.7 and 5.3 each.
    """
    ring = build_ring([member(i, weight=2 if i == 0 else 1) for i in range(5)], n=2)

    loads, firsts = ring.loads(), ring.loads(0)

    assert [loads[m] in ((21, 22) if m == "n00" else (10, 11)) for m in loads] == [True] * 5
    assert [firsts[m] in ((10, 11) if m == "n00" else (5, 6)) for m in firsts] == [True] * 5


@given(st.sampled_from(ZONES), SIZES, st.data())
@settings(max_examples=25)
def test_history_of_equal_nodes_stays_balanced_and_moves_the_least(
    zones: str, count: int, data: st.DataObject
) -> None:
    """Any history of joins and leaves, each step: an added node receives at most its ceiling of
    1/(nodes) of the replicas and nothing else moves; a removed node's replicas are all that moves.
    """
    ring, next_number = build_ring(equal(count, zones)), count
    for _ in range(6):
        grow = len(ring.members) <= 3 or (
            len(ring.members) < 10 and data.draw(st.booleans(), label="add a node")
        )
        if grow:
            name = f"n{next_number:02}"
            new = RingBuilder(ring).add(member(next_number, zones)).build()
            next_number += 1
            delta = RingDelta.between(ring, new)
            assert delta.gains() == {name: new.loads()[name]}  # type: ignore[index]
            assert delta.copies <= math.ceil(96 / len(new.members))
        else:
            gone = data.draw(st.sampled_from(ring.members), label="remove").id
            new = RingBuilder(ring).remove(gone).build()
            delta = RingDelta.between(ring, new)
            assert delta.losses() == {gone: ring.loads()[gone]}  # type: ignore[index]
        mean = 96 / len(new.members)
        assert spread(new) == (math.floor(mean), math.ceil(mean))
        assert new.epoch == ring.epoch + 1
        ring = new


def test_growth_from_one_node_to_three_only_adds_replicas() -> None:
    """Fewer nodes than n: each node has every shard; the second and third get copies, none moves."""
    one = build_ring(equal(1))
    two = RingBuilder(one).add(member(1)).build()
    three = RingBuilder(two).add(member(2)).build()

    assert [ring.effective_n for ring in (one, two, three)] == [1, 2, 3]
    assert spread(two) == (32, 32)
    assert spread(three) == (32, 32)
    for old, new in ((one, two), (two, three)):
        delta = RingDelta.between(old, new)
        assert delta.copies == 32
        assert delta.losses() == {}


def test_lost_node_is_rebuilt_from_and_on_many_others() -> None:
    """Of 8 nodes one goes: its 12 replicas go to all 7 others, and no pair shares most shards."""
    ring = build_ring(equal(8))
    for gone in ring.loads():
        new = RingBuilder(ring).remove(gone).build()
        assert len(RingDelta.between(ring, new).gains()) >= 6
        partners = {p for shard in ring.shards_of(gone) for p in ring.owners(shard)} - {gone}
        assert len(partners) >= 6


def test_drained_node_loses_all_its_shards_and_stays_a_member() -> None:
    """Weight 0: the moves of a removal, but the node still counts as a member."""
    ring = build_ring(equal(5))
    drained = RingBuilder(ring).reweigh("n02", 0).build()

    assert sorted(drained.loads().values()) == [0, 24, 24, 24, 24]
    assert drained.shards_of("n02") == ()
    assert [m.id for m in drained.members] == [m.id for m in ring.members]
    assert drained.table == RingBuilder(ring).remove("n02").build().table


def test_replication_can_be_raised_and_lowered() -> None:
    """From 3 to 4 each shard gains a replica and keeps its three; back again, each loses one."""
    ring = build_ring(equal(6))
    four = RingBuilder(ring).replicate(4).build()
    three = RingBuilder(four).replicate(3).build()

    up, down = RingDelta.between(ring, four), RingDelta.between(four, three)
    assert (up.copies, up.losses()) == (32, {})
    assert (down.copies, down.gains()) == (0, {})
    assert sum(down.losses().values()) == 32
    assert violations(four) == violations(three) == []


def test_change_that_is_taken_back_before_building_changes_nothing() -> None:
    """Add and remove of one node in one builder: the same table, a new epoch."""
    ring = build_ring(equal(4))
    same = RingBuilder(ring).add(member(9)).remove("n09").build()

    assert (same.members, same.table, same.epoch) == (ring.members, ring.table, 2)


@pytest.mark.parametrize("count", range(3, 9))
def test_order_of_owners_that_is_balanced_is_kept(count: int) -> None:
    """Each row turned by one place is as balanced as before, so building again changes nothing."""
    ring = build_ring(equal(count))
    turned = replace(ring, table=tuple((*owners[1:], owners[0]) for owners in ring.table))

    assert RingBuilder(turned).build().table == turned.table


@given(st.permutations(range(7)), st.permutations(range(7)))
@settings(max_examples=15)
def test_order_of_calls_makes_no_difference(some: list[int], others: list[int]) -> None:
    """Same members, same bytes, whatever the order in which they were named."""
    first = build_ring([member(i, "zone a node", 1 + i % 2) for i in some])
    second = build_ring([member(i, "zone a node", 1 + i % 2) for i in others])

    assert to_bytes(first) == to_bytes(second)


_SCRIPT = """
from ring.builder import RingBuilder, build_ring
from ring.ring import RingMember
from ring.serde import to_bytes
ring = build_ring([RingMember(f"n{i}", f"z{i % 4}", 1 + i % 3) for i in {6, 2, 5, 0, 4, 1, 3}])
next_ring = RingBuilder(ring).remove("n3").add(RingMember("n9", "z2")).build()
print((to_bytes(ring) + to_bytes(next_ring)).hex())
"""


def test_process_makes_no_difference() -> None:
    """Three processes with other seeds of `hash()` build the same bytes."""
    root = Path(__file__).parents[3]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }

    assert len(outputs) == 1
    assert len(outputs.pop()) > 1000


def test_changes_that_make_no_sense_are_refused_and_named() -> None:
    """Twice the same, unknown, out of bounds; the builder is left as it was."""
    ring = build_ring(equal(3))
    builder = RingBuilder(ring)

    with pytest.raises(InvalidRequest, match="'n01' is there already"):
        builder.add(member(1))
    with pytest.raises(InvalidRequest, match="no ring member 'n07'"):
        builder.remove("n07")
    with pytest.raises(InvalidRequest, match="no ring member 'n07'"):
        builder.reweigh("n07", 1)
    with pytest.raises(InvalidRequest, match="weight of ring member 'n01'"):
        builder.reweigh("n01", -1)
    with pytest.raises(InvalidRequest, match="ring n must be"):
        builder.replicate(0)
    assert builder.build().table == ring.table


@pytest.mark.parametrize("how", ["remove", "drain"])
def test_last_node_with_shards_cannot_go(how: str) -> None:
    """Its shards would have no owner at all: refused, whether it is removed or drained."""
    builder = RingBuilder(build_ring(equal(1)))
    changed = builder.remove("n00") if how == "remove" else builder.reweigh("n00", 0)

    with pytest.raises(InvalidRequest, match="at least one member with weight above 0"):
        changed.build()


def test_ring_without_members_can_be_built() -> None:
    """A cluster whose storage nodes have not come yet has a ring, and it is empty."""
    assert build_ring([]).owners(0) == ()
