"""Changes of the ring: whatever fails between two steps, nothing acknowledged is out of a reader's sight.

A model stands beside the replicated state: which node holds which entry. Writes pick any W of each owner
set, copies read any N-W+1 owners, the executor forgets what it copied at any moment (a new leader).
"""

from dataclasses import dataclass, field, replace
from itertools import combinations
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.rebalance import _task, progress
from cluster.rebalance_plan import (
    begin,
    drained,
    moves_left,
    next_command,
    ring_drained,
    ring_even,
    ring_replicated,
    ring_with,
    ring_without,
)
from cluster.state import from_bytes, to_bytes
from cluster.state_moves import write_groups
from cluster.state_ops import OPS
from cluster.state_types import COPYING, SETTLING, ClusterState, CommandError, Member, Quorum
from records.errors import InvalidRequest
from ring.builder import build_ring
from ring.ring import Ring, RingMember
from ring.serde import from_dict, to_dict

SHARDS = 4


def cluster(
    *nodes: str, n: int = 3, w: int = 2, r: int = 2, spare: tuple[str, ...] = ()
) -> ClusterState:
    """A founded cluster; `spare`: registered, not in the ring."""
    ring = build_ring([RingMember(one) for one in nodes], n=n, shard_count=SHARDS)
    members = {one: Member(one, ("ingestor", "storage"), 1) for one in (*nodes, *spare)}
    return ClusterState(
        shard_count=SHARDS,
        members=members,
        quorum=Quorum(n, w, r),
        cluster_epoch=1,
        ring=to_dict(ring),
        ring_epoch=1,
    )


def do(state: ClusterState, op: str, args: dict[str, Any]) -> ClusterState:
    changed, _ = OPS[op](state, args)
    assert to_bytes(from_bytes(to_bytes(changed))) == to_bytes(changed)
    return changed


def refused(state: ClusterState, op: str, args: dict[str, Any]) -> str:
    with pytest.raises(CommandError) as caught:
        OPS[op](state, args)
    return caught.value.code


def ring_of(state: ClusterState) -> Ring:
    assert state.ring is not None
    return from_dict(state.ring)


def started(state: ClusterState, ring: Ring, **more: Any) -> ClusterState:
    command = begin(state, ring, "test", **more)
    return do(state, command.op, command.args)


def finished(state: ClusterState, steps_max: int = 500) -> ClusterState:
    """Carried out without a fault."""
    for _ in range(steps_max):
        copied = [s for s, one in state.moving.items() if one.stage == COPYING]
        command = next_command(state, copied)
        if command is None:
            return state
        state = do(state, command.op, command.args)
    raise AssertionError("the change does not end")


@dataclass
class Model:
    """Who holds what. An entry is a number; `acked` maps it to its shard."""

    state: ClusterState
    held: dict[str, set[int]] = field(default_factory=dict)
    acked: dict[int, int] = field(default_factory=dict)
    copied: set[int] = field(default_factory=set)
    next_entry: int = 0

    def groups(self, shard: int) -> tuple[tuple[str, ...], ...]:
        return write_groups(ring_of(self.state).table[shard], self.state.moving.get(shard))

    def write(self, shard: int, pick: Any) -> None:
        """Stored on just W owners of each set, any of them, and acknowledged."""
        w = self.state.quorum.w
        for group in self.groups(shard):
            if len(group) < w:
                return
        holders = {node for group in self.groups(shard) for node in pick(list(group), w)}
        for node in holders:
            self.held.setdefault(node, set()).add(self.next_entry)
        self.acked[self.next_entry] = shard
        self.next_entry += 1

    def copy(self, shard: int, pick: Any) -> None:
        """From just N-W+1 owners, any of them."""
        task = _task(self.state, shard)
        heard = pick(list(task.owners), min(task.needed, len(task.owners)))
        here = {e for e, s in self.acked.items() if s == shard}
        union = {e for node in heard for e in self.held.get(node, set()) & here}
        for target in task.targets:
            self.held.setdefault(target, set()).update(union)
        self.copied.add(shard)

    def step(self) -> bool:
        command = next_command(self.state, self.copied)
        if command is None:
            return False
        self.state, _ = OPS[command.op](self.state, command.args)
        self.copied &= {s for s, one in self.state.moving.items() if one.stage == COPYING}
        if self.state.change is None:
            for node in list(self.held):
                table = ring_of(self.state).table
                self.held[node] = {e for e in self.held[node] if node in table[self.acked[e]]}
        return True

    def check(self) -> None:
        """Any R owners that are read hold, together, each acknowledged entry (I1, I4, I9)."""
        table, r = ring_of(self.state).table, self.state.quorum.r
        for entry, shard in self.acked.items():
            owners = table[shard]
            holders = {node for node in owners if entry in self.held.get(node, set())}
            for asked in combinations(owners, min(r, len(owners))):
                assert holders & set(asked), f"entry {entry} of shard {shard} is not on {asked}"


ACTIONS = ("add", "drain", "remove", "replace", "even", "abort", "grow", "shrink", "quorum")


def _target(state: ClusterState, action: str, node: str) -> tuple[Ring, dict[str, Any]]:
    q = state.quorum
    if action == "add":
        return ring_with(state, node), {}
    if action == "drain":
        return ring_drained(state, node), {}
    if action == "remove":
        return ring_without(state, node), {}
    if action == "replace":
        spare = sorted(set(state.members) - {m.id for m in ring_of(state).members})
        return ring_without(state, node, spare[0] if spare else ""), {}
    if action in ("grow", "shrink"):
        n = q.n + (1 if action == "grow" else -1)
        ring = ring_replicated(state, n)
        return ring, {"quorum": [n, min(n, n // 2 + 1), n // 2 + 1]}
    if action == "quorum":
        w, r = (q.n, 1) if q.w < q.n else (q.n // 2 + 1, q.n // 2 + 1)
        return ring_of(state), {"quorum": [q.n, w, r]}
    return ring_even(state), {}


@given(st.integers(0, 1 << 32))
@settings(max_examples=60, deadline=None)
def test_no_reader_loses_sight_of_an_acked_entry_whatever_fails_between_steps(seed: int) -> None:
    """Random changes, writes, copies and forgetful executors; checked after each event."""
    chance = Random(seed)
    model = Model(cluster("a", "b", "c", "d", spare=("e", "f")))
    pick = chance.sample

    for _ in range(chance.randint(10, 60)):
        event = chance.choice(("write", "write", "change", "copy", "copy", "step", "step", "crash"))
        shard = chance.randrange(SHARDS)
        if event == "write":
            model.write(shard, pick)
        elif event == "crash":
            model.copied.clear()
        elif event == "copy" and shard in model.state.moving:
            if model.state.moving[shard].stage == COPYING:
                model.copy(shard, pick)
        elif event == "step":
            model.step()
        elif event == "change":
            _ask(model, chance.choice(ACTIONS), chance.choice("abcdef"))
        model.check()
    _carry_out(model, pick)
    _ask(model, "even", "")  # what an abort left half done
    _carry_out(model, pick)
    model.check()
    table, n = ring_of(model.state).table, ring_of(model.state).effective_n
    assert model.state.change is None
    assert model.state.moving == {}
    assert all(len(set(owners)) >= n for owners in table)
    for node, entries in model.held.items():
        assert all(node in table[model.acked[e]] for e in entries), "a stranger holds a copy"


def _ask(model: Model, action: str, node: str) -> None:
    state = model.state
    if action == "abort":
        if state.change is not None:
            model.state = do(state, "AbortChange", {"id": state.change.id})
        return
    try:
        ring, more = _target(state, action, node)
        command = begin(state, ring, action, **more)
        model.state, _ = OPS[command.op](state, command.args)
    except (InvalidRequest, CommandError):
        return
    assert state.change is None, "a second change began"


def _carry_out(model: Model, pick: Any) -> None:
    for _ in range(500):
        for shard, move in sorted(model.state.moving.items()):
            if move.stage == COPYING:
                model.copy(shard, pick)
        if not model.step():
            return
        model.check()
    raise AssertionError("the change does not end")


# -- the parts of it, one by one -------------------------------------------------------------------


def test_a_fourth_node_gets_its_share_and_every_shard_keeps_three() -> None:
    state = cluster("a", "b", "c", spare=("d",))

    state = finished(started(state, ring_with(state, "d")))

    ring = ring_of(state)
    assert state.change is None
    assert {len(set(owners)) for owners in ring.table} == {3}
    assert ring.loads()["d"] == SHARDS * 3 // 4  # type: ignore[index]


def test_a_shard_is_written_to_both_sets_while_it_moves_and_read_from_one() -> None:
    """Old first, then new: the first group is the one that is read."""
    state = cluster("a", "b", "c", spare=("d",))
    state = started(state, ring_with(state, "d"), parallel=1)
    command = next_command(state, ())
    assert command is not None
    state = do(state, command.op, command.args)
    ((shard, move),) = state.moving.items()
    old = ring_of(state).table[shard]

    groups = write_groups(old, move)

    assert move.stage == COPYING
    assert groups[0] == old
    assert set(groups[1]) == set(old) - {move.source} | {"d"}
    assert next_command(state, ()) is None  # nothing before the copy is complete
    flip = next_command(state, (shard,))
    assert flip is not None
    state = do(state, flip.op, flip.args)
    assert state.moving[shard].stage == SETTLING
    assert [set(g) for g in write_groups(ring_of(state).table[shard], state.moving[shard])] == [
        set(groups[1]),
        set(old),
    ]


def test_each_step_raises_the_ring_epoch_by_one() -> None:
    """Storage nodes tell stages apart by the epoch alone."""
    state = cluster("a", "b", "c", spare=("d",))
    epochs = [state.ring_epoch]
    state = started(state, ring_with(state, "d"))
    while True:
        epochs.append(state.ring_epoch)
        assert ring_of(state).epoch == state.ring_epoch
        command = next_command(state, list(state.moving))
        if command is None:
            break
        state = do(state, command.op, command.args)
    assert epochs == list(range(1, len(epochs) + 1))


def test_a_second_change_is_refused_until_the_first_has_ended() -> None:
    state = cluster("a", "b", "c", "d", spare=("e",))
    running = started(state, ring_with(state, "e"))
    second = begin(running, ring_drained(running, "a"), "second")

    assert refused(running, second.op, second.args) == "CHANGE_RUNNING"
    stale = {**second.args, "expected_ring_epoch": running.ring_epoch - 1}
    assert refused(running, second.op, stale) == "CHANGE_RUNNING"  # the ring steps on meanwhile
    assert (
        refused(running, "SetRing", {"expected_ring_epoch": running.ring_epoch}) == "CHANGE_RUNNING"
    )
    done = finished(running)
    third = begin(done, ring_drained(done, "a"), "third")
    assert do(done, third.op, third.args).change is not None


def test_an_aborted_change_takes_back_what_is_copying_and_keeps_what_was_moved() -> None:
    state = cluster("a", "b", "c", spare=("d",))
    state = started(state, ring_with(state, "d"), parallel=2)
    state = do(state, "StepChange", next_command(state, ()).args)  # type: ignore[union-attr]
    flipped, copying = sorted(state.moving)
    before = ring_of(state).table
    state = do(state, "StepChange", next_command(state, (flipped,)).args)  # type: ignore[union-attr]
    assert state.change is not None
    state = do(state, "AbortChange", {"id": state.change.id})

    state = finished(state)

    table = ring_of(state).table
    assert state.change is None
    assert "d" in table[flipped]
    assert set(table[copying]) == set(before[copying])
    assert "d" in {one.id for one in ring_of(state).members}


def test_a_removed_node_is_retired_with_the_last_step_and_not_while_it_leads() -> None:
    state = cluster("a", "b", "c", "d")
    ring = ring_without(state, "d")
    state = started(state, ring, retire="d")
    led = replace(state, leaders={0: _leader("d")})

    assert drained(state) == {"d"}
    while state.moving or moves_left(state):
        command = next_command(state, list(state.moving))
        assert command is not None
        state = do(state, command.op, command.args)
        led = do(led, command.op, command.args)
    end = next_command(state, ())
    assert end is not None
    assert refused(led, end.op, end.args) == "IN_USE"
    state = do(state, end.op, end.args)
    assert "d" not in state.members
    assert state.retired["d"] == 1


def _leader(node: str) -> Any:
    from cluster.state_types import ShardLeader

    return ShardLeader(node, 1, 1)


def test_too_few_nodes_for_a_write_are_refused_with_the_numbers() -> None:
    state = cluster("a", "b", n=2, w=2, r=1)

    with pytest.raises(InvalidRequest, match="there would be 1 storage nodes"):
        ring_without(state, "b")
    with pytest.raises(InvalidRequest, match="no storage member"):
        ring_with(state, "zz")
    with pytest.raises(InvalidRequest, match="in the ring already"):
        ring_with(state, "a")


def test_raising_w_to_lower_r_fills_up_every_shard_first() -> None:
    """Rows acknowledged on W=2 are on all three before one owner alone may answer."""
    state = cluster("a", "b", "c")
    state = started(state, ring_of(state), quorum=[3, 3, 1])
    assert state.quorum == Quorum(3, 3, 2)
    assert state.change is not None
    assert state.change.settle
    assert refused(state, "EndChange", {"expected_ring_epoch": 2, "id": 2}) == "INVALID"

    state = finished(state)

    assert state.quorum == Quorum(3, 3, 1)
    assert state.acked_on == 3


def test_w_raised_earlier_does_not_count_for_rows_of_before() -> None:
    """3/2/2 -> 3/3/2 needs nothing; then R=1 still needs each shard filled up: old rows are on two."""
    state = cluster("a", "b", "c")
    state = do(state, "SetQuorum", {"expected_cluster_epoch": 1, "n": 3, "w": 3, "r": 2})
    assert state.acked_on == 2

    unsafe = {"expected_cluster_epoch": 2, "n": 3, "w": 3, "r": 1}

    assert refused(state, "SetQuorum", unsafe) == "NEEDS_CHANGE"
    state = started(state, ring_of(state), quorum=[3, 3, 1])
    assert state.change is not None
    assert state.change.settle


def test_an_owner_with_another_disk_is_not_admitted_until_it_is_out_of_the_ring() -> None:
    """S6: the same name with an empty disk would answer for rows it does not have."""
    state = cluster("a", "b", "c", "d")
    fields = {"roles": ["ingestor", "storage"], "id": "a"}
    state = do(state, "RegisterNode", {**fields, "incarnation": 2, "store": "one"})
    again = do(state, "RegisterNode", {**fields, "incarnation": 3, "store": "one"})
    wiped = {**fields, "incarnation": 4, "store": "two"}

    assert refused(again, "RegisterNode", wiped) == "STORE_LOST"
    out = finished(started(again, ring_without(again, "a")))
    assert do(out, "RegisterNode", wiped).members["a"].store == "two"


def test_an_owner_with_an_older_copy_of_its_disk_is_not_admitted() -> None:
    """F3: a restored backup has the id of the store, and lacks what was promised since it was made."""
    state = cluster("a", "b", "c", "d")
    fields = {"roles": ["ingestor", "storage"], "id": "a", "store": "one"}
    state = do(state, "RegisterNode", {**fields, "incarnation": 2, "mark": 4})
    risen = do(state, "RegisterNode", {**fields, "incarnation": 2, "mark": 6})
    assert (state.marks["a"], risen.marks["a"], risen.members) == (4, 6, state.members)
    assert from_bytes(to_bytes(risen)).marks == {"a": 6}

    restored = {**fields, "incarnation": 3, "mark": 5}
    assert refused(risen, "RegisterNode", restored) == "STORE_LOST"
    # A node that starts may know an old state, and come as the one that it was.
    assert refused(risen, "RegisterNode", {**restored, "incarnation": 2}) == "STORE_LOST"
    for mark in ({"mark": 6}, {"mark": 7}, {}):  # its disk was full; as ever; it does not say
        again = do(risen, "RegisterNode", {**fields, "incarnation": 3, **mark})
        assert again.marks["a"] == mark.get("mark", 6)
    out = finished(started(risen, ring_without(risen, "a")))
    assert do(out, "RegisterNode", restored).marks["a"] == 5


def test_the_mark_of_a_node_that_left_is_forgotten() -> None:
    """Its id may come back with a store of its own."""
    state = cluster("a", "b", "c", "d")
    fields = {"roles": ["ingestor", "storage"], "id": "a", "store": "one", "incarnation": 2}
    state = do(state, "RegisterNode", {**fields, "mark": 4})
    left = finished(started(state, ring_without(state, "a"), retire="a"))

    assert "a" not in left.members
    assert left.marks == {}


def test_progress_tells_what_moves_and_what_is_left() -> None:
    state = cluster("a", "b", "c", spare=("d",))
    assert progress(state) == {}
    state = started(state, ring_with(state, "d"), parallel=2)
    state = do(state, "StepChange", next_command(state, ()).args)  # type: ignore[union-attr]

    told = progress(state)

    assert [one["stage"] for one in told["moving"]] == [COPYING, COPYING]
    assert told["moves_left"] == SHARDS * 3 // 4
    assert told["members_after"] == ["a", "b", "c", "d"]
