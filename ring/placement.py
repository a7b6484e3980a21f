"""The rule of placement: distinct nodes, then distinct zones, then shares by weight.

In this order: what is above is never given up for what is below.
1. The owners of a shard are distinct nodes.
2. They are on distinct zones if there are n zones; with fewer zones, each zone has as equal a part
   as its nodes allow. A small zone may thus get more than its weight: safety before balance.
3. Each node's replicas are its share by weight, rounded down or up to whole shards. A share is never
   above one replica a shard; what a heavy node cannot take goes to the others by their weights.

This module says what has to hold, in numbers; ring.assignment finds a table for which it does, and
`violations` looks at any table and says where it does not. Shares are fractions, not floats: a
share of exactly 16 must not be rounded down to 15.

Source: DeCandia et al., "Dynamo" (SOSP 2007), section 4.3; weights and zones as in Swift's ring.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ring.ring import Ring, RingMember


@dataclass(frozen=True, slots=True)
class Bounds:
    """A whole number in low..high, both included."""

    low: int
    high: int

    def __contains__(self, value: int) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class PlacementRule:
    """What a table for these members must satisfy: replicas a shard, in each zone, on each node."""

    replicas: int
    per_shard: Mapping[str, Bounds]
    per_node: Mapping[str, Bounds]


def placement_rule(members: Sequence[RingMember], n: int, shard_count: int) -> PlacementRule:
    """The rule for `members` (weight 0 counts as absent), `n` replicas and `shard_count` shards."""
    eligible = sorted((m for m in members if m.weight > 0), key=lambda member: member.id)
    replicas = min(n, len(eligible))
    zones = zone_bounds(eligible, replicas)
    shares = fair_shares(eligible, replicas, zones, shard_count)
    nodes = {key: Bounds(math.floor(share), math.ceil(share)) for key, share in shares.items()}
    return PlacementRule(replicas, zones, nodes)


def zone_bounds(members: Sequence[RingMember], replicas: int) -> dict[str, Bounds]:
    """How many replicas of ONE shard each zone holds, so that zones are used as evenly as can be.

    The level is the smallest at which the zones together have room; a zone holds the level or one
    less, or all its nodes if it has fewer. With n zones or more the level is 1.
    """
    sizes = Counter(member.zone for member in members)
    level = 0
    while sum(min(size, level) for size in sizes.values()) < replicas:
        level += 1
    return {
        zone: Bounds(min(sizes[zone], max(level - 1, 0)), min(sizes[zone], level))
        for zone in sorted(sizes)
    }


def fair_shares(
    members: Sequence[RingMember], replicas: int, zones: Mapping[str, Bounds], shard_count: int
) -> dict[str, Fraction]:
    """Each node's exact share of all replicas: by weight, within what nodes and zones can take."""
    cap = Fraction(shard_count)
    weights = {member.id: Fraction(repr(member.weight)) for member in members}
    shares = proportional(
        cap * replicas, weights, dict.fromkeys(weights, Fraction(0)), dict.fromkeys(weights, cap)
    )
    inside: dict[str, dict[str, Fraction]] = defaultdict(dict)
    for member in members:
        inside[member.zone][member.id] = shares[member.id]
    totals = proportional(
        cap * replicas,
        {zone: sum(parts.values(), Fraction(0)) for zone, parts in inside.items()},
        {zone: cap * zones[zone].low for zone in inside},
        {zone: cap * zones[zone].high for zone in inside},
    )
    result: dict[str, Fraction] = {}
    for zone, parts in inside.items():
        zero, full = dict.fromkeys(parts, Fraction(0)), dict.fromkeys(parts, cap)
        result.update(proportional(totals[zone], parts, zero, full))
    return result


def proportional(
    total: Fraction,
    weights: Mapping[str, Fraction],
    lows: Mapping[str, Fraction],
    highs: Mapping[str, Fraction],
) -> dict[str, Fraction]:
    """Splits `total` by weight, each part within its bounds; exact.

    Parts that leave their bounds are fixed there, on the side that is out by more, and the rest is
    split again, as CSS's flexible boxes do. Needs sum(lows) <= total <= sum(highs), weights > 0.
    """
    assert sum(lows.values()) <= total <= sum(highs.values())
    fixed: dict[str, Fraction] = {}
    while len(fixed) < len(weights):
        free = [key for key in weights if key not in fixed]
        unit = (total - sum(fixed.values())) / sum(weights[key] for key in free)
        low = {k: lows[k] for k in free if unit * weights[k] < lows[k]}
        high = {k: highs[k] for k in free if unit * weights[k] > highs[k]}
        missing = sum(bound - unit * weights[k] for k, bound in low.items())
        excess = sum(unit * weights[k] - bound for k, bound in high.items())
        if missing == excess:
            return {**fixed, **{k: unit * weights[k] for k in free}, **low, **high}
        fixed.update(low if missing > excess else high)
    return fixed


def violations(ring: Ring) -> list[str]:
    """Where `ring` breaks the rule, in words; empty for each ring that the builder made.

    A ring in the middle of a move may break it for a while (see ring.delta): distinct nodes, which
    the Ring itself enforces, is the one rule that holds at every moment.
    """
    rule = placement_rule(ring.members, ring.n, ring.shard_count)
    zones, found = ring.zones, []
    for shard, owners in enumerate(ring.table):
        counts = Counter(zones[owner] for owner in owners)
        if len(owners) != rule.replicas:
            found.append(f"shard {shard}: {len(owners)} replicas, not {rule.replicas}")
        found += [
            f"shard {shard}: {counts[zone]} replicas in zone {zone!r}, not {bounds.low}..{bounds.high}"
            for zone, bounds in rule.per_shard.items()
            if counts[zone] not in bounds
        ]
    loads: Mapping[str, int] = {str(node): load for node, load in ring.loads().items()}
    found += [
        f"node {node}: {loads[node]} replicas, not {bounds.low}..{bounds.high}"
        for node, bounds in rule.per_node.items()
        if loads[node] not in bounds
    ]
    drained = (node for node, load in loads.items() if load and node not in rule.per_node)
    return [*found, *(f"node {node}: has replicas, but weight 0" for node in drained)]
