"""T10: what older builds wrote is read, and means what it meant.

`recorded/` has what `tests.support.raft_recording` left under two builds: `first`, from before shards moved
and services were split (commit b255566), and `level1`, of everything that feature level 1 knows. What a build
wrote is never recorded anew: a test here that turns red says that an upgrade would change a state. A
command that shall mean another thing gets a higher level (`SUPPORTED_LEVEL`), and a recording of its own.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cluster.consensus_pysyncobj import PySyncObjConsensus
from cluster.state import ClusterState, apply, from_bytes, to_bytes
from records.envelope import unpackb
from runtime.clock import SystemClock
from tests.support.raft_group import free_ports, put_schema, until
from tests.support.raft_recording import COMMANDS, DUMP_AFTER, RAFT, STATE, settings

RECORDED = Path(__file__).parent / "recorded"
RECORDINGS = ("first", "level1")


def answers_of(recording: str) -> list[tuple[bytes, Any]]:
    """Its commands with their answers."""
    rows = json.loads((RECORDED / recording / COMMANDS).read_text(encoding="utf-8"))
    return [(bytes.fromhex(row["command"]), row["answer"]) for row in rows]


def state_of(recording: str) -> ClusterState:
    """The state that it had in the end."""
    return from_bytes((RECORDED / recording / STATE).read_bytes())


@pytest.mark.parametrize("recording", RECORDINGS)
async def test_a_journal_and_a_dump_of_an_older_build_lead_to_the_state_it_had(
    recording: str, tmp_path: Path
) -> None:
    """Dump, then the commands after it; then this build goes on, and reads its own next time."""
    folder = tmp_path / "raft"
    shutil.copytree(RECORDED / recording / RAFT, folder)
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    recorded = state_of(recording)

    async with PySyncObjConsensus(settings(folder, address), SystemClock()) as own:
        dumped = own.snapshot().applied_index

        async def caught_up() -> bool:
            return own.snapshot().applied_index >= recorded.applied_index

        await until(caught_up)
        replayed = own.snapshot()
        answer = await own.propose("PutSchema", put_schema("after"), 10.0)
    async with PySyncObjConsensus(settings(folder, address), SystemClock()) as own:
        after = await own.barrier(10.0)

    assert 0 < dumped < recorded.applied_index
    assert replayed == recorded
    assert answer == 1
    assert {*after.schemas} == {*recorded.schemas, "after"}


def test_the_level_means_what_it_meant() -> None:
    """Each command of level 1, refused ones and garbage too: the answers and the state of the build then.

    History and log index are those of the Raft log, which has entries of its own.
    """
    state = ClusterState()
    for index, (command, recorded) in enumerate(answers_of("level1"), 2):
        state, answer = apply(state, command, index)
        assert answer == recorded, (index, unpackb(command))

    of_the_log = ("applied_index", "history", "checkpoint")
    mine, theirs = (unpackb(to_bytes(one)) for one in (state, state_of("level1")))
    assert {key for key in theirs if mine[key] != theirs[key]} <= set(of_the_log)


def test_the_recordings_hold_what_they_are_for() -> None:
    """Said once more by hand: commands of both kinds, before the dump and after it."""
    first, level1 = state_of("first"), state_of("level1")
    for state in (first, level1):
        assert {*state.members} == {"a", "b", "c", "d"}
        assert state.members["b"].incarnation == 2
        assert state.schemas["s"] == (3, ["later", 1.5, None, True])
        assert {*state.deletes} == {"d2"}
        assert {*state.grants} == {"g2"}
        assert state.watermarks["default", "api"] == 6_000_000
        assert state.leaders[3].node == "b"
    assert (first.ring_epoch, first.change, first.w_floor) == (1, None, 0)
    assert level1.change is not None
    assert level1.change.retire == "a"
    assert {move.stage for move in level1.moving.values()} == {"copying", "settling"}
    assert [one.factor for one in level1.splits["default", "hot"]] == [1, 2, 4]
    for recording in RECORDINGS:
        answers = [answer for _, answer in answers_of(recording)]
        refused = {answer[1] for answer in answers if answer[0] == "err"}
        assert {"MALFORMED", "FEATURE_LEVEL", "MISMATCH", "STALE_INCARNATION"} <= refused
        assert len(answers) > DUMP_AFTER + 5
