"""One manager in a process of its own, driven by JSON lines on stdin; see raft_group.

Faults are switched on by the configuration, or by the existence of a file while it runs.
"""

import asyncio
import json
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cluster import consensus_journal, consensus_raft
from cluster.consensus import ConsensusSettings, StartRefused
from cluster.consensus_pysyncobj import PySyncObjConsensus
from cluster.consensus_start import load_secret
from cluster.lease_keeper import FoundingSettings, LeaseKeeper, LeaseRules
from records.errors import QuorumlogError
from runtime.clock import SystemClock


class FailingConnection:
    """A database whose COMMIT fails with an I/O error while a file exists."""

    def __init__(self, inner: Any, switch: Path) -> None:
        self._inner = inner
        self._switch = switch

    def execute(self, sql: str, *args: Any) -> Any:
        if sql == "COMMIT" and self._switch.exists():
            raise sqlite3.OperationalError("disk I/O error")
        return self._inner.execute(sql, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _raise(*_: object, **__: object) -> None:
    raise ValueError("injected")


def print_error(event: str, **fields: Any) -> None:
    print(event, fields, file=sys.stderr)


def _inject_callbacks(consensus: PySyncObjConsensus) -> None:
    """Every callback that PySyncObj calls raises, each in its own way."""
    consensus._meta._on_applied = _raise
    consensus_raft.log = SimpleNamespace(info=_raise, error=print_error)  # pyright: ignore
    assert consensus._node is not None
    consensus._node.addOnTickCallback(_raise)


class Manager:
    def __init__(self, config: dict[str, Any]) -> None:
        settings = dict(config["settings"])
        settings["directory"] = Path(settings["directory"])
        settings["secret"] = load_secret(Path(config["secret_file"]))
        self.config = config
        self.consensus = PySyncObjConsensus(ConsensusSettings(**settings), SystemClock())
        self.keeper: LeaseKeeper | None = None

    async def run(self) -> None:
        if switch := self.config.get("eio_switch"):
            connect = consensus_journal._connect
            consensus_journal._connect = lambda path: FailingConnection(connect(path), Path(switch))
        await self.consensus.start()
        if self.config.get("raising_callbacks"):
            _inject_callbacks(self.consensus)
        tasks = [asyncio.create_task(self._keep())] if "founding" in self.config else []
        self.say({"started": self.config["settings"]["node_id"]})
        reader = asyncio.StreamReader(limit=1 << 24)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            request = json.loads(line)
            if request["call"] == "stop":
                break
            tasks.append(asyncio.create_task(self.answer(request)))
        for task in tasks:
            task.cancel()
        await self.consensus.stop()

    async def _keep(self) -> None:
        founding = dict(self.config["founding"])
        founding["storage"] = frozenset(founding["storage"])
        me = self.config["settings"]["node_id"]
        self.keeper = LeaseKeeper(
            me,
            self.consensus,
            SystemClock(),
            FoundingSettings(**founding),
            rules=LeaseRules(ttl=2.0, initial_wait=8.0),  # heartbeats come from the test
            expected_ingestors=frozenset(self.config["settings"]["peers"]),
        )
        await self.keeper.run()

    def say(self, message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    async def answer(self, request: dict[str, Any]) -> None:
        try:
            value = await getattr(self, "do_" + request["call"])(**request["args"])
            self.say({"id": request["id"], "value": value})
        except (QuorumlogError, TimeoutError) as error:
            code = getattr(error, "code", "TIMEOUT")
            reason = getattr(error, "reason", "")
            self.say({"id": request["id"], "error": code, "reason": reason})

    async def do_propose(self, op: str, args: dict[str, Any], timeout: float = 2.0) -> Any:
        return await self.consensus.propose(op, args, timeout)

    async def do_big(self, name: str, size: int) -> Any:
        body = b"\xff" * size
        args = {"name": name, "expected_version": 0, "body": body}
        return await self.consensus.propose("PutSchema", args, 5.0)

    async def do_raw(self, hexed: str) -> Any:
        """Puts any bytes into the log, as a proposer with a bug would."""
        until = asyncio.get_running_loop().time() + 3.0
        result, reason = await self.consensus._proposer.attempt(bytes.fromhex(hexed), until)
        return [result, reason]

    async def do_barrier(self, timeout: float = 2.0) -> dict[str, Any]:
        await self.consensus.barrier(timeout)
        return await self.do_state()

    async def do_state(self) -> dict[str, Any]:
        state = self.consensus.snapshot()
        return {
            "applied_index": state.applied_index,
            "history": state.history.hex(),
            "schemas": {name: row.version for name, row in state.schemas.items()},
            "leaders": {str(s): [row.node, row.epoch] for s, row in state.leaders.items()},
            "ring_epoch": state.ring_epoch,
            "members": sorted(state.members),
        }

    async def do_status(self) -> dict[str, Any]:
        return self.consensus.status()

    async def do_keeper(self) -> dict[str, Any]:
        return {} if self.keeper is None else self.keeper.status()

    async def do_heartbeat(self, node: str, incarnation: int) -> None:
        if self.keeper is not None:
            self.keeper.on_heartbeat(node, incarnation, 0, b"", 0)

    async def do_compact(self) -> None:
        assert self.consensus._node is not None
        self.consensus._node.forceLogCompaction()


def main() -> int:
    try:
        asyncio.run(Manager(json.loads(sys.argv[1])).run())
    except StartRefused as error:
        print(f"refused ({error.exit_code}): {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
