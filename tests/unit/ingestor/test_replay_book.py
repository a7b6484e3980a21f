"""Replay requests: their states, their sums, their bounds; and a model that loses, repeats and moves."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.replay_book import (
    OTHERS,
    SERVICES_MAX,
    Kind,
    ReplayBook,
    ReplayLimits,
    ReplayRequest,
    State,
    common,
    gap_id,
    minus,
    size,
)
from records.block import Spans
from records.errors import InvalidRequest, Overloaded
from records.intervals import SeqIntervals
from records.messages import ProducerEpochKey

KEY: ProducerEpochKey = ("default", "pay", "p-1", 1)
LIMITS = ReplayLimits(open_max=3, finished_max=2, age_micros=100)


def book(limits: ReplayLimits = LIMITS) -> ReplayBook:
    return ReplayBook(limits)


def only(found: list[ReplayRequest]) -> ReplayRequest:
    assert len(found) == 1, found
    return found[0]


def test_a_gap_opens_streams_and_completes() -> None:
    """missing 4-6, then 5-6, then nothing: one request, three rows replayed."""
    one = book()

    one.observe(KEY, ((4, 6),), now=10)
    pending = only(one.listed("default"))
    assert (pending.state, pending.kind, pending.rows.asked) == (State.PENDING, Kind.GAP, 3)
    one.observe(KEY, ((5, 6),), now=20, came=((4, 4),))
    assert only(one.listed("default")).state is State.STREAMING
    one.observe(KEY, (), now=30, came=((5, 6),))

    done = only(one.listed("default"))
    assert (done.state, done.changed, len(one)) == (State.COMPLETED, 30, 0)
    assert (done.rows.replayed, done.rows.skipped) == (3, 0)


def test_a_skip_ends_a_gap_and_is_told_apart() -> None:
    """5-6 are skipped: not rows."""
    one = book()
    one.observe(KEY, ((4, 6),), now=10)

    one.observe(KEY, (), now=20, came=((4, 4),), skips=((5, 6),))

    done = only(one.listed("default"))
    assert (done.state, done.rows.replayed, done.rows.skipped) == (State.COMPLETED, 1, 2)


def test_a_gap_that_grows_asks_for_more() -> None:
    """An owner lost rows, or a later batch left a second gap."""
    one = book()
    one.observe(KEY, ((4, 6),), now=10)

    one.observe(KEY, ((4, 6), (9, 10)), now=20)

    found = only(one.listed("default"))
    assert (found.rows.asked, found.state) == (5, State.PENDING)


def test_every_leader_makes_the_same_request() -> None:
    """The id follows from the producer epoch alone."""
    one, other = book(), book()
    one.observe(KEY, ((4, 6),), now=10)
    other.observe(KEY, ((5, 6),), now=99, heard=False)

    assert only(one.listed("default")).id == only(other.listed("default")).id == gap_id(KEY)
    assert gap_id(("default", "pay", "p-1", 2)) != gap_id(KEY)


def test_time_ends_the_waiting_and_never_the_gap() -> None:
    """Expired after the age; the ranges stay, and the producer's next word revives it."""
    one = book()
    one.observe(KEY, ((4, 6),), now=10)
    one.expire(now=109)
    assert only(one.listed("default")).state is State.PENDING
    one.expire(now=110)
    expired = only(one.listed("default", states=["expired"]))
    assert (expired.waiting, expired.rows.skipped, len(one)) == (((4, 6),), 0, 1)

    one.observe(KEY, ((4, 6),), now=111, heard=False)
    assert only(one.listed("default")).state is State.EXPIRED
    one.observe(KEY, ((4, 6),), now=112)
    assert only(one.listed("default")).state is State.PENDING


def test_an_operators_rows_count_as_new_duplicate_skipped_or_gone() -> None:
    """1-10 asked, 4-5 lacking: 3-4 come, 5 is skipped, 1-2 gone, 6-10 come."""
    one = book()
    asked = one.ask("ask-1", KEY, ((1, 10),), ((4, 5),), 10, "drill")
    assert one.due(KEY) == (("ask-1", ((1, 10),)),)

    one.observe(KEY, ((5, 5),), 20, came=((3, 4),))
    assert asked.state is State.STREAMING
    one.observe(KEY, (), 30, skips=((5, 5),))
    one.gone("ask-1", ((1, 2), (50, 60)), 40)
    one.observe(KEY, (), 50, came=((6, 12),))

    rows = asked.rows
    assert (rows.replayed, rows.duplicate, rows.skipped, rows.gone) == (1, 6, 1, 2)
    assert (asked.state, one.due(KEY), one.knows(KEY)) == (State.COMPLETED, (), False)


def test_asking_twice_under_one_id_is_asking_once() -> None:
    """A note of it that comes late opens nothing new, even after the end."""
    one = book()
    first = one.ask("ask-1", KEY, ((1, 2),), (), 10, "")
    assert one.ask("ask-1", KEY, ((1, 2),), (), 11, "") is first
    one.cancel("ask-1", 12)

    assert one.ask("ask-1", KEY, ((1, 2),), (), 13, "").state is State.CANCELLED
    assert len(one) == 0


def test_what_is_bounded_says_so() -> None:
    """Beyond `open_max` gaps are counted and operators refused; old finished ones are forgotten."""
    one = book()
    keys = [("default", "pay", f"p-{n}", 1) for n in range(4)]
    for key in keys:
        one.observe(key, ((1, 1),), 10)
    assert (len(one), one.refused) == (3, 1)
    with pytest.raises(Overloaded):
        one.ask("ask-1", KEY, ((1, 2),), (), 10, "")
    for key in keys:
        one.observe(key, (), 20)

    assert (len(one), len(one.listed("default"))) == (0, 2)


def test_sums_of_many_services_are_bounded() -> None:
    """The first thousand have their own."""
    one = book(ReplayLimits(10_000, 1, 100))
    for number in range(SERVICES_MAX + 5):
        one.observe(("default", f"s-{number}", "p", 1), ((1, 1),), 10)

    assert len(one.services) == SERVICES_MAX + 1
    assert one.services["default", OTHERS].asked == 5
    assert one.totals.asked == SERVICES_MAX + 5


def test_a_gap_cannot_be_cancelled_and_nothing_is_asked_of_nothing() -> None:
    """Only rows or a skip end a gap."""
    one = book()
    one.observe(KEY, ((1, 1),), 10)

    with pytest.raises(InvalidRequest):
        one.cancel(gap_id(KEY), 11)
    with pytest.raises(InvalidRequest):
        one.ask("ask-1", KEY, (), (), 10, "")
    assert one.cancel("ask-2", 11) is None
    assert one.gone("ask-2", ((1, 1),), 11) is None


def test_lists_are_of_one_tenant_and_filtered() -> None:
    """By service, producer, state and id; the newest first."""
    one = book()
    one.observe(("a", "pay", "p", 1), ((1, 1),), 10)
    one.observe(("a", "web", "p", 1), ((1, 1),), 20)
    one.observe(("b", "pay", "q", 1), ((1, 1),), 30)

    assert [found.key[1] for found in one.listed("a")] == ["web", "pay"]
    assert only(one.listed("a", "pay")).key[1] == "pay"
    assert one.listed("a", producer="q") == []
    assert one.listed("a", states=["expired"]) == []
    assert one.listed("b", name=gap_id(("a", "pay", "p", 1))) == []


def test_what_moved_to_another_leader_is_forgotten_without_an_end() -> None:
    """It is derived again there; here it is neither completed nor expired."""
    ended: list[ReplayRequest] = []
    one = ReplayBook(LIMITS, ended.append)
    one.observe(KEY, ((1, 1),), 10)
    one.ask("ask-1", KEY, ((1, 1),), (), 10, "")

    moved = one.keep(lambda _: False)

    assert [request.id for request in moved] == ["ask-1"]
    assert (len(one), one.listed("default"), ended) == (0, [], [])


# ---- against a model -------------------------------------------------------------------------------

SEQS = st.sets(st.integers(1, 12), max_size=6)


def spans_of(seqs: set[int]) -> Spans:
    return tuple(SeqIntervals((one, one) for one in sorted(seqs)))


def numbers(spans: Spans) -> set[int]:
    return {n for first, last in spans for n in range(first, last + 1)}


@given(SEQS, SEQS)
def test_span_arithmetic_is_set_arithmetic(left: set[int], right: set[int]) -> None:
    """Difference, intersection and size, by sets of numbers."""
    a, b = spans_of(left), spans_of(right)

    assert numbers(minus(a, b)) == left - right
    assert numbers(common(a, b)) == left & right
    assert size(a) == len(left)


@dataclass
class World:
    """A producer of 12 rows that still has some of them, and the leader of the moment."""

    kept: set[int]
    book: ReplayBook = field(default_factory=lambda: ReplayBook(ReplayLimits(10, 10, 50)))
    rows: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)
    stored: list[int] = field(default_factory=list)
    now: int = 0

    @property
    def missing(self) -> Spans:
        durable = self.rows | self.skipped
        return spans_of(set(range(1, max(durable, default=0) + 1)) - durable)

    def deliver(self, seqs: set[int], skips: set[int]) -> None:
        """A batch becomes durable (put-if-absent), and is answered."""
        fresh = seqs - self.rows
        self.stored += sorted(fresh)
        self.rows |= seqs
        self.skipped |= skips
        self.book.observe(KEY, self.missing, self.now, spans_of(seqs), spans_of(skips))

    def change_leader(self) -> None:
        """A new book, which looks at what the owners hold."""
        self.book = ReplayBook(ReplayLimits(10, 10, 50))
        self.book.observe(KEY, self.missing, self.now, heard=False)

    def check(self) -> None:
        """The open gap is what is missing, and nothing else."""
        gaps = [one for one in self.book.open_gaps() if one.key == KEY]
        assert [one.waiting for one in gaps] == ([self.missing] if self.missing else [])
        for one in self.book.listed("default"):
            rows = one.rows
            done = rows.replayed + rows.duplicate + rows.skipped + rows.gone
            assert rows.asked == done + size(one.waiting), one


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), SEQS),
        st.tuples(st.just("lose"), SEQS),
        st.tuples(st.just("lead"), st.just(set())),
        st.tuples(st.just("wait"), st.just(set())),
        st.tuples(st.just("ask"), SEQS),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(st.sets(st.integers(1, 12)), STEPS)
def test_any_history_ends_with_each_sequence_stored_once_or_skipped(
    kept: set[int], steps: list[tuple[str, set[int]]]
) -> None:
    """Batches in any order, losses, replays, leader changes; then the producer answers what is asked.

    I5: `missing` is the open gap at each step. In the end each seq up to the largest was stored once, or
    skipped because the producer no longer has it; none by time.
    """
    world = World(kept)
    for number, (what, seqs) in enumerate(steps):
        world.now += 20
        if what == "send":
            world.deliver(seqs & (kept | world.rows), set())
        elif what == "lose":  # sent, and never arrived
            pass
        elif what == "lead":
            world.change_leader()
        elif what == "ask" and seqs:
            spans = spans_of(seqs)
            world.book.ask(f"ask-{number}", KEY, spans, world.missing, world.now, "")
        else:
            world.book.expire(world.now)
        world.check()

    for _ in range(20):
        asked = numbers(world.missing)
        asked |= {n for _, spans in world.book.due(KEY) for n in numbers(spans)}
        if not asked:
            break
        have = asked & (kept | world.rows)
        lost = asked - have
        world.deliver(have, lost & numbers(world.missing))
        for name, spans in world.book.due(KEY):
            world.book.gone(name, common(spans, spans_of(lost)), world.now)
        world.check()

    assert world.missing == ()
    assert len(world.book) == 0
    assert len(world.stored) == len(set(world.stored))
    assert not world.skipped & kept


def test_what_was_filled_meanwhile_counts_as_a_duplicate_when_it_comes() -> None:
    """1 was lacking when asked; another path brought it; then the producer sends it too."""
    one = book()
    asked = one.ask("ask-1", KEY, ((1, 2),), ((1, 1),), 10, "")
    one.observe(KEY, (), 20, heard=False)
    one.observe(KEY, (), 30, came=((1, 2),))

    assert (asked.rows.replayed, asked.rows.duplicate) == (0, 2)
