"""The filters between PySyncObj and its peers, on a real node with peers played by hand.

Each test sends what broke PySyncObj 0.3.17, and each fails when its filter is taken out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.consensus_dump import encode_dump
from cluster.state import ClusterState
from tests.support.raft_follower import NO_OP, Follower, Stopped


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    with Follower(tmp_path) as made:
        yield made


def fill(follower: Follower, last: int, term: int = 1, commit: int | None = None) -> None:
    """Entries 2..last from a leader of `term`, committed up to `commit` (default: all), applied."""
    entries = [follower.entry(i, term) for i in range(2, last + 1)]
    follower.append(term, (1, 0), entries, commit=last if commit is None else commit)
    follower.node.doTick(0.0)


def snapshot(follower: Follower, index: int, term: int) -> bytes:
    """A dump that ends at `index`."""
    last, prev = follower.entry(index, term), follower.entry(index - 1, term)
    return encode_dump(last, prev, ClusterState(applied_index=index, cluster_id="from the leader"))


def send_snapshot(follower: Follower, data: bytes, term: int, chunk: int = 100) -> None:
    """The dump in chunks and an empty last one, as PySyncObj sends it."""
    pieces = [data[i : i + chunk] for i in range(0, len(data), chunk)] + [b""]
    for number, piece in enumerate(pieces):
        follower.deliver(
            {
                "type": "append_entries",
                "term": term,
                "commit_index": 50,
                "serialized": (piece, number == 0, number == len(pieces) - 1),
            }
        )


# -- T2: truncation ------------------------------------------------------------------------------


def test_a_shorter_resend_of_applied_entries_cuts_nothing(follower: Follower) -> None:
    """T2, defect A: 2-7 are applied, 2-3 come again. The tail stays; the ack vouches for 3 only."""
    fill(follower, 7)
    again = [(c, i, t) for c, i, t in follower.node.journal if i in (2, 3)]

    ack = follower.append(1, (1, 0), again, commit=7)

    assert follower.log == [(1, 0)] + [(i, 1) for i in range(2, 8)]
    assert ack["next_node_idx"] == 4
    assert ack["success"]
    assert follower.node.raftLastApplied == 7
    assert follower.node.transport.counters.kept_tails == 1


def test_an_empty_append_below_the_last_entry_cuts_nothing(follower: Follower) -> None:
    """T2: prev is 3, nothing follows; PySyncObj alone would delete 4-7 and ack 4."""
    fill(follower, 7)

    ack = follower.append(1, (3, 1), [], commit=7)

    assert follower.log[-1] == (7, 1)
    assert ack["next_node_idx"] == 4


def test_a_kept_tail_does_not_move_the_commit_index_past_what_is_vouched_for(
    follower: Follower,
) -> None:
    """T2: the leader committed 7 of its own log, it vouches for our log up to 3."""
    fill(follower, 7, commit=1)

    follower.append(1, (3, 1), [], commit=7)

    assert follower.node.raftCommitIndex == 3


def test_a_real_conflict_is_replaced(follower: Follower) -> None:
    """T2: entries 5-7 of term 1 were never committed; a leader of term 2 has others there."""
    fill(follower, 7, commit=4)
    theirs = [follower.entry(i, 2) for i in (5, 6)]

    ack = follower.append(2, (4, 1), theirs, commit=4)

    assert follower.log[4:] == [(5, 2), (6, 2)]
    assert ack["next_node_idx"] == 7


def test_a_conflict_behind_a_matching_prefix_is_found_and_replaced(follower: Follower) -> None:
    """T2: of the resent entries 3-6, 3 and 4 are held, 5 differs: the cut is at 5."""
    fill(follower, 7, commit=2)
    held = [(c, i, t) for c, i, t in follower.node.journal if i in (3, 4)]

    follower.append(2, (2, 1), [*held, follower.entry(5, 2), follower.entry(6, 2)], commit=2)

    assert follower.log == [(1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2)]
    assert follower.node.transport.counters.trimmed_entries == 2


def test_a_conflict_below_the_applied_index_ends_the_process(follower: Follower) -> None:
    """T2: what is applied is committed; a leader that contradicts it must not be followed."""
    fill(follower, 7)

    with pytest.raises(Stopped) as caught:
        follower.append(2, (4, 1), [follower.entry(5, 2)], commit=4)

    assert caught.value.code == 72
    assert follower.log[-1] == (7, 1)


def test_a_previous_entry_that_we_lack_is_refused_without_a_commit(follower: Follower) -> None:
    """The ordinary refusal is PySyncObj's own."""
    fill(follower, 4)

    ack = follower.append(1, (9, 1), [follower.entry(10, 1)], commit=9)

    assert (ack["success"], ack["reset"], ack["next_node_idx"]) == (False, True, 5)
    assert follower.node.raftCommitIndex == 4


def test_a_heartbeat_that_vouches_for_nothing_commits_nothing(follower: Follower) -> None:
    """While a leader writes its dump it sends heartbeats without a previous entry.

    PySyncObj would commit our own tail up to the leader's commit index, whatever stands in it.
    """
    fill(follower, 7, commit=3)

    follower.deliver({"type": "append_entries", "term": 2, "commit_index": 7, "serialized": None})

    assert follower.node.raftCommitIndex == 3
    assert follower.node.raftCurrentTerm == 2
    assert follower.node.transport.counters.capped_commits == 1


# -- T11: acks, commands, sizes ------------------------------------------------------------------


def elect(follower: Follower) -> int:
    """Makes the node leader of a new term with the other's vote; returns the term."""
    follower.node._SyncObj__raftElectionDeadline = 0  # pyright: ignore[reportAttributeAccessIssue]
    follower.node.doTick(0.0)
    term = follower.node.raftCurrentTerm
    follower.deliver({"type": "response_vote", "term": term}, follower.other)
    assert follower.node._isLeader()
    return term


def ack_message(index: int, rterm: int | None) -> dict[str, Any]:
    message = {"type": "next_node_idx", "next_node_idx": index + 1, "reset": False, "success": True}
    return message if rterm is None else {**message, "rterm": rterm}


@pytest.mark.parametrize("stamp", ["older", "none"])
def test_an_ack_of_another_term_moves_nothing(follower: Follower, stamp: str) -> None:
    """T11, F1: a late ack from an earlier reign covers entries that its sender may have lost."""
    fill(follower, 4)
    term = elect(follower)
    last = follower.log[-1][0]

    follower.deliver(ack_message(last, term - 1 if stamp == "older" else None), follower.other)
    follower.node.doTick(0.0)

    assert follower.node.raftCommitIndex == 4
    assert follower.node.transport.counters.stale_acks == 1


def test_an_ack_of_this_term_commits(follower: Follower) -> None:
    """The counterpart: with the right stamp the same ack commits."""
    fill(follower, 4)
    term = elect(follower)
    last = follower.log[-1][0]

    follower.deliver(ack_message(last, term), follower.other)
    follower.node.doTick(0.0)

    assert follower.node.raftCommitIndex == last == 5


def test_own_acks_carry_the_term(follower: Follower) -> None:
    """What we send can be told apart by its receiver."""
    ack = follower.append(3, (1, 0), [follower.entry(2, 3)])

    assert ack["rterm"] == 3


@pytest.mark.parametrize(
    "command",
    [
        b"\2" + b"\x80\x02]q\0(X\x03\0\0\0addq\1X\x01\0\0\0xq\2e.",  # MEMBERSHIP
        b"\3\x80\x02K\7.",  # VERSION
        b"\0not a pickle",
        b"\0\x80\x02K\5.",  # a call without arguments
        b"\0" + b"x" * 80_000,
        b"",
    ],
)
def test_forwarded_commands_that_could_harm_the_group_never_enter_the_log(
    follower: Follower, command: bytes
) -> None:
    """T11, K: membership and version commands, and what no manager could apply."""
    fill(follower, 4)
    elect(follower)
    length = len(follower.log)

    follower.deliver({"type": "apply_command", "command": command}, follower.other)
    follower.node.doTick(0.0)

    assert len(follower.log) == length
    assert follower.node.transport.counters.refused_messages == 1


def test_a_forwarded_command_of_ours_enters_the_log(follower: Follower) -> None:
    """The counterpart of the refusals."""
    fill(follower, 4)
    elect(follower)
    command, _, _ = follower.entry(0, 0)

    follower.deliver({"type": "apply_command", "command": command}, follower.other)
    follower.node.doTick(0.0)

    assert follower.node.journal[-1][0] == command


@pytest.mark.parametrize("kind", [2, 3])
def test_entries_of_other_kinds_are_not_taken_from_a_leader(follower: Follower, kind: int) -> None:
    """K: MEMBERSHIP and VERSION entries would be applied even with the feature off."""
    fill(follower, 4)

    follower.append(1, (4, 1), [(bytes([kind]) + b"\x80\x02K\1.", 5, 1)])

    assert follower.log[-1] == (4, 1)


def test_a_command_of_32_kib_of_0xff_travels_as_one_unfragmented_entry(follower: Follower) -> None:
    """T11, P: pickle's protocol 2 doubles each byte; the entry must stay below the batch size."""
    fill(follower, 4)
    elect(follower)
    body = b"\xff" * (32 * 1024 - 100)
    command, _, _ = follower.entry(0, 0, "PutSchema", name="s", expected_version=0, body=body)

    follower.deliver({"type": "apply_command", "command": command}, follower.other)
    follower.node.doTick(0.0)
    sent = follower.wires[follower.other].of_type("append_entries")

    assert len(command) > 65_000
    assert not [m for m in sent if "transmission" in m]
    assert [e for m in sent for e in m["entries"] if e[0] == command]


def test_fragments_are_refused(follower: Follower) -> None:
    """P: a fragmented entry cannot be trimmed, so it is not taken."""
    fill(follower, 4)

    follower.deliver(
        {
            "type": "append_entries",
            "term": 1,
            "commit_index": 4,
            "prevLogIdx": 2,
            "prevLogTerm": 1,
            "transmission": "start",
            "data": b"",
        }
    )

    assert follower.log[-1] == (4, 1)
    assert follower.acks[-1]["success"]


# -- promises ------------------------------------------------------------------------------------


def test_an_ack_leaves_only_after_the_entries_are_on_disk(follower: Follower) -> None:
    """8.2: journal.sync comes before next_node_idx; one fsync for all entries of the message."""
    fsyncs = follower.node.journal.fsyncs

    ack = follower.append(1, (1, 0), [follower.entry(i, 1) for i in range(2, 30)])

    assert ack["next_node_idx"] == 30
    assert not follower.node.journal.pending
    # one for the new term, one for the 28 entries
    assert follower.node.journal.fsyncs - fsyncs == 2


def test_a_vote_is_on_disk_before_it_leaves(follower: Follower) -> None:
    """A voter that is killed right after it answered has not forgotten for whom."""
    follower.deliver({"type": "request_vote", "term": 7, "last_log_index": 9, "last_log_term": 6})
    sent = follower.wires[follower.leader].of_type("response_vote")

    follower.restart()
    follower.deliver(
        {"type": "request_vote", "term": 7, "last_log_index": 9, "last_log_term": 6}, follower.other
    )

    assert [m["term"] for m in sent] == [7]
    assert follower.node.raftCurrentTerm == 7
    assert follower.wires[follower.other].of_type("response_vote") == []


# -- T5: snapshots by message (I, J) -------------------------------------------------------------


def test_a_newer_snapshot_is_installed_and_survives_a_restart(follower: Follower) -> None:
    """A follower that lags gets the state, acks its end, and finds it again after a restart."""
    fill(follower, 4)

    send_snapshot(follower, snapshot(follower, 40, 1), term=1)

    assert follower.consensus.snapshot().cluster_id == "from the leader"
    assert follower.log == [(39, 1), (40, 1)]
    assert follower.acks[-1]["next_node_idx"] == 41
    follower.restart()
    assert follower.consensus.snapshot().cluster_id == "from the leader"
    assert follower.node.raftLastApplied == 40


def test_a_snapshot_older_than_the_commit_index_is_refused(follower: Follower) -> None:
    """I: PySyncObj would roll the state back and clear the acknowledged tail."""
    fill(follower, 9)

    send_snapshot(follower, snapshot(follower, 6, 1), term=1)

    assert follower.log[-1] == (9, 1)
    assert follower.node.raftLastApplied == 9
    assert follower.consensus.snapshot().cluster_id == ""
    assert (follower.acks[-1]["next_node_idx"], follower.acks[-1]["reset"]) == (10, True)
    assert follower.node.transport.counters.stale_snapshots > 0


@pytest.mark.parametrize("place", [0, 20, 60, -40, -1])
def test_a_damaged_snapshot_is_dropped_without_an_ack(follower: Follower, place: int) -> None:
    """J: one flipped bit anywhere. The dump on disk stays, and nothing is promised."""
    fill(follower, 4)
    acks = len(follower.acks)
    data = bytearray(snapshot(follower, 40, 1))
    data[place] ^= 1

    send_snapshot(follower, bytes(data), term=1)

    assert follower.log[-1] == (4, 1)
    assert len(follower.acks) == acks
    assert not (follower.root / "n0" / "state.dump").exists()
    assert follower.node.transport.counters.damaged_snapshots == 1


def test_a_snapshot_that_lacks_its_beginning_or_a_chunk_is_dropped(follower: Follower) -> None:
    """J: a transfer that was interrupted and resumed is not a dump."""
    fill(follower, 4)
    data = snapshot(follower, 40, 1)

    for piece, first, last in ((data[100:], False, False), (b"", False, True)):
        message = {"type": "append_entries", "term": 1, "commit_index": 50}
        follower.deliver({**message, "serialized": (piece, first, last)})
    send_snapshot(follower, data[:200] + data[300:], term=1)

    assert follower.log[-1] == (4, 1)
    assert follower.consensus.snapshot().cluster_id == ""


def test_chunks_of_a_snapshot_do_not_commit_the_old_tail(follower: Follower) -> None:
    """A follower's uncommitted tail is not vouched for by a snapshot in transit."""
    fill(follower, 7, commit=3)
    data = snapshot(follower, 40, 1)
    message = {"type": "append_entries", "term": 1, "commit_index": 50}

    follower.deliver({**message, "serialized": (data[:100], True, False)})

    assert follower.node.raftCommitIndex == 3


# -- odd messages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        "status",
        {"type": "unknown"},
        {"type": ["append_entries"]},
        {"type": "append_entries", "term": 1},
        {"type": "append_entries", "term": -1, "commit_index": 0},
        {"type": "append_entries", "term": 1, "commit_index": 0, "serialized": False},
        {"type": "append_entries", "term": 1, "commit_index": 0, "prevLogIdx": 1},
        {"type": "request_vote", "term": "7"},
        {"type": "apply_command_response", "request_id": 1},
        {"type": "next_node_idx", "next_node_idx": True, "reset": False, "success": True},
    ],
)
def test_malformed_messages_are_counted_and_change_nothing(
    follower: Follower, message: Any
) -> None:
    """A key holder with a bug must not raise in the middle of a tick."""
    fill(follower, 4)

    follower.deliver(message)

    assert follower.log[-1] == (4, 1)
    assert follower.node.raftCurrentTerm == 1
    assert follower.node.transport.counters.refused_messages == 1


def test_entries_with_a_gap_are_refused(follower: Follower) -> None:
    """The journal would end the process; a message must not be able to ask for that."""
    fill(follower, 4)

    follower.append(1, (4, 1), [follower.entry(5, 1), follower.entry(7, 1)])
    follower.append(1, (4, 1), [follower.entry(6, 1)])

    assert follower.log[-1] == (4, 1)


# -- state hash ----------------------------------------------------------------------------------


def test_a_state_that_differs_from_the_majority_ends_the_process(follower: Follower) -> None:
    """I10: one differing peer is an alarm; two that agree with each other are a majority of three."""
    fill(follower, 4)
    for start in range(5, 1205, 200):
        entries = [follower.entry(i, 1) for i in range(start, start + 200)]
        follower.append(1, (start - 1, 1), entries, commit=start + 199)
        follower.node.doTick(0.0)
    check = {"type": "keepalive", "check": [1, b"\7" * 32]}

    follower.deliver(check, follower.leader)
    alarms = follower.node.counters.state_hash_mismatches
    with pytest.raises(Stopped) as caught:
        follower.deliver(check, follower.other)

    assert follower.node.checkpoint()[0] == 1
    assert alarms == 1
    assert caught.value.code == 72


def test_no_op_entries_are_known(follower: Follower) -> None:
    """A leader's first entry is a no-op; it is taken."""
    ack = follower.append(1, (1, 0), [(NO_OP, 2, 1)])

    assert ack["next_node_idx"] == 3
