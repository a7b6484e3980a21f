"""Rare orders of events, made likely: each needs several things at once that lots seldom bring together.

    torn reign    A shard gets another leader. Of that hears the new one alone; what it writes to the others
                  gets lost, and it does not reach the one before, who goes on with the third owner.
    short seal    The same, but the third owner is sealed, and loses power with its answer.
    outpaced      A shard moves. Two of its old owners hear of nothing from the copy on, and nobody hears
                  them, until it is read from its new owners and long after.
    lone copy     The executor lacks a row that the two other old owners have; they are down while it copies.
    deaf start    A node comes back while it reaches no majority of the managers.
    again         A shipper that forgot where it was sends everything again, while somebody pages; one owner
                  had missed some of it.
    lost OP       Requests of one kind do not arrive at one node.

The agreed log goes on for those that are not deaf, whoever is cut off: other voters, which are not simulated,
stand on their side.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from chaos.sim.clients import Traffic, Writer, post, read, read_pages
from chaos.sim.clock import Dice
from chaos.sim.consensus import SimLog
from chaos.sim.corpus import SERVICES
from chaos.sim.election import Election
from chaos.sim.moving import Mover
from chaos.sim.network import SimNetwork
from chaos.sim.node import SimNode
from chaos.sim.plan import Fault
from cluster.state_types import COPYING
from ingestor.batch import Batch, Identity
from ring.shards import shard_of

TENANT = "default"
#: Virtual seconds that a stage, or a seal, is waited for.
WAIT_SECONDS = 4.0


@dataclass(slots=True)
class Rifts:
    """One per run. `deaf`: who hears nothing of the agreed log; `heard`: who does, whatever is cut."""

    nodes: dict[str, SimNode]
    managers: tuple[str, ...]
    log: SimLog
    network: SimNetwork
    election: Election
    traffic: Traffic
    mover: Mover
    deaf: set[str]
    heard: set[str]
    dice: Dice
    crash: Callable[[SimNode, bool], None]
    revive: Callable[[], Awaitable[None]]
    #: Takes over a writer: from now on it sends until it is done.
    employ: Callable[[Writer], None]
    _sent: int = field(default=0)

    async def inflict(self, fault: Fault) -> None:
        """Carries out one of the plan's."""
        node = self.managers[fault.who % len(self.managers)]
        if fault.kind.startswith("lost "):
            lost = {(one, node, fault.kind.removeprefix("lost ")) for one in self.nodes}
            with self._rift(narrow=lost):
                await asyncio.sleep(fault.seconds)
        elif fault.kind in ("torn reign", "short seal"):
            await self._torn_reign(fault)
        elif fault.kind == "outpaced":
            await self._outpaced(fault.seconds)
        elif fault.kind == "lone copy":
            await self._lone_copy(fault.seconds)
        elif fault.kind == "deaf start":
            await self._deaf_start(self.nodes[node], fault.seconds)
        else:
            await self._again()

    @contextmanager
    def _rift(
        self,
        deaf: Iterable[str] = (),
        cut: Iterable[tuple[str, str]] = (),
        narrow: Iterable[tuple[str, str, str]] = (),
        heard: Iterable[str] = (),
    ) -> Iterator[None]:
        """While this is open, these hear nothing, and nothing passes here."""
        places: tuple[set[Any], ...] = self.deaf, self.network.cut, self.network.narrow, self.heard
        new = [
            set(these) - place
            for place, these in zip(places, (deaf, cut, narrow, heard), strict=True)
        ]
        for place, these in zip(places, new, strict=True):
            place |= these
        try:
            yield
        finally:
            for place, these in zip(places, new, strict=True):
                place -= these

    async def _until(self, holds: Callable[[], Any], seconds: float = WAIT_SECONDS) -> bool:
        """Whether it holds in time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not holds():
            if loop.time() >= end:
                return False
            await asyncio.sleep(0.002)
        return True

    # -- two leaders of one shard

    async def _torn_reign(self, fault: Fault) -> None:
        """A producer goes to both leaders all the while."""
        writer = self._writer(SERVICES[fault.who % len(SERVICES)])
        shard = int(shard_of(TENANT, writer.service, 1, writer.producer, len(SERVICES)))
        old, epoch = self.log.newest.leaders[shard].node, self.log.newest.leaders[shard].epoch
        if old not in self.managers:
            return
        for _ in range(3):
            await writer.push(old)
        state = self.log.newest
        if state.leaders[shard].epoch != epoch or state.change or not self.nodes[old].up:
            return self.employ(writer)
        new, third = self.dice.shuffled([one for one in self.managers if one != old])
        self.network.counts[fault.kind] += 1
        short = fault.kind == "short seal"
        unheard = {(new, one, "put") for one in (old, third)}
        unheard |= set() if short else {(new, one, "seal") for one in (old, third)}
        with self._rift(deaf=(old, third), cut=((new, old), (old, new))):
            with self._rift(narrow=unheard):
                row = [shard, new, epoch]
                self.log.commit("Assign", {"assignments": [row]}, "world")
                if short:
                    await self._cut_after_seal(self.nodes[third], shard, epoch + 1)
                else:
                    await asyncio.sleep(0.15)
                first = asyncio.create_task(writer.push(new, 1))
                await asyncio.sleep(0.3)
                for _ in range(3):
                    await writer.push(old)
            for _ in range(2):
                await writer.push(new)
            await first
        self.employ(writer)

    async def _cut_after_seal(self, node: SimNode, shard: int, epoch: int) -> None:
        """The power goes with the answer, and is soon back."""
        if await self._until(lambda: node.fences.shards.get(shard, 0) >= epoch, 1.0):
            self.crash(node, True)
            await asyncio.sleep(0.05)
            await self.revive()

    def _writer(self, service: str) -> Writer:
        """A new producer of a service; it sends when it is told to."""
        self._sent += 1
        name = f"torn{self._sent}"
        self.traffic.services[name] = service
        return Writer(self.traffic, name, 1, 30)

    # -- old and new owners of one shard

    async def _replace(self) -> tuple[str, str]:
        """A manager that does not carry out the change gives way to the spare: (executor, who leaves)."""
        await self._until(lambda: self.election.leader is not None, 2.0)
        executor = self.election.leader or self.managers[0]
        leaving = self.dice.pick([one for one in self.managers if one != executor])
        await self.mover.replace(leaving)
        return executor, leaving

    async def _outpaced(self, seconds: float) -> None:
        """Rows are acknowledged by the new owners while somebody reads from the old ones."""
        executor, _ = await self._replace()
        moving: dict[int, Any] = {}

        def copying() -> bool:
            moving.update({s: m for s, m in self.log.newest.moving.items() if m.stage == COPYING})
            return bool(moving)

        if not await self._until(copying):
            return
        await asyncio.sleep(0.12)  # all have heard of that
        behind = [one for one in self.managers if one != executor]
        silent = {(one, other, "heartbeat") for one in behind for other in self.nodes}
        ahead = [one for one in self.nodes if one not in behind]
        both = {(one, other) for one in behind for other in ahead}
        both |= {(other, one) for one, other in both}
        with self._rift(deaf=behind, narrow=silent):
            begun = dict(self.log.newest.moving)
            flipped = lambda: any(  # noqa: E731
                m.stage == COPYING and self.log.newest.moving.get(s) != m for s, m in begun.items()
            )
            if not await self._until(flipped):
                return
            self.network.counts["outpaced"] += 1
            with self._rift(cut=both, heard=ahead):
                for _ in range(4):
                    await asyncio.sleep(0.2 + seconds / 8)
                    posts = self._post(executor, SERVICES)
                    await asyncio.gather(posts, read(self.traffic, self.dice.pick(behind)))

    async def _lone_copy(self, seconds: float) -> None:
        await self._until(lambda: self.election.leader is not None, 2.0)
        executor = self.election.leader or self.managers[0]
        await self.thin(executor)
        executor, _ = await self._replace()
        if not await self._until(lambda: self.log.newest.moving):
            return
        self.network.counts["lone copy"] += 1
        for one in self.managers:
            if one != executor:
                self.crash(self.nodes[one], False)
        for _ in range(4):
            await asyncio.sleep(0.3 + seconds / 5)
            await read(self.traffic, executor)
        await self.revive()

    async def thin(self, without: str) -> None:
        """Rows are acknowledged that one owner lacks."""
        with self._rift(narrow={(one, without, "put") for one in self.nodes}):
            for node in self.managers:
                if node != without:
                    await self._post(node, SERVICES)

    async def _post(self, node: str, services: Iterable[str]) -> None:
        """A few rows of each service to one node; whether they are acknowledged does not matter."""
        posts = []
        for service in services:
            self._sent += 1
            name = f"rift{self._sent}"
            self.traffic.services[name] = service
            table = self.traffic.table(name, range(1, 4), seq=False)
            content = hashlib.sha256(f"{self.traffic.corpus.seed} {name}".encode()).digest()
            batch = Batch(TENANT, table, Identity(b"scope", content[:16]))
            posts.append(post(self.traffic, name, node, batch, (1, 3)))
        await asyncio.gather(*posts)

    # -- one node, one client

    async def _deaf_start(self, node: SimNode, seconds: float) -> None:
        self.crash(node, self.dice.chance(0.5))
        await asyncio.sleep(seconds / 2)
        with self._rift(deaf=(node.id,)):
            await self.revive()
            for _ in range(3):
                await asyncio.sleep(0.1 + seconds / 4)
                await read(self.traffic, node.id)

    async def _again(self) -> None:
        """All batches without numbers, each to a node by lot, in the middle of a read in small pages."""
        await self.thin(self.dice.pick(self.managers))
        pages = asyncio.create_task(read_pages(self.traffic, self.dice, "", 3))
        await asyncio.sleep(0.02)
        for client, batch, rows in list(self.traffic.posted.values()):
            self.network.counts["again"] += 1
            await post(self.traffic, client, self.dice.pick(self.managers), batch, rows)
        await pages
