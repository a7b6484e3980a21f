"""The counting rule: needed, success, impossible, what a quorum held before; one group and two."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.quorum_tally import Group, QuorumTally

OWNERS = ("a", "b", "c")


def test_success_comes_with_the_w_th_ack_and_stays() -> None:
    """W=2 of 3: one ack is not enough, two are, a refusal afterwards changes nothing."""
    tally = QuorumTally.over(OWNERS, 2)
    tally.ack("a")
    assert (tally.success, tally.needed, tally.acks) == (False, 1, 1)

    tally.ack("b")
    tally.refuse("c")
    tally.refuse("a")

    assert (tally.success, tally.needed, tally.acks, tally.impossible) == (True, 0, 2, False)


def test_the_same_owner_twice_is_one_ack() -> None:
    """A retry that is answered twice must not make a quorum of one."""
    tally = QuorumTally.over(OWNERS, 2)
    tally.ack("a")
    tally.ack("a")

    assert not tally.success


def test_an_ack_from_a_stranger_does_not_count() -> None:
    """Hints and former owners are no replicas."""
    tally = QuorumTally.over(OWNERS, 2)
    tally.ack("a")
    tally.ack("z")

    assert (tally.success, tally.acks) == (False, 1)


def test_two_refusals_of_three_make_w_2_impossible_until_one_acks_after_all() -> None:
    """A retried owner may change its mind; only then is the operation possible again."""
    tally = QuorumTally.over(OWNERS, 2)
    tally.refuse("a")
    assert not tally.impossible
    tally.refuse("b")
    assert tally.impossible

    tally.ack("b")

    assert not tally.impossible


def test_while_a_shard_moves_both_owner_sets_must_agree() -> None:
    """Old a, b, c and new b, c, d: a and b are W of the old, but only one of the new."""
    old, new = Group(frozenset("abc"), 2), Group(frozenset("bcd"), 2)
    tally = QuorumTally((old, new))
    tally.ack("a")
    tally.ack("b")
    assert (tally.success, tally.acks, tally.needed) == (False, 1, 1)

    tally.ack("d")

    assert tally.success


def test_held_before_is_what_enough_members_had() -> None:
    """Rows held: a 5, b 3, c 0. Two members held at least 3, three held nothing."""
    tally = QuorumTally.over(OWNERS, 3)
    for member, held in (("a", 5), ("b", 3), ("c", 0)):
        tally.ack(member, held)

    assert [tally.held_before(count) for count in (1, 2, 3)] == [5, 3, 0]
    assert tally.held_before(4) == 0


def test_a_quorum_of_nobody_is_refused() -> None:
    """needed = 0 would ack everything."""
    with pytest.raises(ValueError, match="quorum of 0"):
        QuorumTally.over(OWNERS, 0)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from("abcdez"), st.booleans()), max_size=20),
    st.integers(1, 5),
)
def test_it_equals_a_count_by_hand(events: list[tuple[str, bool]], needed: int) -> None:
    """Success is monotone and equals the number of distinct owners that acked."""
    tally = QuorumTally.over("abcde", needed)
    acked: set[str] = set()
    won = False
    for member, ack in events:
        if ack:
            tally.ack(member)
            acked |= {member} & set("abcde")
        else:
            tally.refuse(member)
        assert tally.success == (len(acked) >= needed)
        assert tally.success or not won
        won = tally.success
        assert not (tally.success and tally.impossible)


def test_all_have_refused_only_when_nobody_is_still_to_answer() -> None:
    """One ack, or one member that has not answered, leaves it open."""
    tally = QuorumTally.over("ab", 1)
    tally.refuse("a")
    assert not tally.refused_by_all
    tally.refuse("b")
    assert tally.refused_by_all
    tally.ack("b")
    assert not tally.refused_by_all
