"""Who owns what, and what a store may let go of: the checks' own reckoning, against planted breaches."""

from collections import Counter
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from chaos.sim.judging import Acks
from chaos.sim.owning import LOOKS, Removals, below, may_lack, owner_sets
from cluster.state_types import COPYING, SETTLING, ClusterState, Quorum, RingChange, ShardMove
from ring.builder import build_ring
from ring.ring import RingMember
from ring.serde import to_dict

HOUR = 3_600_000_000


def ring_of(ids: str) -> dict[str, Any]:
    """One shard, owned by all of these."""
    return to_dict(build_ring([RingMember(id) for id in ids], n=3, shard_count=1))


RING = ring_of("abc")
STATE = ClusterState(shard_count=1, ring=RING, ring_epoch=1)
CHANGE = RingChange(2, "replace", RING, RING, Quorum(3, 2, 2))


@dataclass(frozen=True)
class Entry:
    """An entry of service "pay", as far as the checks look at it."""

    max_ts: int
    producer: str = ""
    entry_id: bytes = b"e" * 16
    tenant: str = "default"
    service: str = "pay"
    shard: int = 0

    @property
    def sequenced(self) -> bool:
        """Whether a producer numbered its rows."""
        return bool(self.producer)


entry: Any = Entry


def moving(stage: str, source: str = "c", target: str = "d") -> ClusterState:
    """The shard on its way."""
    return replace(STATE, change=CHANGE, moving={0: ShardMove(source, target, stage)})


def sets(state: ClusterState) -> list[set[str]]:
    """The owner sets of the shard."""
    return [set(one) for one in owner_sets(state, 0)]


def test_a_shard_has_one_owner_set_and_two_while_it_moves() -> None:
    """The first is the one that is read; given up, added, or nothing but settled."""
    assert sets(STATE) == [{"a", "b", "c"}]
    assert sets(moving(COPYING)) == [{"a", "b", "c"}, {"a", "b", "d"}]
    assert sets(moving(SETTLING, "d", "c")) == [{"a", "b", "c"}, {"a", "b", "d"}]
    assert sets(moving(COPYING, "", "d")) == [{"a", "b", "c"}, {"a", "b", "c", "d"}]
    assert sets(moving(COPYING, "c", "")) == [{"a", "b", "c"}, {"a", "b"}]
    assert sets(moving(COPYING, "", "")) == [{"a", "b", "c"}]


def test_an_entry_is_below_the_watermarks_of_all_services_it_may_hold() -> None:
    """A producer's goes by its service, or the default; another by the lowest, and only with a default."""
    own = replace(STATE, watermarks={("default", "pay"): 10})
    both = replace(STATE, watermarks={("default", ""): 20, ("default", "pay"): 10})

    assert below(own, entry(9, "p"))
    assert not below(own, entry(10, "p"))
    assert not below(own, entry(9))
    assert below(both, entry(9))
    assert not below(both, entry(15))
    assert may_lack(both, "a", entry(9))
    assert not may_lack(both, "a", entry(15))
    assert may_lack(both, "d", entry(15))


class Node:
    """A store that holds some entries."""

    def __init__(self, held: list[Any]) -> None:
        self.id, self.up, self.life, self.applied, self.held = "c", True, 1, 0, held
        self.steering = SimpleNamespace(registered=True)
        self.storage = SimpleNamespace(blocks_set_aside=0)
        written = SimpleNamespace(entries=list(held), rotten=False)
        self.disk = SimpleNamespace(written=[written])

    def known(self) -> dict[bytes, Any]:
        """By id."""
        return {one.entry_id: one for one in self.held}


@pytest.mark.parametrize(
    ("state", "broken"),
    [
        (STATE, True),
        (moving(COPYING), True),
        (replace(moving(SETTLING), ring=ring_of("abd")), True),
        (replace(STATE, ring=ring_of("abd"), change=CHANGE), True),
        (replace(STATE, ring=ring_of("abd")), False),
        (replace(STATE, watermarks={("default", "pay"): HOUR}), False),
    ],
)
def test_what_a_store_lets_go_of_is_judged(state: ClusterState, broken: bool) -> None:
    """I13: an owner's copy, also one of before while the change runs; not what a watermark hides."""
    found: list[tuple[str, str]] = []
    node: Any = Node([entry(5, "p")])
    log: Any = SimpleNamespace(states=[state], newest=state)
    removals = Removals(log, {"c": node}, found, Counter())

    removals.look()
    node.held.clear()
    removals.look()

    assert [name for name, _ in found] == (["I13"] if broken else [])


def test_what_comes_back_below_the_watermark_is_told() -> None:
    """I7: an entry without numbers, long after the node heard of the watermark; a producer's may come."""
    found: list[tuple[str, str]] = []
    node: Any = Node([])
    state = replace(STATE, watermarks={("default", ""): 2 * HOUR})
    log: Any = SimpleNamespace(states=[state], newest=state)
    removals = Removals(log, {"c": node}, found, Counter())
    for _ in range(LOOKS + 1):
        removals.look()

    for one in (entry(5, "p"), entry(5)):
        node.held[:] = [one]
        node.disk.written[0].entries = [one]
        removals.look()
        node.held.clear()
        removals.look()

    assert [name for name, _ in found] == ["I7"]


@pytest.mark.parametrize(
    ("having", "broken"), [("ab", False), ("ac", True), ("acd", False), ("b", True)]
)
def test_an_acknowledgement_needs_w_of_both_owner_sets(having: str, broken: bool) -> None:
    """I9, while a shard goes from c to d: two of a, b, c and two of a, b, d."""
    found: list[tuple[str, str]] = []
    state = moving(COPYING)
    log: Any = SimpleNamespace(states=[state], newest=state)
    acks = Acks(log, {}, found)

    acks._judge("p:1", 0, set(having), 0)

    assert [name for name, _ in found] == (["I9"] if broken else [])
