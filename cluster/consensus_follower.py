"""Consensus for nodes that do not vote: they follow the replicated state through any manager.

The same port as the adapter over PySyncObj: `snapshot` is the newest state fetched by long poll, which
never steps back to a lower applied index; `propose` is forwarded to a manager under one request.
`serve_followers` is the managers' side.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from cluster.consensus import CommandRefused, Consensus, NotCommitted, OutcomeUnknown
from cluster.server import Answer, Operation
from cluster.state_codec import from_bytes, to_bytes
from cluster.state_types import ClusterState
from cluster.transport import Transport
from records.errors import QuorumlogError, Refused
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.logs import get_logger

log = get_logger(__name__)

#: Seconds a manager holds a long poll open when nothing changes.
POLL_SECONDS = 5.0
#: Seconds between the manager's own looks for a change while a poll is open.
LOOK_SECONDS = 0.02


class FollowerConsensus:
    """A stale-tolerant copy of the state, kept fresh from the managers in turn."""

    def __init__(
        self, node_id: str, transport: Transport, managers: tuple[str, ...], clock: Clock
    ) -> None:
        self._node_id = node_id
        self._transport = transport
        self._managers = managers
        self._clock = clock
        self._state = ClusterState()
        self._leader: str | None = None
        self._turn = 0
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Begins to follow."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._follow(), name="consensus-follower")

    async def stop(self) -> None:
        """Ends following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow(self) -> None:
        while True:
            manager = self._managers[self._turn % len(self._managers)]
            try:
                await self._poll(manager)
            except QuorumlogError as error:
                log.debug("manager does not answer", target=manager, error=error)
                await self._next_manager(0.1)
            except Exception as error:  # noqa: BLE001 - whoever follows no more is wrong for ever
                log.error("a manager's state cannot be read", target=manager, error=error)
                await self._next_manager(1.0)

    async def _poll(self, manager: str) -> None:
        head = {"after": self._state.applied_index, "wait": POLL_SECONDS}
        deadline = Deadline.after(self._clock, POLL_SECONDS + 2)
        answer, payload = await self._transport.call(manager, "state", head, b"", deadline)
        self._leader = answer["leader"]
        if len(payload):
            self._take(from_bytes(payload))

    async def _next_manager(self, seconds: float) -> None:
        self._turn += 1
        await self._clock.sleep(seconds)

    def _take(self, state: ClusterState) -> None:
        if state.applied_index > self._state.applied_index:
            self._state = state
            self._changed.set()
            self._changed = asyncio.Event()

    async def propose(self, op: str, args: Mapping[str, Any], timeout: float = 2.0) -> Any:
        """See Consensus; forwarded to a manager, each asked once."""
        deadline = Deadline.after(self._clock, timeout)
        last: QuorumlogError = NotCommitted("no manager is reachable")
        for offset in range(len(self._managers)):
            manager = self._managers[(self._turn + offset) % len(self._managers)]
            head = {"op": op, "args": dict(args), "timeout": deadline.remaining()}
            try:
                answer, _ = await self._transport.call(manager, "propose", head, b"", deadline)
            except NotCommitted as error:
                last = error
                continue
            except QuorumlogError as error:
                if error.definite or error.details.get("definite"):
                    last = error
                    continue
                raise OutcomeUnknown(f"proposal through {manager}: {error}") from error
            if "refused" in answer:
                raise CommandRefused(*answer["refused"])
            return answer["value"]
        raise last if isinstance(last, Refused) else NotCommitted(str(last))

    async def barrier(self, timeout: float = 2.0) -> ClusterState:
        """A state that holds all that was committed before the call."""
        deadline = Deadline.after(self._clock, timeout)
        manager = self._leader or self._managers[self._turn % len(self._managers)]
        head = {"timeout": timeout}
        _, payload = await self._transport.call(manager, "barrier", head, b"", deadline)
        self._take(from_bytes(payload))
        return self._state

    def snapshot(self) -> ClusterState:
        """The newest state seen."""
        return self._state

    async def watch(self, after: int = -1) -> AsyncIterator[ClusterState]:
        """Each newer state."""
        while True:
            changed = self._changed
            if self._state.applied_index > after:
                after = self._state.applied_index
                yield self._state
            else:
                await changed.wait()

    def is_leader_hint(self) -> bool:
        """Never: this node has no vote."""
        return False

    def leader_hint(self) -> str | None:
        """Whom the manager believes to lead."""
        return self._leader

    def status(self) -> dict[str, Any]:
        """Role and applied index."""
        return {
            "role": "follower of managers",
            "applied": self._state.applied_index,
            "leader": self._leader,
        }


class FollowerOperations:
    """What managers answer to nodes that do not vote."""

    def __init__(self, consensus: Consensus, clock: Clock) -> None:
        self._consensus = consensus
        self._clock = clock

    def table(self) -> dict[str, Operation]:
        """Name -> operation."""
        return {"state": self._state, "propose": self._propose, "barrier": self._barrier}

    async def _state(self, head: dict[str, Any], _: memoryview, deadline: Deadline) -> Answer:
        hold = deadline.sooner(min(float(head["wait"]), POLL_SECONDS))
        while self._consensus.snapshot().applied_index <= int(head["after"]) and not hold.expired:
            await self._clock.sleep(LOOK_SECONDS)
        state = self._consensus.snapshot()
        newer = state.applied_index > int(head["after"])
        payload = to_bytes(state, full=False) if newer else b""
        return {"leader": self._consensus.leader_hint()}, payload

    async def _propose(self, head: dict[str, Any], _: memoryview, deadline: Deadline) -> Answer:
        timeout = deadline.clamp(float(head["timeout"]))
        try:
            value = await self._consensus.propose(str(head["op"]), head["args"], timeout)
        except CommandRefused as error:
            return {"refused": [error.reason, error.message]}, b""
        return {"value": value}, b""

    async def _barrier(self, head: dict[str, Any], _: memoryview, deadline: Deadline) -> Answer:
        state = await self._consensus.barrier(deadline.clamp(float(head["timeout"])))
        return {}, to_bytes(state, full=False)
