"""SafeTransport: PySyncObj's TCP transport, with the messages that break Raft filtered out.

PySyncObj 0.3.17 (a) cuts a follower's tail without a conflict, (b) counts acks of an earlier term,
(c) installs snapshots that are older or damaged, (d) lets a heartbeat that vouches for nothing move
the commit index over a tail the leader never saw, and (e) answers to administration by any peer.
Each filter stands beside the message it guards; what it drops, it counts. The journal is synced
before a vote, a vote request or an ack leaves: the promise is on disk before it is made.

Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", figure 2,
AppendEntries steps 2-5: delete only "if an existing entry conflicts with a new one".
"""

import os
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from pysyncobj.node import TCPNode
from pysyncobj.tcp_connection import CONNECTION_STATE
from pysyncobj.transport import TCPTransport

from cluster.consensus_dump import DumpDamaged, decode_dump, dump_header
from cluster.consensus_messages import acceptable_command, acceptable_message
from cluster.consensus_wire import (
    PENDING_MAX,
    SafeConnection,
    SafeServer,
    WireCounters,
    resolve_now,
)

Message = dict[str, Any]
_PROMISES = ("next_node_idx", "request_vote", "response_vote")


@dataclass(slots=True)
class FilterCounters:
    """What the filters did."""

    trimmed_entries: int = 0
    kept_tails: int = 0
    stale_acks: int = 0
    snapshots_installed: int = 0
    stale_snapshots: int = 0
    damaged_snapshots: int = 0
    capped_commits: int = 0
    refused_messages: int = 0
    refused_peers: int = 0


@dataclass(slots=True)
class _Incoming:
    """A snapshot on its way from one peer."""

    total: int
    index: int
    data: bytearray


class SafeTransport(TCPTransport):
    """See the module. `syncObj` has a `journal` and `on_peer_checkpoint`; see RaftNode."""

    def __init__(self, syncObj: Any, selfNode: Any, otherNodes: Any) -> None:
        self.counters = FilterCounters()
        self.wire = WireCounters()
        self._incoming: dict[str, _Incoming] = {}
        self._next_keepalive = 0.0
        super().__init__(syncObj, selfNode, otherNodes)

    # -- sending -------------------------------------------------------------------------------

    def send(self, node: Any, message: Message) -> bool:
        """Sends to a peer whose handshake is complete; promises only after an fsync."""
        if message["type"] in _PROMISES:
            self._syncObj.journal.sync()
        if message["type"] == "next_node_idx":
            message = {**message, "rterm": self._syncObj.raftCurrentTerm}
        conn = self._connections.get(node)
        if conn is None or not conn.established:
            return False
        return super().send(node, message)

    def _onTick(self) -> None:
        super()._onTick()
        now = time.monotonic()
        for conn in [*self._connections.values(), *self._unknownConnections]:
            conn.check_idle()
        if now >= self._next_keepalive:
            self._next_keepalive = now + self._syncObj.keepalive_seconds
            number, digest = self._syncObj.checkpoint()
            for node in self._nodes:
                self.send(node, {"type": "keepalive", "check": [number, digest]})

    # -- receiving -----------------------------------------------------------------------------

    def _onMessageReceived(self, node: Any, message: Any) -> None:
        if not acceptable_message(message):
            self.counters.refused_messages += 1
            return
        kind = message["type"]
        if kind == "keepalive":
            self._syncObj.on_peer_checkpoint(node.id, *message.get("check", (0, b"")))
        elif kind == "next_node_idx" and message.get("rterm") != self._syncObj.raftCurrentTerm:
            self.counters.stale_acks += 1
        elif kind == "apply_command" and not acceptable_command(message["command"]):
            self.counters.refused_messages += 1
        elif kind == "append_entries" and message["term"] >= self._syncObj.raftCurrentTerm:
            self._append(node, message)
        else:
            self._up(node, message)

    def _up(self, node: Any, message: Message) -> None:
        super()._onMessageReceived(node, message)

    def _append(self, node: Any, message: Message) -> None:
        """Hands on exactly what may change the log; see figure 2, AppendEntries."""
        if message.get("serialized") is not None:
            self._snapshot(node, message)
            return
        if "prevLogIdx" not in message:
            self._heartbeat(node, message, self._syncObj.raftCommitIndex)
            return
        log = self._syncObj.journal
        first, last = log[0][1], log[-1][1]
        prev, prev_term = message["prevLogIdx"], message["prevLogTerm"]
        if prev is None or prev < first or prev > last or log[prev - first][2] != prev_term:
            self._up(node, message)  # PySyncObj refuses these by itself
            return
        entries = message["entries"]
        held = 0
        while held < len(entries) and entries[held][1] <= last:
            _, index, term = entries[held]
            if log[index - first][2] != term:
                break  # a real conflict: PySyncObj cuts from here, the journal guards what is applied
            prev, prev_term = index, term
            held += 1
        self.counters.trimmed_entries += held
        rest = entries[held:]
        if rest or prev == last:
            trimmed = {"prevLogIdx": prev, "prevLogTerm": prev_term, "entries": rest}
            self._up(node, {**message, **trimmed})
            return
        # All held, and our log is longer: keep the tail. The leader vouches up to prev, no further.
        self.counters.kept_tails += 1
        self._heartbeat(node, message, max(prev, self._syncObj.raftCommitIndex))
        self._ack(node, prev + 1, reset=False)

    def _heartbeat(self, node: Any, message: Message, commit_max: int) -> None:
        """Hands on term and leader alone; the commit index stays within what was vouched for."""
        commit = message["commit_index"]
        if commit > commit_max:
            self.counters.capped_commits += 1
            commit = commit_max
        self._up(node, {"type": "append_entries", "term": message["term"], "commit_index": commit})

    def _ack(self, node: Any, next_index: int, *, reset: bool) -> None:
        self.send(
            node,
            {
                "type": "next_node_idx",
                "next_node_idx": next_index,
                "reset": reset,
                "success": True,
            },
        )

    # -- snapshots -----------------------------------------------------------------------------

    def _snapshot(self, node: Any, message: Message) -> None:
        """Collects a snapshot in memory and hands it on whole and verified, or not at all."""
        data, is_first, is_last = message["serialized"]
        commit = self._syncObj.raftCommitIndex
        if is_first:
            self._begin_snapshot(node, data)
        incoming = self._incoming.get(node.id)
        if incoming is None:  # damaged, or its beginning was never seen
            self._heartbeat(node, message, commit)
            return
        if incoming.index <= commit:  # older than what we hold
            self.counters.stale_snapshots += 1
            self._heartbeat(node, message, commit)
            self._ack(node, commit + 1, reset=True)
            return
        incoming.data += data
        if len(incoming.data) > incoming.total:
            self._damaged(node)
            self._heartbeat(node, message, commit)
        elif is_last:
            self._finish_snapshot(node, message, bytes(incoming.data))
        else:
            self._heartbeat(node, message, commit)

    def _begin_snapshot(self, node: Any, data: bytes) -> None:
        self._incoming.pop(node.id, None)
        try:
            index, _, total = dump_header(data)
        except DumpDamaged:
            self._damaged(node)
            return
        self._incoming[node.id] = _Incoming(total, index, bytearray())

    def _finish_snapshot(self, node: Any, message: Message, data: bytes) -> None:
        del self._incoming[node.id]
        try:
            dump = decode_dump(data)
        except DumpDamaged:
            self.counters.damaged_snapshots += 1
            self._heartbeat(node, message, self._syncObj.raftCommitIndex)
            return  # no ack: the leader learns by its next append, and sends it again
        self._syncObj.journal.note_install(dump.last[1], dump.last[2])
        self.counters.snapshots_installed += 1
        commit = min(message["commit_index"], dump.last[1])
        self._up(node, {**message, "serialized": (data, True, True), "commit_index": commit})

    def _damaged(self, node: Any) -> None:
        self.counters.damaged_snapshots += 1
        self._incoming.pop(node.id, None)

    # -- connections ---------------------------------------------------------------------------

    def _createServer(self) -> None:
        host, port = self._syncObj.conf.bindAddress.rsplit(":", 1)
        self._server = SafeServer(
            self._syncObj._poller, resolve_now(host), int(port), self.wire, self._onSocket
        )

    def _connection(self, sock: socket.socket | None = None) -> SafeConnection:
        conf = self._syncObj.conf
        return SafeConnection(
            self._syncObj._poller, self.wire, self._syncObj.encryptor, conf.connectionTimeout, sock
        )

    def _onSocket(self, sock: socket.socket) -> None:
        if len(self._unknownConnections) >= PENDING_MAX:
            self.wire.pending_refused += 1
            sock.close()
            return
        self._onNewIncomingConnection(self._connection(sock))

    def addNode(self, node: TCPNode) -> None:
        """Adds a peer; the manager with the larger address calls the other."""
        self._nodes.add(node)
        self._nodeAddrToNode[node.address] = node
        if self._shouldConnect(node):
            conn = self._connection()
            conn.setOnConnectedCallback(partial(self._onOutgoingConnected, conn))
            conn.setOnDisconnectedCallback(partial(self._onDisconnected, conn))
            self._connections[node] = conn

    def _onIncomingMessageReceived(self, conn: SafeConnection, message: Any) -> None:
        """Handshake of a caller: its key, then its address. Administration and onlookers go."""
        if not conn.sendRandKey:
            if not isinstance(message, bytes) or len(message) != 32:
                self._refuse(conn)
                return
            conn.sendRandKey = message
            conn.recvRandKey = os.urandom(32)
            conn.send(conn.recvRandKey)
            return
        node = self._nodeAddrToNode.get(message) if isinstance(message, str) else None
        if node is None or self._shouldConnect(node):  # a stranger, or one that we call ourselves
            self._refuse(conn)
            return
        self._unknownConnections.discard(conn)
        old = self._connections.get(node)
        self._connections[node] = conn
        if old is not None and old.state != CONNECTION_STATE.DISCONNECTED:
            old.disconnect()
            self._onNodeDisconnected(node)
        conn.setOnMessageReceivedCallback(partial(self._onMessageReceived, node))
        conn.established = True
        self._onNodeConnected(node)

    def _onOutgoingMessageReceived(self, conn: SafeConnection, message: Any) -> None:
        """The answer to our key: the other's key. Then we say who we are."""
        node = self._connToNode(conn)
        if node is None or not isinstance(message, bytes) or len(message) != 32:
            self._refuse(conn)
            return
        conn.sendRandKey = message
        self._sendSelfAddress(conn)
        conn.setOnMessageReceivedCallback(partial(self._onMessageReceived, node))
        conn.established = True
        self._onNodeConnected(node)

    def _refuse(self, conn: SafeConnection) -> None:
        self.counters.refused_peers += 1
        conn.disconnect()
        self._unknownConnections.discard(conn)

    def _onUtilityMessage(self, conn: Any, message: Any) -> Any:
        self._refuse(conn)
        return True

    def _onNodeDisconnected(self, node: Any) -> None:
        self._incoming.pop(node.id, None)
        super()._onNodeDisconnected(node)
