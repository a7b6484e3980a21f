"""The lease table: who gets which shard, and when."""

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cluster.lease_table import LeaseTable, Plan
from cluster.state_types import ClusterState, Member, ShardLeader


def state(*nodes: str, shards: int = 8, **leads: Any) -> ClusterState:
    """Ingestors `nodes`; `leads` is node=[shards], each at epoch 1."""
    members = {name: Member(name, ("ingestor",), 1) for name in nodes}
    leaders = {s: ShardLeader(node, 1, 1) for node, held in leads.items() for s in held}
    return ClusterState(members=members, shard_count=shards, leaders=leaders)


def table(now: float = 0.0, *, alive: str = "", begun: ClusterState | None = None) -> LeaseTable:
    """The table on `a`; the letters in `alive` were heard at `now`."""
    made = LeaseTable("a")
    if begun is not None:
        made.begin(begun, now, None)
    for name in alive:
        made.heard(name, 1, now)
    return made


def counts(plan: Plan) -> Counter[str]:
    return Counter(node for _, node, _ in plan.takeovers)


def after(before: ClusterState, plan: Plan) -> ClusterState:
    """The state once the plan is committed."""
    leaders = dict(before.leaders)
    for shard, node, epoch in [*plan.takeovers, *([plan.move] if plan.move else [])]:
        leaders[shard] = ShardLeader(node, epoch + 1, before.members[node].incarnation)
    return ClusterState(members=before.members, shard_count=before.shard_count, leaders=leaders)


# -- takeovers -----------------------------------------------------------------------------------


def test_the_first_assignment_spreads_all_shards_evenly() -> None:
    """8 shards on 3 nodes: 3, 3, 2; ties by id."""
    plan = table(alive="abc").sweep(state("a", "b", "c"), 0.0)

    assert counts(plan) == {"a": 3, "b": 3, "c": 2}
    assert {epoch for _, _, epoch in plan.takeovers} == {0}


def test_the_first_assignment_waits_for_the_expected_ingestors_but_not_for_ever() -> None:
    """Else the first node up would get everything, and every shard would move again."""
    made = LeaseTable("a", expected=("a", "b", "c"))
    made.heard("b", 1, 0.0)
    early = made.sweep(state("a", "b", "c"), 0.0)
    made.heard("b", 1, 2.0)
    late = made.sweep(state("a", "b", "c"), 2.1)

    assert early == Plan()
    assert counts(late) == {"a": 4, "b": 4}


def test_the_first_assignment_waits_until_the_expected_are_heard_not_only_registered() -> None:
    """At the start of a reign everybody lives by a gift, but only those heard get shards."""
    known = state("a", "b", "c")
    made = LeaseTable("a", expected=("a", "b", "c"))
    made.begin(known, 0.0, None)
    early = made.sweep(known, 0.0)
    for name in "bc":
        made.heard(name, 1, 0.1)

    plan = made.sweep(known, 0.1)

    assert early == Plan()
    assert counts(plan) == {"a": 3, "b": 3, "c": 2}


def test_a_silent_node_loses_its_shards_after_the_ttl_and_not_before() -> None:
    """0.5 s of CLOCK_BOOTTIME; its shards go to those who lead fewest, under the next epoch."""
    held = state("a", "b", "c", a=[0, 1, 2], b=[3, 4, 5], c=[6, 7])
    made = table(alive="abc")
    for step in range(1, 10):
        made.heard("a", 1, step * 0.05)
        made.heard("c", 1, step * 0.05)
        assert made.sweep(held, step * 0.05).takeovers == ()
    made.heard("c", 1, 0.5)
    assert made.sweep(held, 0.5).takeovers == ()

    plan = made.sweep(held, 0.55)

    assert sorted(s for s, _, _ in plan.takeovers) == [3, 4, 5]
    assert {epoch for _, _, epoch in plan.takeovers} == {1}
    assert counts(plan) == {"a": 1, "c": 2}


def test_a_tie_goes_to_the_lowest_load_then_to_the_lowest_id() -> None:
    """Counts first; load decides only between equals."""
    made = table(alive="a")
    made.heard("b", 1, 0.0, load=0.9)
    made.heard("c", 1, 0.0, load=0.1)
    made.heard("a", 1, 0.0, load=0.5)

    plan = made.sweep(state("a", "b", "c", shards=1), 0.0)

    # this node renews itself at each sweep and keeps its load
    assert plan.takeovers == ((0, "c", 0),)


def test_a_restarted_node_gets_its_shards_anew_under_higher_epochs() -> None:
    """Its old process may have writes in flight: the epoch must rise even if the node stays."""
    held = state("a", "b", shards=4, a=[0, 1], b=[2, 3])
    members = {**held.members, "b": Member("b", ("ingestor",), 2)}
    held = ClusterState(members=members, shard_count=4, leaders=held.leaders)
    made = table(alive="a")
    made.heard("b", 2, 0.0)

    plan = made.sweep(held, 0.0)

    assert plan.takeovers == ((2, "b", 1), (3, "b", 1))


def test_a_heartbeat_of_an_older_incarnation_is_ignored() -> None:
    """A dead process's last packet must not keep its successor's lease."""
    made = table(alive="a")
    made.heard("b", 2, 0.0)
    made.heard("b", 1, 0.4)

    assert made.live(state("a", "b"), 0.6) == []
    assert made.live(state("a", "b"), 0.45) == ["a", "b"]


def test_members_that_are_no_ingestors_lead_nothing() -> None:
    """Also when they send heartbeats."""
    made = table(alive="as")
    members = {"a": Member("a", ("ingestor",), 1), "s": Member("s", ("storage",), 1)}

    plan = made.sweep(ClusterState(members=members, shard_count=2), 0.0)

    assert counts(plan) == {"a": 2}


# -- reigns --------------------------------------------------------------------------------------


def test_a_new_reign_takes_its_predecessors_shards_at_once() -> None:
    """Safe because of fencing, even if it lives; the others have a fresh TTL."""
    held = state("a", "b", "c", a=[0, 1, 2], b=[3, 4, 5], c=[6, 7])
    made = LeaseTable("a")
    made.begin(held, 10.0, predecessor="b")

    plan = made.sweep(held, 10.0)

    assert sorted(s for s, _, _ in plan.takeovers) == [3, 4, 5]
    assert counts(plan) == {"a": 1, "c": 2}
    made.heard("b", 1, 10.1)
    assert "b" in made.live(held, 10.1)


def test_others_who_stay_silent_in_a_new_reign_are_found_out_after_a_ttl() -> None:
    """Their TTL is a gift, and ends."""
    held = state("a", "c", shards=4, a=[0, 1], c=[2, 3])
    made = table(10.0, begun=held)

    assert made.sweep(held, 10.0) == Plan()
    for step in range(1, 10):
        assert made.sweep(held, 10 + step * 0.05).takeovers == ()
    made.sweep(held, 10.5)
    assert counts(made.sweep(held, 10.55)) == {"a": 2}


def test_a_node_that_was_dead_before_the_reign_attracts_nothing_by_its_gift() -> None:
    """It leads nothing, so it would have the lowest count of all."""
    held = state("a", "b", "c", "dead", a=[0, 1, 2], b=[3, 4, 5], c=[6, 7])
    made = LeaseTable("a")
    made.begin(held, 10.0, predecessor="b")

    plan = made.sweep(held, 10.0)

    assert "dead" not in counts(plan)


def test_a_late_sweep_gives_those_who_lived_a_fresh_ttl_and_nobody_else() -> None:
    """After a pause of ours it is our ears that were closed, not their mouths."""
    held = state("a", "b", "c", a=[0, 1, 2], b=[3, 4, 5], c=[6, 7])
    made = table(alive="ab")
    made.heard("c", 1, -5.0)
    made.sweep(held, 0.0)

    plan = made.sweep(after(held, Plan()), 3.0)

    assert made.late_sweeps == 1
    assert sorted(s for s, _, _ in plan.takeovers) == [6, 7]
    assert made.live(held, 3.4) == ["a", "b"]


# -- balance and drain ---------------------------------------------------------------------------


def test_balance_moves_one_shard_at_a_time_and_not_soon_after_a_takeover() -> None:
    """b comes back to nothing: after 10 s it gets shards one by one until counts are within 1."""
    held = state("a", "b", shards=6, a=[0, 1, 2, 3, 4, 5])
    made = table(alive="ab")
    made.took_over(0.0)
    moves = []
    now = 0.0
    while now < 20.0:
        now += 0.05
        made.heard("b", 1, now)
        plan = made.sweep(held, now)
        assert plan.takeovers == ()
        if plan.move:
            moves.append((round(now, 2), plan.move[1]))
            made.moved(now)
            held = after(held, plan)

    assert [node for _, node in moves] == ["b", "b", "b"]
    assert moves[0][0] >= 10.0
    assert all(second[0] - first[0] >= 0.45 for first, second in itertools.pairwise(moves))
    assert len(held.shards_of("a")) == len(held.shards_of("b")) == 3


def test_no_shard_moves_for_balance_to_a_node_that_may_be_dying() -> None:
    """b leads least, and its lease is not over, but two heartbeats are missing: its shards would stall."""
    held = state("a", "b", "c", shards=6, a=[0, 1, 2], b=[3], c=[4, 5])
    made = table(alive="abc")

    made.heard("b", 1, 20.0)
    made.heard("c", 1, 20.3)
    assert made.sweep(held, 20.3) == Plan()

    made.heard("b", 1, 20.3)
    assert made.sweep(held, 20.31).move == (0, "b", 1)


def test_a_draining_node_gives_all_away_and_gets_nothing() -> None:
    """Takeovers avoid it, its own shards leave one at a time, even soon after a takeover."""
    held = state("a", "b", "c", shards=3, b=[0, 1], c=[2])
    made = table(alive="abc")
    made.drain_only("b")
    made.took_over(0.0)
    now = 0.0
    for _ in range(4):
        now += 1.0
        for name in "abc":
            made.heard(name, 1, now)
        plan = made.sweep(held, now)
        made.moved(now)
        held = after(held, plan)

    assert held.shards_of("b") == {}
    made.drain_only(())
    assert made.live(held, now) == ["a", "b", "c"]


def test_a_draining_node_that_is_alone_keeps_leading() -> None:
    """Better it than nobody."""
    made = table(alive="a")
    made.drain_only("a")

    assert counts(made.sweep(state("a", shards=2), 0.0)) == {"a": 2}


# -- any history ---------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from(["beat", "die", "drain", "wait"])),
        max_size=60,
    )
)
@hypothesis_settings(max_examples=100)
def test_after_any_history_all_shards_have_live_leaders_spread_within_one(
    events: list[tuple[str, str]],
) -> None:
    """Whatever died, drained or came, a quiet minute with the living ends in balance."""
    held = state(*"abcde", shards=16)
    made = LeaseTable("a")
    made.begin(held, 0.0, None)
    dead: set[str] = set()
    draining: set[str] = set()
    now = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now, held
        for _ in range(round(seconds / 0.05)):
            now += 0.05
            for name in set("abcde") - dead:
                made.heard(name, 1, now)
            plan = made.sweep(held, now)
            assert not (plan.takeovers and plan.move)
            if plan.takeovers:
                made.took_over(now)
            if plan.move:
                made.moved(now)
            held = after(held, plan)

    for node, event in events:
        if event == "die" and node != "a":
            dead.add(node)
        elif event == "beat":
            dead.discard(node)
            draining.discard(node)
        elif event == "drain" and node != "a":
            draining.add(node)
        made.drain_only(draining)
        pass_time(0.2)
    pass_time(20.0)

    living = {n for n in "abcde" if n not in dead}
    wanted = living - made._draining
    led = {node: len(held.shards_of(node)) for node in wanted}
    assert sum(led.values()) == 16
    assert max(led.values()) - min(led.values()) <= 1


# -- clocks --------------------------------------------------------------------------------------


def test_the_median_wall_clock_is_not_moved_by_one_wrong_clock() -> None:
    """Watermarks are proposed with it; it is carried forward from when it was heard."""
    made = LeaseTable("a")
    made.heard("a", 1, 10.0, wall=1_000_000)
    made.heard("b", 1, 10.0, wall=1_000_500)
    made.heard("c", 1, 10.0, wall=99_000_000_000)

    assert made.median_wall(10.25) == 1_250_500
    assert made.median_wall(20.0) is None


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_spread_is_within_one_for_any_number_of_nodes(nodes: int) -> None:
    """32 shards, the default."""
    names = "abcde"[:nodes]

    plan = table(alive=names).sweep(state(*names, shards=32), 0.0)

    assert max(counts(plan).values()) - min(counts(plan).values()) <= 1
    assert sum(counts(plan).values()) == 32
