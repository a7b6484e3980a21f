"""One simulated node: the real store, write path and read path on a SimDisk, a SimNetwork and a SimLog.

A node's tasks carry its name and life in a context variable, so that a crash can end them all at once, in
the order they were made: no task of a dead life runs on.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from chaos.sim.clock import Dice, SimClock
from chaos.sim.consensus import SimConsensus, SimLog
from chaos.sim.healing import Healing, storage_settings
from chaos.sim.network import Answer, Serve, SimNetwork, SimTransport
from chaos.sim.steering import Asked, Conduct, Steering, moves_api, retention_api
from chaos.sim.taps import Fences, TappedDisk, TappedStorage, check_promises, tap_moves
from chaos.sim.twins import SimMetrics, SimWorkers, hooks
from cluster.replica_client import ReplicaSet
from cluster.view import ClusterView, ConsensusViews
from ingestor.coordinator import WriteCoordinator
from ingestor.write_settings import WriteSettings
from node.splits_http import SplitsApi
from node.store_door import StoreDoor
from query.coordinator import ReadCoordinator
from query.settings import QuerySettings
from records.block import EntryHeader
from records.block_codec import EncodedBlock
from records.errors import NotFound
from runtime.entropy import SeededEntropy
from storage.entry_table import GONE, cells_of
from storage.settings import StorageSettings

STORAGE = StorageSettings(
    log_file_bytes=48 << 10, cache_bytes=1 << 20, filter_bytes=1 << 16, catalog_interval_seconds=1.5,
    disk_floor_bytes=1 << 20, disk_hysteresis_bytes=1 << 10, disk_interval_seconds=1.0,
)  # fmt: skip
WRITE = WriteSettings(
    filters="off", put_timeout_seconds=0.4, backoff_first_seconds=0.02, backoff_max_seconds=0.2,
    linger_seconds=0.01, recovery_grace_seconds=0.02, disk_full_hold_seconds=0.3,
)  # fmt: skip
QUERY = QuerySettings(
    spread="off", repair_delay_seconds=0.3, timeout_seconds=3.0, queue_seconds=2.0
)

#: "node/life" of the task that runs; empty for the world's own.
OWNER: contextvars.ContextVar[str] = contextvars.ContextVar("sim_owner", default="")


class Tasks:
    """All tasks by owner, in the order they were made."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._by_owner: dict[str, dict[asyncio.Task[Any], None]] = {}
        self._dead: set[str] = set()
        make: Any = self._make
        loop.set_task_factory(make)

    def _make(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any],
        context: contextvars.Context | None = None,
    ) -> "asyncio.Task[Any]":
        owner = OWNER.get() if context is None else context.get(OWNER, "")
        task = asyncio.Task(coro, loop=loop, context=context)
        tasks = self._by_owner.setdefault(owner, {})
        tasks[task] = None
        task.add_done_callback(lambda done: tasks.pop(done, None))
        if owner in self._dead:
            task.cancel()
        return task

    def kill(self, owner: str) -> None:
        """Ends an owner's tasks; it gets no more."""
        self._dead.add(owner)
        for task in list(self._by_owner.get(owner, ())):
            task.cancel()

    def alive(self) -> list["asyncio.Task[Any]"]:
        """All that have not ended."""
        return [task for tasks in self._by_owner.values() for task in tasks]


class _Peers:
    """What peers may ask, by name: the part of a PeerServer that a door needs."""

    def __init__(self) -> None:
        self.operations: dict[str, Any] = {}

    def add(self, operations: dict[str, Any]) -> None:
        """Adds some."""
        self.operations.update(operations)


class SimViews(ConsensusViews):
    """The real views, woken by news instead of looking for them."""

    def __init__(self, node: str, consensus: SimConsensus, alive: Any) -> None:
        super().__init__(node, consensus, alive)
        self._sim = consensus

    async def changed(self, after_index: int, timeout: float) -> ClusterView:
        """See ViewSource."""
        await self._sim.changed(after_index, timeout)
        return self.current()


class SimNode:
    """A node through all its lives. `fences` and the disk outlive crashes."""

    def __init__(
        self,
        id: str,
        network: SimNetwork,
        log: SimLog,
        tasks: Tasks,
        dice: Dice,
        skew: float,
        parts: Sequence[str] = (),
    ) -> None:
        """`parts`: what heals it; see chaos.sim.healing."""
        self.id, self._network, self._log, self._tasks = id, network, log, tasks
        self._dice = dice.fork(id)
        self.disk = TappedDisk(id, self._dice.fork("disk"))
        self.clock = SimClock(asyncio.get_running_loop(), skew)
        self.disk.wall = lambda: self.clock.wall_micros() / 1e6
        self._parts = parts
        self._settings = storage_settings(STORAGE, parts)
        self.broken: list[tuple[str, str]] = []
        self.fences = Fences(id, self.broken)
        #: See TappedStorage.
        self.altered: Callable[[EncodedBlock], str] = lambda _block: ""
        self.metrics = SimMetrics()
        self.life = 0
        self.up = False
        self.crashes = 0
        self._applied = 0
        #: The newest index of the agreed log when this life began: no store may know less that answers.
        self.begun = 0
        #: Set before the first start.
        self.conduct = Conduct()

    @property
    def owner(self) -> str:
        """The name of this life's tasks."""
        return f"{self.id}/{self.life}"

    @property
    def applied(self) -> int:
        """The index of the agreed log that this node has applied."""
        return self.consensus.applied if self.up else self._applied

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """A task of this life."""
        context = contextvars.copy_context()
        context.run(OWNER.set, self.owner)
        return asyncio.get_running_loop().create_task(work, context=context)

    async def start(self) -> None:
        """A new life on the same disk."""
        self.life += 1
        self.begun = len(self._log.states) - 1
        work = self.spawn(self._start())
        await asyncio.wait([work])
        if work.cancelled():
            return  # it crashed while it started
        error = work.exception()
        if error is not None:
            self.broken.append(("I15", f"{self.id} does not start again: {error!r}"))

    async def _start(self) -> None:
        self.consensus = SimConsensus(self.id, self._log, self._applied)
        views = SimViews(self.id, self.consensus, lambda node: node in self._network.serve)
        directory: Any = self.disk.path("store")
        self.storage = TappedStorage(
            directory, self.id, self._settings, self.clock, self.metrics,  # pyright: ignore[reportArgumentType]
            hooks=hooks(self.disk), free=lambda _: self.disk.free_bytes,
        )  # fmt: skip
        self.storage.fences = self.fences
        self.storage.altered = self.altered
        await self.storage.start()
        check_promises(self.storage)
        tap_moves(self.storage)
        transport = SimTransport(self.id, self._network)
        replicas = ReplicaSet(self.id, None, transport, lambda _: True)
        entropy = SeededEntropy(self._dice.number(0, 1 << 60))
        metrics, workers = self.metrics, SimWorkers()
        parts = self.consensus, self.storage, replicas, transport, self.clock, metrics
        self.steering = Steering(self.id, self.conduct, *parts)
        self._healing = Healing(
            self.id, self._parts, self.storage, views, replicas, transport, self.clock, metrics
        )
        peers: Any = _Peers()
        args = self.steering.moving, self._healing.sync
        self.door = StoreDoor(self.id, self.storage, peers, replicas, *args)
        self.writer = WriteCoordinator(
            views, replicas, self.clock, entropy, metrics, WRITE, workers,  # pyright: ignore[reportArgumentType]
            self._healing.missed,
        )  # fmt: skip
        self.reader = ReadCoordinator(
            views, replicas, self.clock, metrics, QUERY, workers  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        self.splits = SplitsApi(views, self.consensus, self.clock)
        self.moves = moves_api(self.consensus, self.steering)
        args = self.id, views, self.consensus, transport, self.clock, entropy
        self.retention = retention_api(*args, self.storage, self.reader)
        self.door.enter()
        peers.add({**self.steering.membership.operations(), **self._healing.operations()})
        self._network.spawn[self.id] = lambda serve, args: self.spawn(_awaited(serve, args))
        self._network.serve[self.id] = self._serving(peers.operations)
        self.spawn(self.steering.register(self.door))
        self.spawn(self.steering.follow())
        self._healing.start(self.spawn)
        self.steering.start()
        await self.writer.start()
        self.up = True

    async def asked(self, handler: Any, body: dict[str, Any], **match: str) -> None:
        """One request of the operator, answered by a handler of this node."""
        request: Any = Asked(body, **match)
        await handler(request)

    @staticmethod
    def _serving(operations: dict[str, Any]) -> Serve:
        async def serve(operation: str, head: dict, payload: memoryview, deadline: Any) -> Answer:
            if operation not in operations:
                raise NotFound(f"no operation {operation!r}")
            return await operations[operation](head, payload, deadline)

        return serve

    def present(self) -> set[bytes]:
        """Ids of the entries that the store says it holds."""
        table = self.storage._engine.holdings.table
        rows = table.rows[: table.count]
        return set(cells_of(rows["id"][(rows["flags"] & GONE) == 0]))

    def known(self) -> dict[bytes, EntryHeader]:
        """Those of them that were written here, in the order in which they were."""
        held = self.present()
        return {id: entry for id, entry in self.disk.entries.items() if id in held}

    @property
    def incarnation(self) -> str:
        """That of its store."""
        return f"{self.id}.{self.disk.wipes}"

    def wipe(self) -> None:
        """All that the store had and had promised is gone; the node is down."""
        self.disk.wipe()
        self.fences = Fences(self.id, self.broken)

    def crash(self, power: bool) -> None:
        """Ends this life: the process alone, or with `power` the machine, and what it had not synced."""
        if self.life == 0 or self.owner in self._tasks._dead:
            return
        self.up = False
        self.crashes += 1
        self._network.serve.pop(self.id, None)
        self._applied = self.consensus.applied
        if self.consensus in self._log._followers:
            self.consensus.close()
        wal: Any = getattr(self.storage, "_wal", None)
        if wal is not None:
            wal.dead = True
        self._tasks.kill(self.owner)
        if power:
            self.disk.power_cut(self._dice)
        self.disk.handles.clear()


async def _awaited(serve: Serve, args: tuple[Any, ...]) -> Answer:
    return await serve(*args)
