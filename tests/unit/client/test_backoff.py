"""How long to wait: what the server asks, else random and doubling."""

from __future__ import annotations

import tenacity

from quorumlog import ConnectionLost, Fenced, InvalidRequest, NotLeader, Overloaded
from quorumlog.backoff import FIRST_SECONDS, MAX_SECONDS, is_transient, pause_after


def _state(attempt: int, error: Exception) -> tenacity.RetryCallState:
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    state.attempt_number = attempt
    state.set_exception((type(error), error, None))
    return state


def test_never_sooner_than_the_server_asked() -> None:
    """A little later, so that clients do not come back in step."""
    error = Overloaded("busy", retry_after_seconds=3.0)
    pauses = [pause_after(_state(9, error)) for _ in range(50)]

    assert min(pauses) >= 3.0
    assert max(pauses) <= 3.0 + MAX_SECONDS / 10
    assert len(set(pauses)) > 1


def test_without_a_wish_pauses_are_random_and_doubling_up_to_a_limit() -> None:
    """The bounds of "full jitter"."""
    for attempt in (1, 2, 5, 40):
        most = min(MAX_SECONDS, FIRST_SECONDS * 2**attempt)
        pauses = [pause_after(_state(attempt, ConnectionLost("x"))) for _ in range(50)]
        assert min(pauses) >= 0
        assert max(pauses) <= most


def test_what_is_transient() -> None:
    """Doubt, overload and a change of leader; not what is refused for good."""
    assert is_transient(ConnectionLost("x"))
    assert is_transient(Overloaded("x"))
    assert is_transient(NotLeader("x", leader=None))
    assert not is_transient(InvalidRequest("x"))
    assert not is_transient(Fenced("x", epoch=2))
    assert not is_transient(ValueError("x"))
