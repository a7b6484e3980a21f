"""ReadCoordinator against brute force: divergent owners, dead and slow ones, pages, folds, limits."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.coordinator import ReadCoordinator
from query.plan import QueryPlan
from query.reading import Reading, joined
from query.stats import parse_aggregates
from records.errors import InvalidRequest, NotReady, Overloaded, QuorumUnavailable, TooLarge
from records.predicates import Fold
from runtime.metrics import Metrics
from tests.support.fake_store import (
    FakeCluster,
    brute_rows,
    key_tuple,
    make_entry,
    partials,
    visible,
)
from tests.unit.query.divergent import LEVELS, SPREAD, Case, cases
from tests.unit.query.helpers import NOW, coordinator, keys, plan, row, soon

questions = st.fixed_dictionaries(
    {},
    optional={
        "order": st.sampled_from(["asc", "desc"]),
        "limit": st.integers(1, 8).map(str),
        "level": st.sampled_from(LEVELS),
        "q": st.sampled_from(["x:>2", "NOT level:info", "seq:*", "level:error OR x:<2"]),
        "from": st.integers(0, SPREAD).map(lambda at: str(NOW + at)),
        "fields": st.sampled_from(["message", "level,x"]),
        "consistency": st.sampled_from(["quorum", "all"]),
    },
)


def expected(case: Case, asked: QueryPlan) -> list[tuple[int, bytes, int]]:
    """The keys that a plan must answer over all entries."""
    return [key_tuple(key) for key, _ in brute_rows(case.entries, asked.scan)]


async def all_pages(reader: ReadCoordinator, params: dict[str, str]) -> list[tuple]:
    """The keys of all pages, in order."""
    found: list[tuple] = []
    cursor: dict[str, str] = {}
    for _ in range(200):
        answer = await reader.query(plan(**params, **cursor), soon())
        assert answer.complete
        found += keys(answer.table)
        if answer.next_cursor is None:
            return found
        cursor = {"cursor": answer.next_cursor}
    raise AssertionError("pages do not end")


@settings(max_examples=60)
@given(cases(fewest=2), questions)
def test_answer_equals_brute_force_over_the_union(case: Case, params: dict[str, str]) -> None:
    """Each entry lies on W=2 or 3 of its owners: whatever owner is asked, the rows are those of all.

    Among the entries are overlapping cuts of one producer's rows; each row must come exactly once.
    """

    async def run() -> None:
        asked = plan(**params)
        async with coordinator(case.cluster()) as reader:
            answer = await reader.query(asked, soon())
        wanted = expected(case, replace(asked, scan=replace(asked.scan, limit=0)))
        assert answer.complete
        assert keys(answer.table) == wanted[: asked.scan.limit]
        assert (answer.next_cursor is not None) == (len(wanted) > asked.scan.limit)

    asyncio.run(run())


@settings(max_examples=30)
@given(cases(fewest=2), questions, st.integers(0, 2))
def test_pages_together_are_all_rows_once(case: Case, params: dict[str, str], dead: int) -> None:
    """With one of three nodes dead, pages by cursor still give every row once, in order."""

    async def run() -> None:
        params.pop("consistency", None)
        asked = plan(**params)
        cluster = case.cluster()
        cluster.stores[f"n{dead}"].dead = True
        async with coordinator(cluster) as reader:
            found = await all_pages(reader, params)
        assert found == expected(case, replace(asked, scan=replace(asked.scan, limit=0)))

    asyncio.run(run())


@settings(max_examples=40)
@given(cases(fewest=1, resent=True), st.integers(0, 5))
def test_what_is_not_acked_may_flicker_but_never_doubles(case: Case, turn: int) -> None:
    """Entries on one owner only were never acked: they may be seen or not. Acked rows must be, once."""

    async def run() -> None:
        async with coordinator(case.cluster()) as reader:
            for _ in range(turn):
                await reader.query(plan(limit="1"), soon())
            answer = await reader.query(plan(), soon())
        rows = [name_of(one) for one in answer.table.to_pylist()]
        assert answer.complete
        assert max(Counter(rows).values(), default=1) == 1
        acked = {name_of(dict(e.rows[i])) for e, i in visible(case.acked())}
        union = {name_of(dict(r)) for e in case.entries for r in e.rows}
        assert acked <= set(rows) <= union

    asyncio.run(run())


def name_of(one: dict[str, Any]) -> tuple:
    """What makes a row that row, in these tests."""
    if one.get("seq") is not None:
        return (one["producer"], one["seq"])
    return ("", one["message"])


AGGREGATES = "count,sum(x),min(x),max(message),avg(x),uniq(x),p50(x)"


@settings(max_examples=60)
@given(
    cases(fewest=2, resent=True),
    st.sampled_from([(), ("level",), ("level", "producer")]),
    st.booleans(),
)
def test_fold_equals_brute_force_over_the_union(
    case: Case, by: tuple[str, ...], stepped: bool
) -> None:
    """Counts, sums, extremes, means, distinct values and medians, each row once, over divergent owners."""

    async def run() -> None:
        fold = Fold(by, parse_aggregates(AGGREGATES), 2 if stepped else 0)
        asked = plan()
        asked = replace(asked, scan=replace(asked.scan, fold=fold))
        async with coordinator(case.cluster()) as reader:
            answer = await reader.fold(asked, soon())
        assert answer.complete
        assert groups_of(answer.table, fold) == brute_groups(case, fold)

    asyncio.run(run())


def groups_of(table: pa.Table, fold: Fold) -> dict[tuple, tuple]:
    """group -> values."""
    names = (["_bucket"] if fold.step_micros else []) + list(fold.by)
    return {
        tuple(one[name] for name in names): tuple(one[a.name] for a in fold.aggregates)
        for one in table.to_pylist()
    }


def brute_groups(case: Case, fold: Fold) -> dict[tuple, tuple]:
    """The same by plain Python."""
    rows = [dict(e.rows[i]) for e, i in visible(list(case.entries))]
    names = (["_bucket"] if fold.step_micros else []) + list(fold.by)
    found = {}
    for one in partials(rows, fold).to_pylist():
        middle = sorted(one["p50(x)__values"])
        half = len(middle) // 2
        median = (middle[half] + middle[-half - 1]) / 2
        found[tuple(one.get(name) for name in names)] = (
            one["count"],
            one["sum(x)"],
            one["min(x)"],
            one["max(message)"],
            one["avg(x)__sum"] / one["avg(x)__count"],
            len(set(one["uniq(x)__values"])),
            median,
        )
    if not found and not names:
        found[()] = (0, None, None, None, None, 0, None)
    return found


def filled(entries: int = 12, **shape: Any) -> FakeCluster:
    """A cluster with equal owners: an entry of three rows for each number."""
    cluster = FakeCluster(**shape)
    for number in range(entries):
        rows = [row(number * 10 + i, f"{number} {i}", x=i) for i in range(3)]
        cluster.write(make_entry(number, number % 4, rows, received_at=NOW + number))
    return cluster


async def test_equal_owners_cost_one_scan_a_node_and_no_comparison() -> None:
    """Digests agree: one request to each of three nodes, no entry list is asked for."""
    cluster = filled()
    async with coordinator(cluster) as reader:
        answer = await reader.query(plan(), soon())

    assert answer.complete
    assert answer.stats["repaired"] == 0
    assert cluster.calls("scan") <= 3
    assert cluster.calls("entries") == 0


async def test_consistency_one_asks_no_digests() -> None:
    """`one` trades completeness for speed: each shard is read from a single owner."""
    cluster = filled()
    async with coordinator(cluster) as reader:
        await reader.query(plan(consistency="one"), soon())

    for store in cluster.stores.values():
        for _, (data, digest) in store.calls:
            assert set(digest) == set(data)


async def test_consistency_all_needs_every_owner() -> None:
    """With a dead owner a quorum read is complete, a read of all is not, and says why."""
    cluster = filled()
    cluster.stores["n1"].dead = True
    async with coordinator(cluster) as reader:
        quorum = await reader.query(plan(), soon())
        every = await reader.query(plan(consistency="all"), soon())

    assert quorum.complete
    assert not every.complete
    assert {one["shard"] for one in every.missing} == {0, 1, 2, 3}
    assert "2 of 3 owners answered" in every.missing[0]["reason"]
    assert every.table.num_rows == 36


async def test_with_two_of_three_owners_gone_the_answer_names_shards_and_hours() -> None:
    """I6: fewer than R owners: what is left is answered, `complete` is false, each shard is named."""
    cluster = filled()
    cluster.stores["n1"].dead = cluster.stores["n2"].dead = True
    asked = plan(("from", "2026-11-18T11:00:00Z"), ("to", "2026-11-18T13:00:00Z"))
    async with coordinator(cluster) as reader:
        answer = await reader.query(asked, soon())

    assert not answer.complete
    assert [one["shard"] for one in answer.missing] == [0, 1, 2, 3]
    assert answer.missing[0]["hours"] == {"first": "2026-11-18T11", "last": "2026-11-18T12"}
    assert answer.table.num_rows == 36


def _knows_ring(cluster: FakeCluster, node: str, epoch: int) -> None:
    """From now on the node's answers say that it knows that ring."""
    store = cluster.stores[node]
    plain = store.scan

    async def scan(request: Any, deadline: Any) -> Any:
        reply, table = await plain(request, deadline)
        return replace(reply, ring_epoch=epoch), table

    store.scan = scan  # type: ignore[method-assign]


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_reader_by_a_ring_that_is_over_reads_again_or_says_so(arrives: bool) -> None:
    """One of any R former owners knows the newer ring; the answer is not called complete without it."""
    cluster = filled()
    for node in cluster.stores:
        _knows_ring(cluster, node, 2)

    async def changed(after_index: int, timeout: float) -> Any:
        await asyncio.sleep(min(timeout, 0.05))
        if arrives:
            cluster.view.ring_epoch = 2
        return cluster.view

    cluster.changed = changed  # type: ignore[method-assign]
    async with coordinator(cluster) as reader:
        answer = await reader.query(plan(), soon())

    assert answer.complete is arrives
    if not arrives:
        assert "knows ring 2, this node 1" in answer.missing[0]["reason"]


async def test_shards_without_any_owner_are_missing_and_the_rest_is_answered() -> None:
    """N=1: the dead node's shards have no other owner; the other node's rows are answered."""
    cluster = filled(nodes=2, n=1, w=1, r=1)
    cluster.stores["n0"].dead = True
    async with coordinator(cluster) as reader:
        answer = await reader.query(plan(), soon())

    assert [one["shard"] for one in answer.missing] == [0, 2]
    assert answer.table.num_rows == 18


async def test_nothing_reachable_is_an_error_not_an_empty_answer() -> None:
    """No owner of any shard answers: 503 with the shards, never 200 with no rows."""
    cluster = filled()
    for store in cluster.stores.values():
        store.dead = True
    async with coordinator(cluster) as reader:
        with pytest.raises(QuorumUnavailable) as caught:
            await reader.query(plan(), soon())

    assert len(caught.value.details["missing"]) == 4


async def test_a_bad_plan_is_refused_not_failed_over() -> None:
    """A replica that cannot evaluate the plan says so for all of them."""
    cluster = filled()
    for store in cluster.stores.values():
        store.fail_with = InvalidRequest("bad regular expression")
    async with coordinator(cluster) as reader:
        with pytest.raises(InvalidRequest, match="bad regular"):
            await reader.query(plan(), soon())

    assert cluster.calls("scan") <= 3


async def test_without_a_ring_nothing_can_be_read() -> None:
    """Before the first ring nothing has a place: 503, come back."""
    cluster = filled()
    cluster.view.ready = False
    async with coordinator(cluster) as reader:
        with pytest.raises(NotReady):
            await reader.query(plan(), soon())


async def test_rows_that_arrive_between_pages_neither_double_nor_push_out_others() -> None:
    """What was there at the first page comes once over all pages; rows received later stay out."""
    cluster = filled()
    at_start = {key_tuple(k) for k, _ in brute_rows(cluster.written, plan(limit="10000").scan)}
    async with coordinator(cluster) as reader:
        answer = await reader.query(plan(limit="7"), soon())
        found = keys(answer.table)
        number = 100
        while answer.next_cursor:
            late = [row(i * 20, f"late {i}") for i in range(6)]
            cluster.write(make_entry(number, number % 4, late, received_at=NOW + 1000 + number))
            number += 1
            answer = await reader.query(plan(limit="7", cursor=answer.next_cursor), soon())
            found += keys(answer.table)

    assert number > 103
    assert len(found) == len(set(found))
    assert set(found) == at_start


@pytest.mark.parametrize("rows", [2, 20])
async def test_a_page_is_cut_smaller_when_rows_are_too_wide_for_the_replica(rows: int) -> None:
    """A replica that cuts its answer at a cap is asked for as many as fitted; nothing is skipped."""
    cluster = filled(entries=40)
    for store in cluster.stores.values():
        store.max_rows = rows
    async with coordinator(cluster) as reader:
        found = await all_pages(reader, {"limit": "100"})
        before = len(cluster.stores["n0"].calls)
        first = await reader.query(plan(limit="100"), soon())

    assert len(found) == len(set(found)) == 120
    assert first.table.num_rows == rows - 1
    assert first.complete
    assert len(cluster.stores["n0"].calls) - before <= 2 * len(cluster.stores)


def test_slices_that_were_cut_are_as_long_as_the_shortest() -> None:
    """Those that were not cut say nothing of it."""
    whole = Reading(stats={})
    cut = [Reading(stats={}, truncated=True, fitting=rows) for rows in (7, 5)]

    assert joined([whole, *cut]).fitting == 5
    assert joined([whole, whole]).fitting == 0


async def test_memory_is_bounded_and_given_back() -> None:
    """A query whose tables exceed the budget is refused loudly; the budget is whole again after it."""
    cluster = filled(entries=40)
    async with coordinator(cluster, memory_bytes=1000) as reader:
        with pytest.raises(TooLarge, match="narrow it"):
            await reader.query(plan(), soon())
        small = await reader.query(plan(limit="1", fields="x"), soon())

    assert small.table.num_rows == 1


async def test_a_full_house_is_told_after_the_queue_time() -> None:
    """One query may run, its owners are slow: the second waits its time in the queue, then 429."""
    cluster = filled()
    for store in cluster.stores.values():
        store.delay_seconds = 0.3
    async with coordinator(cluster, running_max=1, queue_seconds=0.05) as reader:
        first = asyncio.create_task(reader.query(plan(), soon()))
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded) as caught:
            await reader.query(plan(), soon())
        answer = await first

    assert caught.value.retry_after_seconds
    assert answer.complete


async def test_a_cancelled_query_leaves_nothing_running() -> None:
    """The client leaves: the scans are cancelled, place and memory are free again."""
    cluster = filled()
    for store in cluster.stores.values():
        store.delay_seconds = 30.0
    metrics = Metrics()
    async with coordinator(cluster, metrics) as reader:
        task = asyncio.create_task(reader.query(plan(), soon(60)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert sum(store.cancelled for store in cluster.stores.values()) >= 2
        assert metrics.snapshot()["quorumlog_query_running"] == 0
        assert len(asyncio.all_tasks()) == 1


async def test_the_deadline_gives_a_partial_answer() -> None:
    """One node never answers and its shards have no other owner: at the deadline the rest is told."""
    cluster = filled(nodes=2, n=1, w=1, r=1)
    cluster.stores["n0"].delay_seconds = 60.0
    async with coordinator(cluster) as reader:
        answer = await reader.query(plan(), soon(0.3))

    assert [one["shard"] for one in answer.missing] == [0, 2]
    assert "DEADLINE_EXCEEDED" in answer.missing[0]["reason"]
    assert answer.table.num_rows == 18


async def test_services_narrow_the_shards_asked() -> None:
    """A query for one service reads that service's shard alone."""
    cluster = filled()
    home = cluster.view.shards_holding("default", "pay")
    async with coordinator(cluster) as reader:
        await reader.query(plan(service="pay"), soon())

    asked = {s for store in cluster.stores.values() for _, (data, _) in store.calls for s in data}
    assert asked == set(home)
