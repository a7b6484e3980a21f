"""The adapter: outcomes, retries under one id, watching, and an end that leaves nothing behind.

Managers run in this process on loopback, each with its own Raft thread.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pysyncobj import FAIL_REASON

from cluster.consensus import (
    CommandRefused,
    Consensus,
    ConsensusSettings,
    NotCommitted,
    OutcomeUnknown,
    StartRefused,
)
from cluster.consensus_proposals import IN_FLIGHT_MAX
from cluster.consensus_pysyncobj import PySyncObjConsensus
from cluster.state import ClusterState
from records.errors import InvalidRequest
from runtime.clock import SystemClock
from tests.support.raft_group import free_ports, put_schema

FAST = {
    "append_period_seconds": 0.02,
    "election_min_seconds": 0.08,
    "election_max_seconds": 0.16,
    "leader_fallback_seconds": 0.06,
    "tick_seconds": 0.01,
}

#: For three in one process: with FAST they elect one another for ever where the machine has no time for them.
STEADY = {"time_scale": 3.0}


def managers(root: Path, size: int, **settings: Any) -> list[PySyncObjConsensus]:
    peers = {f"n{i}": f"127.0.0.1:{port}" for i, port in enumerate(free_ports(size))}
    return [
        PySyncObjConsensus(
            ConsensusSettings(
                node, "c", address, peers, root / node, bytes(32), bootstrap=True, **settings
            ),
            SystemClock(),
        )
        for node, address in peers.items()
    ]


@contextlib.asynccontextmanager
async def running(made: list[PySyncObjConsensus]) -> AsyncIterator[list[PySyncObjConsensus]]:
    async with contextlib.AsyncExitStack() as stack:
        for one in made:
            await stack.enter_async_context(one)
        yield made


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[PySyncObjConsensus]:
    async with running(managers(tmp_path, 1, **FAST)) as made:
        await made[0].barrier(10.0)
        yield made[0]


async def test_it_is_the_port(alone: PySyncObjConsensus) -> None:
    """Structurally, as the rest of the cluster sees it."""
    assert isinstance(alone, Consensus)
    assert alone.is_leader_hint()
    assert alone.leader_hint() == "n0"
    assert alone.status()["role"] == "leader"
    assert alone.predecessor() is None


async def test_a_value_a_refusal_and_a_bad_request(alone: PySyncObjConsensus) -> None:
    """The three definite answers."""
    assert await alone.propose("PutSchema", put_schema("s")) == 1
    with pytest.raises(CommandRefused) as refused:
        await alone.propose("PutSchema", put_schema("s", 9))
    with pytest.raises(CommandRefused) as large:
        await alone.propose("PutSchema", {**put_schema("t"), "body": "x" * 40_000})

    assert refused.value.reason == "MISMATCH"
    assert refused.value.definite
    assert large.value.reason == "TOO_LARGE"
    for op, args in (("Nonsense", {}), ("SetFeatureLevel", {"level": 2})):
        with pytest.raises(InvalidRequest):  # would make every manager stop, or bind it
            await alone.propose(op, args)


async def test_a_full_notify_pipe_is_not_a_failure(
    alone: PySyncObjConsensus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T7, N: the error comes after the command was queued; it is committed, and answered."""
    assert alone._node is not None
    pipe = alone._node._SyncObj__pipeNotifier  # pyright: ignore[reportAttributeAccessIssue]

    def full() -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(pipe, "notify", full)

    assert await alone.propose("PutSchema", put_schema("s"), 5.0) == 1
    assert alone.status()["full_pipes"] == 1


@pytest.mark.parametrize(
    ("reasons", "error"),
    [
        ([FAIL_REASON.MISSING_LEADER], NotCommitted),
        ([FAIL_REASON.QUEUE_FULL], NotCommitted),
        ([FAIL_REASON.DISCARDED], NotCommitted),
        ([FAIL_REASON.LEADER_CHANGED], OutcomeUnknown),
        ([FAIL_REASON.UNKNOWN_OUTCOME], OutcomeUnknown),
        ([None], OutcomeUnknown),
        ([FAIL_REASON.LEADER_CHANGED, FAIL_REASON.MISSING_LEADER], OutcomeUnknown),
    ],
)
async def test_the_outcome_table(
    alone: PySyncObjConsensus,
    monkeypatch: pytest.MonkeyPatch,
    reasons: list[int | None],
    error: type[Exception],
) -> None:
    """Once unknown, always unknown: a later definite failure says nothing about the first try."""
    commands = []

    async def attempt(command: bytes, until: float) -> tuple[Any, int | None]:
        commands.append(command)
        return None, reasons[min(len(commands), len(reasons)) - 1]

    monkeypatch.setattr(alone._proposer, "attempt", attempt)

    with pytest.raises(error):
        await alone.propose("Noop", {}, 0.2)

    assert len(commands) > 1
    assert len(set(commands)) == 1  # the same request id each time


async def test_an_unknown_outcome_is_repeated_under_the_same_id_and_applied_once(
    alone: PySyncObjConsensus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt is committed and its answer lost; the second one gets the stored answer."""
    original = alone._proposer.attempt
    lost = []

    async def attempt(command: bytes, until: float) -> tuple[Any, int | None]:
        answer = await original(command, until)
        if lost:
            return answer
        lost.append(answer)
        return None, FAIL_REASON.UNKNOWN_OUTCOME

    monkeypatch.setattr(alone._proposer, "attempt", attempt)

    assert await alone.propose("PutSchema", put_schema("s"), 5.0) == 1
    assert lost == [(["ok", 1], FAIL_REASON.SUCCESS)]
    assert alone.snapshot().schemas["s"].version == 1


async def test_more_than_the_limit_in_flight_wait_and_then_are_refused(
    alone: PySyncObjConsensus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state remembers 1,024 results; a quarter of that may be in flight."""
    waiting = asyncio.Event()

    async def attempt(command: bytes, until: float) -> tuple[Any, int | None]:
        await waiting.wait()
        return ["ok", None], FAIL_REASON.SUCCESS

    monkeypatch.setattr(alone._proposer, "attempt", attempt)
    tasks = [asyncio.create_task(alone.propose("Noop", {}, 5.0)) for _ in range(IN_FLIGHT_MAX)]
    await asyncio.sleep(0)

    with pytest.raises(NotCommitted, match="in flight"):
        await alone.propose("Noop", {}, 0.05)
    waiting.set()
    await asyncio.gather(*tasks)


async def test_watchers_see_newer_snapshots_and_end_with_the_node(tmp_path: Path) -> None:
    """A slow watcher skips; nobody steps back."""
    made = managers(tmp_path, 1, **FAST)
    seen: list[int] = []

    async def look() -> None:
        async for state in made[0].watch():
            seen.append(state.applied_index)

    async with running(made):
        task = asyncio.create_task(look())
        for number in range(20):
            await made[0].propose("PutSchema", put_schema(f"s{number}"), 10.0)
        last = made[0].snapshot().applied_index
        await asyncio.sleep(0.05)
    await asyncio.wait_for(task, 5.0)

    assert seen[0] == 0
    assert seen[-1] == last
    assert seen == sorted(set(seen))


async def test_a_forward_that_is_lost_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T7, O: a follower forgets a forwarded command whose sending failed; its callback never comes.

    Where the follower is elected meanwhile it forwards nothing more, and another one is asked.
    """
    async with running(managers(tmp_path, 3, **STEADY, attempt_seconds=0.1)) as made:
        await made[0].barrier(30.0)
        dropped: list[Any] = []
        for one in made:
            drop_two_forwards(one, dropped, monkeypatch)

        versions = []
        while len(dropped) < 2:
            follower = next(one for one in made if not one.is_leader_hint())
            name = f"s{len(versions)}"
            versions.append(await follower.propose("PutSchema", put_schema(name), 30.0))

    assert set(versions) == {1}


def drop_two_forwards(
    manager: PySyncObjConsensus, dropped: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two that are sent by anyone are lost, and noted in `dropped`."""
    assert manager._node is not None
    send = manager._node.transport.send

    def lossy(node: Any, message: dict[str, Any]) -> bool:
        if message["type"] == "apply_command" and len(dropped) < 2:
            dropped.append(message)
            return False
        return send(node, message)

    monkeypatch.setattr(manager._node.transport, "send", lossy)


async def test_three_managers_come_to_the_same_state_and_hash(tmp_path: Path) -> None:
    """Concurrent proposals through all; their histories are equal after a barrier on each."""
    async with running(managers(tmp_path, 3, **STEADY)) as made:
        await asyncio.gather(
            *(one.propose("PutSchema", put_schema(f"{n}"), 30.0) for n, one in enumerate(made * 10))
        )
        states = []
        for one in made:
            await one.barrier(30.0)
        for _ in range(100):
            states = [one.snapshot() for one in made]
            if len({state.history for state in states}) == 1:
                break
            await asyncio.sleep(0.05)

    assert len({state.history for state in states}) == 1
    assert len(states[0].schemas) == 30


async def test_stop_leaves_no_thread_socket_or_file(tmp_path: Path) -> None:
    """And the directory can be started again at once."""
    before = set(os.listdir("/proc/self/fd"))

    for _ in range(2):
        async with running(managers(tmp_path, 1, **FAST)[:1]) as made:
            await made[0].barrier(10.0)
        with pytest.raises(NotCommitted):
            await made[0].propose("Noop", {}, 0.1)

    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if "watchdog" in name or "autoTick" in name]
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0


async def test_a_port_that_is_taken_refuses_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a node that silently never hears anybody."""
    monkeypatch.setattr("cluster.consensus_pysyncobj._BIND_SECONDS", 0.3)
    (first,) = managers(tmp_path / "a", 1, **FAST)
    async with running([first]):
        address = first.settings.raft_address
        second = PySyncObjConsensus(
            ConsensusSettings(
                "n0", "c", address, {"n0": address}, tmp_path / "b", bytes(32), bootstrap=True
            ),
            SystemClock(),
        )
        with pytest.raises(StartRefused) as caught:
            await second.start()

    assert caught.value.exit_code == 78


def test_a_status_is_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Raft thread applies commands meanwhile: a hash must not stand beside another state's index."""
    (made,) = managers(tmp_path, 1)
    states = [ClusterState(applied_index=k, history=bytes([k]) * 32) for k in range(1, 9)]
    monkeypatch.setattr(made, "snapshot", lambda: states.pop(0))

    told = made.status()

    assert told["state_hash"] == bytes([told["applied_index"]]).hex() * 32
