"""Preference lists: primaries, then fallbacks round the zones, the same on each node."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.ids import NodeId, RingEpoch, ShardId
from ring.builder import build_ring
from ring.preference import PreferenceList, preference_list, preference_lists
from ring.ring import Ring, RingMember

A, B, C, D = (NodeId(name) for name in "abcd")


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from([0, 1, 2])), max_size=8))
@settings(max_examples=30)
def test_list_has_every_member_with_weight_once(nodes: list[tuple[str, int]]) -> None:
    """Primaries are the owners in order; fallbacks are all the others but those drained."""
    members = [RingMember(f"n{i}", zone, weight) for i, (zone, weight) in enumerate(nodes)]
    members.append(RingMember("last", "z"))
    ring = build_ring(members)

    for shard, preference in enumerate(preference_lists(ring)):
        assert preference.shard == shard
        assert preference.primaries == ring.owners(shard)
        assert sorted(preference) == sorted(m.id for m in members if m.weight > 0)
        assert len(preference) == len(list(preference))


def test_fallbacks_come_from_zones_without_a_primary_first() -> None:
    """Primaries in x and y; of the others, z's two nodes and one more of x: z comes first."""
    nodes = [("a", "x"), ("b", "y"), ("c", "z"), ("d", "x"), ("e", "z")]
    members = tuple(RingMember(name, zone) for name, zone in nodes)
    ring = Ring(RingEpoch(1), 2, members, ((A, B),))

    fallbacks = preference_list(ring, 0).fallbacks

    assert fallbacks[0] in ("c", "e")
    assert sorted(fallbacks) == ["c", "d", "e"]


def test_hints_of_a_lost_node_are_spread_over_the_others() -> None:
    """The first fallbacks of 32 shards on 8 nodes: nobody keeps more than a third of the hints."""
    ring = build_ring([RingMember(f"n{i}") for i in range(8)])
    first = Counter(preference.fallbacks[0] for preference in preference_lists(ring))

    assert len(first) >= 6
    assert max(first.values()) <= 32 / 3


def test_stand_ins_are_living_fallbacks_each_for_one_primary() -> None:
    """Two primaries are down and so is the first fallback: only one hint keeper is left."""
    preference = PreferenceList(ShardId(0), (A, B), (C, D))

    assert preference.stand_ins(()) == {}
    assert preference.stand_ins({A}) == {A: C}
    assert preference.stand_ins({A, B}) == {A: C, B: D}
    assert preference.stand_ins({A, B, C}) == {A: D}
    assert preference.stand_ins({C}) == {}


def test_order_of_fallbacks_is_fixed() -> None:
    """The same at each call and for rings built in another order; by shard it differs."""
    names = [f"n{i}" for i in range(9)]
    some = build_ring([RingMember(name) for name in names])
    others = build_ring([RingMember(name) for name in reversed(names)])

    assert preference_lists(some) == preference_lists(others)
    assert len({p.fallbacks[0] for p in preference_lists(some)}) > 1


def test_unknown_shard_is_refused() -> None:
    """As in the ring itself."""
    with pytest.raises(ValueError, match=r"shard must be in 0\.\.31"):
        preference_list(Ring.empty(), 32)


def test_node_that_is_primary_and_fallback_is_our_own_mistake() -> None:
    """A hint on an owner would be counted as a copy that it is not."""
    with pytest.raises(AssertionError, match="a node twice"):
        PreferenceList(ShardId(0), (A, B), (B,))
