"""Spread: where cuts go, and that folds cut into slices answer as one read, whatever owners hold."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.plan import QueryPlan
from query.spread import apart, cuts, sliced, ways_of
from query.stats import parse_aggregates
from records.errors import ConnectionLost, Overloaded, QuorumUnavailable, TooLarge
from records.predicates import Fold
from records.timestamps import TimeRange
from runtime.metrics import Metrics
from tests.support.fake_store import FakeCluster, FakeView, brute_rows, make_entry
from tests.unit.query.divergent import SPREAD, Case, cases
from tests.unit.query.helpers import HOUR, NOW, coordinator, plan, row, soon

AGGREGATES = "count,sum(x),min(x),max(message),avg(x),uniq(x),p50(x)"


def outline(*pieces: tuple[int, int, int]) -> pa.Table:
    """Pieces as (first, last, rows)."""
    columns = zip(*pieces, strict=True) if pieces else ([], [], [])
    names = ("first", "last", "rows")
    return pa.table({n: pa.array(list(c), pa.int64()) for n, c in zip(names, columns, strict=True)})


def folded(fold: Fold, **params: str) -> QueryPlan:
    """A plan with a fold."""
    asked = plan(**params)
    return replace(asked, scan=replace(asked.scan, fold=fold, limit=0))


COUNT = Fold((), parse_aggregates("count,sum(x)"))


def hourly(entries: int = 12, **shape: Any) -> FakeCluster:
    """Entries of ten rows, one an hour, on all owners."""
    cluster = FakeCluster(**shape)
    for number in range(entries):
        rows = [row(number * HOUR + i, f"{number} {i}", x=i) for i in range(10)]
        cluster.write(make_entry(number, number % 4, rows, received_at=number))
    return cluster


def data_scans(cluster: FakeCluster) -> dict[str, int]:
    """How often each store was asked for rows, outlines included."""
    return {
        node: sum(name == "scan" and bool(what[0]) for name, what in store.calls)
        for node, store in cluster.stores.items()
    }


# -- where to cut


def test_cuts_lie_between_pieces_at_even_shares() -> None:
    """Nine pieces of one row, one after another: three each."""
    pieces = outline(*((at * 10, at * 10 + 9, 1) for at in range(9)))

    assert cuts(pieces, 3, 1) == [30, 60]


def test_few_rows_are_not_cut() -> None:
    """Below the threshold another owner costs more than it takes over; nothing at all likewise."""
    pieces = outline(*((at, at, 10) for at in range(9)))

    assert cuts(pieces, 3, 91) == []
    assert cuts(pieces, 3, 90) != []
    assert cuts(outline(), 3, 1) == []


def test_pieces_that_span_all_of_the_time_are_not_cut() -> None:
    """Each owner would open each of them."""
    assert cuts(outline(*((at, 1000 + at, 10) for at in range(20))), 3, 1) == []


def test_cuts_avoid_pieces_that_they_would_divide() -> None:
    """A gap a little off the even share is taken: no row is read twice."""
    pieces = outline((0, 39, 40), (40, 44, 5), (45, 62, 15), (60, 99, 40))

    assert cuts(pieces, 2, 1) == [45]


@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 30), st.integers(1, 9)), max_size=30),
    st.integers(1, 5),
)
def test_cuts_are_few_within_the_data_and_divide_little(
    drawn: list[tuple[int, int, int]], ways: int
) -> None:
    """At most `ways` slices; the rows of divided pieces, counted one by one, are at most a tenth."""
    pieces = [(first, first + span, rows) for first, span, rows in drawn]

    found = cuts(outline(*pieces), ways, 1)

    assert len(found) < ways
    assert found == sorted(set(found))
    divided = [rows for at in found for first, last, rows in pieces if first < at <= last]
    assert sum(divided) <= 0.1 * sum(rows for _, _, rows in pieces)


def test_slices_make_up_the_range() -> None:
    """Half-open, in order, none empty; cuts outside or at the ends make none."""
    assert sliced(TimeRange(0, 10), [0, 3, 7, 10, 12]) == (
        TimeRange(0, 3), TimeRange(3, 7), TimeRange(7, 10),
    )  # fmt: skip
    assert sliced(TimeRange(), [5]) == (TimeRange(end=5), TimeRange(start=5))


def test_owners_at_rest_decide_into_how_many_slices() -> None:
    """Three owners, one at work: three. Six nodes that all have a share of the shards: one."""
    view: Any = FakeView(["n0", "n1", "n2"], 3, 2, 2, 4)
    many: Any = FakeView([f"n{i}" for i in range(6)], 3, 2, 2, 12)

    one = dict.fromkeys(range(4), "n0")
    assert ways_of(view, one, frozenset())[0] == 3
    assert ways_of(view, one, frozenset({"n2"})) == (2, frozenset({"n0", "n1"}))
    assert ways_of(many, {s: f"n{s % 6}" for s in range(12)}, frozenset())[0] == 1
    assert ways_of(view, {}, frozenset())[0] == 1


def test_hosts_are_told_apart_by_address() -> None:
    """Ports do not make a host; names and IPv6 do."""
    view: Any = FakeView(["n0", "n1", "n2"], 3, 2, 2, 4)

    assert not apart(view, view.nodes)
    view.hosts = {"n0": "[::1]", "n1": "[::1]", "n2": "[::1]"}
    assert not apart(view, view.nodes)
    view.hosts["n2"] = "10.0.0.3"
    assert apart(view, view.nodes)


# -- reads


@settings(max_examples=120, deadline=None)
@given(
    cases(fewest=2, resent=True),
    st.sampled_from([(), ("level",), ("level", "producer")]),
    st.booleans(),
    st.fixed_dictionaries(
        {},
        optional={
            "from": st.integers(-2, SPREAD + 2).map(lambda at: str(NOW + at)),
            "to": st.integers(SPREAD + 2, SPREAD + 9).map(lambda at: str(NOW + at)),
            "level": st.just("info"),
        },
    ),
    st.sampled_from([None, 0, 1, 2]),
    st.booleans(),
)
def test_with_and_without_spread_answers_are_equal(
    case: Case,
    by: tuple[str, ...],
    stepped: bool,
    params: dict[str, str],
    dead: int | None,
    all_divided: bool,
) -> None:
    """Divergent owners, resent entries, overlapping sequences, a dead owner perhaps; cuts anywhere.

    The answer is that of one read, groups in any order; and both are complete.
    """

    async def run(spread: str) -> list:
        cluster = case.cluster()
        if dead is not None:
            cluster.stores[f"n{dead}"].dead = True
        fold = Fold(by, parse_aggregates(AGGREGATES), 2 if stepped else 0)
        async with coordinator(cluster, spread=spread, spread_rows=1) as reader:
            answer = await reader.fold(folded(fold, **params), soon())
        assert answer.complete, answer.missing
        return sorted(map(repr, answer.table.select(sorted(answer.table.column_names)).to_pylist()))

    with pytest.MonkeyPatch.context() as patch:
        if all_divided:
            patch.setattr("query.spread.TWICE_MOST", 10.0)
        assert asyncio.run(run("on")) == asyncio.run(run("off"))


async def test_each_slice_goes_to_another_owner() -> None:
    """Three slices, three owners, one outline from the own store; the rows are counted once."""
    cluster, metrics = hourly(), Metrics()
    async with coordinator(cluster, metrics, spread="on", spread_rows=1) as reader:
        answer = await reader.fold(folded(COUNT), soon())

    assert answer.complete
    assert answer.table.to_pylist() == [{"count": 120, "sum(x)": 12 * 45}]
    assert answer.stats["rows_scanned"] == 120
    assert data_scans(cluster) == {"n0": 2, "n1": 1, "n2": 1}
    assert metrics.snapshot()["quorumlog_query_spread_total"] == 1


async def test_a_dead_owners_slice_is_taken_by_another() -> None:
    """It is believed alive, so it is asked; its slice comes from another owner, complete."""
    cluster = hourly()
    cluster.stores["n1"].dead = True
    async with coordinator(cluster, spread="on", spread_rows=1) as reader:
        answer = await reader.fold(folded(COUNT), soon())
        assert answer.complete
        assert answer.table["count"][0].as_py() == 120
        cluster.view.down = {"n1"}
        before = data_scans(cluster)
        assert (await reader.fold(folded(COUNT), soon())).complete

    now = data_scans(cluster)
    assert {node: now[node] - before[node] for node in now} == {"n0": 2, "n1": 0, "n2": 1}


async def test_what_does_not_pay_is_not_cut() -> None:
    """Off; few rows; all on one host; pages of rows: one owner, and but for few rows no outline either."""
    for more, scans, asked in (
        ({"spread": "off"}, 1, folded(COUNT)),
        ({"spread": "on", "spread_rows": 121}, 2, folded(COUNT)),
        ({"spread": "auto"}, 1, folded(COUNT)),
        ({"spread": "on"}, 1, plan(limit="50")),
    ):
        cluster = hourly()
        async with coordinator(cluster, **{"spread_rows": 1, **more}) as reader:
            run = reader.query if asked.scan.fold is None else reader.fold
            assert (await run(asked, soon())).complete
        assert sum(data_scans(cluster).values()) == scans, more


async def test_auto_spreads_over_hosts() -> None:
    """The default: owners on machines of their own share the work."""
    cluster = hourly()
    cluster.view.hosts = {"n0": "10.0.0.1", "n1": "10.0.0.2", "n2": "10.0.0.3"}
    async with coordinator(cluster, spread_rows=1) as reader:
        assert (await reader.fold(folded(COUNT), soon())).complete

    assert data_scans(cluster) == {"n0": 2, "n1": 1, "n2": 1}


async def test_a_row_resent_in_another_slice_counts_once() -> None:
    """A body without times, sent again an hour later: the repeat hides, though its slice is another.

    n2 lacks the first. Its own view shows the repeat, and in the hours of that slice all owners agree:
    only because owners are compared over the whole range does the answer count one.
    """
    cluster = hourly(4)
    first = make_entry(90, 0, [row(0, "same", x=1)], received_at=NOW)
    again = make_entry(91, 0, [row(3 * HOUR, "same", x=1)], received_at=NOW + 10, previous=first.id)
    cluster.write(first, on=["n0", "n1"])
    cluster.write(again)
    wanted = len(brute_rows(cluster.written, folded(COUNT).scan))
    assert wanted == 41
    async with coordinator(cluster, spread="on", spread_rows=1) as reader:
        for _ in range(3):
            answer = await reader.fold(folded(COUNT), soon())
            assert answer.complete
            assert answer.table["count"][0].as_py() == wanted


@pytest.mark.parametrize("consistency", ["quorum", "all"])
async def test_what_arrives_between_two_slices_hides_no_row(consistency: str) -> None:
    """All owners agree in each slice, but not at the same time; with `all` each speaks for each slice.

    The repeat is on all owners. Its first copy, of the first slice's time, comes to all of them after that
    slice was read and before the last one is: there it hides the repeat. The row must not be lost.
    """
    cluster = hourly(6)
    first = make_entry(90, 0, [row(0, "same", x=1)], received_at=NOW)
    again = make_entry(91, 0, [row(5 * HOUR, "same", x=1)], received_at=NOW + 9, previous=first.id)
    cluster.write(again)

    def late(store: Any) -> Any:
        real = store.scan

        async def scan(request: Any, deadline: Any) -> Any:
            if request.plan.time.start > NOW and request.plan.time.end > NOW + 5 * HOUR:
                await asyncio.sleep(0.02)
                for one in cluster.stores.values():
                    one.add(first)
            return await real(request, deadline)

        return scan

    for store in cluster.stores.values():
        store.scan = late(store)  # type: ignore[method-assign]
    async with coordinator(cluster, spread="on", spread_rows=1) as reader:
        answer = await reader.fold(folded(COUNT, consistency=consistency), soon())

    assert answer.complete
    assert answer.table["count"][0].as_py() == 61


async def test_owners_that_may_hide_otherwise_are_read_as_one() -> None:
    """Sequences overlap, and the rows without a time of their own lie hours apart.

    n0 and n1 got the first entry before the second, n2 after it, so that n2 shows the row in the other.
    In slices from several of them the row would come twice, or not at all.
    """
    numbers = {"producer": "a", "producer_epoch": 1}
    late = [row(9 * HOUR + i, f"a {i}", x=i, seq=i, **numbers) for i in (2, 3)]
    early = [row(i, f"a {i}", x=i, seq=i, **numbers) for i in (1, 2)]
    cluster = hourly(10)
    one = make_entry(70, 0, early, seqs=((1, 2),), producer="a", received_at=5)
    two = make_entry(71, 0, late, seqs=((2, 3),), producer="a", received_at=20)
    cluster.write(one, on=["n0", "n1"])
    cluster.write(replace(one, header=replace(one.header, received_at=50)), on=["n2"])
    cluster.write(two)
    for nodes in (["n0", "n1", "n2"], ["n1", "n2", "n0"], ["n2", "n0", "n1"]):
        cluster.view.node_id = nodes[0]
        async with coordinator(cluster, spread="on", spread_rows=1) as reader:
            answer = await reader.fold(folded(COUNT), soon())
        assert answer.complete
        assert answer.table["count"][0].as_py() == 103


async def test_what_is_missing_is_named_once_with_its_hours() -> None:
    """n1 and n2 die when the slices begin: every slice lacks a second owner, each shard is named once."""
    cluster = hourly()
    outlined = False

    def befall(node: str, method: str) -> None:
        nonlocal outlined
        if outlined:
            cluster.stores["n1"].dead = cluster.stores["n2"].dead = True
        outlined = True

    for store in cluster.stores.values():
        store.on_call = befall
    asked = folded(COUNT, **{"from": str(NOW), "to": str(NOW + 12 * HOUR)})
    async with coordinator(cluster, spread="on", spread_rows=1) as reader:
        answer = await reader.fold(asked, soon())

    assert not answer.complete
    assert Counter(one["shard"] for one in answer.missing) == dict.fromkeys(range(4), 1)
    assert {(one["hours"]["first"], one["hours"]["last"]) for one in answer.missing} == {
        ("2026-11-18T11", "2026-11-18T23")
    }
    assert all("1 of 2 owners" in one["reason"] for one in answer.missing)
    assert answer.table["count"][0].as_py() == 120


async def test_nothing_reachable_is_an_error_in_slices_too() -> None:
    """All owners die after the outline: 503, no empty answer."""
    cluster = hourly()

    def befall(node: str, method: str) -> None:
        if sum(data_scans(cluster).values()) > 1:
            for store in cluster.stores.values():
                store.dead = True

    for store in cluster.stores.values():
        store.on_call = befall
    async with coordinator(cluster, spread="on", spread_rows=1) as reader:
        with pytest.raises(QuorumUnavailable):
            await reader.fold(folded(COUNT), soon())


@pytest.mark.parametrize("error", [Overloaded("full"), ConnectionLost("gone"), TooLarge("far")])
async def test_without_an_outline_the_read_is_whole(error: Any) -> None:
    """Whoever cannot tell what it would read does not stop the read."""
    cluster = hourly()
    real = cluster.stores["n0"].scan

    async def scan(request: Any, deadline: Any) -> Any:
        if request.outline:
            raise error
        return await real(request, deadline)

    cluster.stores["n0"].scan = scan  # type: ignore[method-assign]
    async with coordinator(cluster, spread="on", spread_rows=1) as reader:
        answer = await reader.fold(folded(COUNT), soon())

    assert answer.complete
    assert data_scans(cluster) == {"n0": 1, "n1": 0, "n2": 0}


async def test_a_slice_too_large_to_send_is_read_from_the_own_store() -> None:
    """A peer's answer has a bound that the local store's has not: the read is not refused for it."""
    cluster = hourly()
    real = cluster.stores["n1"].scan

    async def scan(request: Any, deadline: Any) -> Any:
        if request.data_shards:
            raise TooLarge("an answer of 70 MiB")
        return await real(request, deadline)

    cluster.stores["n1"].scan = scan  # type: ignore[method-assign]
    async with coordinator(cluster, spread="on", spread_rows=1) as reader:
        answer = await reader.fold(folded(COUNT), soon())

    assert answer.complete
    assert answer.table["count"][0].as_py() == 120


async def test_a_cancelled_spread_read_leaves_nothing_running() -> None:
    """All slices end with their read; places and memory are free."""
    cluster, metrics = hourly(), Metrics()
    async with coordinator(cluster, metrics, spread="on", spread_rows=1) as reader:
        task = asyncio.create_task(reader.fold(folded(COUNT), soon()))
        while sum(data_scans(cluster).values()) < 4:
            for store in cluster.stores.values():
                store.delay_seconds = 30.0 if cluster.calls("scan") else 0.0
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert len(asyncio.all_tasks()) == 1
        assert metrics.snapshot()["quorumlog_query_running"] == 0
        assert metrics.snapshot()["quorumlog_query_memory_bytes"] == 0
