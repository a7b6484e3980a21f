"""Copying a shard between real stores: from a quorum, until nothing is lacking, within a byte rate."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.move_calls import ENTRY_ID
from cluster.pace import BURST_SECONDS, Pace, Portion
from cluster.replica_client import LocalReplica
from cluster.shard_copy import CALL_SECONDS, CopyTask, ShardCopier
from records.errors import ConnectionLost, DeadlineExceeded, QuorumUnavailable, StaleRingEpoch
from records.messages import PutOptions, SealRequest
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from storage.retention import Retention
from storage.service import StorageService
from tests.unit.storage.samples import SECOND, T0, block_of, plain, sequenced, service_on


class Slept(SystemClock):
    """Sleeps take no time and are counted."""

    def __init__(self) -> None:
        self.slept = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.slept

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds


class Stores:
    """Stores by name as calls and as replicas; those in `down` answer nothing."""

    def __init__(self, stores: dict[str, StorageService]) -> None:
        self.stores = stores
        self.down: set[str] = set()

    def _of(self, node: str) -> StorageService:
        if node in self.down:
            raise ConnectionLost(f"{node} is down")
        return self.stores[node]

    def get(self, node: str) -> LocalReplica:
        return LocalReplica(self._of(node))

    async def hand_over(self, node: str, shard: int, ring_epoch: int, _: Any) -> Any:
        return await self._of(node).moves.hand_over(shard, ring_epoch)

    async def take_over(self, node: str, handed: Any, ring_epoch: int, _: Any) -> None:
        await self._of(node).moves.take_over(handed, ring_epoch)

    async def entry_ids(self, node: str, shard: int, _: Any, whole: bool = False) -> np.ndarray:
        return np.frombuffer(self._of(node).moves.entry_ids(shard, whole), ENTRY_ID)


@pytest.fixture
async def stores(tmp_path: Path) -> Any:
    made = {name: service_on(tmp_path / name) for name in "abcd"}
    for one in made.values():
        await one.start()
    yield Stores(made)
    for one in made.values():
        await one.stop()


def copier(stores: Stores, clock: SystemClock | None = None) -> ShardCopier:
    clock = clock or SystemClock()
    return ShardCopier(stores, stores, clock, Pace(clock), lambda: 5)


TASK = CopyTask(0, ("a", "b", "c"), 2, ("d",))


async def put(stores: Stores, nodes: str, *blocks: Any) -> None:
    for node in nodes:
        for block in blocks:
            await stores.stores[node].put(block, PutOptions(1))


def digests(stores: Stores, nodes: str) -> set[tuple[int, bytes]]:
    return {stores.stores[node].digest(0) for node in nodes}


async def test_the_new_owner_gets_what_any_of_a_quorum_has(stores: Stores) -> None:
    """Each row is on two of three, never on the same two; of another shard nothing is taken."""
    await put(stores, "ab", block_of(1, plain(1, 3), plain(50, shard=9)))
    await put(stores, "bc", block_of(2, plain(10, 2)), block_of(3, sequenced(1, 5)))
    await put(stores, "ac", block_of(4, plain(20, 4)))
    await stores.stores["a"].seal(SealRequest(0, 6, "a"))

    report = await copier(stores).copy(TASK)

    assert report.listed == report.copied == 4
    assert stores.stores["d"].digest(0)[0] == 4
    assert stores.stores["d"].digest(9)[0] == 0
    assert stores.stores["d"].status()["fences"] == {0: 6}
    assert (await copier(stores).copy(TASK)).copied == 0  # again: nothing to do


async def test_with_one_old_owner_dead_the_other_two_are_enough(stores: Stores) -> None:
    await put(stores, "ab", block_of(1, plain(1, 3)))
    stores.down = {"a"}

    await copier(stores).copy(TASK)

    assert digests(stores, "bd") == {stores.stores["b"].digest(0)}


async def test_a_silent_owner_is_not_asked_where_the_others_are_enough(stores: Stores) -> None:
    """A call to a stopped process takes its whole deadline. Where they are not enough it is asked."""
    await put(stores, "ab", block_of(1, plain(1, 3)))
    stores.down = {"a"}  # asking it would raise: nothing is told of it
    made = copier(stores)
    asked: list[str] = []
    hand_over = stores.hand_over

    async def noted(node: str, *rest: Any) -> Any:
        asked.append(node)
        return await hand_over(node, *rest)

    stores.hand_over = noted  # type: ignore[method-assign]
    made.heard = lambda node: node != "a"
    await made.copy(TASK)
    assert asked == ["b", "c"]

    asked.clear()
    made.heard = lambda node: node == "c"
    await made.copy(TASK)
    assert asked == ["a", "b", "c"]


async def test_with_two_old_owners_dead_nothing_counts_as_copied(stores: Stores) -> None:
    """A row may be on just the two that are away."""
    await put(stores, "ab", block_of(1, plain(1, 3)))
    stores.down = {"a", "b"}

    with pytest.raises(QuorumUnavailable, match="1 of 3 owners answered, 2 needed"):
        await copier(stores).copy(TASK)


async def test_a_replica_given_up_is_merged_into_those_that_stay(stores: Stores) -> None:
    """b leaves; what only b and c have, and only a and b, is on both a and c afterwards."""
    await put(stores, "bc", block_of(1, plain(1, 3)))
    await put(stores, "ab", block_of(2, plain(10, 3)))

    await copier(stores).copy(CopyTask(0, ("a", "b", "c"), 2, ("a", "c")))

    assert digests(stores, "ac") == {stores.stores["a"].digest(0)}
    assert stores.stores["a"].digest(0)[0] == 2


async def test_a_target_that_knows_a_newer_ring_refuses(stores: Stores) -> None:
    """This leader is behind: it must look at the state again."""
    await put(stores, "ab", block_of(1, plain(1, 3)))
    await stores.stores["d"].put(block_of(9, plain(1, shard=3)), PutOptions(8))

    with pytest.raises(StaleRingEpoch):
        await copier(stores).copy(TASK)


async def test_bytes_per_second_are_kept(stores: Stores) -> None:
    """The time it takes is the bytes by the rate, but for a second's worth; simulated sleep."""
    for number in range(5):
        await put(stores, "ab", block_of(number, plain(10 * number, 5, f"text {number}")))
    clock = Slept()

    report = await copier(stores, clock).copy(CopyTask(0, ("a", "b", "c"), 2, ("d",), 1000))

    assert report.bytes > 3000
    assert clock.slept == pytest.approx(report.bytes / 1000 - BURST_SECONDS, rel=0.1)


async def test_what_the_target_hides_already_is_copied_no_more_and_not_waited_for(
    stores: Stores,
) -> None:
    """The target dropped what is below a watermark, its holders have not come to that yet."""
    old, new = plain(1, 3), plain(20_000_000, 3)
    await put(stores, "ab", block_of(1, old), block_of(2, new))
    marks = {("default", ""): T0 + 5 * 3600 * SECOND}
    stores.stores["d"].observe_retention(Retention(1, marks))

    report = await copier(stores).copy(TASK)

    assert (report.copied, report.rounds) == (1, 2)
    assert stores.stores["d"].digest(0)[0] == 1


async def test_an_owner_that_serves_no_reads_yet_is_none_that_hands_over(stores: Stores) -> None:
    """It has not registered since its start: its disk may be an older one than the cluster knows."""
    await put(stores, "bc", block_of(1, plain(1, 3)))
    stores.stores["a"].hold_reads()
    stores.down = {"c"}

    with pytest.raises(QuorumUnavailable, match="1 of 3 owners answered"):
        await copier(stores).copy(TASK)


class SlowLink(Stores):
    """Carries so many bytes a second, in simulated time; what does not fit into a call's time is lost."""

    def __init__(self, stores: dict[str, StorageService], clock: Slept, rate: int) -> None:
        super().__init__(stores)
        self.clock, self.rate, self.lost = clock, rate, 0

    def get(self, node: str) -> Any:
        return SlowReplica(self._of(node), self)

    async def carry(self, size: int, deadline: Deadline) -> None:
        seconds = size / self.rate
        await self.clock.sleep(min(seconds, deadline.remaining()))
        if deadline.expired:
            self.lost += 1
            raise DeadlineExceeded("no answer in time")

    async def take_over(self, node: str, handed: Any, ring_epoch: int, deadline: Any) -> None:
        await self.carry(16, deadline)
        await super().take_over(node, handed, ring_epoch, deadline)

    async def entry_ids(
        self, node: str, shard: int, deadline: Any, whole: bool = False
    ) -> np.ndarray:
        found = await super().entry_ids(node, shard, deadline, whole)
        await self.carry(found.nbytes, deadline)
        return found


class SlowReplica(LocalReplica):
    """A replica whose blocks come by that link."""

    def __init__(self, service: StorageService, link: SlowLink) -> None:
        super().__init__(service)
        self.link = link

    async def fetch(self, entry_ids: Any, deadline: Deadline) -> list[Any]:
        blocks = await super().fetch(entry_ids, Deadline.after(SystemClock(), 10))
        await self.link.carry(sum(len(block.data) for block in blocks), deadline)
        return blocks


async def test_a_copy_over_a_slow_link_ends(stores: Stores) -> None:
    """All at once takes five times longer than a call may, one entry takes 1.3 times as long."""
    blocks = [block_of(n, *[plain(100 * n + k, 9) for k in range(8)]) for n in range(8)]
    await put(stores, "ab", *blocks)
    clock = Slept()
    size = sum(len(one.data) for one in blocks)
    link = SlowLink(stores.stores, clock, int(size / (5 * CALL_SECONDS)))
    made = ShardCopier(link, link, clock, Pace(clock), lambda: 5)
    made._portions["a"] = Portion(CALL_SECONDS, 4096, things=4096)

    report = await made.copy(TASK)

    assert report.copied == 64
    assert link.lost >= 1
    assert digests(stores, "ad") == {stores.stores["a"].digest(0)}


async def test_an_entry_and_a_list_that_take_longer_than_a_call_come_through_in_time(
    stores: Stores,
) -> None:
    """They cannot be split; each failed copy gives the next one longer."""
    await put(stores, "ab", block_of(1, plain(1, 400)))
    clock = Slept()
    size = len(block_of(1, plain(1, 400)).data)
    link = SlowLink(stores.stores, clock, int(size / (3 * CALL_SECONDS)))
    made = ShardCopier(link, link, clock, Pace(clock), lambda: 5)
    tries = 0
    while stores.stores["d"].digest(0)[0] == 0:
        tries += 1
        assert tries < 5
        with contextlib.suppress(DeadlineExceeded):
            await made.copy(TASK)

    assert tries == 3  # once, twice, four times CALL_SECONDS


async def test_a_list_that_came_late_once_is_waited_for_as_ever_when_the_link_is_well(
    stores: Stores,
) -> None:
    """Else each later list of a node that stopped for a while could hold up a copy for minutes."""
    await put(stores, "ab", block_of(1, plain(1, 400)))
    clock = Slept()
    link = SlowLink(stores.stores, clock, 1)
    made = ShardCopier(link, link, clock, Pace(clock), lambda: 5)
    for _ in range(6):  # two until the hand-over comes through, two until the lists do
        with contextlib.suppress(DeadlineExceeded, QuorumUnavailable):
            await made.copy(TASK)
    lists = [made._portions[f"list of {node}"] for node in "ab"]
    assert {one.seconds > CALL_SECONDS for one in lists} == {True}

    link.rate = 1 << 30
    for _ in range(3):
        await made.copy(TASK)

    assert {one.seconds for one in lists} == {CALL_SECONDS}
