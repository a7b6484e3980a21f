"""One real RaftNode that ticks only when told, between two peers that a test plays by hand."""

import os
import pickle
from pathlib import Path
from typing import Any, NoReturn

from pysyncobj.tcp_connection import CONNECTION_STATE

from cluster.consensus import ConsensusSettings
from cluster.consensus_pysyncobj import PySyncObjConsensus
from cluster.consensus_raft import RaftNode
from cluster.consensus_start import prepare
from cluster.state import encode_command
from runtime.clock import SystemClock
from tests.support.raft_group import free_ports

NO_OP = b"\1"


class Stopped(Exception):
    """What a test gets in place of the end of the process."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def stop(code: int, text: str) -> NoReturn:
    """Raises Stopped."""
    raise Stopped(code, text)


class HandPeer:
    """An established connection to a peer; remembers what was sent to it."""

    established = True
    state = CONNECTION_STATE.CONNECTED

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def check_idle(self) -> None:
        """Never idle."""

    def disconnect(self) -> None:
        self.state = CONNECTION_STATE.DISCONNECTED

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """What was sent of one type."""
        return [m for m in self.sent if m["type"] == kind]


class _Manual(PySyncObjConsensus):
    def _conf(self, journal_path: str, bind_address: str) -> Any:
        conf = super()._conf(journal_path, bind_address)
        conf.autoTick = False
        return conf


class Follower:
    """Manager n0 of three; `leader` and `other` are played by the test."""

    def __init__(self, root: Path, **settings: Any) -> None:
        ports = free_ports(3)
        self.peers = {f"n{i}": f"127.0.0.1:{port}" for i, port in enumerate(ports)}
        self.root = root
        self._settings = settings
        self._number = 0
        self.node = self._open()

    def _open(self) -> RaftNode:
        arguments: dict[str, Any] = {"bootstrap": True, **self._settings}
        settings = ConsensusSettings(
            "n0", "test", self.peers["n0"], self.peers, self.root / "n0", bytes(32), **arguments
        )
        self.consensus = _Manual(settings, SystemClock(), stop_process=stop)
        self._prepared = prepare(settings, stop)
        node = self.consensus._build(self._prepared)
        by_address = {n.id: n for n in node.otherNodes}
        self.leader, self.other = by_address[self.peers["n1"]], by_address[self.peers["n2"]]
        self.wires = {self.leader: HandPeer(), self.other: HandPeer()}
        for peer, wire in self.wires.items():
            node.transport._connections[peer] = wire
            node.transport._onNodeConnected(peer)
        node.doTick(0.0)
        return node

    def restart(self) -> None:
        """Closes without any courtesy and starts again on the same directory."""
        self.close()
        self.node = self._open()

    def close(self) -> None:
        """Lets go of files and ports."""
        self.node._doDestroy()
        pipe = self.node._SyncObj__pipeNotifier  # pyright: ignore[reportAttributeAccessIssue]
        os.close(pipe._PipeNotifier__pipeR)
        os.close(pipe._PipeNotifier__pipeW)
        self._prepared.release()

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what the leader says ----------------------------------------------------------------

    def deliver(self, message: dict[str, Any], peer: Any = None) -> None:
        """Hands a message to the transport as if it had arrived."""
        self.node.transport._onMessageReceived(peer or self.leader, message)

    def append(
        self, term: int, prev: tuple[int, int], entries: list[Any], commit: int = 1
    ) -> dict[str, Any]:
        """An append_entries, delivered; returns the last ack that it caused (or {})."""
        before = len(self.acks)
        self.deliver(
            {
                "type": "append_entries",
                "term": term,
                "commit_index": commit,
                "prevLogIdx": prev[0],
                "prevLogTerm": prev[1],
                "entries": entries,
            }
        )
        return self.acks[-1] if len(self.acks) > before else {}

    @property
    def acks(self) -> list[dict[str, Any]]:
        """All acks to the leader so far."""
        return self.wires[self.leader].of_type("next_node_idx")

    @property
    def log(self) -> list[tuple[int, int]]:
        """(index, term) of every entry."""
        return [(index, term) for _, index, term in self.node.journal]

    def entry(self, index: int, term: int, op: str = "Noop", **args: Any) -> tuple[bytes, int, int]:
        """A log entry with a command of ours."""
        self._number += 1
        command = encode_command(op, args, ("n1", 1, self._number), level=1)
        return b"\0" + pickle.dumps((0, (command,)), 2), index, term
