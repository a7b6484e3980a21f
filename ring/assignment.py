"""Finds the table: one that satisfies the placement rule with the fewest replicas moved.

Replicas flow from shards through (shard, zone) to nodes:

    source -> shard (n) -> shard in zone (its bounds) -> node (once a shard) -> sink (its share)

A fair share spread thinly over all shards satisfies each bound with fractions, and a flow that
exists in fractions exists in whole numbers; so a table exists for each set of members. Costs, each
beyond all that follow it together: a bound missed, a replica moved, an affinity of shard and node
that breaks ties. The last one mixes who shares shards with whom, so that a lost node's replicas
come from all, and go to all, others.

Then positions are dealt: first each shard's position 0, then 1, and so on, each spread over the
nodes by the same means (an owner of k replicas is first for k/n of them, rounded down or up), with
as few changes as can be. Order costs no bytes to change; it decides who is read first.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from records.ids import NodeId
from ring.flow import FlowGraph
from ring.hashing import affinity
from ring.placement import Bounds, PlacementRule

Table = tuple[tuple[NodeId, ...], ...]

_TIE_BITS = 16


def assign(rule: PlacementRule, zones: Mapping[str, str], previous: Table) -> Table:
    """The table under `rule` that differs from `previous` in the fewest replicas; ordered.

    `zones` gives each eligible node's zone, its keys sorted; `previous` has one row a shard, empty
    at first, and may name nodes that are gone. Pure and deterministic.
    """
    sets = _choose_owners(rule, zones, previous)
    return _deal_positions(sets, rule.replicas, previous)


def _tie(role: str, shard: int, node: str) -> int:
    return affinity(role, str(shard), node) >> (64 - _TIE_BITS)


def _choose_owners(
    rule: PlacementRule, zones: Mapping[str, str], previous: Table
) -> list[set[str]]:
    units = rule.replicas * len(previous)
    moved = (units + 1) << _TIE_BITS
    missed = moved * (units + 1)
    graph = FlowGraph()
    source, sink = graph.node(), graph.node()
    node_at = {node: graph.node() for node in zones}
    choices: list[tuple[int, str, int]] = []
    for shard, owners in enumerate(previous):
        at = graph.node()
        graph.edge(source, at, rule.replicas)
        zone_at = {zone: graph.node() for zone in rule.per_shard}
        for zone, bounds in rule.per_shard.items():
            graph.bounded(at, zone_at[zone], bounds.low, bounds.high, missed)
        for node, zone in zones.items():
            cost = 0 if node in owners else moved + _tie("owner", shard, node)
            choices.append((shard, node, graph.edge(zone_at[zone], node_at[node], 1, cost)))
    for node, bounds in rule.per_node.items():
        graph.bounded(node_at[node], sink, bounds.low, bounds.high, missed)
    sent = graph.send(source, sink)
    assert sent == units, f"placed {sent} of {units} replicas"
    sets: list[set[str]] = [set() for _ in previous]
    for shard, node, edge in choices:
        if graph.flow_on(edge):
            sets[shard].add(node)
    return sets


def _deal_positions(sets: Sequence[set[str]], replicas: int, previous: Table) -> Table:
    rows: list[list[NodeId]] = [[] for _ in sets]
    left = [set(owners) for owners in sets]
    for position in range(replicas):
        loads = Counter(node for owners in left for node in owners)
        share = replicas - position
        bounds = {node: Bounds(loads[node] // share, -(-loads[node] // share)) for node in loads}
        for shard, node in enumerate(_deal_one(left, bounds, position, previous)):
            rows[shard].append(NodeId(node))
            left[shard].remove(node)
    return tuple(tuple(row) for row in rows)


def _deal_one(
    left: Sequence[set[str]], bounds: Mapping[str, Bounds], position: int, previous: Table
) -> list[str]:
    """One owner of each shard for `position`, out of those that have none yet."""
    changed = (len(left) + 1) << _TIE_BITS
    missed = changed * (len(left) + 1)
    graph = FlowGraph()
    source, sink = graph.node(), graph.node()
    node_at = {node: graph.node() for node in sorted(bounds)}
    choices: list[tuple[int, str, int]] = []
    for shard, owners in enumerate(left):
        at = graph.node()
        graph.edge(source, at, 1)
        before = previous[shard][position : position + 1]
        for node in sorted(owners):
            cost = 0 if node in before else changed + _tie(f"position {position}", shard, node)
            choices.append((shard, node, graph.edge(at, node_at[node], 1, cost)))
    for node in node_at:
        graph.bounded(node_at[node], sink, bounds[node].low, bounds[node].high, missed)
    sent = graph.send(source, sink)
    assert sent == len(left), f"dealt position {position} of {sent} of {len(left)} shards"
    chosen = {shard: node for shard, node, edge in choices if graph.flow_on(edge)}
    return [chosen[shard] for shard in range(len(left))]
