"""Handoff: who keeps a hint, what is delivered, what is dropped, and what a failure leaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cluster.handoff import PAUSE_MAX, Handoff, owns_in, sift
from records.errors import ConnectionLost, InvalidRequest
from records.hint import Hint
from runtime.deadline import Deadline
from runtime.metrics import Metrics
from storage import hints
from storage.service import StorageService
from tests.support.fake_replica import FakeReplicas, FakeView, FakeViews
from tests.unit.cluster.test_lease_keeper import HandClock
from tests.unit.storage.samples import OPTIONS, SETTINGS, Entry, block_of, plain, row

IDS = [bytes([n]) * 16 for n in range(4)]


class StepClock(HandClock):
    """Time that passes when somebody sleeps, and is noted then."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await super().sleep(seconds)


class Calls:
    """A transport that notes calls; nodes in `gone` do not answer."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, dict]] = []
        self.gone: set[str] = set()

    async def call(
        self, node: str, operation: str, head: dict, payload: Any, deadline: Deadline
    ) -> tuple[dict, memoryview]:
        self.made.append((node, operation, head))
        if node in self.gone:
            raise ConnectionLost(f"{node} is gone")
        return {}, memoryview(b"")


class AliveView(FakeView):
    """A view in which some nodes are away or no members."""

    away: frozenset[str] = frozenset()

    def is_alive(self, node: str) -> bool:
        return node not in self.away

    def member(self, node: str) -> Any:
        return super().member(node) if node in self.nodes else None


@dataclass
class Keeper:
    """A handoff of node `a` over a real store and fake replicas."""

    handoff: Handoff
    storage: StorageService
    replicas: FakeReplicas
    views: FakeViews
    metrics: Metrics
    clock: StepClock
    calls: Calls

    def metric(self, name: str) -> float:
        return sum(v for k, v in self.metrics.snapshot().items() if k.split("{")[0] == name)

    def dropped(self) -> dict[str, float]:
        name = "quorumlog_hints_dropped_total"
        found = self.metrics.snapshot().items()
        return {k.split('"')[1]: v for k, v in found if k.startswith(name + "{") and v}

    async def missed(self, *entries: Entry, number: int = 1, target: str = "b") -> Any:
        """A block that is stored here, and that `target` missed."""
        block = block_of(number, *entries)
        await self.storage.put(block, OPTIONS)
        self.handoff.missed(target, block.header, ["c", "a"])
        await self.storage.hints.flush()
        return block


@asynccontextmanager
async def keeper(
    directory: Path, view: FakeView | None = None, **more: Any
) -> AsyncIterator[Keeper]:
    """Started, and stopped at the end."""
    metrics, clock, calls = Metrics(), StepClock(), Calls()
    settings = replace(SETTINGS, **more.pop("settings", {}))
    storage = StorageService(directory, "a", settings, clock, metrics, **more)
    replicas, views = FakeReplicas("a", "b", "c"), FakeViews(view or AliveView())
    handoff = Handoff("a", storage, views, replicas, calls, clock, metrics)
    await storage.start()
    try:
        yield Keeper(handoff, storage, replicas, views, metrics, clock, calls)
    finally:
        await handoff.stop()
        await storage.stop()


def viewed(**more: Any) -> AliveView:
    """A view with these nodes away."""
    away = more.pop("away", ())
    view = AliveView(**more)
    object.__setattr__(view, "away", frozenset(away))
    return view


# -- the pure part --------------------------------------------------------------------------------


def test_sifts_what_is_owned_once_each() -> None:
    """Of two hints with a common entry; a shard that moved away drops out."""
    first = Hint("b", 1, 10, ((1, IDS[0] + IDS[1]), (2, IDS[2])))
    again = Hint("b", 1, 11, ((1, IDS[1]),))

    found = sift([first, again], lambda _, shard: shard == 1)

    assert found.wanted == IDS[:2]
    assert found.dropped == {"moved": 1}


def test_an_owner_is_whom_a_write_is_sent_to() -> None:
    """While a shard moves that is the old owner and the new one; of a shard that is none, nobody."""
    view: Any = AliveView(moving=((3, (("a", "b", "c"), ("a", "b", "d"))),))
    owns = owns_in(view)

    assert [node for node in "abcde" if owns(node, 3)] == ["a", "b", "c", "d"]
    assert [node for node in "abcde" if owns(node, 4)] == ["a", "b", "c"]
    assert not owns("a", 32)
    assert not owns("a", -1)


# -- leaving --------------------------------------------------------------------------------------


async def test_a_node_that_holds_the_block_keeps_the_hint_itself(tmp_path: Path) -> None:
    """No call to anybody."""
    async with keeper(tmp_path) as one:
        await one.missed(plain(1, 3))

        assert one.storage.hints.targets() == ["b"]
        assert one.calls.made == []


async def test_a_node_without_the_block_leaves_the_hint_with_a_holder(tmp_path: Path) -> None:
    """The first holder is gone, the second takes it; if none does, it is counted."""
    async with keeper(tmp_path) as one:
        one.calls.gone = {"c"}
        header = block_of(1, plain(1)).header
        one.handoff.missed("b", header, ["c", "d"])
        while len(one.handoff._tasks):
            await _turn()

        assert [(node, operation) for node, operation, _ in one.calls.made] == [
            ("c", "hint"),
            ("d", "hint"),
        ]
        assert one.calls.made[1][2] == {"hint": Hint.of("b", header).to_list()}
        assert one.dropped() == {}
        one.calls.gone = {"c", "d"}
        one.handoff.missed("b", header, ["c", "d"])
        while len(one.handoff._tasks):
            await _turn()
        assert one.dropped() == {"unreachable": 1}


async def test_a_holder_takes_hints_for_members_only(tmp_path: Path) -> None:
    """A hint from a peer is kept; one for a stranger, or garbage, is refused."""
    async with keeper(tmp_path) as one:
        take = one.handoff.operations()["hint"]
        deadline = Deadline.after(one.clock, 1.0)
        head = {"hint": Hint("b", 1, 1, ((0, IDS[0]),)).to_list()}
        await take(head, memoryview(b""), deadline)
        await one.storage.hints.flush()

        assert one.storage.hints.targets() == ["b"]
        for bad in ({}, {"hint": [1]}, {"hint": Hint("z", 1, 1, ((0, IDS[0]),)).to_list()}):
            with pytest.raises(InvalidRequest):
                await take(bad, memoryview(b""), deadline)


# -- delivering -----------------------------------------------------------------------------------


async def test_an_owner_that_is_back_gets_what_it_missed_and_no_more(tmp_path: Path) -> None:
    """Two blocks missed, one not; after the delivery no hint is left, and the rows are the same."""
    async with keeper(tmp_path) as one:
        first = await one.missed(plain(1, 3), Entry([row(70)], shard=5), number=1)
        await one.storage.put(block_of(2, plain(40)), OPTIONS)
        second = await one.missed(plain(50, 2), number=3)

        await one.handoff.step()

        wanted = {entry.entry_id for block in (first, second) for entry in block.header.entries}
        assert set(one.replicas["b"].held) == wanted
        assert one.storage.hints.targets() == []
        assert one.metric("quorumlog_handoff_entries_total") == 3
        assert not any(one.storage.hints.sizes().values())


async def test_nothing_is_sent_to_an_owner_that_is_away(tmp_path: Path) -> None:
    """Not even tried; its hints stay."""
    async with keeper(tmp_path, viewed(away=["b"])) as one:
        await one.missed(plain(1, 3))
        await one.handoff.step()

        assert one.replicas["b"].calls == []
        assert one.storage.hints.targets() == ["b"]


async def test_a_delivery_that_fails_is_repeated_whole_and_later(tmp_path: Path) -> None:
    """The pause doubles up to its maximum; when the owner takes puts again it gets all of it."""
    async with keeper(tmp_path) as one:
        await one.missed(plain(1, 3))
        one.replicas["b"].down = True
        waits = []
        for _ in range(10):
            before = one.metric("quorumlog_handoff_failures_total")
            while one.metric("quorumlog_handoff_failures_total") == before:
                await one.handoff.step()
                one.clock.now += 0.25
            waits.append(one.clock.now)
        pauses = [b - a for a, b in pairwise(waits)]

        assert pauses == sorted(pauses)
        assert pauses[-1] <= PAUSE_MAX + 1
        one.replicas["b"].down = False
        one.clock.now += PAUSE_MAX
        await one.handoff.step()
        assert len(one.replicas["b"].held) == 1
        assert one.storage.hints.targets() == []


async def test_a_shard_that_moved_away_is_dropped_and_counted(tmp_path: Path) -> None:
    """The ring of now decides, not that of the hint."""
    view = AliveView(placed=((0, ("a", "c", "d")),), ring_epoch=2)
    async with keeper(tmp_path, view) as one:
        await one.missed(plain(1, 2), Entry([row(9)], shard=5))

        await one.handoff.step()

        assert {held.entry.shard for held in one.replicas["b"].held.values()} == {5}
        assert one.dropped() == {"moved": 1}


async def test_the_new_owner_of_a_shard_that_moves_gets_its_hints(tmp_path: Path) -> None:
    """It is not read yet, but writes go to it already."""
    view = AliveView(
        placed=((0, ("a", "c", "d")),), moving=((0, (("a", "c", "d"), ("a", "c", "b"))),)
    )
    async with keeper(tmp_path, view) as one:
        await one.missed(plain(1, 2))
        await one.handoff.step()

        assert len(one.replicas["b"].held) == 1
        assert one.dropped() == {}


async def test_a_ring_that_moves_during_a_delivery_does_not_end_it(tmp_path: Path) -> None:
    """Its steps follow one another faster than files of hints; the target refuses puts of the one before."""
    async with keeper(tmp_path) as one:
        for number in range(3):
            await one.missed(plain(10 * number, 2), number=number)
        target = one.replicas["b"]
        put = target.put

        async def moving(*args: Any) -> Any:
            reply = await put(*args)
            target.ring_epoch += 1
            one.views.put(AliveView(ring_epoch=target.ring_epoch))
            return reply

        target.put = moving  # type: ignore[method-assign]
        await one.handoff.step()

        assert len(target.held) == 3
        assert one.metric("quorumlog_handoff_failures_total") == 0
        assert one.storage.hints.targets() == []


async def test_a_target_on_which_something_breaks_does_not_hold_up_the_others(
    tmp_path: Path,
) -> None:
    """An error of another kind: counted, tried again later, and c gets its own."""
    async with keeper(tmp_path) as one:
        await one.missed(plain(1, 2), number=1, target="b")
        await one.missed(plain(9, 2), number=2, target="c")
        put = one.replicas["b"].put

        async def broken(*_: Any) -> Any:
            raise RuntimeError("a bug")

        one.replicas["b"].put = broken  # type: ignore[method-assign]
        await one.handoff.step()
        await one.handoff.step()

        assert len(one.replicas["c"].held) == 1
        assert one.metric("quorumlog_handoff_failures_total") == 1  # and rests
        one.replicas["b"].put = put  # type: ignore[method-assign]
        one.clock.now += 1.0
        await one.handoff.step()
        assert len(one.replicas["b"].held) == 1


async def test_a_slow_target_does_not_keep_the_others_from_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three files of hints for b, each of which takes 6 s: after two of them c gets its own."""
    monkeypatch.setattr(hints, "FILE_BYTES", 1)
    async with keeper(tmp_path, settings={"handoff_share": 1.0}) as one:
        for number in range(3):
            await one.missed(plain(10 * number, 2), number=number, target="b")
        await one.missed(plain(90, 2), number=9, target="c")
        put = one.replicas["b"].put

        async def slow(*args: Any) -> Any:
            one.clock.now += 6.0
            return await put(*args)

        one.replicas["b"].put = slow  # type: ignore[method-assign]
        await one.handoff.step()

        assert (len(one.replicas["b"].held), len(one.replicas["c"].held)) == (2, 1)
        await one.handoff.step()
        assert one.storage.hints.targets() == []


async def test_entries_that_the_keeper_lost_are_counted_and_the_rest_is_delivered(
    tmp_path: Path,
) -> None:
    """Hints are no copies: what is gone here is anti-entropy's to find elsewhere."""
    async with keeper(tmp_path) as one:
        await one.missed(plain(1, 2))
        one.storage.hints.add(Hint("b", 1, 1, ((0, IDS[0] + IDS[1]),)))
        await one.storage.hints.flush()

        await one.handoff.step()

        assert len(one.replicas["b"].held) == 1
        assert one.dropped() == {"not held": 2}
        assert one.storage.hints.targets() == []


async def test_a_repeated_delivery_stores_nothing_twice(tmp_path: Path) -> None:
    """The same hint twice, as after a crash before the file was removed."""
    async with keeper(tmp_path) as one:
        block = await one.missed(plain(1, 2))
        await one.handoff.step()
        one.handoff.missed("b", block.header, ["a"])
        await one.storage.hints.flush()
        await one.handoff.step()

        assert len(one.replicas["b"].held) == 1
        assert one.metric("quorumlog_handoff_held_entries_total") == 1


async def test_hints_survive_a_restart_of_the_keeper(tmp_path: Path) -> None:
    """Written in one life, delivered in the next."""
    async with keeper(tmp_path) as one:
        await one.missed(plain(1, 2))
    async with keeper(tmp_path) as one:
        assert one.storage.hints.targets() == ["b"]
        await one.handoff.step()
        assert len(one.replicas["b"].held) == 1


async def test_hints_for_a_node_that_left_the_cluster_are_removed(tmp_path: Path) -> None:
    """Nobody would ever ask for them."""
    async with keeper(tmp_path) as one:
        await one.missed(plain(1, 2))
        one.views.put(AliveView(nodes=("a", "c")))
        await one.handoff.step()

        assert one.storage.hints.targets() == []
        assert one.replicas["b"].calls == []
        assert one.dropped() == {"no member": 1}


async def test_most_of_the_time_is_left_to_others(tmp_path: Path) -> None:
    """With a share of a quarter, a put that took 0.4 s is followed by 1.2 s of rest."""
    async with keeper(tmp_path) as one:
        await one.missed(plain(1, 2))
        put = one.replicas["b"].put

        async def slow(*args: Any) -> Any:
            one.clock.now += 0.4
            return await put(*args)

        one.replicas["b"].put = slow  # type: ignore[method-assign]
        await one.handoff.step()

        assert one.clock.slept[-1] == pytest.approx(1.2)


async def test_bounds_are_counted_by_reason(tmp_path: Path) -> None:
    """No hints by settings, and none when the disk is nearly at its floor."""
    async with keeper(tmp_path, settings={"hint_bytes_max": 0}) as one:
        await one.missed(plain(1, 2))
        assert one.dropped() == {"off": 1}
        assert one.storage.hints.targets() == []
    async with keeper(tmp_path, free=lambda _: 10 << 20) as one:
        await one.missed(plain(3, 2), number=2)
        assert one.dropped() == {"disk": 1}


async def _turn() -> None:
    await asyncio.sleep(0)
