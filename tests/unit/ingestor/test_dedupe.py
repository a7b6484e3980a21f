"""Ack arithmetic against a brute-force model: never falls, never covers what fewer than W hold."""

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.quorum_tally import Group
from ingestor.dedupe import Calls, ProducerLedger
from records.intervals import SeqIntervals
from records.messages import ProducerEpochKey, ProducerState

KEY: ProducerEpochKey = ("t", "s", "p", 1)
OWNERS = ("a", "b", "c")
W = 2
QUORUM = [Group(frozenset(OWNERS), W)]


def state(seqs: set[int], told: int = 0) -> ProducerState:
    """What an owner says that holds `seqs`."""
    return ProducerState(KEY, tuple(SeqIntervals((one, one) for one in seqs)), told, 1)


def contiguous(held: list[set[int]], told: int = 0) -> int:
    """By hand: the largest k with each of 1..k told before or in at least W sets."""
    k = 0
    while k < told or sum(k + 1 in one for one in held) >= W:
        k += 1
    return k


@dataclass
class Pending:
    """A call under way: when it began, and what the owner will answer."""

    owner: str
    sent: int
    answer: ProducerState | None = None


@dataclass
class World:
    """Owners with sets that only grow, and calls that are answered in any order."""

    ledger: ProducerLedger = field(default_factory=lambda: ProducerLedger(KEY))
    calls: Calls = field(default_factory=Calls)
    held: dict[str, set[int]] = field(default_factory=lambda: {one: set() for one in OWNERS})
    pending: list[Pending] = field(default_factory=list)


step = st.one_of(
    st.tuples(st.just("store"), st.sampled_from(OWNERS), st.integers(1, 12)),
    st.tuples(st.just("send"), st.sampled_from(OWNERS), st.just(0)),
    st.tuples(st.just("serve"), st.just(""), st.integers(0, 5)),
    st.tuples(st.just("arrive"), st.just(""), st.integers(0, 5)),
    st.tuples(st.just("look"), st.just(""), st.just(0)),
)


@settings(max_examples=300)
@given(st.lists(step, max_size=60))
def test_it_never_falls_and_never_covers_what_fewer_than_w_hold(steps: list[tuple]) -> None:
    """Replies are served and delivered in any order, overlap in time, and get lost."""
    world = World()
    before = 0
    for kind, owner, number in steps:
        if kind == "store":
            world.held[owner].add(number)
        elif kind == "send":
            world.pending.append(Pending(owner, world.calls.tick()))
        elif kind == "serve" and world.pending:
            one = world.pending[number % len(world.pending)]
            one.answer = one.answer or state(world.held[one.owner])
        elif kind == "arrive" and world.pending:
            one = world.pending.pop(number % len(world.pending))
            if one.answer is not None:
                world.ledger.hear(one.owner, one.answer, one.sent, world.calls.tick())
        found = world.ledger.progress(QUORUM)
        true_sets = list(world.held.values())
        assert found.ack_till >= before
        assert found.ack_till <= contiguous(true_sets)
        for first, last in found.missing:
            assert found.ack_till < first <= last <= found.max_seen
        before = found.ack_till


@settings(max_examples=200)
@given(
    st.lists(st.sets(st.integers(1, 15)), min_size=3, max_size=3),
    st.integers(0, 6),
)
def test_with_all_answers_in_hand_it_is_exact(held: list[set[int]], told: int) -> None:
    """ackTill, maxSeen and missing equal a count by hand."""
    ledger, calls = ProducerLedger(KEY), Calls()
    for owner, seqs in zip(OWNERS, held, strict=True):
        ledger.hear(owner, state(seqs, told), calls.tick(), calls.tick())

    found = ledger.progress(QUORUM)

    ack = contiguous(held, told)
    largest = max([told, ack, *(max(one, default=0) for one in held)])
    missing = {
        seq
        for seq in range(ack + 1, largest + 1)
        if seq > told and sum(seq in one for one in held) < W
    }
    assert found.ack_till == ack
    assert found.max_seen == largest
    assert {seq for a, b in found.missing for seq in range(a, b + 1)} == missing


def test_a_set_that_shrank_no_longer_counts() -> None:
    """b held 1..4 and lost its disk: what was told stays; 4, now on a alone, does not count."""
    ledger, calls = ProducerLedger(KEY), Calls()
    ledger.hear("a", state({1, 2, 3}), calls.tick(), calls.tick())
    ledger.hear("b", state({1, 2, 3, 4}), calls.tick(), calls.tick())
    assert ledger.progress(QUORUM).ack_till == 3

    ledger.hear("b", state(set()), calls.tick(), calls.tick())
    ledger.hear("a", state({1, 2, 3, 4}), calls.tick(), calls.tick())
    found = ledger.progress(QUORUM)

    assert (found.ack_till, found.missing) == (3, ((4, 4),))


def test_an_old_answer_that_arrives_late_takes_nothing_away() -> None:
    """Two calls overlap; the older answer comes last: the sets are united."""
    ledger, calls = ProducerLedger(KEY), Calls()
    early, later = calls.tick(), calls.tick()
    ledger.hear("a", state({1, 2}), later, calls.tick())
    ledger.hear("a", state({1}), early, calls.tick())
    ledger.hear("b", state({1, 2}), calls.tick(), calls.tick())

    assert ledger.progress(QUORUM).ack_till == 2


def test_an_owner_that_is_no_owner_any_more_does_not_count() -> None:
    """After a ring change only the owners given are counted."""
    ledger, calls = ProducerLedger(KEY), Calls()
    for owner in "ab":
        ledger.hear(owner, state({1}), calls.tick(), calls.tick())

    assert ledger.progress([Group(frozenset("bcd"), W)]).ack_till == 0


def test_who_may_judge_rows_sent_again() -> None:
    """a and b hold 1..4, c lacks 3..4: of 3..4 they can tell, of 1..2 all, of 5 on nobody needs to."""
    ledger = ProducerLedger(KEY)
    for owner, last in (("a", 4), ("b", 4), ("c", 2)):
        ledger.hear(owner, state(set(range(1, last + 1))), 1, 2)

    assert ledger.judges(((3, 4),), QUORUM) == {"a", "b"}
    assert ledger.judges(((2, 7),), QUORUM) == {"a", "b"}
    assert ledger.judges(((1, 2),), QUORUM) is None
    assert ledger.judges(((5, 7),), QUORUM) is None
    assert ProducerLedger(KEY).judges(((1, 2),), QUORUM) is None


def test_what_was_told_is_durable_whoever_is_known_to_hold_it() -> None:
    """1..4 was told. Nothing is heard of a; b holds 1..3; c nothing: of 4 nobody known can judge."""
    ledger = ProducerLedger(KEY)
    ledger.hear("b", state({1, 2, 3}, told=4), 1, 2)
    ledger.hear("c", state(set()), 1, 2)

    assert ledger.judges(((1, 3),), QUORUM) == {"b"}
    assert ledger.judges(((4, 4),), QUORUM) == frozenset()
    assert ledger.judges(((5, 5),), QUORUM) is None


def test_rows_that_one_owner_alone_holds_are_judged_by_nobody() -> None:
    """They are not durable: who sends other ones may be right."""
    ledger = ProducerLedger(KEY)
    ledger.hear("a", state({1, 2, 3, 4}), 1, 2)
    ledger.hear("b", state({1, 2}), 1, 2)

    assert ledger.judges(((3, 4),), QUORUM) is None


def test_thin_spans_are_those_above_told_that_too_few_hold() -> None:
    """told 2; a holds 1..6, b 1..4: 5..6 is thin; below told nothing is."""
    ledger, calls = ProducerLedger(KEY), Calls()
    ledger.hear("a", state({1, 2, 3, 4, 5, 6}, told=2), calls.tick(), calls.tick())
    ledger.hear("b", state({3, 4}), calls.tick(), calls.tick())

    assert ledger.thin(QUORUM) == [(5, 6)]
    assert ProducerLedger(KEY).thin(QUORUM) == []


def test_what_w_of_the_owners_of_before_hold_may_be_acked() -> None:
    """d takes the place of c. a and c hold 1..5, d 4..5: of the new owners W hold 4..5 alone."""
    ledger, overlap = ProducerLedger(KEY), [Group(frozenset(one), 2) for one in ("abc", "abd")]
    for owner, first in (("a", 1), ("c", 1), ("d", 4)):
        ledger.hear(owner, state(set(range(first, 6))), 1, 2)

    assert ledger.thin(overlap) == [(1, 3)]
    assert ledger.may_be_acked([(1, 3)], overlap, "abcd")
    assert not ledger.may_be_acked([(6, 6)], overlap, "abcd")


def test_what_too_few_can_hold_is_not_acked() -> None:
    """a alone holds 1..3. With all heard that is too few; with c unheard c may have them too."""
    ledger, overlap = ProducerLedger(KEY), [Group(frozenset(OWNERS), 2)]
    ledger.hear("a", state({1, 2, 3}), 1, 2)

    assert not ledger.may_be_acked([(1, 3)], overlap, "abc")
    assert ledger.may_be_acked([(1, 3)], overlap, "ab")
    assert not ledger.may_be_acked([(1, 3)], overlap, "bc")
    assert ledger.may_be_acked([(1, 3)], overlap, "a")


def test_after_w_was_raised_the_lower_one_may_have_acked() -> None:
    """W is 3 now, and was 2: what a and b hold is thin, and may be acknowledged."""
    ledger, overlap = ProducerLedger(KEY), [Group(frozenset(OWNERS), 2)]
    for owner in "ab":
        ledger.hear(owner, state({1}), 1, 2)

    assert ledger.thin([Group(frozenset(OWNERS), 3)]) == [(1, 1)]
    assert ledger.may_be_acked([(1, 1)], overlap, "abc")


def test_what_a_watermark_took_counts_though_one_owner_alone_had_it() -> None:
    """4 is nowhere else: b came in its place after it was dropped. 6 is on one owner, and still needed."""
    ledger = ProducerLedger(KEY)
    for owner, found in {"a": {1, 2, 3, 4, 5, 6}, "b": {5}, "c": {1, 2, 3, 5}}.items():
        gone = ((4, 4),) if owner == "a" else ()
        ledger.hear(owner, replace(state(found, told=3), gone=gone), 1, 2)

    assert ledger.thin(QUORUM) == [(6, 6)]
    told = ledger.progress(QUORUM)
    assert (told.ack_till, told.missing) == (5, ((6, 6),))


def test_owners_that_hold_rows_together_witness_a_part_each() -> None:
    """Each of 1..3 is on two of a, b, c; d has none, and would store other bytes of all three."""
    ledger, groups = ProducerLedger(KEY), [Group(frozenset("abcd"), 2)]
    for turn, (owner, spans) in enumerate(
        [("a", ((1, 1), (3, 3))), ("b", ((1, 2),)), ("c", ((2, 3),))]
    ):
        ledger.hear(owner, ProducerState(KEY, spans, 3, 1), 2 * turn, 2 * turn + 1)

    assert ledger.judges(((1, 3),), groups) == frozenset()
    found = ledger.witnesses(((1, 3),), groups)
    assert SeqIntervals(part for _, parts in found for part in parts) == SeqIntervals([(1, 3)])
    for owner, parts in found:
        assert not any(ledger.held_by(owner).gaps(a, b) for a, b in parts)
    assert ledger.witnesses(((1, 3),), [Group(frozenset("abc"), 2)]) == []  # each refuses it
    assert ledger.witnesses(((4, 9),), groups) == []
