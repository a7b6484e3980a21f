"""Scatter: who is asked for what, and what happens when owners fail or are slow."""

from collections import Counter
from typing import Any

import pytest

from query.limits import Latencies
from query.scatter import Scatter, ScatterMetrics, assign, rank
from records.errors import Overloaded, TooLarge
from runtime.metrics import Metrics
from tests.support.fake_store import FakeCluster, FakeView, make_entry
from tests.unit.query.helpers import plan, row, soon

SHARDS = (0, 1, 2, 3)


def scatter(cluster: FakeCluster, needed: int = 2, seconds: float = 5.0, **more: Any) -> Scatter:
    """A scatter of all rows over four shards."""
    latencies = more.pop("latencies", None) or Latencies(0.05)
    metrics = ScatterMetrics(more.pop("metrics", None) or Metrics())
    wanted = dict.fromkeys(SHARDS, needed)
    return Scatter(
        cluster.view, cluster, plan().scan, wanted, soon(seconds), latencies, metrics, **more
    )


def filled(**shape: Any) -> FakeCluster:
    """Four entries, one a shard."""
    cluster = FakeCluster(**shape)
    for number in range(4):
        cluster.write(make_entry(number, number, [row(number)], received_at=number))
    return cluster


def test_shards_with_equal_owners_are_read_from_one_node_this_one_first() -> None:
    """Blocks hold whole owner sets; the local store saves the transfer."""
    view = FakeView(["n0", "n1", "n2"], 3, 2, 2, 4)

    assert assign(view, SHARDS, 5, frozenset()) == dict.fromkeys(SHARDS, "n0")


def test_different_owner_sets_are_spread() -> None:
    """Six nodes, six sets of three owners: every node gets its share."""
    view = FakeView([f"n{i}" for i in range(6)], 3, 2, 2, 12)
    load = Counter(assign(view, range(12), 0, frozenset()).values())

    assert max(load.values()) == 2


def test_slices_of_a_read_go_to_different_owners() -> None:
    """Each slice whole to one of three; the same whoever asks and whenever: what it remembers serves."""
    view = FakeView(["n0", "n1", "n2"], 3, 2, 2, 4)
    chosen = [set(assign(view, SHARDS, turn, frozenset(), turn).values()) for turn in range(3)]
    view.node_id = "n2"

    assert chosen == [{"n0"}, {"n1"}, {"n2"}]
    assert set(assign(view, SHARDS, 7, frozenset(), 1).values()) == {"n1"}


def test_slices_leave_out_the_dead_and_the_avoided() -> None:
    """The likely owners share their slices; if none is likely, all are tried."""
    view = FakeView(["n0", "n1", "n2"], 3, 2, 2, 4)
    view.down = {"n1"}

    assert set(assign(view, SHARDS, 0, frozenset(), 1).values()) == {"n2"}
    assert set(assign(view, SHARDS, 0, frozenset({"n0", "n2"}), 2).values()) == {"n2"}


def test_the_dead_and_the_avoided_are_asked_last() -> None:
    """But they are asked, if there is nobody else: liveness is a hint."""
    view = FakeView(["n0", "n1", "n2"], 3, 2, 2, 4)
    view.down = {"n0"}

    assert set(assign(view, SHARDS, 0, frozenset({"n1"})).values()) == {"n2"}
    assert rank(view, 0, 0, frozenset({"n1"})) == ["n2", "n0", "n1"]


def test_equals_take_turns() -> None:
    """A query node without a store of its own asks another owner each time."""
    view = FakeView(["n0", "n1", "n2"], 3, 2, 2, 4)
    view.node_id = "query-only"

    assert {assign(view, SHARDS, turn, frozenset())[0] for turn in range(3)} == {"n0", "n1", "n2"}


async def test_one_request_a_node_with_data_and_digests() -> None:
    """R=2: one node gives data, one other digests; the third is left alone."""
    cluster = filled()

    found = await scatter(cluster).run(SHARDS)

    assert cluster.calls("scan") == 2
    assert set(found.base) == set(SHARDS)
    assert all(len(said) == 2 for said in found.digests.values())
    assert found.received_max == 3
    assert found.differing() == []


async def test_a_failed_data_owner_is_replaced_by_the_next() -> None:
    """Its shards come from others, and R owners speak for each all the same."""
    cluster = filled()
    cluster.stores["n0"].dead = True

    found = await scatter(cluster).run(SHARDS)

    assert set(found.base.values()) <= {"n1", "n2"}
    assert set(found.base) == set(SHARDS)
    assert all(set(said) == {"n1", "n2"} for said in found.digests.values())
    assert found.failures == {"n0": "CONNECTION_LOST"}


async def test_a_refusal_for_lack_of_room_is_a_failure_like_any_other() -> None:
    """Overloaded on one owner: the next one is asked."""
    cluster = filled()
    cluster.stores["n0"].fail_with = Overloaded("full", retry_after_seconds=1)

    found = await scatter(cluster).run(SHARDS)

    assert set(found.base) == set(SHARDS)


async def test_an_answer_too_large_to_send_comes_from_the_own_store() -> None:
    """The own store is asked instead, no other peer; the one with too much may still give digests."""
    cluster = filled()
    cluster.stores["n2"].dead = True
    cluster.stores["n1"].on_call = lambda *_: refuse(cluster)

    def refuse(cluster: FakeCluster) -> None:
        data = cluster.stores["n1"].calls[-1][1][0]
        cluster.stores["n1"].fail_with = TooLarge("70 MiB") if data else None

    found = await scatter(cluster, slice_=1).run(SHARDS)

    assert found.base == dict.fromkeys(SHARDS, "n0")
    assert all(set(said) == {"n0", "n1"} for said in found.digests.values())


async def test_an_answer_that_nobody_can_send_is_an_error_that_says_so() -> None:
    """Not overload, not a partial answer: it would be as large again. One owner was asked for it, not all."""
    cluster = filled()
    cluster.view.node_id = "query-only"
    for store in cluster.stores.values():
        store.fail_with = TooLarge("70 MiB; narrow the question")

    with pytest.raises(TooLarge, match="narrow"):
        await scatter(cluster, needed=1).run(SHARDS)
    assert cluster.calls("scan") == 1


async def test_a_hedge_with_too_large_an_answer_does_not_spoil_the_slow_one() -> None:
    """The own store is slow, the backup cannot send: the own answer counts."""
    cluster = filled()
    cluster.stores["n0"].delay_seconds = 0.1
    for name in ("n1", "n2"):
        cluster.stores[name].fail_with = TooLarge("70 MiB")
    latencies = Latencies(0.01)
    latencies.COLD_SECONDS = 0.01  # type: ignore[misc]

    found = await scatter(cluster, needed=1, latencies=latencies).run(SHARDS)

    assert set(found.base.values()) == {"n0"}
    assert cluster.calls("scan") > 1


async def test_a_failed_digest_owner_is_replaced_too() -> None:
    """The data owner and the third owner speak."""
    cluster = filled()
    cluster.stores["n1"].dead = True

    found = await scatter(cluster).run(SHARDS)

    assert all(set(said) == {"n0", "n2"} for said in found.digests.values())


async def test_a_slow_owner_is_raced_and_the_loser_cancelled() -> None:
    """n0 hangs; after the hedge delay others give its shards; the hung request is cancelled."""
    cluster = filled()
    cluster.stores["n0"].delay_seconds = 60.0
    latencies, metrics = Latencies(0.05), Metrics()
    run = scatter(cluster, latencies=latencies, metrics=metrics)
    for _ in range(20):
        latencies.observe(run._kind, 0.001)

    found = await run.run(SHARDS)

    assert set(found.base) == set(SHARDS)
    assert "n0" not in found.base.values()
    assert all(len(said) == 2 for said in found.digests.values())
    assert cluster.stores["n0"].cancelled == 1
    assert metrics.snapshot()["quorumlog_query_hedges_won_total"] == 1
    assert latencies.suspects(run.deadline.clock.monotonic()) == {"n0"}


async def test_a_slow_owner_that_still_wins_is_used() -> None:
    """The others are slower yet: the first answer counts, and no rows come twice."""
    cluster = filled()
    cluster.stores["n0"].delay_seconds = 0.1
    cluster.stores["n1"].delay_seconds = cluster.stores["n2"].delay_seconds = 0.3
    latencies = Latencies(0.05)
    run = scatter(cluster, needed=1, latencies=latencies)
    for _ in range(20):
        latencies.observe(run._kind, 0.001)

    found = await run.run(SHARDS)

    assert found.base == dict.fromkeys(SHARDS, "n0")
    assert sum(len(part.shards) for part in found.parts) == 4


async def test_without_credit_a_slow_owner_is_given_more_time() -> None:
    """What is slow because all is slow must not be done twice: hedges are bounded by a budget."""
    cluster = filled()
    cluster.stores["n0"].delay_seconds = 0.2
    latencies, metrics = Latencies(0.05), Metrics()
    run = scatter(cluster, needed=1, latencies=latencies, metrics=metrics)
    for _ in range(20):
        latencies.observe(run._kind, 0.001)
    while latencies.spend():
        pass

    found = await run.run(SHARDS)

    assert found.base == dict.fromkeys(SHARDS, "n0")
    assert metrics.snapshot()["quorumlog_query_hedges_total"] == 0


async def test_without_another_owner_the_slow_one_is_waited_for() -> None:
    """N=1: nobody else can answer; slow is not dead."""
    cluster = filled(nodes=2, n=1, w=1, r=1)
    for store in cluster.stores.values():
        store.delay_seconds = 0.15
    latencies = Latencies(0.01)
    run = scatter(cluster, needed=1, latencies=latencies)
    for _ in range(20):
        latencies.observe(run._kind, 0.001)

    found = await run.run(SHARDS)

    assert set(found.base) == set(SHARDS)
    assert cluster.calls("scan") == 2


async def test_what_no_owner_gives_is_left_out_not_raised() -> None:
    """N=1 and n0 dead: its shards have no data; the others are there."""
    cluster = filled(nodes=2, n=1, w=1, r=1)
    cluster.stores["n0"].dead = True

    found = await scatter(cluster, needed=1).run(SHARDS)

    assert set(found.base) == {1, 3}


async def test_a_snapshot_asks_for_no_rows() -> None:
    """Only what R owners say of each shard, and the newest row they know of."""
    cluster = filled()

    found = await scatter(cluster).run(SHARDS, with_data=False)

    assert found.parts == []
    assert found.received_max == 3
    assert all(len(said) >= 2 for said in found.digests.values())
    assert all(data == () for store in cluster.stores.values() for _, (data, _) in store.calls)
