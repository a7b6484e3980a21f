"""A service is split while rows are written: each row once, each epoch fenced, nothing guessed."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.batch import Identity
from ingestor.replaying import Ask
from ingestor.shards import unsequenced_pieces
from ingestor.ways import services_of, ways_of
from records.errors import Fenced, NotReady, QuorumUnavailable
from records.visibility import REPEAT_MICROS
from ring.generations import EPOCHS_OF_A_GENERATION, UNSPLIT, Generation
from tests.support.fake_replica import FakeReplicas, FakeView, FakeViews, Fault
from tests.support.write_path import (
    BASE,
    SteppedClock,
    body_batch,
    numbered_batch,
    rows,
    until,
    write_path,
)

FIRST = EPOCHS_OF_A_GENERATION
SPLIT = ((("default", "shop"), (*UNSPLIT, Generation(4, BASE))),)
HOME = FakeView().shard_of("default", "shop", "", 1)
ALL = ("a", "b", "c", "d", "e", "f")


def spread_producer(factor: int = 4) -> tuple[str, int]:
    """A producer whose shard is not the home shard, and that shard."""
    view = FakeView(splits=((("default", "shop"), (*UNSPLIT, Generation(factor, BASE))),))
    for number in range(1000):
        shard = view.shard_under("default", "shop", f"p{number}", 1)
        if shard != HOME:
            return f"p{number}", shard
    raise AssertionError("all producers are at home")


PRODUCER, SHARD = spread_producer()
KEY = ("default", "shop", PRODUCER)


def numbered(seqs: list[int], epoch: int = 1):
    """Rows of the producer that a split moves."""
    return numbered_batch(seqs, producer=PRODUCER, epoch=epoch)


def before(node: str = "a", **changes) -> FakeView:
    """Home is led by b and owned by d, e, f; all else is led by a and owned by a, b, c."""
    return FakeView(
        node,
        placed=((HOME, ("d", "e", "f")),),
        leaders=((HOME, ("b", 1)),),
        **changes,
    )


def after(view: FakeView, splits=SPLIT) -> FakeView:
    """The view once it has heard of the split."""
    return replace(view, splits=splits, ring_epoch=view.ring_epoch + 1, index=view.index + 1)


# -- numbered rows ---------------------------------------------------------------------------------


async def test_an_epoch_of_the_new_generation_is_written_elsewhere_and_the_old_one_is_fenced() -> (
    None
):
    """Also at the leader of the old shard, who has heard of neither and has the producer in its book."""
    replicas = FakeReplicas(*ALL)
    home = FakeViews(before("b"))
    other = FakeViews(before("a"))
    async with write_path(replicas, home) as old, write_path(replicas, other, seed=2) as new:
        first = await old.write(numbered([1, 2]), ack="all")
        assert (first.ack_till, first.new_epoch) == (2, False)

        other.put(after(other.current()))
        epoch = await new.writer.new_producer_epoch(*KEY, new.deadline())
        assert epoch == FIRST
        told = [node for node in "def" if replicas[node].ring_epoch == 2]
        assert len(told) >= 2
        fresh = await new.write(numbered([1, 2], epoch), ack="all")
        assert (fresh.accepted, fresh.ack_till, fresh.new_epoch) == (2, 2, False)

        for node in "def":  # as if their fence were the producer's alone
            replicas[node].ring_epoch = 1
        with pytest.raises(Fenced) as caught:
            await old.write(numbered([3]))
        assert caught.value.details["epoch"] == epoch
    held = {(int(one.entry.shard), int(one.entry.producer_epoch)) for one in _held(replicas)}
    assert held == {(HOME, 1), (SHARD, FIRST)}


async def test_an_answer_tells_who_would_be_spread_and_nobody_else() -> None:
    """Epoch 1 after the split: yes, if another shard is its; of the new generation: no more."""
    views = FakeViews(FakeView())
    async with write_path(views=views) as path:
        assert not (await path.write(numbered([1]))).new_epoch
        views.put(after(views.current()))
        assert (await path.write(numbered([2]))).new_epoch
        stays = next(f"q{i}" for i in range(1000) if _place(f"q{i}") == HOME)
        assert not (await path.write(numbered_batch([1], producer=stays))).new_epoch
        epoch = await path.writer.new_producer_epoch(*KEY, path.deadline())
        assert not (await path.write(numbered([1], epoch))).new_epoch


async def test_an_epoch_of_a_split_that_is_not_known_here_is_not_guessed() -> None:
    """503, nothing stored; and the same rows are taken once the split is known."""
    views = FakeViews(FakeView())
    async with write_path(views=views) as path:
        with pytest.raises(NotReady, match="generation"):
            await path.write(numbered([1], FIRST))
        assert path.replicas.visible() == []
        views.put(after(views.current()))
        assert (await path.write(numbered([1], FIRST))).accepted == 1


async def test_no_epoch_is_issued_while_too_few_old_owners_refuse_the_older() -> None:
    """One of three knows: two others would still take the zombie's rows."""
    replicas = FakeReplicas(*ALL)
    replicas["e"].down = replicas["f"].down = True
    async with write_path(replicas, FakeViews(after(before("a")))) as path:
        with pytest.raises(QuorumUnavailable, match="seal_elsewhere"):
            await path.writer.new_producer_epoch(*KEY, path.deadline(0.3))
        replicas["e"].down = False
        assert await path.writer.new_producer_epoch(*KEY, path.deadline()) == FIRST


async def test_whoever_has_not_heard_of_a_split_issues_no_epoch_behind_it() -> None:
    """The leader of the old shard would issue 2; its owners know one of the new generation."""
    replicas = FakeReplicas(*ALL)
    async with (
        write_path(replicas, FakeViews(before("b"))) as old,
        write_path(replicas, FakeViews(after(before("a"))), seed=2) as new,
    ):
        await new.writer.new_producer_epoch(*KEY, new.deadline())
        with pytest.raises(NotReady, match="split again"):
            await old.writer.new_producer_epoch(*KEY, old.deadline())


async def test_the_newest_epoch_is_found_wherever_it_is_written() -> None:
    """Epoch 0 stands for it: the home shard's owners know it, another shard's leader answers."""
    replicas = FakeReplicas(*ALL)
    async with write_path(replicas, FakeViews(after(before("a")))) as path:
        epoch = await path.writer.new_producer_epoch(*KEY, path.deadline())
        await path.write(numbered([1, 2, 3], epoch), ack="all")
        found = await path.writer.producer_progress(*KEY, 0, path.deadline())

        assert (found.ack_till, found.max_seen) == (3, 3)


async def test_an_epoch_that_nobody_issued_is_sealed_at_the_older_shards_too() -> None:
    """A client that makes up its epochs still leaves no older one behind that writes."""
    replicas = FakeReplicas(*ALL)
    async with (
        write_path(replicas, FakeViews(before("b"))) as old,
        write_path(replicas, FakeViews(after(before("a"))), seed=2) as new,
    ):
        await old.write(numbered([1]), ack="all")
        await new.write(numbered([1], FIRST + 5))
        for node in "def":
            replicas[node].ring_epoch = 1
        with pytest.raises(Fenced):
            await old.write(numbered([2]))


@pytest.mark.parametrize("other", ["older epoch", "newer ring"])
async def test_an_answer_counts_its_own_puts_whatever_is_asked_of_the_producer_meanwhile(
    other: str,
) -> None:
    """Its rows are not called missing when a session under another shard, or another reign, is made."""
    replicas, views = FakeReplicas("a", "b", "c"), FakeViews(FakeView())
    async with write_path(replicas, views) as path:
        await path.write(numbered([1, 2]), ack="all")
        views.put(after(views.current()))
        epoch = await path.writer.new_producer_epoch(*KEY, path.deadline())
        await path.write(numbered([1], epoch), ack="all")
        gate = asyncio.Event()
        for node in "bc":
            replicas[node].faults.append(Fault(gate=gate))
        task = asyncio.create_task(path.write(numbered([2, 3], epoch)))
        await until(lambda: not (replicas["b"].faults or replicas["c"].faults))
        if other == "newer ring":
            views.put(replace(views.current(), ring_epoch=3, index=9))
        asked = epoch if other == "newer ring" else 1
        await path.writer.producer_progress(*KEY, asked, path.deadline())
        gate.set()
        done = await task
        assert (done.ack_till, done.missing) == (3, ())


async def test_an_operator_asks_each_producer_once_where_its_newest_epoch_is() -> None:
    """By service: the home shard has rows of an older epoch of the producer that moved, and asks not."""
    views = FakeViews(FakeView())
    async with write_path(views=views) as path:
        await path.write(numbered([1, 2]), ack="all")
        await path.write(numbered_batch([1], producer="stays"), ack="all")
        views.put(after(views.current()))
        epoch = await path.writer.new_producer_epoch(*KEY, path.deadline())
        await path.write(numbered([1], epoch), ack="all")
        ask = Ask("default", "shop", spans=((1, 9),))
        opened = []
        for shard in sorted(set(views.current().shards_holding("default", "shop"))):
            opened += await path.writer.replays.ask(shard, ask, path.deadline())

        assert sorted(one.key[2:] for one in opened) == sorted([(PRODUCER, epoch), ("stays", 1)])


# -- rows without numbers --------------------------------------------------------------------------


def moved_rows(factor: int = 4) -> list[dict]:
    """Rows of a request that a split takes from its home shard."""
    for number in range(1000):
        listed = rows(3, text=f"request {number} row")
        if _ways(listed, factor)[0]:
            return listed
    raise AssertionError("no request moves")


def _ways(listed: list[dict], factor: int = 4, now: int = BASE + 10):
    view = FakeView(splits=((("default", "shop"), (*UNSPLIT, Generation(factor, BASE))),))
    batch = body_batch(listed)
    return ways_of(view, "default", services_of(batch.table), batch.identity.content, now)


async def test_requests_are_spread_and_a_repeat_meets_the_first() -> None:
    """Through any node; each row is there once."""
    replicas = FakeReplicas(*ALL)
    view = after(before("a"))
    async with (
        write_path(replicas, FakeViews(view)) as one,
        write_path(replicas, FakeViews(replace(view, node_id="b")), seed=2) as other,
    ):
        for number in range(30):
            batch = body_batch(rows(2, text=f"request {number} row"))
            assert (await one.write(batch, ack="all")).accepted == 2
            again = await other.write(batch, ack="all")
            assert (again.accepted, again.duplicates) == (0, 2)
    assert len(replicas.visible()) == 60
    assert len({int(one.entry.shard) for one in _held(replicas)}) == 4
    assert all(replicas[node].ring_epoch == 2 for node in "def"), "older readers are told"


async def test_a_repeat_of_what_came_before_the_split_goes_the_old_way() -> None:
    """In its window and in the next one, in which the entry names the one before."""
    replicas, views, clock = FakeReplicas(*ALL), FakeViews(before("a")), SteppedClock()
    async with write_path(replicas, views, clock=clock) as path:
        batch = body_batch(moved_rows())
        await path.write(batch, ack="all")
        views.put(after(views.current()))
        again = await path.write(batch, ack="all")
        assert (again.accepted, again.duplicates) == (0, 3)
        clock.wall += REPEAT_MICROS
        await path.write(batch, ack="all")
    assert len(replicas.visible()) == 3
    assert {int(one.entry.shard) for one in _held(replicas)} == {HOME}


async def test_what_one_owner_alone_holds_of_a_repeat_takes_it_the_old_way() -> None:
    """Never acknowledged, but it may spread: so the repeat completes it where it is."""
    replicas, views = FakeReplicas(*ALL), FakeViews(before("a"))
    async with write_path(replicas, views) as path:
        batch = body_batch(moved_rows())
        await path.write(batch, ack="all")
        for node in "de":
            replicas[node].held.clear()
        views.put(after(views.current()))
        assert (await path.write(batch, ack="all")).accepted == 3
    assert len(replicas.visible()) == 3
    assert all(one.entry.shard == HOME for one in _held(replicas))
    assert all(len(replicas[node].held) == 1 for node in "def")


async def test_too_few_old_owners_refuse_a_request_that_may_be_a_repeat() -> None:
    """Definite: nothing was stored; it is taken when they are back."""
    replicas, views = FakeReplicas(*ALL), FakeViews(before("a"))
    async with write_path(replicas, views) as path:
        batch = body_batch(moved_rows())
        views.put(after(views.current()))
        replicas["d"].down = replicas["e"].down = True
        with pytest.raises(NotReady, match="came before the split"):
            await path.write(batch, seconds=0.3)
        assert replicas.visible() == []
        replicas["d"].down = replicas["e"].down = False
        assert (await path.write(batch)).accepted == 3


async def test_nobody_is_asked_once_no_repeat_can_come() -> None:
    """Two windows after the split a request costs what it cost before."""
    replicas = FakeReplicas(*ALL)
    clock = SteppedClock(BASE + 2 * REPEAT_MICROS + 1)
    async with write_path(replicas, FakeViews(after(before("a"))), clock=clock) as path:
        await path.write(body_batch(moved_rows()), ack="all")
    assert not any("absent" in replicas[node].calls for node in ALL)


async def test_a_key_of_the_clients_stays_at_home_for_ever() -> None:
    """It never ages, so a repeat may come after any number of splits."""
    replicas = FakeReplicas(*ALL)
    async with write_path(replicas, FakeViews(after(before("a")))) as path:
        for number in range(10):
            keyed = Identity(b"scope", str(number).encode(), ages=False, grade=1)
            await path.write(replace(body_batch(rows(1, number)), identity=keyed), ack="all")
    assert {int(one.entry.shard) for one in _held(replicas)} == {HOME}


async def test_a_request_keeps_the_way_that_it_began() -> None:
    """One owner stored it and fell silent, two knew of the split already: it goes on at home."""
    replicas, views = FakeReplicas(*ALL), FakeViews(before("a"))
    for node in "ef":
        replicas[node].ring_epoch = 2
    async with write_path(replicas, views) as path:
        task = asyncio.create_task(path.write(body_batch(moved_rows())))
        await until(lambda: bool(replicas["d"].held))
        replicas["d"].down = True
        views.put(after(views.current()))
        assert (await task).accepted == 3
    assert {int(one.entry.shard) for one in _held(replicas)} == {HOME}
    assert len(replicas.visible()) == 3


@pytest.mark.parametrize("known_before", [False, True])
async def test_a_request_waits_for_what_it_has_under_way_before_it_chooses(
    known_before: bool,
) -> None:
    """Two owners know of the split; the third is writing its copy, or says that it has one already."""
    replicas, views = FakeReplicas(*ALL), FakeViews(before("a"))
    async with write_path(replicas, views) as path:
        batch = body_batch(moved_rows())
        if known_before:
            await path.write(batch, ack="all")
            for node in "ef":
                replicas[node].held.clear()
        for node in "ef":
            replicas[node].ring_epoch = 2
        replicas["d"].faults.append(Fault(delay=0.3))
        replicas["d"].faults.append(Fault(delay=0.3, call="absent"))
        task = asyncio.create_task(path.write(batch))
        await until(lambda: {"put"} <= {*replicas["e"].calls} & {*replicas["f"].calls})
        views.put(after(views.current()))
        await task
        await until(lambda: bool(replicas["d"].held))
    assert {int(one.entry.shard) for one in _held(replicas)} == {HOME}
    assert len(replicas.visible()) == 3


async def test_a_request_that_stored_nothing_yet_follows_the_split() -> None:
    """All owners of its old shard knew before it came: a copy may have gone the new way already."""
    replicas, views = FakeReplicas(*ALL), FakeViews(before("a"))
    heard = FakeViews(after(before("b")))
    async with write_path(replicas, views) as path, write_path(replicas, heard, seed=2) as other:
        batch = body_batch(moved_rows())
        await other.write(batch, ack="all")
        task = asyncio.create_task(path.write(batch, ack="all"))
        await until(lambda: "put" in replicas["d"].calls)
        views.put(after(views.current()))
        again = await task
        assert (again.accepted, again.duplicates) == (0, 3)
    assert len(replicas.visible()) == 3


SERVICES = ("shop", "cart", "mail", "auth")


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(SERVICES), st.integers(2, 32)), max_size=6),
    st.sets(st.sampled_from(SERVICES), min_size=1),
    st.binary(min_size=1, max_size=8),
)
def test_ways_share_no_name_and_each_has_all_rows(
    splits: list[tuple[str, int]], services: set[str], content: bytes
) -> None:
    """Entries of two ways may lie in one shard and hold other rows: equal names would be divergence."""
    known = {service: list(UNSPLIT) for service in SERVICES}
    for at, (service, factor) in enumerate(splits, 1):
        if factor > known[service][-1].factor:
            known[service].append(Generation(factor, BASE + at))
    listed = tuple((("default", one), tuple(gens)) for one, gens in known.items() if len(gens) > 1)
    view = FakeView(splits=listed)
    batch = body_batch([{"service": one, "message": "m"} for one in sorted(services) * 2])
    batch = replace(batch, identity=Identity(b"scope", content))

    ways = ways_of(view, "default", services_of(batch.table), content, BASE + 100)
    names: list[set] = []
    for way in ways:
        pieces = unsequenced_pieces(batch, view, BASE, REPEAT_MICROS, 65_536, way)
        entries = [entry for piece in pieces for entry in piece.entries]
        assert sum(entry.row_count for entry in entries) == batch.table.num_rows
        names.append({entry.entry_id for entry in entries})
    assert {} in ways, "all rows were at home before the first split"
    for index, one in enumerate(names):
        assert not any(one & other for other in names[index + 1 :])


def _place(producer: str) -> int:
    return FakeView(splits=SPLIT).shard_under("default", "shop", producer, 1)


def _held(replicas: FakeReplicas) -> list:
    return [one for node in replicas.by_node.values() for one in node.held.values()]
