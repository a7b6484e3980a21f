"""Three managers: they elect, agree, survive kills and start again with everything acknowledged."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.support.raft_group import CallFailed, ManagerProcess, RaftGroup, put_schema, until

pytestmark = pytest.mark.integration


async def test_every_manager_can_propose_and_all_come_to_the_same_state(tmp_path: Path) -> None:
    """A command through a follower is forwarded; its answer means: applied on that follower."""
    async with RaftGroup(tmp_path) as group:
        for node in group.peers:
            version = await group[node].call(
                "propose", op="PutSchema", args=put_schema(node), timeout=10.0
            )
            seen = await group[node].call("state")

            assert version == 1
            assert node in seen["schemas"]

        state = await group.states_agree()

    assert set(state["schemas"]) == {"n0", "n1", "n2"}


async def test_acknowledged_commands_survive_the_kill_of_the_leader_and_of_all(
    tmp_path: Path,
) -> None:
    """kill -9 of the leader, then of all three at once; what was acknowledged is on every node."""
    async with RaftGroup(tmp_path) as group:
        await group.propose("PutSchema", put_schema("before"))
        leader = await group.leader()

        await leader.kill()
        await group.propose("PutSchema", put_schema("without"))
        await leader.start()
        await group.propose("PutSchema", put_schema("again"))
        for manager in group.running:
            manager.signal(signal.SIGKILL)
        for manager in group.managers.values():
            await manager.exit_code()
            await manager.start()
        await group.propose("PutSchema", put_schema("after"))
        state = await group.states_agree()

    assert set(state["schemas"]) == {"before", "without", "again", "after"}


async def test_a_lagging_manager_is_brought_up_by_a_snapshot(tmp_path: Path) -> None:
    """A manager that was away while the others compacted gets the dump, whole and verified."""
    async with RaftGroup(tmp_path, compaction_entries=20) as group:
        await group.propose("PutSchema", put_schema("first"))
        await group["n2"].kill()
        for number in range(60):
            await group.propose("PutSchema", put_schema(f"s{number}"))
        lengths = [(await m.call("status"))["log_length"] for m in group.running]
        await group["n2"].start()
        state = await group.states_agree()
        status = await group["n2"].call("status")
        await group["n2"].kill()
        await group["n2"].start()
        again = await group.states_agree()

    assert max(lengths) < 60
    assert len(state["schemas"]) == 61
    assert again == state
    assert status["snapshots_installed"] == 1


async def test_a_paused_leader_is_replaced_and_follows_when_it_wakes(tmp_path: Path) -> None:
    """SIGSTOP of the leader for 2.5 s: the others elect; the woken one does not end itself."""
    async with RaftGroup(tmp_path) as group:
        await group.propose("PutSchema", put_schema("first"))
        leader = await group.leader()
        others = [m for m in group.running if m is not leader]

        leader.signal(signal.SIGSTOP)
        version = await others[0].call(
            "propose", op="PutSchema", args=put_schema("second"), timeout=10.0
        )
        await asyncio.sleep(2.5)
        leader.signal(signal.SIGCONT)
        state = await group.states_agree()
        status = await leader.call("status")

    assert version == 1
    assert set(state["schemas"]) == {"first", "second"}
    assert status["role"] in ("follower", "leader")
    assert leader.stderr == b""


async def test_an_orderly_stop_hands_leadership_on(tmp_path: Path) -> None:
    """A stopped leader transfers; the group needs no time-out to find another."""
    async with RaftGroup(tmp_path) as group:
        await group.propose("PutSchema", put_schema("first"))
        leader = await group.leader()

        async def caught_up() -> bool:
            seen = [(await m.call("status"))["applied"] for m in group.running]
            return len(set(seen)) == 1

        await until(caught_up)
        code = await leader.stop()
        await group.propose("PutSchema", put_schema("second"))
        await leader.start()
        state = await group.states_agree()

    assert code == 0
    assert set(state["schemas"]) == {"first", "second"}


async def test_a_single_manager_is_a_whole_group(tmp_path: Path) -> None:
    """N=1: commits alone, and a restart finds what was committed."""
    async with RaftGroup(tmp_path, size=1) as group:
        assert await group.propose("PutSchema", put_schema("only")) == 1
        await group["n0"].kill()
        await group["n0"].start()
        state = await group["n0"].call("barrier", timeout=10.0)

    assert state["schemas"] == {"only": 1}


@pytest.mark.parametrize(("change", "code"), [("cluster_id", 77), ("wiped", 77), ("journal", 76)])
async def test_a_directory_that_is_not_its_own_refuses_the_start(
    tmp_path: Path, change: str, code: int
) -> None:
    """Another cluster's id, a wiped disk, or a lost journal: a voter without memory must not vote."""
    async with RaftGroup(tmp_path, size=1) as group:
        await group.propose("PutSchema", put_schema("x"))
        manager = group["n0"]
        await manager.kill()
        directory = tmp_path / "n0"
        if change == "cluster_id":
            manager.settings = {"cluster_id": "other"}
        else:
            keep = "manager.json" if change == "journal" else ""
            for path in directory.iterdir():
                if path.name != keep:
                    path.unlink()
        await manager.start()

        assert await manager.exit_code() == code


async def test_a_second_process_on_the_same_directory_refuses_the_start(tmp_path: Path) -> None:
    """The lock is held by the living one, which is not disturbed."""
    async with RaftGroup(tmp_path, size=1) as group:
        await group.propose("PutSchema", put_schema("x"))
        second = ManagerProcess(group, "n0")
        await second.start()
        code = await second.exit_code()
        await group.propose("PutSchema", put_schema("y"))

    assert code == 77


async def test_a_refused_command_names_its_reason(tmp_path: Path) -> None:
    """Compare-and-set that does not hold is an answer, not a failure."""
    async with RaftGroup(tmp_path, size=1) as group:
        await group.propose("PutSchema", put_schema("x"))

        with pytest.raises(CallFailed) as caught:
            await group.propose("PutSchema", put_schema("x", 7))

    assert (caught.value.code, caught.value.reason) == ("COMMAND_REFUSED", "MISMATCH")
