"""Proposals: one command, one request id, as many attempts as the deadline allows.

PySyncObj ticks on a thread of its own; results come back by call_soon_threadsafe to a future that
may be done already. The outcome of each attempt is one of

    SUCCESS                                                    committed and applied on this node
    QUEUE_FULL MISSING_LEADER REQUEST_DENIED NOT_LEADER DISCARDED         surely not committed
    LEADER_CHANGED UNKNOWN_OUTCOME, a time-out, a full notify pipe                     unknown

and a proposal is repeated under ONE request id until its deadline, so that it is applied once
whichever attempts get through. It is `NotCommitted` only if no attempt was ever unknown.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from pysyncobj import FAIL_REASON

from cluster.consensus import CommandRefused, NotCommitted, OutcomeUnknown
from cluster.consensus_raft import MetaState, RaftNode
from cluster.state import COMMAND_BYTES_MAX, DEDUPE_RESULTS, SUPPORTED_LEVEL, encode_command
from cluster.state_ops import OPS
from records.errors import InvalidRequest
from runtime.clock import Clock

#: Proposals of one manager that may wait at once; the state remembers four times as many results.
IN_FLIGHT_MAX = DEDUPE_RESULTS // 4
_DEFINITE = {
    FAIL_REASON.QUEUE_FULL: "queue full",
    FAIL_REASON.MISSING_LEADER: "no leader",
    FAIL_REASON.REQUEST_DENIED: "denied",
    FAIL_REASON.NOT_LEADER: "not leader",
    FAIL_REASON.DISCARDED: "discarded",
}
_BACKOFF_SECONDS = (0.01, 0.02, 0.05, 0.1)


class Proposer:
    """One manager's proposals. `node` and `incarnation` are set when it starts."""

    def __init__(self, node_id: str, meta: MetaState, clock: Clock, attempt_seconds: float) -> None:
        self.node: RaftNode | None = None
        self.incarnation = 0
        self.outcomes = {"committed": 0, "refused": 0, "not_committed": 0, "unknown": 0}
        self.retries = 0
        self.late_results = 0
        self.full_pipes = 0
        self._node_id = node_id
        self._meta = meta
        self._clock = clock
        self._attempt_seconds = attempt_seconds
        self._counter = 0
        self._in_flight = asyncio.Semaphore(IN_FLIGHT_MAX)

    async def propose(self, op: str, args: Mapping[str, Any], timeout: float = 2.0) -> Any:
        """Commits one command; returns its value once it is applied on this node.

        Raises:
            NotCommitted, OutcomeUnknown, CommandRefused: see the port.
            InvalidRequest: no such operation, or a feature level that this binary does not know.
        """
        self._check(op, args)
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                await self._in_flight.acquire()
        except TimeoutError:
            self.outcomes["not_committed"] += 1
            raise NotCommitted(f"{IN_FLIGHT_MAX} proposals are in flight") from None
        try:
            return await self._propose(op, args, deadline)
        finally:
            self._in_flight.release()

    def _check(self, op: str, args: Mapping[str, Any]) -> None:
        if op not in OPS:
            raise InvalidRequest(f"no operation {op!r}")
        level = args.get("level", 0)
        if op == "SetFeatureLevel" and (not isinstance(level, int) or level > SUPPORTED_LEVEL):
            raise InvalidRequest(f"this binary knows feature levels up to {SUPPORTED_LEVEL}")

    async def _propose(self, op: str, args: Mapping[str, Any], deadline: float) -> Any:
        self._counter += 1
        rid = (self._node_id, self.incarnation, self._counter)
        command = encode_command(op, args, rid, level=1, at=self._clock.wall_micros())
        if len(command) > COMMAND_BYTES_MAX:
            self.outcomes["refused"] += 1
            raise CommandRefused("TOO_LARGE", f"a command has at most {COMMAND_BYTES_MAX} bytes")
        result, why = await self._attempts(command, deadline)
        if result is None or (result[0] == "err" and result[1] == "STALE_REQUEST"):
            return self._give_up(op, why if result is None else None)
        if result[0] == "err":
            self.outcomes["refused"] += 1
            raise CommandRefused(str(result[1]), f"{op}: {result[2]}")
        self.outcomes["committed"] += 1
        return result[1]

    def _give_up(self, op: str, definite: str | None) -> Any:
        if definite is None:
            self.outcomes["unknown"] += 1
            raise OutcomeUnknown(f"{op}: no answer in time; it may be committed")
        self.outcomes["not_committed"] += 1
        raise NotCommitted(f"{op}: {definite}")

    async def _attempts(self, command: bytes, deadline: float) -> tuple[Any, str | None]:
        """(result, -), or (None, why it is surely not committed), or (None, None) if unknown."""
        loop = asyncio.get_running_loop()
        ever_unknown = False
        why: str | None = "no time"
        for number in range(1 << 30):
            attempt_ends = min(deadline, loop.time() + self._attempt_seconds)
            if self.node is None:
                return None, None if ever_unknown else "stopped"
            if loop.time() >= deadline:
                break
            result, reason = await self.attempt(command, attempt_ends)
            if reason == FAIL_REASON.SUCCESS:
                return result, None
            why = _DEFINITE.get(reason) if reason is not None else None
            ever_unknown = ever_unknown or why is None
            self.retries += 1
            pause = _BACKOFF_SECONDS[min(number, len(_BACKOFF_SECONDS) - 1)]
            await self._clock.sleep(max(0.0, min(pause, deadline - loop.time())))
        return None, None if ever_unknown else why

    async def attempt(self, command: bytes, until: float) -> tuple[Any, int | None]:
        """(result, FAIL_REASON) of one submission; the reason is None after a time-out."""
        if self.node is None or self.node.reachable_leader() is None:
            return None, FAIL_REASON.MISSING_LEADER  # nothing was submitted
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[Any, int]] = loop.create_future()

        def settle(result: Any, reason: int) -> None:
            if answer.done():
                self.late_results += 1
            else:
                answer.set_result((result, reason))

        def callback(result: Any, reason: int) -> None:
            # On the tick thread: an exception here would make PySyncObj apply the entry again.
            try:
                loop.call_soon_threadsafe(settle, result, reason)
            except Exception:  # noqa: BLE001 - the loop is closed, the caller is gone
                self._meta.counters.callback_errors += 1

        try:
            self._meta.apply(command, callback=callback)  # pyright: ignore[reportCallIssue]
        except BlockingIOError:
            self.full_pipes += 1  # queued all the same: wait for it
        try:
            async with asyncio.timeout_at(until):
                return await answer
        except TimeoutError:
            return None, None
