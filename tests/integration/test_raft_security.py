"""T8: what reaches the Raft port from strangers, from a wrong key, and from a hostile key holder."""

import asyncio
import contextlib
import os
import pickle
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pysyncobj.pickle
import pytest
from pysyncobj.encryptor import getEncryptor

from cluster.consensus_unpickler import safe_loads
from tests.support.raft_group import RaftGroup, put_schema

pytestmark = pytest.mark.integration


class Exploit:
    """Runs a command wherever it is unpickled by pickle itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


class Caller:
    """A blocking client of the Raft port that speaks, or misuses, PySyncObj's wire format."""

    def __init__(self, address: str, secret: bytes | None) -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=5)
        self._key = None if secret is None else getEncryptor(secret)
        self._theirs: bytes | None = None

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def raw(self, data: bytes) -> None:
        """A frame around any bytes."""
        self.socket.sendall(struct.pack("i", len(data)) + data)

    def send(self, message: Any, *, plain: bytes | None = None) -> None:
        """One message under the key, in this connection's name."""
        if self._theirs is not None:
            message = (self._theirs, message)
        data = zlib.compress(pysyncobj.pickle.dumps(message) if plain is None else plain)
        if self._key is not None:
            data = self._key.encrypt_at_time(data, int(time.monotonic()))
        self.raw(data)

    def receive(self) -> Any:
        """The next message; raises EOFError when the other side hangs up."""
        assert self._key is not None
        (length,) = struct.unpack("i", self._exactly(4))
        message = safe_loads(zlib.decompress(self._key.decrypt(self._exactly(length))))
        return message if self._theirs is None else message[1]

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def shake_hands(self, address: str | None = None) -> None:
        """Exchanges keys, and says to be the manager at `address`."""
        self.send(b"k" * 32)
        (length,) = struct.unpack("i", self._exactly(4))
        assert self._key is not None
        message = safe_loads(zlib.decompress(self._key.decrypt(self._exactly(length))))
        assert message[0] == b"k" * 32
        self._theirs = message[1]
        if address is not None:
            self.send(address)

    def hung_up(self) -> bool:
        """Whether the other side closes without a word within the time-out."""
        with contextlib.suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True


def resident_bytes(pid: int) -> int:
    """VmRSS."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def flood(caller: Caller, header: bytes, mebibytes: int) -> int:
    """Sends a header and then as much as is taken; how many bytes that was."""
    sent = 0
    block = bytes(1 << 20)
    try:
        caller.socket.sendall(header)
        for _ in range(mebibytes):
            caller.socket.sendall(block)
            sent += len(block)
    except OSError:
        pass
    return sent


async def test_strangers_get_nothing_and_break_nothing(tmp_path: Path) -> None:
    """The exploit, junk, a wrong key, over-long frames, idle connections: all without the key."""
    async with RaftGroup(tmp_path, size=1) as group:
        await group.propose("PutSchema", put_schema("before"))
        address = group.peers["n0"]
        manager = group["n0"]
        assert manager.process is not None
        before = resident_bytes(manager.process.pid)

        payload = pickle.dumps(Exploit(tmp_path / "pwned"), 2)
        with Caller(address, None) as caller:
            caller.send(None, plain=payload)
            assert caller.hung_up()
        with Caller(address, b"w" * 32) as caller:
            caller.send(None, plain=payload)
            assert caller.hung_up()
        for junk in (b"", b"\0" * 100, b"x" * 1024, os.urandom(500)):
            with Caller(address, None) as caller:
                caller.raw(junk)
                assert caller.hung_up()
        taken = []
        for length in (60 << 20, 1025, -1, -(1 << 31)):
            with Caller(address, None) as caller:
                taken.append(flood(caller, struct.pack("i", length), 60))
                assert caller.hung_up()
        growth = resident_bytes(manager.process.pid) - before
        await group.propose("PutSchema", put_schema("after"))
        status = await manager.call("status")

    assert not (tmp_path / "pwned").exists()
    assert max(taken) < 20 << 20  # socket buffers, not ours
    assert growth < 8 << 20
    assert status["oversized_frames"] >= 4
    assert status["bad_frames"] >= 4
    assert status["foreign_globals"] == 0  # nothing was even unpickled


async def test_idle_strangers_are_bounded_and_leave(tmp_path: Path) -> None:
    """Connections that never say who they are: 32 at most, and not for long."""
    async with RaftGroup(tmp_path, size=1) as group:
        await group.propose("PutSchema", put_schema("before"))
        callers = [Caller(group.peers["n0"], None) for _ in range(60)]
        await group.propose("PutSchema", put_schema("after"))
        gone = [caller.hung_up() for caller in callers]
        status = await group["n0"].call("status")
        for caller in callers:
            caller.socket.close()

    assert all(gone)
    assert status["pending_refused"] >= 20


async def test_a_key_holder_cannot_administer_look_on_or_run_code(tmp_path: Path) -> None:
    """Utility messages, `readonly`, strangers' names, the exploit and a zip bomb, with the key."""
    async with RaftGroup(tmp_path, size=1) as group:
        await group.propose("PutSchema", put_schema("before"))
        secret = group.secret_file.read_bytes()
        address = group.peers["n0"]
        manager = group["n0"]
        assert manager.process is not None
        pid = manager.process.pid
        term = (await manager.call("status"))["term"]
        before = resident_bytes(pid)

        hellos = [
            ["status"],
            ["add", "127.0.0.1:1"],
            ["remove", address],
            ["set_version", 1],
            ["transfer"],
            "readonly",
            "127.0.0.1:1",
            {"type": "append_entries"},
            [[]],
            None,
        ]
        for hello in hellos:
            with Caller(address, secret) as caller:
                caller.shake_hands()
                caller.send(hello)
                assert caller.hung_up(), hello
        with Caller(address, secret) as caller:
            caller.send(None, plain=pickle.dumps(Exploit(tmp_path / "pwned"), 2))
            assert caller.hung_up()
        with Caller(address, secret) as caller:
            caller.shake_hands()
            caller.send(None, plain=bytes(200 << 20))  # 200 KiB on the wire
            assert caller.hung_up()
        growth = resident_bytes(pid) - before
        await group.propose("PutSchema", put_schema("after"))
        status = await manager.call("status")

    assert not (tmp_path / "pwned").exists()
    assert growth < 16 << 20
    assert (status["term"], status["role"]) == (term, "leader")
    assert status["refused_peers"] == len(hellos)
    assert status["foreign_globals"] == 1


async def test_a_replayed_connection_is_refused(tmp_path: Path) -> None:
    """Frames recorded from one connection mean nothing on another: the keys are fresh."""
    async with RaftGroup(tmp_path, size=1) as group:
        await group.propose("PutSchema", put_schema("before"))
        secret = group.secret_file.read_bytes()
        with Caller(group.peers["n0"], secret) as first:
            first.shake_hands()
            stolen = first._theirs
        with Caller(group.peers["n0"], secret) as second:
            second.shake_hands()
            second._theirs = stolen
            second.send("readonly")
            hung_up = second.hung_up()
        status = await group["n0"].call("status")

    assert hung_up
    assert (status["bad_frames"], status["refused_peers"]) == (1, 0)


async def test_a_forged_membership_command_changes_no_group(tmp_path: Path) -> None:
    """K: a peer with the key and a manager's name forwards MEMBERSHIP, VERSION and poison."""
    async with RaftGroup(tmp_path) as group:
        await group.propose("PutSchema", put_schema("before"))
        calling = max(group.peers, key=lambda node: group.peers[node])  # the larger address calls
        await group[calling].kill()
        await group.propose("PutSchema", put_schema("without"))
        leader = await group.leader()
        length = (await leader.call("status"))["log_length"]
        forged = [
            b"\2" + pickle.dumps(["add", "127.0.0.1:1", None], 2),
            b"\2" + pickle.dumps(["rem", group.peers[leader.node], None], 2),
            b"\3" + pickle.dumps(1, 2),
            b"\0" + pickle.dumps(Exploit(tmp_path / "pwned"), 2),
            b"\0" + pickle.dumps((1, (b"x",)), 2),
            b"\0garbage",
        ]

        with Caller(group.peers[leader.node], group.secret_file.read_bytes()) as caller:
            caller.shake_hands(group.peers[calling])
            for command in forged:
                caller.send({"type": "apply_command", "command": command, "request_id": 1})
            caller.send({"type": "keepalive"})
            await asyncio.sleep(0.3)
            status = await leader.call("status")
        await group.propose("PutSchema", put_schema("after"))
        await group[calling].start()
        state = await group.states_agree()

    assert status["log_length"] == length
    assert status["refused_messages"] == len(forged)
    assert not (tmp_path / "pwned").exists()
    assert set(state["schemas"]) == {"before", "without", "after"}


async def test_a_manager_with_another_key_never_joins(tmp_path: Path) -> None:
    """It neither votes nor reads; the two others go on."""
    async with RaftGroup(tmp_path) as group:
        await group.propose("PutSchema", put_schema("before"))
        await group["n2"].stop()
        good = group.secret_file
        group.secret_file = tmp_path / "other"
        group.secret_file.write_bytes(bytes(32))
        group.secret_file.chmod(0o600)
        await group["n2"].start()
        group.secret_file = good
        await group.propose("PutSchema", put_schema("after"))
        await asyncio.sleep(1.0)
        state = await group["n2"].call("state")
        statuses = [await m.call("status") for m in group.running]

    assert "after" not in state["schemas"]
    assert statuses[2]["connected"] == 0
    assert sum(s["bad_frames"] + s["oversized_frames"] for s in statuses) > 0


async def test_optimised_python_is_refused(tmp_path: Path) -> None:
    """-O removes the assertions that guard PySyncObj's encrypted channel."""
    group = RaftGroup(tmp_path, size=1)
    await group["n0"].start(flags=("-O",), bootstrap=True)
    code = await group["n0"].exit_code()

    assert code == 78
    assert b"never run with -O" in group["n0"].stderr
