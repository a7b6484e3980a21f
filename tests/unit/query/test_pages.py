"""Pages over one snapshot, where owners received an entry at different times: nothing is left out."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from query.coordinator import ReadCoordinator
from tests.support.fake_store import FakeCluster, FakeEntry, brute_rows, key_tuple, make_entry
from tests.unit.query.divergent import Case, cases
from tests.unit.query.helpers import coordinator, keys, plan, row, soon


def received(entry: FakeEntry, at: int) -> FakeEntry:
    """The same entry, received then."""
    return replace(entry, header=replace(entry.header, received_at=at))


async def paged(
    reader: ReadCoordinator, cluster: FakeCluster, away: list[str | None], **params: str
) -> list[tuple]:
    """The keys of all pages of one row; before each page another node is away."""
    found: list[tuple] = []
    for turn in range(200):
        gone = away[turn % len(away)]
        for store in cluster.stores.values():
            store.dead = store.node == gone
        answer = await reader.query(plan(limit="1", **params), soon())
        assert answer.complete
        found += keys(answer.table)
        if answer.next_cursor is None:
            return found
        params["cursor"] = answer.next_cursor
    raise AssertionError("pages do not end")


async def test_an_entry_sent_again_after_the_first_page_stays_in_the_later_ones() -> None:
    """Acked on n0 and n1; after the first page n2 gets it too, with a receipt behind the snapshot.

    The further pages are read from n2 and one of the others.
    """
    for other in ("n0", "n1"):
        cluster = FakeCluster()
        entry = cluster.write(make_entry(5, 0, [row(i) for i in range(4)]), on=["n0", "n1"])
        async with coordinator(cluster, repair_delay_seconds=60.0) as reader:
            first = await reader.query(plan(limit="1"), soon())
            cluster.stores["n2"].add(received(entry, 9))
            found = keys(first.table)
            found += await paged(reader, cluster, [other], cursor=first.next_cursor or "")

            assert len(found) == 4


async def test_what_was_received_twice_before_the_first_page_is_in_its_snapshot() -> None:
    """n0 got it at 5. Sent again at 9 to n1; n0 said duplicate: acked. n1 is away for the first page."""
    cluster = FakeCluster()
    entry = cluster.write(make_entry(5, 0, [row(i) for i in range(4)]), on=["n0"])
    cluster.write(received(entry, 9), on=["n1"])
    cluster.stores["n0"].heard = 9
    async with coordinator(cluster, repair_delay_seconds=60.0) as reader:
        assert len(await paged(reader, cluster, ["n1", "n0", "n0", "n0"])) == 4


async def test_the_snapshot_of_a_first_page_by_too_few_owners_leaves_nothing_out_later() -> None:
    """n2 alone answers, and says so; it knows of nothing as late as what n0 and n1 acknowledged."""
    cluster = FakeCluster()
    cluster.write(make_entry(1, 0, [row(0), row(1)]), on=["n0", "n1", "n2"])
    cluster.write(make_entry(5, 0, [row(i) for i in (2, 3)]), on=["n0", "n1"])
    for node in ("n0", "n1"):
        cluster.stores[node].dead = True
    async with coordinator(cluster, repair_delay_seconds=60.0) as reader:
        first = await reader.query(plan(limit="1", order="asc"), soon())
        assert not first.complete
        found = await paged(reader, cluster, ["n2"], order="asc", cursor=first.next_cursor or "")

    assert len(found) == 3


async def test_an_owner_that_takes_over_may_have_some_of_the_snapshot_too_late() -> None:
    """The data owner n0 lacks so many that n1 gives the data instead: that has `late`, but too late."""
    cluster = FakeCluster()
    for number in (1, 2, 3):
        cluster.write(make_entry(number, 0, [row(number)]), on=["n1", "n2"])
    late = cluster.write(make_entry(4, 0, [row(4)]), on=["n0", "n2"])
    async with coordinator(cluster, repair_delay_seconds=60.0, rebase_entries=1) as reader:
        first = await reader.query(plan(limit="1", order="asc"), soon())
        cluster.stores["n1"].add(received(late, 99))
        found = await paged(reader, cluster, ["n2"], order="asc", cursor=first.next_cursor or "")

    assert len(found) == 3


@settings(max_examples=150, deadline=None)
@given(
    cases(fewest=2, resent=True),
    st.lists(st.sampled_from(["n0", "n1", "n2", None]), min_size=1, max_size=7),
    st.sampled_from(["asc", "desc"]),
    st.sampled_from([1, 100]),
)
async def test_pages_have_all_that_was_acknowledged_once_whoever_is_away(
    case: Case, away: list[str | None], order: str, rebase_entries: int
) -> None:
    """Entries lie on two owners or three, overlap, and have other receipts here and there."""
    more = {"repair_delay_seconds": 60.0, "rebase_entries": rebase_entries}
    cluster = case.cluster()
    for entry, there in zip(case.entries, case.holders, strict=True):
        times = [one.header.received_at for one, _ in case.copies() if one.id == entry.id]
        for place in there:
            store = cluster.stores[f"n{place}"]
            store.heard = max(store.heard, *times)
    async with coordinator(cluster, **more) as reader:
        found = await paged(reader, cluster, away, order=order)

    wanted = brute_rows(case.entries, plan(limit="10000", order=order).scan)
    assert found == [key_tuple(key) for key, _ in wanted]
