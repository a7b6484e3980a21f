"""One process from its settings and roles: the composition root, where everything meets.

Order of start: store (recovery), peers' port, consensus, registration, coordinators, clients' port. Order
of stop: clients' port first (no new requests), coordinators (what is in flight ends), consensus, store.
A node answers /health as soon as its HTTP port is open and /ready when it can serve every request.
"""

import asyncio
import gc
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

from cluster.cluster_http import status_operation
from cluster.consensus import ConsensusSettings
from cluster.consensus_follower import FollowerConsensus, FollowerOperations
from cluster.consensus_pysyncobj import PySyncObjConsensus
from cluster.consensus_start import load_secret
from cluster.events import EventLog
from cluster.handoff import Handoff
from cluster.lease_founding import FoundingSettings
from cluster.lease_keeper import LeaseKeeper
from cluster.membership import HEARTBEAT_SECONDS, Membership
from cluster.peer_server import PeerServer
from cluster.peer_transport import PeerTransport, cluster_token
from cluster.replica_client import ReplicaSet
from cluster.retention_keeper import RetentionSettings
from cluster.state_types import ClusterState, Member
from cluster.sync_loop import STEP_SECONDS, SyncLoop
from cluster.sync_settings import RepairSettings
from cluster.view import ConsensusViews
from ingestor.admission import Admission
from ingestor.coordinator import WriteCoordinator
from ingestor.enrich import EnrichSettings
from ingestor.limits import Limits
from ingestor.listeners.http import HttpIngest
from ingestor.listeners.replay_http import ReplayApi
from ingestor.write_settings import WriteSettings
from node.http_port import HttpPort, Routes
from node.moving import Moving
from node.retaining import NodeRetention, spawn_keeper
from node.settings import Settings
from node.store_door import StoreDoor
from query.coordinator import ReadCoordinator
from query.settings import QuerySettings
from query.sql import SqlRunner
from records.errors import InvalidSettings
from runtime.clock import clock_of
from runtime.entropy import SystemEntropy
from runtime.logs import get_logger
from runtime.metrics import Metrics
from runtime.settings import build
from runtime.tasks import Supervisor, Workers
from storage.mark import MARK_SECONDS, StoreMark
from storage.service import StorageService, StorageSettings

log = get_logger(__name__)

STORE_FOLDER, RAFT_FOLDER = "store", "raft"


def _check_not_wiped(settings: Settings) -> None:
    """Refuses to start on an empty disk under an old name: what was promised there is gone.

    Raises:
        InvalidSettings: names the folder and the ways out.
    """
    folder = settings.node.data / STORE_FOLDER
    if "storage" in settings.node.roles and not (folder / "node.json").exists():
        raise InvalidSettings(
            f"{folder} holds no store. If this is the first start of a new cluster, add --bootstrap; if it"
            " joins a cluster, or its disk was lost, add --join (see docs/operations.md)"
        )


class Node:
    """A running node. `start` returns when the HTTP port is open; readiness follows by itself."""

    def __init__(self, settings: Settings, bootstrap: bool = False, join: bool = False) -> None:
        """`bootstrap`: this is a new cluster's first start, so its data folder may be empty.

        `join`: the store may be empty, as the node is new or lost its disk; Raft's folder may not.

        Raises:
            StartRefused, InvalidSettings: what a part refuses to start with.
        """
        self.settings = settings
        self._bootstrap = bootstrap
        if not (bootstrap or join):
            _check_not_wiped(settings)
        self.clock = clock_of(os.environ)
        self.entropy = SystemEntropy()
        self.metrics = Metrics()
        self.events = EventLog()
        threads = settings.node.worker_threads
        # Apart, so that no question waits behind the bodies that wait to be parsed.
        self.write_workers, self.query_workers = (Workers(threads, n) for n in ("write", "query"))
        self.supervisor = Supervisor("node")
        secret, node = load_secret(settings.cluster.secret_file), settings.node
        token = cluster_token(secret)
        self.transport = PeerTransport(node.id, token, self._address_of, self._observed)
        self.peers = PeerServer(token, self.clock)
        self.storage = self._make_storage()
        self.retention = NodeRetention(self.storage)
        self.consensus = self._make_consensus(secret)
        self.keeper = self._make_keeper()
        self.membership = Membership(
            self._as_member(),
            self.consensus,
            self.transport,
            tuple(settings.cluster.managers),
            self.clock,
            self.metrics,
            self.keeper.on_heartbeat if self.keeper else lambda *_: None,
        )
        self.views = ConsensusViews(node.id, self.consensus, self.membership.alive)
        self.replicas = ReplicaSet(node.id, None, self.transport, self._is_known)
        self.sync = self._make_sync(self.storage) if self.storage is not None else None
        self.moving = Moving(
            settings,
            self.consensus,
            self.storage,
            self.replicas,
            self.transport,
            self.membership,
            self.keeper,
            self.clock,
            self.metrics,
        )
        self.door = self._make_door()
        self.handoff = self._make_handoff()
        self.writer = self._make_writer()
        self.ingest = self._make_ingest(self.writer) if self.writer else None
        self.replay_api = self._make_replay_api(self.writer) if self.writer else None
        if self.ingest is not None:
            self.ingest.asks = self.replay_api
        self.reader = self._make_reader()
        self.sql = SqlRunner(self.reader, self.metrics) if self.reader else None
        self._registered = False
        self.http = HttpPort(node.host, node.http_port, self.clock, self.entropy, self.metrics)

    # -- parts ---------------------------------------------------------------------------------

    def _has(self, role: str) -> bool:
        return role in self.settings.node.roles

    def _make_storage(self) -> StorageService | None:
        if not self._has("storage"):
            return None
        node = self.settings.node
        settings = build(StorageSettings, self.settings.table("storage"), "storage")
        return StorageService(node.data / STORE_FOLDER, node.id, settings, self.clock, self.metrics)

    def _make_consensus(self, secret: bytes) -> PySyncObjConsensus | FollowerConsensus:
        node, cluster = self.settings.node, self.settings.cluster
        if node.id not in cluster.managers:
            return FollowerConsensus(node.id, self.transport, tuple(cluster.managers), self.clock)
        public = node.host in ("0.0.0.0", "::")  # noqa: S104 - then Raft binds its own address only
        settings = ConsensusSettings(
            node_id=node.id,
            cluster_id=cluster.id,
            raft_address=cluster.managers[node.id],
            peers=cluster.managers,
            directory=node.data / RAFT_FOLDER,
            secret=secret,
            bootstrap=self._bootstrap,
            bind_address=None if public else f"{node.host}:{node.raft_port}",
        )
        return PySyncObjConsensus(settings, self.clock)

    def _make_keeper(self) -> LeaseKeeper | None:
        if not isinstance(self.consensus, PySyncObjConsensus):
            return None
        cluster = self.settings.cluster
        founding = FoundingSettings(
            cluster_id=cluster.id,
            n=cluster.n,
            w=cluster.w,
            r=cluster.r,
            shard_count=cluster.shards,
            storage=frozenset(cluster.storage),
        )
        return LeaseKeeper(
            self.settings.node.id,
            self.consensus,
            self.clock,
            founding,
            expected_ingestors=frozenset(cluster.managers),
        )

    def _make_handoff(self) -> Handoff:
        return Handoff(
            self.settings.node.id,
            self.storage,
            self.views,
            self.replicas,
            self.transport,
            self.clock,
            self.metrics,
        )

    def _make_door(self) -> StoreDoor | None:
        if self.storage is None or self.sync is None:
            return None
        return StoreDoor(
            self.settings.node.id,
            self.storage,
            self.peers,
            self.replicas,
            self.moving,
            self.sync,
        )

    def _make_sync(self, storage: StorageService) -> SyncLoop:
        settings = build(RepairSettings, self.settings.table("repair"), "repair")
        return SyncLoop(
            self.settings.node.id,
            storage,
            self.views,
            self.replicas,
            self.clock,
            self.metrics,
            settings,
            admit=storage.admits,
        )

    def _make_writer(self) -> WriteCoordinator | None:
        if not self._has("ingestor"):
            return None
        settings = build(WriteSettings, self.settings.table("write"), "write")
        return WriteCoordinator(
            self.views,
            self.replicas,
            self.clock,
            self.entropy,
            self.metrics,
            settings,
            self.write_workers,
            self.handoff.missed,
        )

    def _make_ingest(self, writer: WriteCoordinator) -> HttpIngest:
        settings = build(WriteSettings, self.settings.table("write"), "write")
        enrich = build(EnrichSettings, self.settings.table("enrich"), "enrich")
        return HttpIngest(
            writer,
            Admission(settings, self.clock, self.metrics),
            self.clock,
            self.metrics,
            self.write_workers,
            build(Limits, self.settings.table("ingest"), "ingest"),
            enrich.detected(os.environ),
        )

    def _make_replay_api(self, writer: WriteCoordinator) -> ReplayApi:
        limits = build(Limits, self.settings.table("ingest"), "ingest")
        node = self.settings.node.id
        return ReplayApi(node, writer.replays, self.views, self.transport, self.clock, limits)

    def _make_reader(self) -> ReadCoordinator | None:
        if not self._has("query"):
            return None
        settings = build(QuerySettings, self.settings.table("query"), "query")
        return ReadCoordinator(
            self.views, self.replicas, self.clock, self.metrics, settings, self.query_workers
        )

    def _as_member(self) -> Member:
        node = self.settings.node
        raft = self.settings.cluster.managers.get(node.id, "")
        http, peer = node.address(node.http_port), node.address(node.peer_port)
        return Member(node.id, node.roles, 0, http, peer, raft, node.zone, node.weight)

    def _address_of(self, node: str) -> str | None:
        member = self.consensus.snapshot().members.get(node)
        return member.peer if member else self.settings.cluster.peers.get(node)

    def _is_known(self, node: str) -> bool:
        return self._address_of(node) is not None

    def _observed(self, node: str, ok: bool) -> None:
        self.membership.observed(node, ok)

    # -- life ----------------------------------------------------------------------------------

    async def start(self, routes_of: Callable[[Self], Routes]) -> None:
        """Starts everything, and serves `routes_of` it. Raises what a part refuses to start with."""
        loop = asyncio.get_running_loop()
        self.metrics.gauge(
            "quorumlog_tasks", "Tasks of the event loop: one for each connection, and our own"
        ).set_function(lambda: len(asyncio.all_tasks(loop)))
        if self.storage is not None:
            await self.storage.start()
            self.membership.me = replace(self.membership.me, store=self.storage.incarnation)
            self.mark = StoreMark(self.storage.directory)
            self.membership.mark = await asyncio.to_thread(self.mark.begin)
        await self.transport.start()
        self._add_operations()
        await self.peers.start(self.settings.node.host, self.settings.node.peer_port)
        await self.consensus.start()
        self.supervisor.spawn("register", self._register())
        self.supervisor.spawn("events", self._follow_state())
        self.supervisor.spawn("handoff", self.handoff.run())
        if self.keeper is not None:
            self.supervisor.spawn("leases", self.keeper.run())
            self._spawn_retention(self.keeper)
        if self.sync is not None:
            steps = self.supervisor.forever(lambda: STEP_SECONDS, self.sync.step)
            self.supervisor.spawn("sync", steps)
        self.moving.start(self.supervisor)
        if self.writer is not None:
            await self.writer.start()
        await self.http.start(routes_of(self), self.supervisor)
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again
        log.info("started", http=self.settings.node.http_port)

    def _spawn_retention(self, keeper: LeaseKeeper) -> None:
        settings = build(RetentionSettings, self.settings.table("retention"), "retention")
        managers = len(self.settings.cluster.managers)
        spawn_keeper(self.supervisor, self.consensus, keeper, managers, settings, self.metrics)

    def _add_operations(self) -> None:
        if self.door is not None:
            self.door.enter()
        if isinstance(self.consensus, PySyncObjConsensus):
            self.peers.add(FollowerOperations(self.consensus, self.clock).table())
        self.peers.add(self.handoff.operations())
        self.peers.add(self.membership.operations())
        self.peers.add({"status": status_operation(self.local_status)})
        if self.replay_api is not None:
            self.peers.add(self.replay_api.operations())

    async def _register(self) -> None:
        await self.membership.register(self.door.refused if self.door else lambda: None)
        if self.door is not None:
            self.door.admitted()
        self._registered = True
        self.retention.observe(self.consensus.snapshot())
        if self.storage is not None:
            self.supervisor.spawn("mark", self.supervisor.forever(lambda: MARK_SECONDS, self._rise))
        await self.supervisor.forever(lambda: HEARTBEAT_SECONDS, self.membership.beat)

    async def _rise(self) -> None:
        told = self.consensus.snapshot().marks.get(self.settings.node.id, 0)
        await self.membership.tell_mark(await asyncio.to_thread(self.mark.rise, told))

    async def _follow_state(self) -> None:
        async for state in self.consensus.watch():
            if self.storage is not None:
                shard_epochs = {shard: lead.epoch for shard, lead in state.leaders.items()}
                self.storage.observe_epochs(state.ring_epoch, shard_epochs)
                if self._registered:
                    self.retention.observe(state)
            try:
                self._tell(state)
            except Exception as error:  # noqa: BLE001 - what is told must not keep the store from the news
                log.error("events were not told", error=error)

    def _tell(self, state: ClusterState) -> None:
        for event in self.events.observe(state, self.clock.wall_micros()):
            facts = {k: v for k, v in event.items() if k not in ("event", "at", "node")}
            log.info(event["event"], member=event.get("node"), **facts)

    def not_ready(self) -> list[str]:
        """What is still missing before every request can be served."""
        view = self.views.current()
        missing = [] if self._registered else [self.membership.refused or "registration"]
        if self._registered and view.member(self.settings.node.id) is None:
            missing.append("nothing: this node was removed for good; stop it")
        if not view.ready:
            missing.append("ring")
        elif not all(view.leader(shard) for shard in range(view.shard_count)):
            missing.append("shard leaders")
        return missing

    def local_status(self) -> dict[str, Any]:
        """This node's own figures, for /cluster."""
        body: dict[str, Any] = {"consensus": self.consensus.status()}
        if self.storage is not None:
            body["storage"] = self.storage.status()
        if self.sync is not None:
            body["repair"] = self.sync.status()
        if self.keeper is not None:
            body["leases"] = self.keeper.status()
        body["moves"] = self.moving.status()
        return body

    async def stop(self) -> None:
        """Ends in the reverse order; what was acknowledged is on disk anyway."""
        await self.http.stop()
        if self.sql is not None:
            await self.sql.close()
        if self.reader is not None:
            await self.reader.stop()
        if self.ingest is not None:
            await self.ingest.close()
        if self.writer is not None:
            await self.writer.stop()
        await self.handoff.stop()
        await self.supervisor.stop()
        await self.moving.stop()
        await self.peers.stop()
        await self.consensus.stop()
        await self.transport.stop()
        if self.storage is not None:
            await self.storage.stop()
        self.write_workers.close()
        self.query_workers.close()
