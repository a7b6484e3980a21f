"""A session names exactly what lacks, in few rounds and few bytes, whatever the two sets are."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import anti_entropy
from cluster.anti_entropy import AntiEntropySession
from records import envelope
from records.errors import EnvelopeCorrupt
from records.sync import Level, Question, TreeRequest, bits, numbers_of
from records.timestamps import WIDE_HOUR
from tests.unit.cluster.trees import Held, Model, held

SHARDS = list(range(32))
#: Hours of a year ago and of now, one span apart, neighbours, and the one for entries that touch too many.
HOURS = st.sampled_from([(495_000,), (503_760,), (503_761,), (503_760, 503_761), (WIDE_HOUR,)])
ENTRY = st.builds(
    lambda number, *more: held(number, number % 4, *more),
    st.integers(0, 400),
    HOURS,
)
#: The same id with other contents, which may lie in another hour: what must never be, and is.
FORGED = st.builds(lambda one, content: replace(one, content=content), ENTRY, st.just(b"x" * 16))
ENTRIES = st.lists(ENTRY, max_size=120)


def descend(mine: Model, other: Model, shards: list[int] = SHARDS, until: int = 1) -> tuple:
    """(the session at its end, bytes on the wire: frames both ways)."""
    session = AntiEntropySession(shards, mine.roots(shards, until))
    wire = 0
    while asked := session.next():
        request = TreeRequest(asked, until, 3)
        theirs = other.answers(request)
        call = {"op": "tree", "ms": 10_000, "head": request.to_head()}
        wire += len(envelope.encode_head(call, 0))
        wire += len(envelope.encode_head({"n": [len(one) for one in theirs]}, 0)) + sum(
            map(len, theirs)
        )
        ours = mine.answers(TreeRequest(asked[: len(theirs)], until, 3))
        session.take(asked, ours, theirs)
        assert session.rounds < 1000
    return session, wire


def lacks(mine: Model, other: Model, until: int = 1) -> set[bytes]:
    """By definition."""
    return {e.id for e in other.entries.values() if e.received <= until} - set(mine.entries)


def one_hour_each(*lists: list[Held]) -> list[list[Held]]:
    """The same entries, each id under the hours it came with first."""
    first: dict[bytes, Held] = {}
    for one in (one for listed in lists for one in listed):
        first.setdefault(one.id, one)
    return [[first[one.id] for one in listed] for listed in lists]


@settings(max_examples=80, deadline=None)
@given(ENTRIES, ENTRIES, ENTRIES)
def test_a_session_names_what_lacks_and_both_ways_make_the_union(
    both: list[Held], left: list[Held], right: list[Held]
) -> None:
    """Any two sets: exactly the difference by id, in at most five rounds; afterwards both are the union."""
    both, left, right = one_hour_each(both, left, right)
    a, b = Model().add(*both, *left), Model().add(*both, *right)
    union = set(a.entries) | set(b.entries)

    for mine, other in ((a, b), (b, a)):
        session, _ = descend(mine, other)
        assert set(session.lacking) == lacks(mine, other)
        assert session.rounds <= 5
        assert not session.more
        for one in session.lacking:
            mine.add(other.entries[one])

    assert set(a.entries) == set(b.entries) == union
    assert descend(a, b)[0].equal
    assert descend(b, a)[0].equal


@settings(max_examples=40, deadline=None)
@given(ENTRIES, st.lists(FORGED, max_size=10), ENTRIES)
def test_conflicts_hide_no_difference(
    both: list[Held], forged: list[Held], right: list[Held]
) -> None:
    """With the same ids under other contents, even in other hours: what lacks is named all the same."""
    mine, other = Model().add(*both), Model().add(*forged, *both, *right)
    session, _ = descend(mine, other)

    assert set(session.lacking) - set(mine.entries) == lacks(mine, other)
    assert session.equal == (set(mine.entries.values()) == set(other.entries.values()))


def test_a_pair_in_sync_exchanges_at_most_128_bytes() -> None:
    """G12: all 32 shards in one round trip, headers of the frames included."""
    entries = [held(k, k % 32, (503_760 + k % 5,)) for k in range(300)]
    session, wire = descend(Model().add(*entries), Model().add(*entries))

    assert session.equal
    assert session.rounds == 1
    assert wire <= 128


@pytest.mark.parametrize("missing", [1, 40, 400])
def test_naming_a_difference_costs_less_than_four_kib_a_leaf(missing: int) -> None:
    """G12: a year of hours, 400 entries in the newest one; 16 KiB and 4 KiB for each bucket that differs."""
    year = [held(k, k % 32, (495_000 + k,)) for k in range(8760)]
    newest = [held(-k - 1, k % 4, (503_760,)) for k in range(1600)]
    mine, other = Model().add(*year, *newest[missing:]), Model().add(*year, *newest)
    leaves = {(one.shard, one.id[0]) for one in newest[:missing]}

    session, wire = descend(mine, other)

    assert set(session.lacking) == {one.id for one in newest[:missing]}
    assert session.rounds <= 5
    assert wire <= 16_384 + 4_096 * len(leaves)


def test_a_wiped_replica_learns_everything_without_asking_for_buckets() -> None:
    """What one side lacks as a whole is listed at once."""
    entries = [held(k, k % 4, (k % 50,)) for k in range(3000)]
    session, _ = descend(Model(), Model().add(*entries))

    assert set(session.lacking) == {one.id for one in entries}
    assert session.rounds == 4


def test_entries_on_their_way_are_no_difference() -> None:
    """What was received after `until` is left out of every level."""
    old = [held(k, k % 4, (9,)) for k in range(200)]
    new = [held(1000 + k, k % 4, (9,), received=5) for k in range(50)]

    session, _ = descend(Model().add(*old), Model().add(*old, *new), until=4)
    later, _ = descend(Model().add(*old), Model().add(*old, *new), until=5)

    assert session.equal
    assert set(later.lacking) == {one.id for one in new}


def test_the_limit_ends_a_session_and_the_next_one_goes_on() -> None:
    """Each names the limit and what came in the same reply; then less is left, until nothing is."""
    entries = [held(k, k % 4, (k % 7,)) for k in range(500)]
    mine, other = Model(), Model(cap=2_500).add(*entries)
    sessions = 0
    while True:
        session = AntiEntropySession(SHARDS, mine.roots(SHARDS), limit=100)
        while asked := session.next():
            theirs = other.answers(TreeRequest(asked, 1, 1))
            session.take(asked, mine.answers(TreeRequest(asked, 1, 1))[: len(theirs)], theirs)
        mine.add(*(other.entries[one] for one in session.lacking))
        sessions += 1
        if not session.more:
            break
        assert len(session.lacking) >= 100

    assert sessions > 1
    assert mine.entries.keys() == other.entries.keys()


@settings(max_examples=30, deadline=None)
@given(ENTRIES, ENTRIES, st.integers(1, 3000))
def test_replies_that_are_cut_short_only_take_more_rounds(
    both: list[Held], right: list[Held], cap: int
) -> None:
    """A replica answers as many questions as fit; the others are asked again."""
    mine, other = Model().add(*both), Model(cap=cap).add(*both, *right)
    session, _ = descend(mine, other)

    assert set(session.lacking) == lacks(mine, other)


def test_a_full_hour_is_listed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond LARGE_HOUR even an empty replica asks for buckets, an eighth of them at a time."""
    monkeypatch.setattr(anti_entropy, "LARGE_HOUR", 500)
    entries = [held(k, 0, (9,)) for k in range(2000)]
    seen: list[Question] = []
    mine, other = Model(), Model().add(*entries)
    session = AntiEntropySession([0], mine.roots([0]))
    while asked := session.next():
        seen += asked
        request = TreeRequest(asked, 1, 1)
        session.take(asked, mine.answers(request), other.answers(request))

    assert set(session.lacking) == {one.id for one in entries}
    assert sum(one.level is Level.ENTRIES for one in seen) >= 8


def test_other_contents_under_one_id_are_a_conflict_and_nothing_is_copied() -> None:
    """The roots differ for ever; the session says why."""
    a, b = held(1), held(1, content=b"x" * 16)
    session, _ = descend(Model().add(a), Model().add(b))

    assert not session.equal
    assert not session.lacking
    assert len(session.conflicting) == 1
    again, _ = descend(Model().add(a), Model().add(b))
    assert again.conflicting == session.conflicting


def test_what_only_we_have_is_left_to_the_other() -> None:
    """A session looks one way; it descends no further than it must."""
    session, _ = descend(Model().add(held(1), held(2, hours=(900,))), Model().add(held(1)))

    assert not session.lacking
    assert not session.equal


@pytest.mark.parametrize(
    "theirs",
    [[], [b"short"], [b"\0" * 16 * 32, b""], [b"\0" * 16 * 31]],
    ids=["none", "odd", "too many", "a shard less"],
)
def test_an_answer_that_no_replica_gives_ends_the_session(theirs: list[bytes]) -> None:
    """A peer's bytes are checked before they are believed."""
    session = AntiEntropySession(SHARDS, Model().roots(SHARDS))
    asked = session.next()

    with pytest.raises(EnvelopeCorrupt):
        session.take(asked, [b""] * len(theirs), theirs)


@pytest.mark.parametrize("level", [Level.SPANS, Level.HOURS, Level.BUCKETS, Level.ENTRIES])
def test_a_cut_answer_below_the_roots_is_refused_too(level: Level) -> None:
    """Each level has records of one size."""
    mine, other = Model(), Model().add(*(held(k, 0, (5,)) for k in range(400)))
    anti = AntiEntropySession([0], mine.add(held(9000, 0, (5,))).roots([0]))
    while asked := anti.next():
        request = TreeRequest(asked, 1, 1)
        theirs = other.answers(request)
        if asked[0].level is level:
            with pytest.raises(EnvelopeCorrupt):
                anti.take(asked, mine.answers(request), [theirs[0][:-1], *theirs[1:]])
            return
        anti.take(asked, mine.answers(request), theirs)
    pytest.fail("the level was not reached")


@given(st.sets(st.integers(0, 300)))
def test_a_bitmap_gives_back_its_numbers(numbers: set[int]) -> None:
    """Both ways."""
    assert numbers_of(bits(numbers)) == sorted(numbers)


@given(st.integers(0, 255), st.integers(-(1 << 40), 1 << 40), st.binary(max_size=40))
def test_a_request_travels_as_it_is(shard: int, number: int, mask: bytes) -> None:
    """Through msgpack and back."""
    request = TreeRequest((Question(Level.ENTRIES, shard, number, mask),), 7, 2)

    assert TreeRequest.from_head(envelope.unpackb(envelope.packb(request.to_head()))) == request
