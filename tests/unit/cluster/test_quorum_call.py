"""Fan-out: first answers win, failures are asked again, late answers are still heard."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cluster.quorum_call import Caller, Pace, QuorumCall, ask_quorum
from records.errors import ConnectionLost, QuorumUnavailable, StaleShardEpoch
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from runtime.entropy import SeededEntropy
from runtime.tasks import Supervisor

PACE = Pace(try_seconds=0.5, pause_first=0.01, pause_max=0.04)


def caller(tasks: Supervisor) -> Caller:
    """A quick pace, seeded jitter."""
    return Caller(tasks, SeededEntropy(1), PACE)


def soon(seconds: float = 1.0) -> Deadline:
    """A deadline from now."""
    return Deadline.after(SystemClock(), seconds)


def answering(
    delays: dict[str, float], errors: dict[str, list[Exception]] | None = None
) -> Callable[[str, Deadline], Awaitable[str]]:
    """A call that waits, then raises what is listed for the node, then answers its name."""
    left = {node: list(found) for node, found in (errors or {}).items()}

    async def call(node: str, limit: Deadline) -> str:
        await limit.wait(asyncio.sleep(delays.get(node, 0)))
        if left.get(node):
            raise left[node].pop(0)
        return node

    return call


async def test_the_first_answers_win() -> None:
    """Two of three are needed; the slow one is not waited for."""
    async with Supervisor("t") as tasks:
        found = await ask_quorum("x", "abc", answering({"a": 0.3}), 2, caller(tasks), soon())

    assert sorted(found) == ["b", "c"]


async def test_a_node_that_fails_is_asked_again() -> None:
    """Two errors, then an answer, all within the deadline."""
    errors: dict[str, list[Exception]] = {"a": [ConnectionLost("x"), ConnectionLost("y")]}
    async with Supervisor("t") as tasks:
        found = await ask_quorum("x", "ab", answering({}, errors), 2, caller(tasks), soon())

    assert sorted(found) == ["a", "b"]


async def test_too_few_by_the_deadline() -> None:
    """The error says how many answered and how many were needed."""
    errors: dict[str, list[Exception]] = {node: [ConnectionLost("x")] * 99 for node in "ab"}
    async with Supervisor("t") as tasks:
        with pytest.raises(QuorumUnavailable) as caught:
            await ask_quorum("x", "abc", answering({}, errors), 2, caller(tasks), soon(0.15))

    assert (caught.value.details["acks"], caught.value.details["needed"]) == (1, 2)


async def test_a_fatal_error_ends_the_call_at_once() -> None:
    """A newer epoch in any answer: no further waiting, no further try."""
    errors: dict[str, list[Exception]] = {"a": [StaleShardEpoch("newer", epoch=9)] * 99}
    async with Supervisor("t") as tasks:
        with pytest.raises(StaleShardEpoch):
            await ask_quorum(
                "x",
                "abc",
                answering({"b": 9, "c": 9}, errors),
                2,
                caller(tasks),
                soon(5),
                fatal=(StaleShardEpoch,),
            )


async def test_grace_gathers_more_than_needed() -> None:
    """The third answers a moment later: with grace it is among the answers."""
    async with Supervisor("t") as tasks:
        found = await ask_quorum(
            "x", "abc", answering({"c": 0.05}), 2, caller(tasks), soon(), grace_seconds=0.5
        )

    assert sorted(found) == ["a", "b", "c"]


async def test_after_settling_nothing_is_asked_again_and_late_answers_are_heard() -> None:
    """a fails and would be asked again; b is under way: its answer still arrives."""
    heard: list[str] = []
    failures: list[str] = []
    errors: dict[str, list[Exception]] = {"a": [ConnectionLost("x")] * 99}
    async with Supervisor("t") as tasks:

        def failed(node: str, error: Exception) -> bool:
            failures.append(node)
            return True

        call = QuorumCall(
            "x",
            answering({"b": 0.1}, errors),
            lambda node, answer: heard.append(node),
            failed,
            caller(tasks),
            soon(),
        )
        call.start("ab")
        await asyncio.sleep(0.03)
        call.settle()
        tries = len(failures)
        await asyncio.sleep(0.2)

        assert heard == ["b"]
        assert len(failures) == tries
        assert len(tasks) == 0


async def test_a_try_ends_by_its_own_time_and_the_next_begins() -> None:
    """A node that swallows the first request answers the second."""
    seen: list[float] = []

    async def call(node: str, limit: Deadline) -> str:
        seen.append(limit.remaining())
        if len(seen) == 1:
            await limit.wait(asyncio.Event().wait())
        return node

    async with Supervisor("t") as tasks:
        found = await ask_quorum("x", "a", call, 1, caller(tasks), soon(5))

    assert found == {"a": "a"}
    assert all(left <= PACE.try_seconds for left in seen)


async def test_an_unforeseen_exception_is_that_nodes_failure() -> None:
    """A bug in one client must not take the quorum down."""
    errors: dict[str, list[Exception]] = {"a": [KeyError("bug")] * 99}
    async with Supervisor("t") as tasks:
        found = await ask_quorum("x", "abc", answering({}, errors), 2, caller(tasks), soon())

        assert sorted(found) == ["b", "c"]
        assert tasks.failures == 0
