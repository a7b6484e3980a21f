"""A manager's log on disk, applied anew; what nodes tell of themselves while they are watched."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chaos import control
from chaos.control import Watch, command_in, manager_log
from chaos.evidence import Evidence, Lead, Look, ManagerLog, evidence_of
from cluster.consensus_dump import encode_dump, write_dump
from cluster.consensus_journal import DurableJournal
from cluster.consensus_start import DUMP_FILE, JOURNAL_FILE
from cluster.state import ClusterState, apply, encode_command
from cluster.state_codec import ring_hash
from tests.support.raft_follower import stop

NOOP = b"\1"
QUORUM = {"n": 3, "w": 2, "r": 2}


def command(counter: int, op: str = "Noop", **args: Any) -> bytes:
    return encode_command(op, args, ("node1", 1, counter), level=1)


def entry(data: bytes) -> bytes:
    """As PySyncObj puts a call of the one replicated method into the log."""
    return b"\0" + pickle.dumps((0, (data,)), protocol=2)


def journal(folder: Path, *entries: bytes, first: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = DurableJournal(folder / JOURNAL_FILE, stop=stop)
    for index, one in enumerate(entries, first):
        made.add(one, index, 1)
    made.sync()
    made.close_quietly()


COMMANDS = [
    command(1, "SetQuorum", expected_cluster_epoch=0, **QUORUM),
    command(2, "RegisterNode", id="node1", roles=["ingestor"], incarnation=1),
    command(3, "Assign", assignments=[[4, "node1", 0]]),
]


def states() -> list[ClusterState]:
    """After each of COMMANDS, at log indexes 2, 3 and 5."""
    found = [ClusterState()]
    for index, one in zip((2, 3, 5), COMMANDS, strict=True):
        found.append(apply(found[-1], one, index)[0])
    return found[1:]


def test_a_log_is_applied_as_its_manager_did(tmp_path: Path) -> None:
    """Entries of PySyncObj's own are left out; hashes are those of the product's `apply`. Files stay."""
    folder = tmp_path / "data" / "raft"
    journal(folder, NOOP, entry(COMMANDS[0]), entry(COMMANDS[1]), NOOP, entry(COMMANDS[2]))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    found = manager_log("node1", tmp_path / "data", tmp_path)

    assert [(one.index, one.history) for one in found.steps] == [
        (state.applied_index, state.history.hex()) for state in states()
    ]
    assert {one.ring_hash for one in found.steps} == {ring_hash(ClusterState()).hex()}
    assert (found.first, found.assigned, found.changes) == (1, ((5, 4, 1, "node1"),), ())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_log_goes_on_where_its_dump_ends(tmp_path: Path) -> None:
    """The state of the dump is the begin; what it covers is not applied twice."""
    folder, (_, second, third) = tmp_path / "data" / "raft", states()
    folder.mkdir(parents=True)
    covered = (entry(COMMANDS[1]), 3, 1), (entry(COMMANDS[0]), 2, 1)
    write_dump(folder / DUMP_FILE, encode_dump(*covered, second))
    journal(folder, entry(COMMANDS[0]), entry(COMMANDS[1]), NOOP, entry(COMMANDS[2]), first=2)

    found = manager_log("node1", tmp_path / "data", tmp_path)

    assert found.first == 4
    assert [one.history for one in found.steps] == [third.history.hex()]


def test_a_ring_hash_is_of_the_ring_alone() -> None:
    """Another epoch, or a shard that moves, is another ring; a leader is not."""
    state = states()[-1]

    assert ring_hash(state) == ring_hash(ClusterState())
    assert ring_hash(SimpleNamespace(moving={}, ring=None, ring_epoch=1)) != ring_hash(state)  # pyright: ignore[reportArgumentType]
    moving = SimpleNamespace(moving={3: ("a", "b", "copying")}, ring=None, ring_epoch=0)
    assert ring_hash(moving) != ring_hash(state)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("raw", [b"", NOOP, b"\2x"])
def test_what_is_no_command_is_none(raw: bytes) -> None:
    assert command_in(raw) is None


def test_who_says_that_it_leads_is_told_with_the_term() -> None:
    """All that a node ever logged, its earlier lives too; one that steps down does not lead."""
    events = {
        "node1": [
            {"level": "info", "message": "raft role", "role": "leader", "term": 4},
            {"level": "info", "message": "raft role", "role": "follower", "term": 5},
            {"level": "raw", "message": "raft role"},
        ],
        "node2": [{"level": "info", "message": "raft role", "role": "leader", "term": 5}],
    }
    cluster: Any = SimpleNamespace(ids=("node1", "node2"), logs=events.__getitem__)

    assert list(control.leads(cluster)) == [Lead("node1", 4), Lead("node2", 5)]


def test_nodes_are_looked_at_until_all_are_at_one_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that does not answer is left out, and asked again; what was seen stands in the file."""
    told = {"node1": iter([4, 5, 7, 7]), "node2": iter([0, 0, 6, 7])}

    def ask(node: str, now: int) -> Look | None:
        index = next(told[node])
        return Look(node, now, index, "h", 1, "r", 1, (3, 2, 2)) if index else None

    monkeypatch.setattr(control, "ask", ask)
    monkeypatch.setattr(control, "EACH_SECONDS", 0.01)
    evidence = Evidence(tmp_path)
    cluster: Any = SimpleNamespace(running={"node1": 1, "node2": 1}, node=lambda node: node)
    log = ManagerLog("node1", 1, (), ((2, 3, 1, "node1"),), ((2, 9), (3, 0)))

    Watch(cluster, evidence, lambda: 8).stop()
    evidence.note(log)
    evidence.close()

    *looks, last = evidence_of(tmp_path)
    assert last == log
    assert [(one.node, one.index) for one in looks if isinstance(one, Look)] == [
        ("node1", 4), ("node1", 5), ("node1", 7), ("node2", 6), ("node1", 7), ("node2", 7),
    ]  # fmt: skip
