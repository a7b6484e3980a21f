"""The control history of a run: what nodes tell of it meanwhile, and what the managers' disks say in the end.

`Watch` asks every node again and again how far it is and what hash it has there (`GET /cluster/control`), so
what a node believed is known also if it is killed a moment later. `manager_log` reads the journal of a
manager that has ended and applies its commands anew, in this process: the hashes that were told must be
those.

Read-only: journals are copied before they are opened.
"""

import http.client
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from chaos.evidence import Evidence, Lead, Look, ManagerLog, Step
from chaos.local_cluster import LocalCluster
from cluster.consensus_dump import read_dump
from cluster.consensus_journal import DurableJournal, as_entry
from cluster.consensus_raft import ROLE_NAMES
from cluster.consensus_start import DUMP_FILE, JOURNAL_FILE
from cluster.consensus_unpickler import safe_loads
from cluster.state import ClusterState, apply
from cluster.state_codec import ring_hash
from node.node import RAFT_FOLDER
from node.up_plan import NodePlan

#: Seconds between two looks at all nodes, and for one of them to answer.
EACH_SECONDS, ANSWER_SECONDS = 0.25, 0.5
#: Seconds in which all managers must come to one log index when nothing is asked of them any more.
REST_SECONDS = 10.0
#: PySyncObj's mark of an entry that carries a command; others are its own.
_REGULAR = 0


class Watch:
    """Looks at all nodes that run, on a thread of its own, from `start` to `stop`."""

    def __init__(self, cluster: LocalCluster, evidence: Evidence, now: Callable[[], int]) -> None:
        self._cluster, self._evidence, self._now = cluster, evidence, now
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control-watch", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(EACH_SECONDS):
            self.look()

    def look(self) -> list[Look]:
        """One look at each node that runs and answers."""
        found = []
        for node in list(self._cluster.running):
            look = ask(self._cluster.node(node), self._now())
            if look is not None:
                self._evidence.note(look)
                found.append(look)
        return found

    def abandon(self) -> None:
        """Ends without a last look."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def stop(self) -> None:
        """Ends, after looks in which all nodes are at one index, or REST_SECONDS. Blocks."""
        self.abandon()
        for _ in range(int(REST_SECONDS / EACH_SECONDS)):
            looks = self.look()
            if len(looks) == len(self._cluster.running) and len({one.index for one in looks}) == 1:
                return
            threading.Event().wait(EACH_SECONDS)


def ask(node: NodePlan, now: int) -> Look | None:
    """What a node tells of the control history; None if it does not answer."""
    connection = http.client.HTTPConnection(node.host, node.http_port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/cluster/control")
        told = json.loads(connection.getresponse().read())
        n, w, r = (told["quorum"][name] for name in "nwr")
        return Look(
            told["node"], now, told["applied_index"], told["history"],
            told["ring_epoch"], told["ring_hash"], told["cluster_epoch"], (n, w, r),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def leads(cluster: LocalCluster) -> Iterator[Lead]:
    """Which terms the nodes say that they led, in all that they ever logged."""
    for node in cluster.ids:
        for event in cluster.logs(node):
            if event.get("message") == "raft role" and event.get("role") == ROLE_NAMES[2]:
                yield Lead(node, int(event["term"]))


def _stop(code: int, text: str) -> NoReturn:
    raise RuntimeError(f"exit {code}: {text}")


def manager_log(node: str, data: Path, scratch: Path) -> ManagerLog:
    """The log of a manager that has ended, each command applied anew.

    Raises:
        JournalCorrupt, DumpDamaged, OSError: it cannot be believed, or read.
    """
    copy = scratch / f"raft-{node}"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(data / RAFT_FOLDER, copy)
    try:
        dump = read_dump(copy / DUMP_FILE)
        journal = DurableJournal(copy / JOURNAL_FILE, stop=_stop)
        entries = [as_entry(journal[at]) for at in range(len(journal))]
        journal.close_quietly()
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    state, covered = (ClusterState(), 0) if dump is None else (dump.state, dump.last[1])
    steps, assigned, changes = [], [], []
    for data_, index, _ in entries:
        command = command_in(data_)
        if command is None or index <= covered:
            continue
        before, (state, _) = state, apply(state, command, index)
        ring = ring_hash(state).hex()
        steps.append(Step(index, state.history.hex(), state.ring_epoch, ring))
        if _change(before) != _change(state):
            changes.append((index, _change(state)))
        assigned += [
            (index, shard, lead.epoch, lead.node)
            for shard, lead in state.leaders.items()
            if lead != before.leaders.get(shard)
        ]
    return ManagerLog(node, covered + 1, tuple(steps), tuple(assigned), tuple(changes))


def _change(state: ClusterState) -> int:
    return 0 if state.change is None else state.change.id


def command_in(entry: bytes) -> bytes | None:
    """The command that a log entry carries, None if it is one of PySyncObj's own."""
    if not entry or entry[0] != _REGULAR:
        return None
    _, arguments = safe_loads(entry[1:])[:2]
    return bytes(arguments[0])
