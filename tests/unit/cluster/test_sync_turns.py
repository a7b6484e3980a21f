"""Whose turn it is, how fast, and what is remembered of it: the pure parts around a session."""

from typing import Any

from cluster.pace import Pace, Portion
from cluster.sync_book import SyncBook
from cluster.sync_pass import Pass
from cluster.sync_shards import SyncReport
from cluster.sync_turns import PeerTurns

BOTH = {"a": True, "b": True}


def turns(now: float = 0.0) -> PeerTurns:
    """Two peers that were compared with at `now`."""
    made = PeerTurns(5.0, 60.0)
    made.due(BOTH, now)
    for peer in BOTH:
        made.equal(peer, now)
    return made


def test_new_peers_are_due_at_once_and_equal_ones_after_the_interval() -> None:
    """One after the other, the longest due first."""
    made = PeerTurns(5.0, 60.0)

    assert made.due(BOTH, 1.0) == "a"
    made.equal("a", 1.0)
    assert made.due(BOTH, 1.0) == "b"
    made.equal("b", 2.0)
    assert made.due(BOTH, 5.9) is None
    assert made.due(BOTH, 6.0) == "a"


def test_what_was_copied_is_soon_followed_by_another_look() -> None:
    """Entries that were too new then are compared a second later."""
    made = turns()
    made.soon("a", 10.0)
    made.equal("b", 10.0)

    assert made.due(BOTH, 10.9) is None
    assert made.due(BOTH, 11.0) == "a"


def test_in_vain_means_later_and_later_up_to_the_most() -> None:
    """5, 10, 20, 40, 60, 60 seconds; one success starts it anew."""
    made, now, waits = turns(), 100.0, []
    for _ in range(6):
        made.fruitless("a", now)
        made.equal("b", now)
        waited = 0.0
        while made.due({"a": True}, now + waited) is None:
            waited += 1.0
        waits.append(waited)
        made.due(BOTH, now)
        now += waited
    made = turns()
    made.fruitless("a", 0.0)
    made.equal("a", 5.0)
    made.fruitless("a", 10.0)

    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert made.due({"a": True}, 14.9) is None
    assert made.due({"a": True}, 15.0) == "a"


def test_a_peer_that_is_back_is_due_at_once() -> None:
    """However long it was left alone; while it is away nobody asks it."""
    made = turns()
    for now in (5.0, 10.0, 20.0, 999.0):
        made.fruitless("a", now)  # due again at 1039
    assert made.due({"a": False, "b": True}, 1000.0) == "b"
    made.equal("b", 1000.0)
    assert made.due({"a": False, "b": True}, 1001.0) is None

    assert made.due(BOTH, 1002.0) == "a"


def test_all_peers_can_be_made_due() -> None:
    """Even one that was asked in vain; strangers are not."""
    made = turns()
    made.fruitless("a", 0.0)
    made.fruitless("a", 5.0)
    made.at_once(["a", "b", "z"], 6.0)

    assert made.due(BOTH, 6.0) == "a"
    made.equal("a", 6.0)
    assert made.due(BOTH, 6.0) == "b"
    made.equal("b", 6.0)
    assert made.due(BOTH, 6.0) is None


def test_a_peer_that_shares_nothing_any_more_is_forgotten() -> None:
    """Its later outcome changes nothing."""
    made = turns()
    assert made.due({"b": True}, 100.0) == "b"
    made.equal("b", 100.0)
    made.fruitless("a", 100.0)

    assert made.due({"b": True}, 101.0) is None


class HandClock:
    """Time that passes when somebody sleeps."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_the_pace_lets_through_a_burst_and_then_its_rate() -> None:
    """Debt is paid back before anything else; over a long time the mean is the rate."""
    clock: Any = HandClock()
    pace = Pace(clock, 100.0)
    await pace.spend(100)
    assert clock.now == 0.0
    await pace.spend(250)
    assert clock.now == 2.5
    for _ in range(40):
        await pace.spend(70)
    assert abs(40 * 70 / (clock.now - 2.5) - 100.0) < 1e-6

    clock.now += 1000.0
    before = clock.now
    await pace.spend(100)
    assert clock.now == before  # no more than a second's worth was saved up
    await pace.spend(50, 25.0)
    assert clock.now == before + 2.0  # a rate of its own
    await pace.spend(10**9, 0)
    assert clock.now == before + 2.0  # no rate


def test_a_portion_grows_to_what_the_link_carries_and_shrinks_after_time_outs() -> None:
    """A link of 50 kB/s, things of 1 kB: 100 at a time, 2 s each."""
    portion = Portion(10.0, 4096)
    for _ in range(20):
        portion.came(portion.things, 1000 * portion.things, portion.things / 50)
    assert portion.things == 100

    assert portion.timed_out()
    assert portion.things == 25
    assert [portion.timed_out() for _ in range(3)] == [True, True, False]
    assert (portion.things, portion.seconds) == (1, 20.0)
    for _ in range(9):
        portion.timed_out()
    assert portion.seconds == 160.0
    for _ in range(9):
        portion.came(1, 1000, 0.001)
    assert (portion.seconds, portion.things) == (10.0, 4)  # no more than four times what came
    fast = Portion(10.0, 4096)
    for _ in range(20):
        fast.came(fast.things, (1 << 20) * fast.things, 0.001)
    assert fast.things == 4  # 4 MiB
    fast.came(4, 4 << 20, 0.001, 2 << 20)
    assert fast.things == 2  # a bound by the caller


def report(**more: object) -> SyncReport:
    """A report of a session that compared everything."""
    return SyncReport(compared=True, **more)  # type: ignore[arg-type]


def test_the_book_knows_what_lacks_and_since_when_all_was_compared() -> None:
    """By shard and peer; what only some sessions have seen has no time yet."""
    book, owned = SyncBook(), {1: ("a", "b"), 2: ("a",)}
    book.keep(owned)
    assert book.compared_at(owned) is None

    found = report(
        lacking_by_shard={1: 5}, stored_by_shard={1: 3}, bytes_by_shard={1: 900}, differing={1}
    )
    book.note("a", [1, 2], found, 100)
    assert book.lacking() == 2
    assert book.compared_at(owned) is None
    book.note("b", [1], report(equal=True), 200)
    book.note("a", [1, 2], report(equal=True), 300)

    assert book.lacking() == 0
    assert book.compared_at(owned) == 200
    assert book.listed()[0] == {
        "shard": 1, "lacking": 0, "compared_at": {"a": 300, "b": 200},
        "repaired_at": 100, "repaired_entries": 3, "repaired_bytes": 900,
    }  # fmt: skip


def test_a_call_that_failed_proves_nothing_but_what_it_found() -> None:
    """It moves no time forward; what it named counts as lacking."""
    book = SyncBook()
    book.keep({1: ("a",)})
    book.note("a", [1], SyncReport(lacking_by_shard={1: 7}, stored_by_shard={1: 2}), 100)

    assert book.lacking() == 5
    assert book.compared_at({1: ("a",)}) is None


def test_shards_and_peers_that_moved_away_are_forgotten() -> None:
    """A shard that is owned no more lacks nothing."""
    book = SyncBook()
    book.keep({1: ("a",), 2: ("a",)})
    book.note("a", [1, 2], report(lacking_by_shard={1: 1, 2: 1}), 100)
    book.keep({2: ("b",), 3: ("b",)})

    assert book.lacking() == 0
    assert [one["shard"] for one in book.listed()] == [2, 3]
    assert book.compared_at({2: ("b",), 3: ("b",)}) is None


def test_a_pass_asks_again_until_a_peer_has_nothing_more_and_gives_up_on_what_cannot_be_had() -> (
    None
):
    """Each mended session is followed by another; three in vain are a failure that is told."""
    one = Pass(1, None, 0, peers_total=3)
    mended = report(lacking_by_shard={0: 9}, stored_by_shard={0: 4}, block_bytes=50)

    assert one.note("a", mended, None)
    assert not one.note("a", report(), None)
    stuck = report(lacking_by_shard={0: 2})
    assert [one.note("b", stuck, None) for _ in range(3)] == [True, True, False]
    assert not one.note("c", SyncReport(), "gone")

    told = one.to_dict()
    assert (told["peers_done"], told["repaired"], told["bytes"]) == (3, 4, 50)
    assert set(told["failures"]) == {"b", "c"}
    assert told["state"] == "running"
