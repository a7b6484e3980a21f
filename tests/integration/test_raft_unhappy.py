"""T4, T6, T7 of the control plane: poison, failing disks, unknown outcomes. Real processes."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.state import encode_command
from records.envelope import packb
from tests.support.raft_group import CallFailed, RaftGroup, put_schema, until

pytestmark = pytest.mark.integration


# -- T4 --------------------------------------------------------------------------------------------


async def test_poison_commands_and_raising_callbacks_stop_nobody(tmp_path: Path) -> None:
    """T4, C1, C2: commands that cannot be applied, and every callback raising on one manager.

    PySyncObj alone would apply the first one for ever, on all managers, also after a restart.
    """
    poison = [
        b"",
        b"garbage",
        packb({"lv": 1, "op": "Noop", "rid": ["x", 1], "args": {}}),
        encode_command("PutSchema", {"name": 1, "expected_version": []}, ("x", 1, 1), level=1),
        encode_command("Assign", {"assignments": [[0, "n0", 0]] * 99}, ("x", 1, 2), level=1),
        encode_command("Noop", {}, ("x", 1, 3), level=9),
        b"\xc1" * 30_000,
    ]
    async with RaftGroup(tmp_path, compaction_entries=20) as group:
        await group["n1"].stop()
        group["n1"].extra = {"raising_callbacks": True}
        await group["n1"].start()
        leader = await group.leader()
        results = [await leader.call("raw", hexed=command.hex()) for command in poison]
        for number in range(30):
            node = ("n0", "n1", "n2")[number % 3]
            await group[node].call(
                "propose", op="PutSchema", args=put_schema(f"s{number}"), timeout=10.0
            )
        state = await group.states_agree()
        status = await group["n1"].call("status")
        for manager in group.running:
            await manager.kill()
            manager.extra = {}
            await manager.start()
        await group.propose("PutSchema", put_schema("after"))
        again = await group.states_agree()

    assert [(result[0], reason) for result, reason in results] == [("err", 0)] * len(poison)
    assert len(state["schemas"]) == 30
    assert status["callback_errors"] > 30
    assert set(again["schemas"]) == {*state["schemas"], "after"}


# -- T6 --------------------------------------------------------------------------------------------


async def proposals_go_on(group: RaftGroup, prefix: str, count: int = 5) -> None:
    """The others carry on."""
    for number in range(count):
        await group.propose("PutSchema", put_schema(f"{prefix}{number}"))


async def drive_until_it_ends(group: RaftGroup, node: str, prefix: str) -> int:
    """Proposes through another manager until `node` has ended; its exit code."""
    other = next(m for m in group.running if m.node != node)
    for number in range(400):
        if not group[node].running:
            break
        with contextlib.suppress(CallFailed):  # while another is elected
            await other.call(
                "propose", op="PutSchema", args=put_schema(f"{prefix}{number}"), timeout=5.0
            )
    return await group[node].exit_code()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own."""
    mount = tmp_path / "small"
    mount.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root and mount(8); the same path is covered with an injected error")
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here; see the injected error")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


async def test_a_full_disk_ends_the_manager_and_it_rejoins_once_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    """T6, E: exit 70, one line; the others carry on; after freeing the manager catches up."""
    async with RaftGroup(tmp_path) as group:
        await group["n1"].stop()
        shutil.copytree(tmp_path / "n1", small_disk / "raft")
        group["n1"].settings = {"directory": str(small_disk / "raft")}
        await group["n1"].start()
        await proposals_go_on(group, "before")
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            block = bytes(4096)
            try:
                while True:
                    file.write(block)
            except OSError:
                pass

        code = await drive_until_it_ends(group, "n1", "full")
        await proposals_go_on(group, "after")
        filler.unlink()
        await group["n1"].start()
        state = await group.states_agree()
        await group["n1"].kill()

    assert code == 70
    assert b"consensus stopped (70)" in group["n1"].stderr
    assert {"before0", "full0", "after4"} <= set(state["schemas"])


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_an_io_error_under_the_journal_ends_the_manager_at_once(
    tmp_path: Path, role: str
) -> None:
    """T6, E: EIO at COMMIT. The error is never retried and nothing is promised after it."""
    switches = {node: tmp_path / f"{node}.eio" for node in ("n0", "n1", "n2")}
    group = RaftGroup(tmp_path)
    for node, manager in group.managers.items():
        manager.extra = {"eio_switch": str(switches[node])}
    async with group:
        await proposals_go_on(group, "before")
        leader = await group.leader()
        victim = next(m for m in group.running if (m is leader) == (role == "leader"))

        switches[victim.node].touch()
        code = await drive_until_it_ends(group, victim.node, "during")
        await proposals_go_on(group, "after")
        switches[victim.node].unlink()
        await victim.start()
        state = await group.states_agree()

    assert code == 70
    assert b"disk I/O error" in victim.stderr
    assert {"before4", "after4"} <= set(state["schemas"])


# -- T7 --------------------------------------------------------------------------------------------


async def test_without_a_majority_proposals_are_refused_in_time_and_reads_go_on(
    tmp_path: Path,
) -> None:
    """T7: 2 of 3 down. Each call ends by its deadline with a definite or an unknown outcome."""
    async with RaftGroup(tmp_path) as group:
        await group.propose("PutSchema", put_schema("before"))
        await group.states_agree()
        alone = group["n0"]
        await group["n1"].kill()
        await group["n2"].kill()

        outcomes = []
        started = time.monotonic()
        for number in range(3):
            with pytest.raises(CallFailed) as caught:
                await alone.call(
                    "propose", op="PutSchema", args=put_schema(f"lost{number}"), timeout=1.0
                )
            outcomes.append(caught.value.code)
        took = time.monotonic() - started
        state = await alone.call("state")
        status = await alone.call("status")

    assert set(outcomes) <= {"NOT_COMMITTED", "OUTCOME_UNKNOWN"}
    assert outcomes[-1] == "NOT_COMMITTED"  # it knows by then that there is no leader
    assert took < 10
    assert state["schemas"] == {"before": 1}
    assert status["role"] != "leader"


async def test_a_proposal_held_over_an_outage_is_applied_once(tmp_path: Path) -> None:
    """T7: no majority for a while, the proposal is repeated under one id, then the group heals.

    PutSchema with version 0 would be refused the second time, if it were applied twice.
    """
    async with RaftGroup(tmp_path) as group:
        await group.propose("PutSchema", put_schema("before"))
        leader = await group.leader()
        others = [m for m in group.running if m is not leader]
        for manager in others:
            manager.signal(signal.SIGSTOP)

        proposal = asyncio.create_task(
            leader.call("propose", op="PutSchema", args=put_schema("held"), timeout=15.0)
        )
        await asyncio.sleep(2.0)
        for manager in others:
            manager.signal(signal.SIGCONT)
        version = await proposal
        status = await leader.call("status")
        state = await group.states_agree()

    assert version == 1
    assert status["proposal_retries"] > 0
    assert state["schemas"]["held"] == 1


async def test_a_timed_out_command_may_be_committed_later_and_once(tmp_path: Path) -> None:
    """T7: unknown is an outcome. What the caller gave up on is there after the heal, or is not."""
    async with RaftGroup(tmp_path) as group:
        await group.propose("PutSchema", put_schema("before"))
        leader = await group.leader()
        others = [m for m in group.running if m is not leader]
        for manager in others:
            manager.signal(signal.SIGSTOP)
        with pytest.raises(CallFailed) as caught:
            await leader.call("propose", op="PutSchema", args=put_schema("late"), timeout=0.6)
        for manager in others:
            manager.signal(signal.SIGCONT)

        async def healed() -> bool:
            try:
                await leader.call("barrier", timeout=2.0)
            except CallFailed:
                return False
            return True

        await until(healed, 20)
        state = await group.states_agree()

    assert caught.value.code == "OUTCOME_UNKNOWN"
    assert state["schemas"].get("late", 1) == 1


# -- sizes -----------------------------------------------------------------------------------------


async def test_the_largest_commands_pass_through_every_manager(tmp_path: Path) -> None:
    """T11, P: 32 KiB of 0xff, doubled by pickle, many in one batch to a manager that was away."""
    async with RaftGroup(tmp_path) as group:
        await group.propose("PutSchema", put_schema("first"))
        await group["n2"].kill()
        for number in range(12):
            node = group.running[number % 2]
            assert await node.call("big", name=f"b{number}", size=32 * 1024 - 120) == 1
        await group["n2"].start()
        state = await group.states_agree()
        statuses = [await m.call("status") for m in group.running]

    assert len(state["schemas"]) == 13
    assert sum(s["oversized_frames"] + s["refused_messages"] for s in statuses) == 0
    assert sum(s["overflowed_connections"] for s in statuses) == 0
