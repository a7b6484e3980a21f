"""Members and their pulse: registration in the replicated state, heartbeats to the Raft leader.

Each node registers under a rising incarnation and sends a heartbeat to the Raft leader every 100 ms;
the leader's answer tells whom it considers alive, so every node routes by the same opinion. The Raft
leader's lease table is fed from here (cluster.lease_keeper). Heartbeats are hints: losing all of them
loses no row, since fences on the storage nodes decide who may write.
"""

from collections.abc import Callable
from typing import Any

from cluster.consensus import CommandRefused, Consensus, NotCommitted, OutcomeUnknown
from cluster.failure_detector import FailureDetector
from cluster.server import Answer, Operation
from cluster.state_types import Member
from cluster.transport import Transport
from records.errors import NotFound, QuorumlogError
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.logs import get_logger
from runtime.metrics import Metrics

log = get_logger(__name__)

#: Seconds between heartbeats; a lease lives for five of them.
HEARTBEAT_SECONDS = 0.1
#: Seconds a heartbeat may take; a slow one is dropped, the next follows.
HEARTBEAT_DEADLINE_SECONDS = 0.5
#: Seconds of one attempt to register.
REGISTER_SECONDS = 2.0
#: Seconds until the next one; and after a refusal that only an operator ends, each of which is a command in
#: Raft's log.
AGAIN_SECONDS, REFUSED_SECONDS = 0.1, 1.0
#: How often, and after how many seconds, a registration that is committed is looked for in the state here:
#: another one meanwhile would be another command, and a restart to all others.
APPLIED_LOOKS, APPLIED_LOOK_SECONDS = 40, 0.05

Heard = Callable[[str, int, int, bytes, int], None]


class Membership:
    """This node's place among the members."""

    def __init__(
        self,
        me: Member,
        consensus: Consensus,
        transport: Transport,
        managers: tuple[str, ...],
        clock: Clock,
        metrics: Metrics,
        on_heartbeat: Heard,
    ) -> None:
        self.me = me
        #: How far this node's store has come (storage.mark); 0: it has none, or does not say.
        self.mark = 0
        self._consensus = consensus
        self._transport = transport
        self._managers = managers
        self._clock = clock
        self._on_heartbeat = on_heartbeat
        self.detector = FailureDetector()
        self._told_dead: frozenset[str] = frozenset()
        self._leader: str | None = None
        self._ring_epochs: dict[str, int] = {}
        #: Why this node is not admitted; empty if it is, or nobody has said.
        self.refused = ""
        self._lost = metrics.counter(
            "quorumlog_heartbeats_lost_total", "Heartbeats that no Raft leader answered."
        )

    def observed(self, node: str, ok: bool) -> None:
        """A call to `node` succeeded or lost its connection."""
        if ok:
            self.detector.answered(node)
        else:
            self.detector.refused(node, self._clock.monotonic())

    def alive(self, node: str) -> bool:
        """Whether calls to `node` are worth a try: our own experience first, then the Raft leader's."""
        if self.detector.lately_refused(node, self._clock.monotonic()):
            return False
        return node not in self._told_dead

    def lagging(self, ring_epoch: int, unheard: bool) -> list[str]:
        """Live members that have not said that they know `ring_epoch` (on the Raft leader only).

        `unheard`: count those that were never heard here as alive.
        """
        now = self._clock.monotonic()
        return [
            node
            for node in sorted(self._consensus.snapshot().members)
            if self._ring_epochs.get(node, -1) < ring_epoch
            and self.detector.alive(node, now)
            and (unheard or node in self._ring_epochs)
        ]

    def heard_alive(self, node: str) -> bool:
        """Whether the member's heartbeats arrive (on the Raft leader only)."""
        return self.detector.alive(node, self._clock.monotonic())

    async def register(self, store_refused: Callable[[], None] = lambda: None) -> Member:
        """Announces this process under the next incarnation, until it is committed.

        `store_refused` is called when the cluster knows another store under this id.
        """
        while True:
            state = self._consensus.snapshot()
            known = state.members.get(self.me.id)
            oldest = known.incarnation if known else state.retired.get(self.me.id, 0)
            incarnation = oldest + 1
            try:
                await self._propose_registration(incarnation)
            except QuorumlogError as error:
                await self._clock.sleep(self._not_registered(error, store_refused))
                continue
            now = await self._applied(incarnation)
            if now is not None and now.http == self.me.http:
                self.me, self.refused = now, ""
                log.info("registered", incarnation=now.incarnation)
                return now

    async def _applied(self, incarnation: int) -> Member | None:
        """This member once its committed registration is applied here too; None if that takes too long."""
        for _ in range(APPLIED_LOOKS):
            now = self._consensus.snapshot().members.get(self.me.id)
            if now is not None and now.incarnation >= incarnation:
                return now
            await self._clock.sleep(APPLIED_LOOK_SECONDS)
        return None

    def _not_registered(self, error: QuorumlogError, store_refused: Callable[[], None]) -> float:
        """Seconds until the next try."""
        if isinstance(error, CommandRefused) and error.reason == "STORE_LOST":
            if not self.refused:
                log.error("not admitted: this node's disk is not the one it had", error=error)
            self.refused = error.message
            store_refused()
            return REFUSED_SECONDS
        if isinstance(error, NotCommitted | OutcomeUnknown | CommandRefused | NotFound):
            log.debug("registration not committed yet", error=error)
            return AGAIN_SECONDS
        log.warning("registration failed", error=error)
        return REFUSED_SECONDS

    async def _propose_registration(self, incarnation: int) -> None:
        me = self.me
        marked = {"mark": self.mark} if self.mark else {}
        await self._consensus.propose(
            "RegisterNode",
            {
                **marked,
                "id": me.id,
                "roles": list(me.roles),
                "incarnation": incarnation,
                "http": me.http,
                "peer": me.peer,
                "raft": me.raft,
                "zone": me.zone,
                "weight": me.weight,
                "store": me.store,
            },
            timeout=REGISTER_SECONDS,
        )

    async def tell_mark(self, mark: int) -> None:
        """Has the cluster know how far the store has come: an older copy of it is refused from now on."""
        self.mark = mark
        try:
            await self._propose_registration(self.me.incarnation)
        except QuorumlogError as error:
            log.debug("the store's mark was not told", error=error)

    async def beat(self) -> None:
        """One heartbeat to the Raft leader; the step of a supervised loop."""
        state = self._consensus.snapshot()
        held = b"".join(
            shard.to_bytes(4, "big") + epoch.to_bytes(8, "big")
            for shard, epoch in state.shards_of(self.me.id).items()
        )
        beat = {
            "node": self.me.id,
            "incarnation": self.me.incarnation,
            "ring_epoch": state.ring_epoch,
            "held": held,
            "wall": self._clock.wall_micros(),
        }
        leader = self._consensus.leader_hint() or self._leader
        if leader == self.me.id:
            self._hear(beat)
            self._told_dead = frozenset(self._suspects())
            return
        for node in [leader] if leader else list(self._managers):
            if await self._send(node, beat):
                return
        self._leader = None
        self._lost.inc()

    async def _send(self, node: str, beat: dict[str, Any]) -> bool:
        deadline = Deadline.after(self._clock, HEARTBEAT_DEADLINE_SECONDS)
        try:
            answer, _ = await self._transport.call(node, "heartbeat", beat, b"", deadline)
        except QuorumlogError as error:
            log.debug("heartbeat lost", target=node, error=error)
            return False
        if not answer["leader"]:
            self._leader = answer["hint"] if answer["hint"] != node else None
            return False
        self._leader = node
        self._told_dead = frozenset(answer["dead"]) - {self.me.id}
        return True

    def operations(self) -> dict[str, Operation]:
        """What peers may call."""
        return {"heartbeat": self._heartbeat}

    async def _heartbeat(self, head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        if not self._consensus.is_leader_hint():
            return {"leader": False, "hint": self._consensus.leader_hint(), "dead": []}, b""
        self._hear(head)
        return {"leader": True, "hint": self.me.id, "dead": self._suspects()}, b""

    def _hear(self, beat: dict[str, Any]) -> None:
        node = str(beat["node"])
        self.detector.sign_of_life(node, self._clock.monotonic())
        self._ring_epochs[node] = int(beat["ring_epoch"])
        self._on_heartbeat(
            node,
            int(beat["incarnation"]),
            int(beat["ring_epoch"]),
            bytes(beat["held"]),
            int(beat["wall"]),
        )

    def _suspects(self) -> list[str]:
        now = self._clock.monotonic()
        members = self._consensus.snapshot().members
        return [node for node in members if not self.detector.alive(node, now)]
