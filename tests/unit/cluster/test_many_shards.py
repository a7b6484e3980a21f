"""A change of a ring of many shards: what one look and one step cost, in counts."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from cluster import rebalance_plan
from cluster.rebalance_plan import next_command
from cluster.state_ops import OPS
from records.ids import NodeId, RingEpoch
from ring import serde
from ring.ring import Ring, RingMember
from ring.serde import to_dict
from tests.unit.cluster.test_rebalance_plan import cluster, started


def test_a_look_at_a_change_costs_a_few_shards_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4096 shards that move, those that may start now are paired, and each ring is read once."""
    counts: Counter[str] = Counter()

    def counted(name: str, work: Any) -> Any:
        def call(*args: Any) -> Any:
            counts[name] += 1
            return work(*args)

        return call

    monkeypatch.setattr(rebalance_plan, "moves_of", counted("pairs", rebalance_plan.moves_of))
    monkeypatch.setattr(serde, "from_dict", counted("rings", serde.from_dict))
    nodes = "abcd"
    rows = [tuple(NodeId(n) for n in nodes if n != nodes[s % 4]) for s in range(4096)]
    members = tuple(RingMember(one) for one in "abcde")
    old = Ring(RingEpoch(1), 3, members[:4], tuple(rows))
    new = Ring(RingEpoch(2), 3, members, tuple((NodeId("e"), *row[1:]) for row in rows))
    state = replace(
        cluster(*nodes, spare=("e",)), shard_count=4096, ring=to_dict(old), ring_epoch=1
    )
    state = started(state, new, parallel=4)
    counts.clear()

    for _ in range(10):
        command = next_command(state, list(state.moving))
        assert command is not None
        state, _ = OPS[command.op](state, command.args)

    assert counts["pairs"] <= 10 * 5
    assert counts["rings"] <= 10 + 2  # the target, and that before the first step
