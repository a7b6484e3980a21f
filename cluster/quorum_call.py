"""Fan-out: one idempotent call to several nodes at once, each tried again until it is settled.

`QuorumCall` starts one supervised loop a node. A node that fails is asked again after a pause that
doubles, the others go on meanwhile. Once the owner of the call says `settle()`, no new try begins; tries
under way run to their end in the background (late replicas), and their answers are still reported.

`ask_quorum` is the plain case: the first `needed` answers, or why there are not enough.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cluster.quorum_tally import Group, QuorumTally
from records.errors import QuorumlogError, QuorumUnavailable
from runtime.deadline import Deadline
from runtime.entropy import Entropy
from runtime.logs import get_logger
from runtime.tasks import Supervisor

T = TypeVar("T")
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one try, and of the pauses between tries (doubled from first to max, with jitter)."""

    try_seconds: float = 2.0
    pause_first: float = 0.05
    pause_max: float = 1.0


@dataclass(frozen=True, slots=True)
class Caller:
    """What a fan-out needs of its surroundings."""

    tasks: Supervisor
    entropy: Entropy
    pace: Pace


class QuorumCall(Generic[T]):
    """One call to several nodes. Callbacks run on the event loop and must not block.

    Args:
        call: asks one node; ends by the deadline it is given.
        on_answer: takes a node's answer, also a late one.
        on_failure: takes a node's error; True: ask that node again after a pause.
    """

    def __init__(
        self,
        name: str,
        call: Callable[[str, Deadline], Awaitable[T]],
        on_answer: Callable[[str, T], None],
        on_failure: Callable[[str, Exception], bool],
        caller: Caller,
        deadline: Deadline,
    ) -> None:
        self._name = name
        self._call = call
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._caller = caller
        self._deadline = deadline
        self._settled = asyncio.Event()

    @property
    def settled(self) -> bool:
        """Whether no new try will begin."""
        return self._settled.is_set()

    def start(self, nodes: Iterable[str]) -> None:
        """Asks all `nodes` at once."""
        for node in nodes:
            self._caller.tasks.spawn(f"{self._name}:{node}", self._ask(node))

    def settle(self) -> None:
        """The outcome is decided: begin no further try."""
        self._settled.set()

    async def _ask(self, node: str) -> None:
        pace = self._caller.pace
        pause = pace.pause_first
        while not self.settled:
            try:
                answer = await self._call(node, self._deadline.sooner(pace.try_seconds))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this node's failure
                if not isinstance(error, QuorumlogError):
                    log.error("call failed", call=self._name, node=node, error=error)
                if not self._on_failure(node, error) or self._deadline.expired:
                    return
                await self._rest(pause)
                pause = min(2 * pause, pace.pause_max)
            else:
                self._on_answer(node, answer)
                return

    async def _rest(self, seconds: float) -> None:
        jittered = self._deadline.clamp(seconds * self._caller.entropy.uniform(0.75, 1.25))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(jittered):  # wait_for can swallow a cancellation on 3.11
                await self._settled.wait()


async def ask_quorum(
    name: str,
    nodes: Iterable[str],
    call: Callable[[str, Deadline], Awaitable[T]],
    needed: int | Iterable[Group],
    caller: Caller,
    deadline: Deadline,
    *,
    fatal: tuple[type[Exception], ...] = (),
    grace_seconds: float = 0.0,
) -> dict[str, T]:
    """The answers by node, as soon as `needed` are in; after `grace_seconds` more, if all are not.

    Where groups are given, each of them needs its number (a shard that moves has two).

    Raises:
        QuorumUnavailable: too few by the deadline (details: `acks`, `needed`).
        Exception: the first error of a kind in `fatal`; that ends the call at once.
    """
    members = tuple(nodes)
    single = isinstance(needed, int)
    tally = QuorumTally.over(members, needed) if single else QuorumTally(needed)
    answers: dict[str, T] = {}
    changed = asyncio.Event()
    ended: list[Exception] = []

    def on_answer(node: str, answer: T) -> None:
        answers[node] = answer
        tally.ack(node)
        changed.set()

    def on_failure(node: str, error: Exception) -> bool:
        if isinstance(error, fatal):
            ended.append(error)
        changed.set()
        return not ended

    fan_out = QuorumCall(name, call, on_answer, on_failure, caller, deadline)
    fan_out.start(members)
    try:
        while not (tally.success or ended or deadline.expired):
            await _wait(changed, deadline.remaining())
        if not ended and len(answers) < len(members):
            grace = deadline.sooner(grace_seconds)
            while len(answers) < len(members) and not (ended or grace.expired):
                await _wait(changed, grace.remaining())
    finally:
        fan_out.settle()
    if ended:
        raise ended[0]
    if not tally.success:
        raise QuorumUnavailable(
            f"{name}: {len(answers)} of {len(members)} answered, {tally.needed} more needed",
            acks=tally.acks,
            needed=tally.acks + tally.needed,
        )
    return dict(answers)


async def _wait(changed: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await changed.wait()
        changed.clear()
