"""Arcs of the ring: half open, through 0 if need be, never empty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.tokens import RING_SIZE, Token, TokenRange

TOKENS = st.integers(0, RING_SIZE - 1).map(Token)


def test_range_holds_its_start_and_not_its_end() -> None:
    """Half open, so that neighbours neither share a token nor miss one."""
    arc = TokenRange(Token(10), Token(20))

    assert [token in arc for token in (9, 10, 19, 20)] == [False, True, True, False]
    assert arc.width == 10


def test_range_wraps_around_zero() -> None:
    """After the last token comes 0."""
    arc = TokenRange(Token(RING_SIZE - 2), Token(3))

    assert [t in arc for t in (RING_SIZE - 3, RING_SIZE - 2, RING_SIZE - 1, 0, 2, 3)] == [
        *(False, True, True, True, True, False)
    ]
    assert arc.width == 5


@given(TOKENS, TOKENS)
def test_range_from_a_token_to_itself_is_the_whole_ring(start: Token, token: Token) -> None:
    """A cluster of one shard has one arc, and it holds everything."""
    arc = TokenRange(start, start)

    assert token in arc
    assert arc.width == RING_SIZE


@given(TOKENS, TOKENS, TOKENS)
def test_two_arcs_that_meet_twice_share_the_ring(a: Token, b: Token, token: Token) -> None:
    """[a, b) and [b, a) are each other's rest, unless they are both the whole ring."""
    if a != b:
        assert (token in TokenRange(a, b)) != (token in TokenRange(b, a))
        assert TokenRange(a, b).width + TokenRange(b, a).width == RING_SIZE


@pytest.mark.parametrize(("start", "end"), [(-1, 0), (0, -1), (RING_SIZE, 0), (0, RING_SIZE)])
def test_range_refuses_what_is_no_token(start: int, end: int) -> None:
    """A token has 64 bits."""
    with pytest.raises(ValueError, match=r"must be in 0\.\.2\^64-1"):
        TokenRange(Token(start), Token(end))
