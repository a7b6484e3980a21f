"""Settling while writes are in flight: entries that come and go between the calls of one query."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.stats import parse_aggregates
from records.predicates import Fold
from tests.support.fake_store import FakeCluster, FakeEntry, make_entry
from tests.unit.query.divergent import Case, cases, numbered
from tests.unit.query.helpers import coordinator, keys, plan, row, soon

COUNT = Fold((), parse_aggregates("count,sum(x)"))


def entry(number: int, shard: int = 0) -> FakeEntry:
    """Two rows with x=1."""
    rows = [row(number * 10 + i, f"{number} {i}", x=1) for i in range(2)]
    return make_entry(number, shard, rows, received_at=number)


def arriving(cluster: FakeCluster, when: str, call: int, late: FakeEntry, node: str) -> None:
    """Adds `late` to `node` just before the given call of a method (empty: of any) anywhere."""
    seen = 0

    def on_call(_: str, method: str) -> None:
        nonlocal seen
        if when in ("", method):
            seen += 1
            if seen == call:
                cluster.stores[node].add(late)

    for store in cluster.stores.values():
        store.on_call = on_call


async def count(reader: Any) -> tuple[int, int]:
    """(count, sum of x) by a fold."""
    asked = plan()
    answer = await reader.fold(replace(asked, scan=replace(asked.scan, fold=COUNT)), soon())
    assert answer.complete
    found = answer.table.to_pylist()[0]
    return found["count"], found["sum(x)"]


@pytest.mark.parametrize("when", ["scan", "entries"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
async def test_an_acked_entry_that_reaches_the_data_owner_meanwhile_counts_once(
    when: str, call: int
) -> None:
    """n1 and n2 hold it (acked); n0, the data owner, gets it at any moment of the read.

    Before its scan, between scan and list, between list and repeated scan: once each time, in rows and
    in folds. Never lost: that would be an acked row missing from a complete answer.
    """
    for folded in (False, True):
        cluster = FakeCluster()
        cluster.write(entry(1))
        late = cluster.write(entry(2), on=["n1", "n2"])
        arriving(cluster, when, call, late, "n0")
        async with coordinator(cluster) as reader:
            if folded:
                assert await count(reader) == (4, 4)
            else:
                answer = await reader.query(plan(), soon())
                assert answer.complete
                assert len(keys(answer.table)) == len(set(keys(answer.table))) == 4


@settings(max_examples=60)
@given(
    cases(fewest=2),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 12)), max_size=6),
    st.booleans(),
)
def test_new_entries_at_any_moment_cause_neither_errors_nor_doubles(
    case: Case, moments: list[tuple[int, int]], folded: bool
) -> None:
    """Unacked entries drop in on single nodes at random calls; the acked rows come once, always."""

    async def run() -> None:
        cluster = case.cluster()
        acked = cluster.written.copy()
        late = [(f"n{n}", at, entry(100 + i)) for i, (n, at) in enumerate(moments)]
        calls = 0

        def on_call(_: str, __: str) -> None:
            nonlocal calls
            calls += 1
            for node, at, one in late:
                if at == calls:
                    cluster.stores[node].add(one)

        for store in cluster.stores.values():
            store.on_call = on_call
        async with coordinator(cluster) as reader:
            if folded:
                low = sum(1 for _ in _rows(acked))
                found, _ = await count(reader)
                assert low <= found <= low + 2 * len(late)
                return
            answer = await reader.query(plan(), soon())
        assert answer.complete
        found_keys = set(keys(answer.table))
        assert len(found_keys) == answer.table.num_rows
        assert {key for key in _rows(acked)} <= found_keys

    asyncio.run(run())


def _rows(entries: list[FakeEntry]) -> list[tuple]:
    from tests.support.fake_store import brute_rows, key_tuple

    return [key_tuple(key) for key, _ in brute_rows(entries, plan(limit="10000").scan)]


def cut(number: int, first: int, last: int, received_at: int) -> FakeEntry:
    """The sequences first..last of producer a, received then."""
    rows = [numbered("a", seq) for seq in range(first, last + 1)]
    spans = ((first, last),)
    return make_entry(number, 0, rows, seqs=spans, producer="a", received_at=received_at)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("call", range(1, 31))
async def test_visibility_that_changes_under_the_read_neither_doubles_nor_drops_a_row(
    call: int, order: str
) -> None:
    """n0 has 1..4; an older entry with 3..6, held by the others, reaches n0 at any call of the read.

    Before that n0 shows 3 and 4 itself, after it hides them. Pages of one row make a mixture of both
    states visible: each sequence must come once over all pages. Both orders, as the two copies of a row
    differ in their key, and the mixture shows where the copy that goes comes first.
    """
    cluster = FakeCluster()
    cluster.write(cut(1, 1, 4, 20))
    late = cluster.write(cut(2, 3, 6, 10), on=["n1", "n2"])
    at = {"limit": "1", "order": order}
    seen: list[int] = []
    async with coordinator(cluster, repair_delay_seconds=60.0) as reader:
        calls = 0

        def on_call(_: str, __: str) -> None:
            nonlocal calls
            calls += 1
            if calls == call:
                cluster.stores["n0"].add(late)

        for store in cluster.stores.values():
            store.on_call = on_call
        while True:
            answer = await reader.query(plan(**at), soon())
            assert answer.complete
            seen += answer.table["seq"].to_pylist()
            if answer.next_cursor is None:
                break
            at["cursor"] = answer.next_cursor

    assert calls >= call
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("call", range(1, 16))
async def test_the_same_bytes_of_two_windows_are_shown_once_whenever_one_arrives(
    call: int, early: bool, folded: bool
) -> None:
    """Sent twice about the window's edge: n1 and n2 hold the one, the other reaches n0 at any call."""
    cluster = FakeCluster()
    cluster.write(entry(1))
    first = make_entry(2, 0, [row(5, "twice", x=1)], received_at=50)
    again = make_entry(3, 0, [row(5, "twice", x=1)], received_at=60, previous=first.id)
    held, late = (again, first) if early else (first, again)
    cluster.write(held, on=["n1", "n2"])
    arriving(cluster, "", call, late, "n0")
    async with coordinator(cluster, repair_delay_seconds=60.0) as reader:
        if folded:
            assert (await count(reader))[0] == 3
            return
        answer = await reader.query(plan(), soon())
    assert answer.complete
    assert answer.table["message"].to_pylist().count("twice") == 1


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("call", range(1, 13))
async def test_an_overlapping_entry_that_reaches_a_holder_meanwhile_hides_nothing_from_us(
    call: int, folded: bool
) -> None:
    """n0 lacks 3..6; an older entry with 5..8 reaches n1 or n2 alone, unacked, at any call.

    A holder then hides 5 and 6 of the supplement, for an entry that was not asked for. They are
    acknowledged rows: a complete answer has each of 3..6 once. 7 and 8 may be there or not.
    """
    for node in ("n1", "n2"):
        cluster = FakeCluster()
        cluster.write(cut(1, 1, 2, 30))
        cluster.write(cut(2, 3, 6, 20), on=["n1", "n2"])
        calls = 0

        def on_call(_: str, __: str, cluster: FakeCluster = cluster, node: str = node) -> None:
            nonlocal calls
            calls += 1
            if calls == call:
                cluster.stores[node].add(cut(3, 5, 8, 10))

        for store in cluster.stores.values():
            store.on_call = on_call
        async with coordinator(cluster, repair_delay_seconds=60.0) as reader:
            if folded:
                assert (await count(reader)) in {(6, 21), (8, 36)}
                continue
            answer = await reader.query(plan(), soon())
        assert answer.complete
        assert sorted(answer.table["seq"].to_pylist()) in ([*range(1, 7)], [*range(1, 9)])


async def test_a_data_owner_that_dies_while_it_is_compared_is_replaced() -> None:
    """n0 gives its rows, then dies: the read starts anew without it and is complete."""
    cluster = FakeCluster()
    cluster.write(entry(1))
    cluster.write(entry(2), on=["n1", "n2"])
    cluster.write(entry(3), on=["n0", "n1"])

    def on_call(node: str, method: str) -> None:
        if method == "entries":
            cluster.stores["n0"].dead = True

    for store in cluster.stores.values():
        store.on_call = on_call
    async with coordinator(cluster) as reader:
        answer = await reader.query(plan(), soon())

    assert answer.complete
    assert answer.table.num_rows == 6


async def test_fewer_than_r_entry_lists_are_not_complete() -> None:
    """Owners differ, and all but the data owner die before they list: what they hold is unknown."""
    cluster = FakeCluster()
    cluster.write(entry(1))
    cluster.write(entry(2), on=["n1", "n2"])

    def on_call(_: str, method: str) -> None:
        if method == "entries":
            cluster.stores["n1"].dead = cluster.stores["n2"].dead = True

    for store in cluster.stores.values():
        store.on_call = on_call
    async with coordinator(cluster) as reader:
        answer = await reader.query(plan(), soon())

    assert not answer.complete
    assert "1 of 2 owners listed" in answer.missing[0]["reason"]
    assert answer.table.num_rows == 2


async def test_a_supplement_leaves_out_what_the_base_shows() -> None:
    """The base has 1..4 in the older entry, holders 3..6: a fold must not count 3 and 4 twice."""
    cluster = FakeCluster()
    cluster.write(cut(1, 1, 4, 10), on=["n0"])
    cluster.write(cut(2, 3, 6, 20), on=["n1", "n2"])
    async with coordinator(cluster, repair_delay_seconds=60.0) as reader:
        assert await count(reader) == (6, 21)


async def test_a_fold_over_copies_of_different_age_counts_each_row_once() -> None:
    """n0 got 1..4 before 3..6, the others after: either view counts 1..6 once."""
    cluster = FakeCluster()
    cluster.write(cut(1, 1, 4, 10), on=["n0"])
    cluster.write(cut(1, 1, 4, 30), on=["n1", "n2"])
    cluster.write(cut(2, 3, 6, 20), on=["n1", "n2"])
    async with coordinator(cluster, repair_delay_seconds=60.0) as reader:
        for _ in range(3):
            assert await count(reader) == (6, 21)


async def test_a_holder_that_dies_before_its_supplement_is_replaced_by_another() -> None:
    """n1 listed an entry that n0 lacks, and dies; n2 has it as well."""
    cluster = FakeCluster()
    cluster.write(entry(1))
    cluster.write(entry(2), on=["n1", "n2"])
    listed = 0

    def on_call(node: str, method: str) -> None:
        nonlocal listed
        listed += method == "entries"
        if method == "scan" and listed >= 2 and node in ("n1", "n2"):
            cluster.stores[node].dead = (
                not any(s.dead for s in cluster.stores.values()) or cluster.stores[node].dead
            )

    for store in cluster.stores.values():
        store.on_call = on_call
    async with coordinator(cluster) as reader:
        answer = await reader.query(plan(), soon())

    assert any(store.dead for store in cluster.stores.values())
    assert answer.table.num_rows == 4 or not answer.complete


async def test_what_a_holder_loses_after_it_was_listed_comes_from_another() -> None:
    """n1 lists an entry and finds it damaged when it is asked for it, or when the rows are read again.

    n2 has it as well. Asked three times, so that each owner is the data owner once.
    """
    cluster = FakeCluster()
    cluster.write(entry(1))
    damaged = cluster.write(entry(2), on=["n1", "n2"])
    store, bitten = cluster.stores["n1"], 0
    async with coordinator(cluster, repair_delay_seconds=60.0) as reader:
        for _ in range(3):
            store.add(damaged)
            listed = False

            def on_call(node: str, method: str) -> None:
                nonlocal listed, bitten
                listed = listed or method == "entries"
                if (
                    method == "scan"
                    and listed
                    and node == "n1"
                    and damaged.id in store.entries_by_id
                ):
                    del store.entries_by_id[damaged.id]
                    store.lost += 1
                    bitten += 1

            for one in cluster.stores.values():
                one.on_call = on_call
            answer = await reader.query(plan(), soon())

            assert answer.complete, answer.missing
            assert answer.table.num_rows == 4
    assert bitten > 0, "the fault did not bite"


async def test_what_only_a_dying_owner_had_was_never_acked_and_leaves_the_answer_complete() -> None:
    """n1 alone listed an entry (a write under way), then dies: the two others agree without it.

    Asked three times, so that each owner is the data owner once.
    """
    cluster = FakeCluster()
    cluster.write(entry(1))
    cluster.write(entry(2), on=["n1"])
    deaths = 0

    async with coordinator(cluster, repair_delay_seconds=60.0) as reader:
        for _ in range(3):
            listed = False

            def on_call(node: str, method: str) -> None:
                nonlocal listed, deaths
                listed = listed or method == "entries"
                if method == "scan" and listed and node == "n1" and not cluster.stores["n1"].dead:
                    cluster.stores["n1"].dead = True
                    deaths += 1

            for store in cluster.stores.values():
                store.on_call, store.dead = on_call, False
            answer = await reader.query(plan(), soon())

            assert answer.complete, answer.missing
            assert answer.table.num_rows >= 2
    assert deaths > 0, "the fault did not bite"


async def test_a_wiped_owner_is_not_supplemented_entry_by_entry() -> None:
    """n0 lost its disk: with more than `rebase_entries` missing another owner becomes the base."""
    cluster = FakeCluster()
    for number in range(30):
        cluster.write(entry(number), on=["n1", "n2"])
    async with coordinator(cluster, rebase_entries=10) as reader:
        answer = await reader.query(plan(), soon())
        assert await count(reader) == (60, 60)

    assert answer.complete
    assert answer.table.num_rows == 60
    assert answer.stats["repaired"] == 0


async def test_a_fold_counts_rows_once_though_no_owner_has_all_and_their_views_differ() -> None:
    """Two owners got the same entry at different times, and each lacks an overlapping one.

    Each in turn is the data owner, all of them see who hides whom in another way.
    """
    cluster = FakeCluster()
    cluster.write(cut(1, 1, 4, 10), on=["n0"])
    cluster.write(cut(1, 1, 4, 30), on=["n1", "n2"])
    cluster.write(cut(2, 3, 6, 20), on=["n1", "n2"])
    cluster.write(cut(3, 5, 8, 40), on=["n0"])
    async with coordinator(cluster, repair_delay_seconds=60.0) as reader:
        for _ in range(3):
            answer = await reader.query(plan(fields="x"), soon())
            assert answer.complete
            assert sorted(answer.table["x"].to_pylist()) == [1, 2, 3, 4, 5, 6, 7, 8]
            assert await count(reader) == (8, 36)


async def test_a_repeat_that_the_data_owner_hides_for_a_hidden_one_is_in_the_answer() -> None:
    """The same bytes at 0, 50 and 100 minutes; the data owner lacks the first: first and third count."""
    minutes = 60_000_000
    cluster = FakeCluster()
    first = cluster.write(make_entry(1, 0, [row(1, x=1)]), on=["n1", "n2"])
    second = make_entry(2, 0, [row(1, x=1)], received_at=50 * minutes, previous=first.id)
    cluster.write(second)
    cluster.write(make_entry(3, 0, [row(1, x=1)], received_at=100 * minutes, previous=second.id))
    async with coordinator(cluster, repair_delay_seconds=60.0) as reader:
        for _ in range(3):
            assert await count(reader) == (2, 2)
            assert (await reader.query(plan(), soon())).table.num_rows == 2
