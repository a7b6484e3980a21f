"""What a manager may say to another: the shape of each Raft message, checked before it acts.

Whoever holds the key can speak as a manager, so this is not about trust. It keeps a malformed
message from raising in the middle of PySyncObj's tick, and keeps out what would change the group or
poison the log: membership and version commands, fragmented entries, commands that cannot be applied.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from cluster.consensus_unpickler import Unpicklable, safe_loads
from cluster.state import COMMAND_BYTES_MAX, CommandError, decode_command
from cluster.state_ops import OPS

#: A command of COMMAND_BYTES_MAX, pickled by protocol 2, which doubles bytes >= 0x80.
COMMAND_FRAME_BYTES_MAX = 70_000
REGULAR, NO_OP = b"\0", b"\1"
_INT_MAX = 1 << 62


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _INT_MAX


def _int_or_none(value: Any) -> bool:
    return value is None or _is_int(value)


def _is_entry(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 3
        and isinstance(value[0], bytes)
        and value[0][:1] in (REGULAR, NO_OP)
        and len(value[0]) <= COMMAND_FRAME_BYTES_MAX
        and _is_int(value[1])
        and _is_int(value[2])
    )


def _entries_follow(entries: Any, prev: Any) -> bool:
    if not isinstance(entries, list) or not all(_is_entry(e) for e in entries):
        return False
    if entries and prev is not None and entries[0][1] != prev + 1:
        return False
    return all(b[1] == a[1] + 1 and b[2] >= a[2] for a, b in pairwise(entries))


def _append_entries(m: dict[str, Any]) -> bool:
    if not (_is_int(m.get("term")) and _is_int(m.get("commit_index"))) or "transmission" in m:
        return False
    chunk = m.get("serialized")
    if chunk is not None:
        return (
            isinstance(chunk, tuple)
            and len(chunk) == 3
            and isinstance(chunk[0], bytes)
            and isinstance(chunk[1], bool)
            and isinstance(chunk[2], bool)
        )
    if "prevLogIdx" not in m:
        return "entries" not in m
    return (
        _int_or_none(m["prevLogIdx"])
        and _int_or_none(m.get("prevLogTerm"))
        and _entries_follow(m.get("entries"), m["prevLogIdx"])
    )


def _keepalive(m: dict[str, Any]) -> bool:
    check = m.get("check", [0, b""])
    return (
        isinstance(check, list)
        and len(check) == 2
        and _is_int(check[0])
        and isinstance(check[1], bytes)
    )


def _next_node_idx(m: dict[str, Any]) -> bool:
    return (
        _is_int(m.get("next_node_idx"))
        and isinstance(m.get("reset"), bool)
        and isinstance(m.get("success"), bool)
    )


def _response(m: dict[str, Any]) -> bool:
    if not _is_int(m.get("request_id")):
        return False
    return _is_int(m.get("error")) or (_is_int(m.get("log_idx")) and _is_int(m.get("log_term")))


_SHAPES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "append_entries": _append_entries,
    "next_node_idx": _next_node_idx,
    "request_vote": lambda m: all(
        _is_int(m.get(k)) for k in ("term", "last_log_index", "last_log_term")
    ),
    "response_vote": lambda m: _is_int(m.get("term")),
    "timeout_now": lambda m: _is_int(m.get("term")),
    "apply_command": lambda m: (
        isinstance(m.get("command"), bytes) and _is_int(m.get("request_id", 0))
    ),
    "apply_command_response": _response,
    "keepalive": _keepalive,
}


def acceptable_message(message: Any) -> bool:
    """Whether `message` has the shape of one of the messages above."""
    if not isinstance(message, dict):
        return False
    shape = _SHAPES.get(message["type"]) if isinstance(message.get("type"), str) else None
    return shape is not None and shape(message)


def acceptable_command(command: bytes) -> bool:
    """Whether a forwarded command is a call of our one method with a command that we know.

    What passes here enters the log, and every manager will apply it; what does not is dropped, and
    its proposer hears nothing and asks again.
    """
    if command[:1] != REGULAR or len(command) > COMMAND_FRAME_BYTES_MAX:
        return False
    try:
        call = safe_loads(command[1:])
        method, (argument,) = call
        if method != 0 or not isinstance(argument, bytes) or len(argument) > COMMAND_BYTES_MAX:
            return False
        return decode_command(argument).op in OPS
    except (Unpicklable, CommandError, TypeError, ValueError):
        return False
