"""The table is the best there is: compared with a model that tries every table."""

from collections import Counter
from itertools import combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from records.ids import NodeId
from ring.assignment import Table, assign
from ring.placement import PlacementRule, placement_rule
from ring.ring import RingMember

SHARDS = 3


def kept(table: Table, previous: Table) -> int:
    return sum(len({*new} & {*old}) for new, old in zip(table, previous, strict=True))


def satisfies(table: Table, rule: PlacementRule, zones: dict[str, str]) -> bool:
    loads = Counter(str(node) for owners in table for node in owners)
    return all(loads[node] in bounds for node, bounds in rule.per_node.items()) and all(
        Counter(zones[node] for node in owners)[zone] in bounds
        for owners in table
        for zone, bounds in rule.per_shard.items()
    )


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from([1, 2, 3])), min_size=1, max_size=4),
    st.integers(1, 3),
    st.lists(st.permutations("abcde"), min_size=SHARDS, max_size=SHARDS),
    st.integers(0, 3),
)
@settings(max_examples=60)
def test_table_satisfies_the_rule_and_keeps_as_much_as_any_table_can(
    nodes: list[tuple[str, int]], n: int, before: list[list[str]], had: int
) -> None:
    """All tables of 3 shards on up to 4 nodes, from any table before (also of nodes now gone)."""
    members = [RingMember("abcd"[i], zone, weight) for i, (zone, weight) in enumerate(nodes)]
    zones = {member.id: member.zone for member in members}
    previous = tuple(tuple(NodeId(node) for node in row[:had]) for row in before)
    rule = placement_rule(members, n, SHARDS)

    table = assign(rule, zones, previous)

    assert satisfies(table, rule, zones)
    sets = [tuple(NodeId(x) for x in c) for c in combinations(sorted(zones), rule.replicas)]
    possible = (t for t in product(sets, repeat=SHARDS) if satisfies(t, rule, zones))
    assert kept(table, previous) == max(kept(t, previous) for t in possible)


def test_nothing_changes_if_nothing_has_to() -> None:
    """A table that is good already comes back as it is, order included."""
    members = [RingMember(name) for name in "abcd"]
    zones = dict.fromkeys("abcd", "")
    rule = placement_rule(members, 2, 4)
    table = tuple((NodeId(x), NodeId(y)) for x, y in ("ab", "bc", "cd", "da"))

    assert assign(rule, zones, table) == table


def test_order_changes_as_little_as_balance_needs() -> None:
    """Two nodes own all four shards and one is first for all: exactly two shards turn round."""
    a, b = NodeId("a"), NodeId("b")
    rule = placement_rule([RingMember("a"), RingMember("b")], 2, 4)

    table = assign(rule, {"a": "", "b": ""}, ((a, b),) * 4)

    assert sorted(table) == [(a, b), (a, b), (b, a), (b, a)]


def test_no_nodes_give_rows_without_owners() -> None:
    """The ring before the first storage node."""
    assert assign(placement_rule([], 3, 2), {}, ((), ())) == ((), ())
