"""Replay requests of a leader: from answers, from a look at the owners, from operators; and their moves."""

import pytest

from ingestor import replaying
from ingestor.replay_book import State, gap_id
from ingestor.replaying import Ask, Note
from ingestor.write_settings import WriteSettings
from records.errors import (
    ConnectionLost,
    InvalidRequest,
    NotLeader,
    Overloaded,
    QuorumUnavailable,
)
from tests.support.fake_replica import FakeReplicas, FakeView, FakeViews
from tests.support.write_path import BASE, Path, numbered_batch, until, write_path

KEY = ("default", "shop", "p1", 1)
#: No look but those that a test makes.
QUIET = WriteSettings(replay_look_seconds=3_600.0)


async def led(path: Path) -> int:
    """The shard of KEY, once this node leads it."""
    await until(lambda: path.writer.replays.leads(KEY))
    return path.views.current().shard_of(*KEY)


def states(path: Path) -> list[tuple[str, State]]:
    return [(one.id, one.state) for one in path.writer.replays.desk.book.listed("default")]


async def test_an_answer_with_a_gap_opens_a_request_and_its_rows_complete_it() -> None:
    """1-3, then 7: 4-6 are asked for; they come in two batches, of which one was there before."""
    async with write_path(settings=QUIET) as path:
        await path.write(numbered_batch([1, 2, 3]))
        assert states(path) == []
        await path.write(numbered_batch([7]))
        assert states(path) == [(gap_id(KEY), State.PENDING)]
        await path.write(numbered_batch([3, 4, 5]))
        assert states(path) == [(gap_id(KEY), State.STREAMING)]
        await path.write(numbered_batch([6]))

        assert states(path) == [(gap_id(KEY), State.COMPLETED)]
        assert path.metric("quorumlog_replay_finished_total") == 1
        rows = path.metrics.snapshot()
        assert rows['quorumlog_replay_rows_total{what="replayed"}'] == 3
        assert rows['quorumlog_replay_rows_total{what="asked"}'] == 3


async def test_a_skip_completes_the_request() -> None:
    """What the producer lost for good is declared, and told apart from rows."""
    async with write_path(settings=QUIET) as path:
        await path.write(numbered_batch([3]))
        await path.write(numbered_batch([], skips=[(1, 2)]))

        assert states(path) == [(gap_id(KEY), State.COMPLETED)]
        assert path.writer.replays.desk.book.totals.skipped == 2


async def test_a_new_leader_finds_the_gap_of_a_silent_producer() -> None:
    """Nothing is handed over: the owners list who has gaps, and the same id comes of it."""
    replicas = FakeReplicas("a", "b", "c")
    async with write_path(replicas, settings=QUIET) as path:
        await path.write(numbered_batch([1, 2, 5]), ack="all")
        before = states(path)

    views = FakeViews(FakeView("b", everything_led_by=("b", 2)))
    async with write_path(replicas, views, settings=QUIET) as path:
        await led(path)
        assert states(path) == []
        await path.writer.replays.look()

        assert states(path) == before == [(gap_id(KEY), State.PENDING)]
        assert path.writer.replays.desk.book.open_gaps()[0].waiting == ((3, 4),)


async def test_the_gaps_of_very_many_silent_producers_are_found_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each look goes on behind the one before, at the owners too: gaps that nobody fills hide no others."""
    monkeypatch.setattr(replaying, "LOOKED_AT_MAX", 1)
    replicas = FakeReplicas("a", "b", "c")
    async with write_path(replicas, settings=QUIET) as path:
        for number in range(12):
            await path.write(numbered_batch([2], f"p{number}"), ack="all")

    views = FakeViews(FakeView("b", everything_led_by=("b", 2)))
    async with write_path(replicas, views, settings=QUIET) as path:
        keys = [("default", "shop", f"p{number}", 1) for number in range(12)]
        await until(lambda: all(map(path.writer.replays.leads, keys)))
        for _ in range(13):
            await path.writer.replays.look()

        assert len(path.writer.replays.desk.book.open_gaps()) == 12


async def test_a_gap_on_one_owner_alone_is_none() -> None:
    """One owner missed a batch that two others hold: nobody is asked for anything."""
    async with write_path(settings=QUIET) as path:
        await path.write(numbered_batch([1]), ack="all")
        path.replicas["c"].down = True
        await path.write(numbered_batch([2]))
        path.replicas["c"].down = False
        await path.write(numbered_batch([3]), ack="all")
        await led(path)
        held = path.replicas["c"].seqs_of(KEY[:3])

        await path.writer.replays.look()

        assert states(path) == []
        assert held.spans() in ([(1, 1), (3, 3)], [(1, 3)])


async def test_an_owner_that_does_not_answer_only_delays() -> None:
    """Two of three owners fail to list: the third's word is enough to look, nothing is concluded."""
    async with write_path(settings=QUIET) as path:
        await led(path)
        await path.write(numbered_batch([1, 4]), ack="all")
        desk = path.writer.replays.desk
        desk.book.keep(lambda _: False)
        for node in "ab":
            path.replicas[node].broken["producers"] = ConnectionLost("gone")

        await path.writer.replays.look()

        assert states(path) == [(gap_id(KEY), State.PENDING)]
        assert path.metric("quorumlog_replay_look_failures_total") == 2


async def test_what_an_operator_asks_travels_with_the_next_answer() -> None:
    """2-3 are sent again: duplicates, told as such; asked beyond the largest seen: cut."""
    async with write_path(settings=QUIET) as path:
        await path.write(numbered_batch([1, 2, 3]), ack="all")
        shard = await led(path)
        ask = Ask("default", "shop", "p1", spans=((2, 90),), reason="drill")

        (opened,) = await path.writer.replays.ask(shard, ask, path.deadline())
        told = await path.write(numbered_batch([4]))
        seen = await path.writer.producer_progress("default", "shop", "p1", 1, path.deadline())
        last = await path.write(numbered_batch([2, 3]))

        assert told.asked == seen.asked == ((opened.id, ((2, 3),)),)
        assert (last.asked, last.duplicates) == ((), 2)
        assert (opened.state, opened.rows.duplicate) == (State.COMPLETED, 2)
        assert len(path.replicas.visible()) == 4


async def test_an_operator_asks_by_service_and_time() -> None:
    """All producers of the service; the sequences of the entries that the time touches."""
    async with write_path(settings=QUIET) as path:
        await path.write(numbered_batch([1, 2, 3]), ack="all")
        await path.write(numbered_batch([1, 2], producer="p2"), ack="all")
        await path.write(numbered_batch([1], service="web"), ack="all")
        shard = await led(path)
        replays = path.writer.replays

        ask = Ask("default", "shop", start=BASE, end=BASE + 1_000_000)
        opened = await replays.ask(shard, ask, path.deadline())
        early = Ask("default", "shop", start=BASE - 9, end=BASE - 8)
        none = await replays.ask(shard, early, path.deadline())

        assert sorted((one.key[2], one.waiting) for one in opened) == [
            ("p1", ((1, 3),)),
            ("p2", ((1, 2),)),
        ]
        assert none == []
        with pytest.raises(InvalidRequest):
            await replays.ask(
                shard, Ask("default", "shop", "p1", start=BASE - 9, end=BASE - 8), path.deadline()
            )


async def test_an_operators_question_by_time_costs_one_list_of_entries_for_all_producers() -> None:
    """Three producers, three owners: each owner lists its entries once."""
    async with write_path(settings=QUIET) as path:
        for producer in ("p1", "p2", "p3"):
            await path.write(numbered_batch([1], producer=producer), ack="all")
        shard = await led(path)
        ask = Ask("default", "shop", start=BASE, end=BASE + 1_000_000)

        opened = await path.writer.replays.ask(shard, ask, path.deadline())

        assert len(opened) == 3
        assert [path.replicas[node].calls.count("entries") for node in "abc"] == [1, 1, 1]


async def test_silent_owners_do_not_mean_that_there_are_no_rows() -> None:
    """Two of three do not list their producers: 503, ask again; not an empty list."""
    async with write_path(settings=QUIET) as path:
        await path.write(numbered_batch([1, 2]), ack="all")
        shard = await led(path)
        for node in "ab":
            path.replicas[node].broken["producers"] = ConnectionLost("gone")

        with pytest.raises(QuorumUnavailable):
            await path.writer.replays.ask(
                shard, Ask("default", "shop", spans=((1, 2),)), path.deadline()
            )


async def test_an_operator_gets_all_requests_or_none() -> None:
    """Two producers, room for one: nothing is opened that the operator would not hear of."""
    small = WriteSettings(replay_look_seconds=3_600.0, replay_open_max=1)
    async with write_path(settings=small) as path:
        await path.write(numbered_batch([1]), ack="all")
        await path.write(numbered_batch([1], producer="p2"), ack="all")
        shard = await led(path)

        with pytest.raises(Overloaded):
            await path.writer.replays.ask(
                shard, Ask("default", "shop", spans=((1, 1),)), path.deadline()
            )

        assert states(path) == []


async def test_only_the_leader_opens_requests() -> None:
    """Another node says who leads."""
    views = FakeViews(FakeView("b", everything_led_by=("a", 1)))
    async with write_path(views=views, settings=QUIET) as path:
        with pytest.raises(NotLeader):
            await path.writer.replays.ask(
                1, Ask("default", "shop", "p1", spans=((1, 1),)), path.deadline()
            )


async def test_a_noted_request_is_opened_again_by_the_next_leader() -> None:
    """Same id; what had come counts as a duplicate when it comes again. An ended one is forgotten."""
    replicas = FakeReplicas("a", "b", "c")
    views = FakeViews(FakeView("b", everything_led_by=("a", 1)))
    async with write_path(replicas) as leader:
        await leader.write(numbered_batch([1, 2, 3]), ack="all")
    async with write_path(replicas, views, settings=QUIET) as path:
        replays = path.writer.replays
        replays.remember([Note("ask-1", KEY, ((1, 2),), ""), Note("ask-2", KEY, ((3, 3),), "")])
        replays.forget(["ask-2"])
        await replays.look()
        assert states(path) == []

        views.put(FakeView("b", index=2, everything_led_by=("b", 2)))
        await led(path)
        await replays.look()
        result = await path.write(numbered_batch([1, 2]))

        assert states(path) == [("ask-1", State.COMPLETED)]
        assert result.duplicates == 2
        assert replays.desk.take_ended() == ["ask-1"]


async def test_a_leader_that_is_deposed_keeps_a_note() -> None:
    """Leadership goes and comes back: the request is open again, for what had not come."""
    views = FakeViews(FakeView("b", everything_led_by=("b", 1)))
    async with write_path(views=views, settings=QUIET) as path:
        replays = path.writer.replays
        shard = await led(path)
        await path.write(numbered_batch([1, 2, 3]), ack="all")
        ask = Ask("default", "shop", "p1", spans=((1, 3),))
        (opened,) = await replays.ask(shard, ask, path.deadline())
        await path.write(numbered_batch([1]))
        views.put(FakeView("b", index=2, everything_led_by=("a", 2)))
        await until(lambda: not replays.leads(KEY))
        await replays.look()
        assert states(path) == []

        views.put(FakeView("b", index=3, everything_led_by=("b", 3)))
        await led(path)
        await replays.look()

        (again,) = replays.desk.book.listed("default")
        assert (again.id, again.waiting) == (opened.id, ((2, 3),))


async def test_notes_are_bounded() -> None:
    """The oldest go."""
    views = FakeViews(FakeView("b", everything_led_by=("a", 1)))
    small = WriteSettings(replay_look_seconds=3_600.0, replay_open_max=2)
    async with write_path(views=views, settings=small) as path:
        replays = path.writer.replays
        replays.remember(Note(f"ask-{n}", KEY, ((1, 1),), "") for n in range(3))
        views.put(FakeView("b", index=2, everything_led_by=("b", 2)))
        await path.write(numbered_batch([1]))
        await led(path)
        await replays.look()

        assert {name for name, _ in states(path)} == {"ask-1", "ask-2"}
