"""ClusterState and the one function that changes it: apply(state, command, index).

`apply` is pure and total: the same state, bytes and index give the same result on every node, and a
bad command is an error *value* that every node computes alike. Were it to raise, PySyncObj would
apply the entry again for ever, on every node. Two things do leave as exceptions, both meaning "this
process must stop": BinaryTooOld, and failures of the machine (MemoryError, OSError, RecursionError).

A command carries a request id. Its result is kept, so that a proposer who does not know the outcome
sends it again under the same id and gets the first answer: applied once, whatever the retries.

Why not simply raise on a bad command, or trust the proposer to check? A proposer checks an older
state than the one its command meets.
"""

import hashlib
from dataclasses import replace

from cluster.state_codec import Command, decode_command, encode_command, from_bytes, to_bytes
from cluster.state_ops import GROWING, OPS
from cluster.state_types import (
    CHECKPOINT_EVERY,
    COMMAND_BYTES_MAX,
    DEDUPE_RESULTS,
    RESULT_BYTES_MAX,
    STATE_BYTES_MAX,
    SUPPORTED_LEVEL,
    BinaryTooOld,
    Checkpoint,
    ClusterState,
    CommandError,
    DedupeRow,
    Member,
    Quorum,
    Result,
    ShardLeader,
    Versioned,
)
from records.envelope import packb

__all__ = [
    "CHECKPOINT_EVERY",
    "COMMAND_BYTES_MAX",
    "DEDUPE_RESULTS",
    "STATE_BYTES_MAX",
    "SUPPORTED_LEVEL",
    "BinaryTooOld",
    "Checkpoint",
    "ClusterState",
    "Command",
    "CommandError",
    "DedupeRow",
    "Member",
    "Quorum",
    "Result",
    "ShardLeader",
    "Versioned",
    "apply",
    "decode_command",
    "encode_command",
    "from_bytes",
    "to_bytes",
]


def apply(state: ClusterState, command: bytes, index: int) -> tuple[ClusterState, Result]:
    """The state after the log entry `index`, and the answer for its proposer.

    Raises:
        BinaryTooOld: an operation, or its meaning since a level, that was agreed on and that we do not know.
    """
    state = _advance(state, command, index)
    try:
        parsed = _parse(state, command)
        known = _remembered(state, parsed)
    except CommandError as error:
        return state, ["err", error.code, error.text]
    if known is not None:
        return state, known
    changed, result = _run(state, parsed)
    return _remember(changed, parsed, result), result


def _advance(state: ClusterState, command: bytes, index: int) -> ClusterState:
    """Moves index and running hash on; notes a checkpoint when a multiple is passed."""
    checkpoint = state.checkpoint
    if index // CHECKPOINT_EVERY > checkpoint.number:
        checkpoint = Checkpoint(index // CHECKPOINT_EVERY, state.history)
    digest = hashlib.sha256(state.history + index.to_bytes(8, "big"))
    digest.update(hashlib.sha256(command).digest())
    return replace(state, applied_index=index, history=digest.digest(), checkpoint=checkpoint)


def _parse(state: ClusterState, command: bytes) -> Command:
    if len(command) > COMMAND_BYTES_MAX:
        raise CommandError("TOO_LARGE", f"a command has at most {COMMAND_BYTES_MAX} bytes")
    parsed = decode_command(command)
    if parsed.level > state.feature_level:
        raise CommandError("FEATURE_LEVEL", f"the cluster is at level {state.feature_level}")
    if parsed.op not in OPS or parsed.level > SUPPORTED_LEVEL:
        raise BinaryTooOld(f"{parsed.op} at level {parsed.level}")
    return parsed


def _remembered(state: ClusterState, command: Command) -> Result | None:
    """The answer given before, or None when the command is new."""
    row = state.dedupe.get(command.proposer)
    if row is None or command.incarnation > row.incarnation:
        return None
    if command.incarnation < row.incarnation or command.counter < row.floor:
        raise CommandError("STALE_REQUEST", "this request id is forgotten")
    return row.results.get(command.counter)


def _run(state: ClusterState, command: Command) -> tuple[ClusterState, Result]:
    try:
        changed, value = OPS[command.op](state, command.args)
        if command.op in GROWING and len(to_bytes(changed, full=False)) > STATE_BYTES_MAX:
            raise CommandError("STATE_FULL", f"the state would exceed {STATE_BYTES_MAX} bytes")
    except CommandError as error:
        return state, ["err", error.code, error.text]
    except (MemoryError, OSError, RecursionError):
        raise
    except Exception as error:  # noqa: BLE001 - the type alone is equal on every node
        return state, ["err", "INVALID", type(error).__name__]
    return changed, ["ok", value]


def _remember(state: ClusterState, command: Command, result: Result) -> ClusterState:
    row = state.dedupe.get(command.proposer)
    if row is None or command.incarnation > row.incarnation:
        row = DedupeRow(command.incarnation)
    if command.counter < row.floor:  # the command was the retirement of its own proposer
        return state
    kept = result if len(packb(result)) <= RESULT_BYTES_MAX else ["ok", None]
    results = {**row.results, command.counter: kept}
    floor = row.floor
    if len(results) > DEDUPE_RESULTS:
        oldest = min(results)
        floor = oldest + 1
        del results[oldest]
    row = DedupeRow(row.incarnation, floor, results)
    return replace(state, dedupe={**state.dedupe, command.proposer: row})
