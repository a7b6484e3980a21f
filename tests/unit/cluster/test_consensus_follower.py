"""A node that does not vote follows the managers' state, whatever one of them answers."""

import asyncio
from dataclasses import replace
from typing import Any

from cluster.consensus_follower import FollowerConsensus
from cluster.state import ClusterState
from cluster.state_codec import to_bytes
from records.errors import ConnectionLost
from runtime.deadline import Deadline
from tests.unit.cluster.test_lease_keeper import HandClock


class Managers:
    """They give `answers` in turn, then nothing any more."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def call(
        self, node: str, operation: str, head: Any, payload: Any, deadline: Deadline
    ) -> Any:
        self.asked.append(node)
        if not self.answers:
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_an_answer_that_cannot_be_read_does_not_end_the_following() -> None:
    """Torn, odd, without a leader, or not there: the next manager is asked, and its state is taken."""
    state = replace(ClusterState(), applied_index=7)
    said: dict[str, Any] = {"leader": "a"}
    odd = [(said, b"no state"), (said, b"\x81\xa1x\x01"), ({}, b""), ConnectionLost("gone")]
    managers: Any = Managers(*odd, (said, to_bytes(state, full=False)))
    follower = FollowerConsensus("d", managers, ("a", "b", "c"), HandClock())

    await follower.start()
    async with asyncio.timeout(5):
        seen = await anext(follower.watch(0))

    assert seen.applied_index == 7
    assert managers.asked[:5] == ["a", "b", "c", "a", "b"]
    await follower.stop()
