"""The shapes of Raft messages: what passes, and that nothing else does."""

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.consensus_messages import acceptable_command, acceptable_message
from cluster.state import encode_command

GOOD: list[dict[str, Any]] = [
    {
        "type": "append_entries",
        "term": 1,
        "commit_index": 2,
        "prevLogIdx": 4,
        "prevLogTerm": 1,
        "entries": [(b"\0x", 5, 1), (b"\1", 6, 2)],
    },
    {
        "type": "append_entries",
        "term": 1,
        "commit_index": 2,
        "prevLogIdx": None,
        "prevLogTerm": None,
        "entries": [],
    },
    {"type": "append_entries", "term": 1, "commit_index": 2, "serialized": (b"x", True, False)},
    {"type": "append_entries", "term": 1, "commit_index": 2, "serialized": None},
    {"type": "next_node_idx", "next_node_idx": 5, "reset": False, "success": True, "rterm": 3},
    {"type": "request_vote", "term": 3, "last_log_index": 4, "last_log_term": 2},
    {"type": "response_vote", "term": 3},
    {"type": "timeout_now", "term": 3},
    {"type": "apply_command", "command": b"\0x", "request_id": 4},
    {"type": "apply_command_response", "request_id": 4, "error": 2},
    {"type": "apply_command_response", "request_id": 4, "log_idx": 9, "log_term": 3},
    {"type": "keepalive", "check": [3, b"digest"]},
    {"type": "keepalive"},
]


@pytest.mark.parametrize("message", GOOD)
def test_each_message_of_the_protocol_passes(message: dict[str, Any]) -> None:
    """The table of raft.md section 6, as PySyncObj 0.3.17 fills it."""
    assert acceptable_message(message)


@given(st.sampled_from(GOOD), st.data())
@settings(max_examples=300)
def test_a_required_field_of_a_wrong_type_does_not_pass(
    good: dict[str, Any], data: st.DataObject
) -> None:
    """No field is believed to be what it is called."""
    fields = sorted(set(good) - {"serialized", "rterm"})
    field = data.draw(st.sampled_from(fields))
    wrong = data.draw(st.sampled_from([-1, 1.5, "x", {}, object(), 1 << 70]))

    assert not acceptable_message({**good, field: wrong})


def command(op: str = "Noop", method: Any = 0, *more: Any) -> bytes:
    body = encode_command(op, {}, ("p", 1, 1), level=1)
    return b"\0" + pickle.dumps((method, (body, *more)), 2)


def test_only_calls_of_our_method_with_a_known_command_are_forwarded() -> None:
    """What is accepted here, every manager will apply."""
    assert acceptable_command(command())
    assert not acceptable_command(command("FromTheFuture"))  # would end every manager
    assert not acceptable_command(command("Noop", 1))
    assert not acceptable_command(command("Noop", 0, b"second"))
    assert not acceptable_command(b"\0" + pickle.dumps((0, ("text",)), 2))
    assert not acceptable_command(b"\0" + pickle.dumps((0, (b"\xc1",)), 2))
    assert not acceptable_command(b"\0" + pickle.dumps((0, (b"x",), {"callback": 1}), 2))
    assert not acceptable_command(b"\1")
    assert not acceptable_command(command()[1:])
