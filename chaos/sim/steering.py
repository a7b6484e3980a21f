"""What a simulated node brings to registration, leases, changes of the ring, retention: the real parts.

Put together as node.node does it: Membership (registration, heartbeats), LeaseKeeper, Moving (executor,
calls, letting go), NodeRetention and the keeper of watermarks. Of these only registration and NodeRetention
run in all seeds; the others in seeds whose plan needs them, as heartbeats cost turns of the loop.

The operator's requests go through the real handlers of the HTTP interface, without HTTP around them.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from chaos.sim.clock import Dice
from chaos.sim.consensus import SimConsensus, SimLog
from cluster.lease_founding import first_ring
from cluster.lease_keeper import FoundingSettings, LeaseKeeper, LeaseRules
from cluster.membership import Membership
from cluster.moves_http import MovesApi
from cluster.replica_client import ReplicaSet
from cluster.retention_keeper import RetentionSettings
from cluster.state_types import Member
from cluster.transport import Transport
from cluster.view import ViewSource
from node.moving import Moving
from node.retaining import NodeRetention, spawn_keeper
from node.retention_http import RetentionApi
from node.store_door import StoreDoor
from query.coordinator import ReadCoordinator
from runtime.entropy import Entropy
from runtime.tasks import Supervisor
from storage.service import StorageService

ROLES = ("ingestor", "query", "storage")
#: Voters of the Raft group that is not simulated; others follow.
MANAGERS = ("a", "b", "c")
BEAT_SECONDS = 0.2
RULES = LeaseRules(ttl=1.0, sweep=0.2, balance_pause=6.0, move_interval=0.3)
RETENTION = RetentionSettings(interval_seconds=0.3, step_seconds=1)
FOUNDING = FoundingSettings("sim", 3, 2, 2, 3, frozenset(MANAGERS))


def found(log: SimLog, nodes: tuple[str, ...], quorum: tuple[int, int, int], shards: int) -> None:
    """Founds the cluster: members, N, W and R, the first ring, a leader for each shard."""
    n, w, r = quorum
    for id in nodes:
        member = {"id": id, "roles": list(ROLES), "incarnation": 1}
        log.commit("RegisterNode", member, "world")
    args = {"expected_cluster_epoch": 0, "n": n, "w": w, "r": r}
    log.commit("SetQuorum", {**args, "cluster_id": "sim", "shard_count": shards}, "world")
    ring = first_ring(log.newest.with_role("storage"), n, shards)
    log.commit("SetRing", {"expected_ring_epoch": 0, "map": ring, "stage": "new"}, "world")
    rows = [[shard, nodes[shard % len(nodes)], 0] for shard in range(shards)]
    log.commit("Assign", {"assignments": rows}, "world")


@dataclass(frozen=True, slots=True)
class Conduct:
    """How the nodes of a run are set. `steered`: leases, changes and watermarks are theirs to keep."""

    steered: bool = False
    parallel: int = 4
    bytes_per_second: int = 0
    replace_dead_after_seconds: float = 0.0

    def moving(self) -> dict[str, Any]:
        """The table [rebalance]."""
        return {
            "parallel": self.parallel,
            "bytes_per_second": self.bytes_per_second,
            "replace_dead_after_seconds": self.replace_dead_after_seconds,
            "let_go_after_seconds": 1.0,
        }


def conduct(dice: Dice, steered: bool) -> Conduct:
    """That of a seed."""
    dead_after = dice.uniform(1.0, 2.0) if dice.chance(0.2) else 0.0
    pace = (
        dice.number(6_000, 20_000) if dice.chance(0.3) else 0
    )  # a run has up to 80 kB to move in 30 s
    return Conduct(steered, dice.number(1, 4), pace, dead_after)


class Steering:
    """The parts of one life of a node."""

    def __init__(
        self,
        id: str,
        conduct: Conduct,
        consensus: SimConsensus,
        storage: StorageService,
        replicas: ReplicaSet,
        transport: Transport,
        clock: Any,
        metrics: Any,
    ) -> None:
        self._conduct, self._consensus, self._metrics = conduct, consensus, metrics
        self._store = storage
        self.supervisor = Supervisor(f"node {id}")
        self.retention = NodeRetention(storage)
        manages = id in MANAGERS
        self.keeper = LeaseKeeper(id, consensus, clock, FOUNDING, rules=RULES) if manages else None
        me = Member(id, ROLES, 0, raft=id if manages else "", store=storage.incarnation)
        heard = self.keeper.on_heartbeat if self.keeper else lambda *_: None
        self.membership = Membership(me, consensus, transport, MANAGERS, clock, metrics, heard)
        settings: Any = SimpleNamespace(
            node=SimpleNamespace(id=id), table=lambda _: conduct.moving()
        )
        args = consensus, storage, replicas, transport, self.membership, self.keeper
        self.moving = Moving(settings, *args, clock, metrics)
        self.registered = False

    async def register(self, door: StoreDoor) -> None:
        """Until the node is a member; then its store hides what the state hides, and is open. For ever."""
        await self.membership.register(door.refused)
        door.admitted()
        self.registered = True
        self.retention.observe(self._consensus.snapshot())
        if self._conduct.steered:
            await self.supervisor.forever(lambda: BEAT_SECONDS, self.membership.beat)

    def start(self) -> None:
        """Begins the loops that only some seeds need; they end with the node's life."""
        if not self._conduct.steered:
            return
        if self.keeper is not None:
            self.supervisor.spawn("leases", self.keeper.run())
            args = self.supervisor, self._consensus, self.keeper, len(MANAGERS), RETENTION
            spawn_keeper(*args, self._metrics)
        self.moving.start(self.supervisor)

    async def follow(self) -> None:
        """Tells the store each newer state."""
        async for state in self._consensus.watch():
            epochs = {shard: lead.epoch for shard, lead in state.leaders.items()}
            self._store.observe_epochs(state.ring_epoch, epochs)
            if self.registered:
                self.retention.observe(state)


class Asked:
    """A request as the handlers read it: parts of the path, and a JSON body."""

    headers: dict[str, str] = {}  # noqa: RUF012 - nobody writes it
    query = headers

    def __init__(self, body: dict[str, Any], **match: str) -> None:
        self.match_info, self.can_read_body, self.content = match, bool(body), self
        self._body = json.dumps(body).encode()

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        """The body."""
        yield self._body


def moves_api(consensus: SimConsensus, steering: Steering) -> MovesApi:
    """`/cluster/moves` and the like on one node."""
    return MovesApi(consensus, steering.moving.settings, steering.moving.figures)


def retention_api(
    id: str,
    views: ViewSource,
    consensus: SimConsensus,
    transport: Transport,
    clock: Any,
    entropy: Entropy,
    storage: StorageService,
    reader: ReadCoordinator,
) -> RetentionApi:
    """`/cluster/retention` and `/delete` on one node."""
    return RetentionApi(id, views, consensus, transport, clock, entropy, storage, reader)
