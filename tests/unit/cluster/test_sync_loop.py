"""Owners of a shard converge by themselves; a dead one is left alone and found at once when it is back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster import sync_shards
from cluster.http_front import front_middleware
from cluster.repair_http import RepairApi, repair_operations
from cluster.replica_client import LocalReplica
from cluster.sync_loop import SyncLoop
from cluster.sync_settings import RepairSettings
from records.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidSettings,
    NotReady,
    QuorumlogError,
)
from records.sync import Level, TreeRequest
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from runtime.entropy import SystemEntropy
from runtime.metrics import Metrics
from storage import tree_reads
from storage.service import StorageService
from tests.support.fake_store import FakeView
from tests.unit.storage.samples import OPTIONS, SECOND, T0, block_of, plain, service_on

SETTINGS = RepairSettings(second_look_seconds=0.01)
NODES = ["n0", "n1", "n2", "n3"]


class Clock(SystemClock):
    """The real one, but both times are moved by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds

    def wall_micros(self) -> int:
        return T0 + 3600 * SECOND + int(self.seconds * SECOND)


class Replica(LocalReplica):
    """A peer that may be dead, and counts its calls."""

    def __init__(self, service: StorageService) -> None:
        super().__init__(service)
        self.dead, self.calls = False, 0
        self.error: Exception = ConnectionLost("gone")

    async def tree(self, request: TreeRequest, deadline: Deadline) -> list[bytes]:
        self.calls += 1
        if self.dead:
            raise self.error
        return await super().tree(request, deadline)


class Cluster:
    """Four stores, each of four shards on three of them; it is ViewSource, Replicas and Transport too."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.view = FakeView(NODES, 3, 2, 2, 4)
        self.stores = {name: service_on(directory / name, node=name) for name in NODES}
        self.replicas = {name: Replica(store) for name, store in self.stores.items()}
        self.metrics = {name: Metrics() for name in NODES}
        self.loops = {name: self._loop(name) for name in NODES}
        self.operations = {name: repair_operations(loop) for name, loop in self.loops.items()}

    def _loop(self, name: str) -> SyncLoop:
        views: Any = self
        return SyncLoop(
            name, self.stores[name], views, self, self.clock, self.metrics[name], SETTINGS
        )

    def current(self) -> Any:
        return self.view

    def get(self, node: str) -> Any:
        return self.replicas[node]

    async def call(self, node: str, operation: str, head: dict, payload: bytes, _: Any) -> Any:
        if self.replicas[node].dead:
            raise ConnectionLost("gone")
        return await self.operations[node][operation](head, memoryview(payload), _)

    async def rounds(self, count: int, *nodes: str) -> None:
        """Steps of some loops (all), a second apart."""
        for _ in range(count):
            for node in nodes or NODES:
                await self.loops[node].step()
            self.clock.seconds += 1.0

    async def write(self, number: int, shard: int, *lacking: str) -> None:
        """A block of ten entries on all owners but some."""
        made = block_of(number, *[plain(100 * number + k, shard=shard) for k in range(10)])
        for node in set(self.view.owners(shard)) - set(lacking):
            await self.stores[node].put(made, OPTIONS)

    def equal(self) -> bool:
        """Whether the owners of each shard hold the same."""
        return all(
            len({self.stores[n].digest(shard) for n in self.view.owners(shard)}) == 1
            for shard in range(4)
        )

    def counted(self, node: str, name: str) -> float:
        """A metric of a node."""
        return self.metrics[node].snapshot().get(name, 0.0)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer ring is looked for at once, and not for long."""
    monkeypatch.setattr(sync_shards, "RING_LOOK_SECONDS", 0.0)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Running stores."""
    made = Cluster(tmp_path)
    for store in made.stores.values():
        await store.start()
    yield made
    for store in made.stores.values():
        await store.stop()


async def test_owners_converge_without_a_read(cluster: Cluster) -> None:
    """Each owner lacks something else; nobody but the owners of a shard gets its entries."""
    for number in range(12):
        owners = cluster.view.owners(number % 4)
        await cluster.write(number, number % 4, owners[number % 3])
    assert not cluster.equal()

    await cluster.rounds(8)

    assert cluster.equal()
    for node, store in cluster.stores.items():
        foreign = [s for s in range(4) if node not in cluster.view.owners(s)]
        assert all(store.digest(shard)[0] == 0 for shard in foreign)
    stored = sum(
        cluster.counted(n, 'quorumlog_sync_entries_total{outcome="stored"}') for n in NODES
    )
    assert stored == 120
    for node in NODES:
        status = cluster.loops[node].status()
        assert status["lacking"] == 0
        assert status["compared_at"] is not None
        assert cluster.counted(node, "quorumlog_sync_lacking_entries") == 0
        assert cluster.counted(node, "quorumlog_sync_age_seconds") < 10


async def test_a_dead_peer_is_left_alone_and_asked_at_once_when_it_is_back(
    cluster: Cluster,
) -> None:
    """While it is believed dead no call is made; what it has and we lack comes with the first one."""
    await cluster.rounds(1)
    await cluster.write(1, 0, "n0", "n1")
    cluster.replicas["n2"].dead = True
    cluster.view.down.add("n2")
    before = cluster.replicas["n2"].calls
    await cluster.rounds(30, "n0")
    assert cluster.replicas["n2"].calls == before
    assert not cluster.equal()

    cluster.replicas["n2"].dead = False
    cluster.view.down.clear()
    await cluster.rounds(1, "n0")

    assert cluster.stores["n0"].digest(0) == cluster.stores["n2"].digest(0)


@pytest.mark.parametrize("error", [ConnectionLost("gone"), RuntimeError("a bug")])
async def test_a_peer_that_fails_is_counted_and_asked_less_and_less(
    cluster: Cluster, error: Exception
) -> None:
    """The loop lives, and the other peers are served."""
    await cluster.write(1, 0, "n0")
    cluster.replicas["n1"].dead, cluster.replicas["n1"].error = True, error
    await cluster.rounds(36, "n0")

    assert cluster.stores["n0"].digest(0) == cluster.stores["n2"].digest(0)
    assert 3 <= cluster.replicas["n1"].calls <= 4  # at 0, 5, 15 and 35 seconds
    code = "CONNECTION_LOST" if isinstance(error, QuorumlogError) else "INTERNAL"
    failed = cluster.counted("n0", f'quorumlog_sync_failures_total{{code="{code}"}}')
    assert failed == cluster.replicas["n1"].calls


CONFLICT = 'quorumlog_sync_entries_total{outcome="conflict"}'


async def test_other_contents_under_one_id_are_told_once_two_sessions_saw_them(
    cluster: Cluster,
) -> None:
    """A real conflict: counted, and nothing is copied or overwritten."""
    for node, text in (("n0", "mine"), ("n1", "theirs")):
        made = block_of(1, plain(1, 3, text, shard=0, name=b"one name"))
        await cluster.stores[node].put(made, OPTIONS)
    before = cluster.stores["n0"].digest(0)

    await cluster.rounds(1, "n0")
    assert cluster.counted("n0", CONFLICT) == 0
    await cluster.rounds(10, "n0")

    assert cluster.counted("n0", CONFLICT) >= 1
    assert cluster.stores["n0"].digest(0) == before


async def test_what_comes_between_two_questions_is_no_conflict(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A hint is delivered after the buckets were compared: the lists are the same by then."""
    await cluster.write(1, 0)
    many = [plain(9000 + k, shard=0) for k in range(150)]  # an hour that is asked for by bucket
    made = [block_of(2, *many), block_of(3, plain(9500, 2, "late", shard=0))]
    for one in made:
        await cluster.stores["n1"].put(one, OPTIONS)
    await cluster.stores["n0"].put(made[0], OPTIONS)
    await cluster.stores["n2"].put(made[0], OPTIONS)
    tree, asked = cluster.replicas["n1"].tree, []

    async def hinted(request: TreeRequest, deadline: Deadline) -> list[bytes]:
        asked.append(request.questions[0].level)
        if asked[-1] is Level.ENTRIES:
            await cluster.stores["n0"].put(made[1], OPTIONS)
        return await tree(request, deadline)

    cluster.replicas["n1"].tree = hinted  # type: ignore[method-assign]
    await cluster.rounds(20, "n0")

    assert Level.ENTRIES in asked
    assert cluster.counted("n0", CONFLICT) == 0
    assert "other contents" not in caplog.text
    assert cluster.stores["n0"].digest(0) == cluster.stores["n1"].digest(0)


async def test_a_peer_whose_entries_are_all_refused_is_asked_less_and_less(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a session sees a part of them: the same part would be fetched again each second."""
    limits = replace(cluster.loops["n0"]._limits, entries_max=5)
    monkeypatch.setattr(cluster.loops["n0"], "_limits", limits)
    monkeypatch.setattr(cluster.loops["n0"], "_admit", lambda _: False)
    monkeypatch.setattr(tree_reads, "REPLY_BYTES_MAX", 50)
    for number in (1, 40, 80):  # hours apart
        await cluster.write(number, 0, "n0", "n2")
    await cluster.rounds(36, "n0")

    fetches = cluster.counted("n0", 'quorumlog_sync_sessions_total{outcome="unfinished"}')
    assert 3 <= fetches <= 4  # at 0, 5, 15 and 35 seconds


async def test_a_ring_that_has_moved_is_asked_by_again_in_a_second(cluster: Cluster) -> None:
    """Each step of a change raises the epoch; the peer is no worse for it."""
    await cluster.rounds(1, "n0")
    await cluster.write(1, 0, "n0", "n2")
    for node in NODES:
        cluster.stores[node].observe_epochs(5, {})
    await cluster.rounds(12, "n0")
    assert cluster.stores["n0"].digest(0)[0] == 0

    cluster.view.ring_epoch = 5
    await cluster.rounds(3, "n0")

    assert cluster.stores["n0"].digest(0) == cluster.stores["n1"].digest(0)


async def test_a_block_that_was_set_aside_is_asked_for_at_once(cluster: Cluster) -> None:
    """However long the peers were to be left alone, as they lacked something."""
    await cluster.write(1, 0)
    await cluster.write(2, 0, "n1", "n2")  # only here: every look at them is in vain
    await cluster.rounds(80, "n0")
    assert cluster.loops["n0"]._turns.due(dict.fromkeys(("n1", "n2"), True), 181.0) is None
    await cluster.stores["n0"]._quarantine(0, "for the test")

    await cluster.rounds(2, "n0")

    assert cluster.counted("n0", 'quorumlog_sync_entries_total{outcome="stored"}') == 10


async def test_a_pass_compares_everything_now_and_tells(cluster: Cluster) -> None:
    """Each node with each peer, however long until its turn; found, copied and failures are told."""
    await cluster.rounds(3)
    await cluster.write(1, 0, "n0")
    await cluster.write(2, 1, "n1")
    cluster.replicas["n3"].dead = True

    numbers = {node: cluster.loops[node].start_pass() for node in NODES}
    assert cluster.loops["n0"].start_pass() == numbers["n0"]  # the one that runs
    with_all = cluster.loops["n0"].start_pass([2])
    assert with_all == numbers["n0"]
    for node in NODES:
        await cluster.loops[node].step()

    passes = {node: cluster.loops[node].status()["pass"] for node in NODES}
    assert {one["state"] for one in passes.values()} == {"done"}
    assert (passes["n0"]["repaired"], passes["n1"]["repaired"]) == (10, 10)
    assert passes["n0"]["bytes"] > 0
    assert "n3" in passes["n1"]["failures"]
    assert passes["n1"]["peers_done"] == passes["n1"]["peers_total"] == 3


async def test_a_pass_of_one_shard_leaves_the_others(cluster: Cluster) -> None:
    """And takes those that are asked for before it begins."""
    await cluster.write(1, 0, "n0")
    await cluster.write(2, 3, "n0")

    cluster.loops["n0"].start_pass([0])
    await cluster.loops["n0"].step()

    assert cluster.stores["n0"].digest(0) == cluster.stores["n1"].digest(0)
    assert cluster.stores["n0"].digest(3)[0] == 0
    assert cluster.loops["n0"].start_pass([1]) == 2
    assert cluster.loops["n0"].start_pass([3]) == 2
    await cluster.loops["n0"].step()
    assert cluster.stores["n0"].digest(3)[0] == 10


async def test_a_pass_asked_for_while_one_runs_comes_after_it(cluster: Cluster) -> None:
    """What the first has compared already may differ by then; who asks now must not be told `done` by it."""
    loop, numbers = cluster.loops["n0"], list[int]()
    last = max(cluster.replicas)
    answer = cluster.replicas[last].tree

    async def late(request: TreeRequest, deadline: Deadline) -> list[bytes]:
        if not numbers:  # n1 has been compared
            await cluster.write(1, 0, "n0", "n2")
            numbers.extend((loop.start_pass([0]), loop.start_pass([1])))
            assert loop.status()["next_pass"] == 2
        return await answer(request, deadline)

    cluster.replicas[last].tree = late  # type: ignore[method-assign]

    assert loop.start_pass() == 1
    await loop.step()

    assert numbers == [2, 2]
    assert loop.status()["pass"]["state"] == "running"
    assert loop.status()["next_pass"] is None
    await loop.step()
    assert loop.status()["pass"]["number"] == 2
    assert loop.status()["pass"]["state"] == "done"
    assert loop.status()["pass"]["repaired"] == 10


async def test_a_peer_behind_a_slow_link_gets_longer_until_a_block_comes_through(
    cluster: Cluster,
) -> None:
    """A fetch that takes 100 s: after 10, 20, 40 and 80 s without an answer it is given 160.

    Once nothing lacks any more, a lost answer holds up the other peers for no longer than before.
    """
    await cluster.write(1, 0, "n0")
    given: list[float] = []
    for node in NODES[1:]:
        fetch = cluster.replicas[node].fetch

        async def slow(ids: Any, deadline: Deadline, fetch: Any = fetch) -> Any:
            given.append(deadline.remaining())
            if given[-1] < 100.0:
                raise DeadlineExceeded("no answer in time")
            return await fetch(ids, deadline)

        cluster.replicas[node].fetch = slow  # type: ignore[method-assign]

    for _ in range(100):
        await cluster.rounds(4, "n0")
        if cluster.equal():
            break

    assert cluster.equal()
    assert max(given) == 160.0
    assert min(given) == 10.0
    await cluster.rounds(300, "n0")
    await cluster.write(2, 0, "n0")
    given.clear()
    await cluster.rounds(10, "n0")
    assert given[0] == 10.0


async def test_without_a_ring_nothing_happens(cluster: Cluster) -> None:
    """There are no owners yet; a pass is refused."""
    cluster.view.ready = False
    await cluster.rounds(2)

    assert all(one.calls == 0 for one in cluster.replicas.values())
    with pytest.raises(NotReady):
        cluster.loops["n0"].start_pass()


@pytest.mark.parametrize("wrong", [{"interval_seconds": 0.0}, {"wait_seconds_max": 1.0}])
def test_settings_have_bounds(wrong: dict[str, float]) -> None:
    """Positive, and no back-off below the interval."""
    with pytest.raises(InvalidSettings):
        RepairSettings(**wrong)  # type: ignore[arg-type]


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[TestClient]:
    """HTTP in front of n0."""
    views: Any = cluster
    api = RepairApi("n0", views, views, SystemClock(), cluster.loops["n0"])
    app = web.Application(middlewares=[front_middleware(SystemClock(), SystemEntropy(), Metrics())])
    app.router.add_routes(api.routes())
    async with TestClient(TestServer(app)) as made:
        yield made


async def test_any_node_starts_a_repair_everywhere_and_tells_how_far_it_is(
    cluster: Cluster, client: TestClient
) -> None:
    """POST tells all storage nodes; a dead one is named. GET asks them."""
    await cluster.write(1, 0, "n0")
    cluster.replicas["n3"].dead = True

    begun = await client.post("/cluster/repair", json={"shard": 0})
    assert begun.status == 202
    body = await begun.json()
    assert body["started"] == {"n0": 1, "n1": 1, "n2": 1}
    assert list(body["failures"]) == ["n3"]
    await asyncio.gather(*(cluster.loops[node].step() for node in ("n0", "n1", "n2")))

    told = await (await client.get("/cluster/repair")).json()
    assert told["nodes"]["n0"]["pass"]["repaired"] == 10
    assert told["nodes"]["n0"]["pass"]["state"] == "done"
    assert list(told["failures"]) == ["n3"]


@pytest.mark.parametrize("body", ["[]", "{", '{"shard": 4}', '{"shard": "1"}', '{"shards": 1}'])
async def test_a_wrong_request_starts_nothing(client: TestClient, body: str) -> None:
    """400 with a reason."""
    answer = await client.post("/cluster/repair", data=body.encode())

    assert answer.status == 400
    assert (await answer.json())["error"]["code"] == "INVALID_REQUEST"


async def test_a_body_without_end_is_not_read(client: TestClient) -> None:
    """413 after some kilobytes, whatever is still to come."""
    answer = await client.post("/cluster/repair", data=b'{"shard": ' + b" " * 200_000 + b"1}")

    assert answer.status == 413


async def test_nobody_to_tell_is_an_error(cluster: Cluster, client: TestClient) -> None:
    """503: nothing was started."""
    cluster.view.ready = False
    for node in NODES:
        cluster.replicas[node].dead = True

    assert (await client.post("/cluster/repair")).status == 503


async def hurt(cluster: Cluster) -> tuple[str, str, int]:
    """(a node that set all it holds of shard 0 aside, an owner that lacks it too, entries lost)."""
    owners = cluster.view.owners(0)
    await cluster.write(1, 0, owners[2])
    store = cluster.stores[owners[0]]
    for place in list(store._engine.holdings.blocks):
        await store._quarantine(place.ordinal, "planted")
    store.holes.forget([0])
    store.holes.add(0, None, 0)  # not known which, so that arrival alone closes nothing
    return owners[0], owners[2], 10


async def test_a_damaged_shard_is_whole_after_a_comparison_with_every_other_owner(
    cluster: Cluster,
) -> None:
    """Not while one of them is away, though all that was lost is back."""
    node, other, _ = await hurt(cluster)
    cluster.replicas[other].dead = True
    await cluster.rounds(8, node)
    assert cluster.loops[node].status()["damaged"] == [0]

    cluster.replicas[other].dead = False
    await cluster.rounds(60, node)

    assert cluster.loops[node].status()["damaged"] == []


async def test_what_damage_took_and_no_owner_has_is_told_when_the_shard_counts_again(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Two of the two copies are damaged: beyond what W covers, so at least it is said."""
    owners = cluster.view.owners(0)
    await cluster.write(1, 0, owners[2])
    for node in owners[:2]:
        store = cluster.stores[node]
        ids = np.frombuffer(store.moves.entry_ids(0), "V16")
        for place in list(store._engine.holdings.blocks):
            await store._quarantine(place.ordinal, "planted")
        store.holes.forget([0])
        store.holes.add(0, [one.tobytes() for one in ids], 0)  # received before the clock of here

    await cluster.rounds(60, *owners)

    assert cluster.loops[owners[0]].status()["damaged"] == []
    told = [one for one in caplog.records if "are on no owner" in one.getMessage()]
    assert len(told) == 2


async def test_an_operator_may_accept_a_loss(cluster: Cluster) -> None:
    """With another owner away for ever; `repair` alone accepts nothing."""
    node, other, _ = await hurt(cluster)
    cluster.replicas[other].dead = True
    await cluster.call(node, "repair", {"shards": None}, b"", None)
    assert cluster.loops[node].status()["damaged"] == [0]

    head = {"shards": [0], "accept_loss": True}
    answer, _ = await cluster.call(node, "repair", head, b"", None)

    assert answer["accepted"] == 1
    assert cluster.loops[node].status()["damaged"] == []
