"""The replicated object, without a network."""

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.consensus_raft import MetaState, RaftCounters
from cluster.state import encode_command
from tests.support.raft_follower import Stopped, stop


def meta(on_applied: Any = lambda: None) -> MetaState:
    made = MetaState(on_applied, RaftCounters(), stop)
    made._syncObj = SimpleNamespace(raftLastApplied=6)
    return made


def apply(made: MetaState, data: Any) -> Any:
    """As PySyncObj applies a committed entry."""
    return made.apply(data, _doApply=True)  # pyright: ignore[reportCallIssue]


def test_poison_is_an_error_value() -> None:
    """T4, C1: garbage, and an argument that is not even bytes."""
    made = meta()

    assert apply(made, b"garbage")[0] == "err"
    assert apply(made, 7) == ["err", "INTERNAL", "TypeError"]
    assert made.counters.internal_errors == 1


def test_a_subscriber_that_raises_does_not_undo_the_command() -> None:
    """T4, C2: an exception would make PySyncObj apply the entry again, on this node only."""

    def fail() -> None:
        raise ValueError("injected")

    made = meta(fail)
    command = encode_command("Noop", {}, ("p", 1, 1), level=1)

    assert apply(made, command) == ["ok", None]
    assert made.state.applied_index == 7
    assert made.counters.callback_errors == 1


def test_a_failing_machine_and_an_old_binary_end_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What need not be equal on all nodes must not become an answer."""
    with pytest.raises(Stopped) as caught:
        apply(meta(), encode_command("FromTheFuture", {}, ("p", 1, 1), level=1))
    assert caught.value.code == 72
    for error in (MemoryError(), OSError(), RecursionError()):

        def fail(*_: Any, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr("cluster.consensus_raft.apply_command", fail)
        with pytest.raises(Stopped) as caught:
            apply(meta(), b"")
        assert caught.value.code == 72
