"""One simulated run: a cluster of real nodes, its clients, its troubles, and what was found in the end.

    found · start nodes · clients and faults together · heal · clients finish · owners become equal,
    alone if the seed has anti-entropy, else by reads of all owners through each node · last reads · judge

Liveness is judged too: after the heal no client may have rows left within HEAL_SECONDS (L2), and the owners
of each shard must become equal (I8).
"""

import asyncio
import contextvars
import errno
from collections import Counter
from collections.abc import Iterable
from typing import Any

from chaos.checkers import CHECKERS, VIOLATED
from chaos.history import FINAL, FaultRecord, Head, History, Op
from chaos.sim import twins
from chaos.sim.checks import check_control, check_order, check_restart, equal_owners
from chaos.sim.clients import Traffic, Writer, agent, read, read_pages
from chaos.sim.clock import WALL_MICROS, Dice
from chaos.sim.consensus import SimLog
from chaos.sim.corpus import SERVICES, SimCorpus, SimFacts
from chaos.sim.healing import ANTI_ENTROPY, SCRUB
from chaos.sim.looks import CONVERGE_SECONDS, Looks, check_equal_unread, check_scrubbed
from chaos.sim.network import SimNetwork
from chaos.sim.node import OWNER, SimNode, Tasks
from chaos.sim.plan import HINTS_LOST, ROTS, SECONDS, Fault, Plan
from chaos.sim.rot import altered_rows, lose_hints, rot
from cluster.consensus import CommandRefused
from cluster.lease_founding import first_ring
from records.errors import QuorumlogError
from records.ids import digest_id
from ring.serde import from_dict, to_dict
from runtime.deadline import Deadline

#: Virtual seconds after the heal in which all clients finish.
HEAL_SECONDS = 20.0
#: Reads of everything, with repair, that may be needed to make owners equal.
CONVERGE_READS = 10
N, W, R, SHARDS = 3, 2, 2, 3
NODES = ("a", "b", "c")


class World:
    """The run of one seed under one plan."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.seed, self.plan = seed, plan
        self.dice = Dice("run", seed)
        self.broken: list[tuple[str, str]] = []
        self.network = SimNetwork(self.dice.fork("network"), self.broken)
        self.bitten: Counter[str] = Counter()
        self.writers: list[Writer] = []
        #: The writers' work that has begun, each a task.
        self._writing: list[asyncio.Task[None]] = []
        self.unfinished: dict[str, int] = {}
        self._down: dict[str, int] = {}
        self._deaf: set[str] = set()
        self._downtimes: list[FaultRecord] = []
        self._restart_seconds = 1.0

    async def run(self) -> History:
        """Everything, from founding to the last reads."""
        loop = asyncio.get_running_loop()
        self.tasks = Tasks(loop)
        self.log = SimLog(self.dice.fork("log"), self._reaches_majority)
        self._found()
        dice = self.dice
        skews = {id: dice.uniform(-self.plan.skew, self.plan.skew) for id in NODES}
        self.nodes = {
            id: SimNode(id, self.network, self.log, self.tasks, dice, skews[id], self.plan.parts)
            for id in NODES
        }
        for node in self.nodes.values():
            node.broken = self.broken
            node.fences.broken = self.broken
            twins.LOST_POWER[node.id] = lambda node=node: self._lost_power(node)
            await node.start()
        self._weather(self.plan)
        corpus = SimCorpus(self.seed, WALL_MICROS)
        self.traffic = Traffic(
            self.nodes, self.network, corpus, dice.fork("clients"), [], {}, [], self.broken, self._acked
        )  # fmt: skip
        looking = asyncio.create_task(Looks(self.broken).run(self.nodes.values()))
        if any(one.kind in ROTS for one in self.plan.faults):
            for node in self.nodes.values():
                node.altered = lambda block: altered_rows(block, corpus, self.traffic.services)
        await self._work()
        history = await self._finish()
        looking.cancel()
        await self._end()
        return history

    async def _end(self) -> None:
        """Ends everything that still runs; a task may need to be told more than once."""
        for node in self.nodes.values():
            if node.up:
                node.crash(power=False)
        for _ in range(20):
            left = [one for one in self.tasks.alive() if one is not asyncio.current_task()]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0.1)

    def _found(self) -> None:
        for id in NODES:
            member = {"id": id, "roles": ["ingestor", "query", "storage"], "incarnation": 1}
            self.log.commit("RegisterNode", member, "world")
        quorum = {"expected_cluster_epoch": 0, "n": N, "w": W, "r": R, "cluster_id": "sim"}
        self.log.commit("SetQuorum", {**quorum, "shard_count": SHARDS}, "world")
        ring = first_ring(self.log.newest.with_role("storage"), N, SHARDS)
        self.log.commit("SetRing", {"expected_ring_epoch": 0, "map": ring, "stage": "new"}, "world")
        rows = [[shard, NODES[shard % len(NODES)], 0] for shard in range(SHARDS)]
        self.log.commit("Assign", {"assignments": rows}, "world")

    def _reaches_majority(self, node: str) -> bool:
        if node in self._deaf:
            return False
        others = [one for one in NODES if one != node]
        cut = sum(
            (node, one) in self.network.cut or (one, node) in self.network.cut for one in others
        )
        return cut < len(others)

    def _weather(self, plan: Plan) -> None:
        weather = self.network.weather
        weather.loss, weather.repeat, weather.corrupt = plan.loss, plan.repeat, plan.corrupt
        weather.delay_max = plan.delay
        self.log.lose_answers = plan.lose_answers
        for node in self.nodes.values():
            node.disk.sync_seconds = plan.sync

    # -- work and troubles

    async def _work(self) -> None:
        traffic, dice = self.traffic, self.dice.fork("work")
        self.writers = [Writer(traffic, f"p{i}", 1, dice.number(8, 25)) for i in range(2)]
        self._writing = [asyncio.create_task(one.run()) for one in self.writers]
        posts = {f"agent{i}": asyncio.create_task(agent(traffic, f"agent{i}", 6)) for i in range(2)}
        reader = asyncio.create_task(self._read(dice.fork("reader")))
        troubles = [asyncio.create_task(self._inflict(one)) for one in self.plan.faults]
        rots = any(
            one.kind in ROTS for one in self.plan.faults
        )  # who lost a row takes a lie for it
        if self.plan.skew == 0 and dice.chance(0.4) and not rots:
            troubles.append(asyncio.create_task(self._lie(dice.uniform(1.0, SECONDS))))
        await asyncio.sleep(SECONDS)
        for task in troubles:
            await task
        await reader
        await self._heal()
        everything = [*self._writing, *posts.values()]
        done, late = await asyncio.wait(everything, timeout=HEAL_SECONDS)
        failed = self._failures(done)
        while extra := [one for one in self.writers if not (one.done or late or failed)]:
            done, late = await asyncio.wait(
                [asyncio.create_task(one.run()) for one in extra], timeout=HEAL_SECONDS
            )
            failed = self._failures(done)
        traffic.over = True
        if late:
            await asyncio.wait(late, timeout=10.0)
        for name, task in posts.items():
            whole = task.done() and task.exception() is None
            left = task.result() if whole else 1  # a row at least has no answer
            if left:
                self.unfinished[name] = left
        for one in self.writers:
            if not one.done:
                self.unfinished[one.name] = one.last - one.told

    def _failures(self, done: Iterable[asyncio.Task[Any]]) -> int:
        """How many clients broke off: each is a bug, theirs or the product's."""
        found = [error for one in done if (error := one.exception()) is not None]
        self.broken += [("BUG", f"a client broke off: {error!r}") for error in found]
        return len(found)

    async def _read(self, dice: Dice) -> None:
        for _ in range(4):
            await asyncio.sleep(dice.uniform(0.2, SECONDS / 3))
            covers = dice.pick(["", "", *self.traffic.services])
            if dice.chance(0.3):
                await read(self.traffic, dice.pick(NODES), covers)
            else:
                await read_pages(self.traffic, dice, covers, dice.number(2, 12))

    async def _lie(self, at: float) -> None:
        await asyncio.sleep(at)
        await self.writers[0].lie()

    async def _inflict(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        node = self.nodes[NODES[fault.who]]
        kind, self._restart_seconds = fault.kind, fault.seconds
        if kind in ("kill", "power", "power all"):
            for one in self.nodes.values() if kind == "power all" else (node,):
                self._crash(one, kind != "kill")
            await asyncio.sleep(fault.seconds)
            await self._revive()
        elif kind.startswith(("cut ", "kill in ")):
            node.disk.cut_kills = kind.startswith("kill")
            node.disk.cut_in = kind.partition(" ")[2].removeprefix("in ")
            await asyncio.sleep(fault.seconds)
            node.disk.cut_in = ""
        elif kind in (*ROTS, HINTS_LOST):
            bit = (
                lose_hints(node.disk)
                if kind == HINTS_LOST
                else rot(node, self.nodes.values(), kind, self.dice)
            )
            self.bitten[kind] += bit
        elif kind in ("leader", "ring", "leaderless"):
            self._decide(kind, fault)
        elif kind == "newer producer":
            await self._newer_producer(fault.who % 2)
        elif kind == "zombie":
            await self._zombie(fault.who % SHARDS, fault.seconds)
        elif kind in ("partition", "one way", "slow"):
            await self._trouble_links(kind, node.id, fault)
        else:
            await self._trouble_disk(kind, node, fault.seconds)

    async def _zombie(self, shard: int, seconds: float) -> None:
        """A shard's leader is deposed, hears of no decision for a while, and works on."""
        lead = self.log.newest.leaders[shard]
        self.bitten["zombie"] += 1
        self._deaf.add(lead.node)
        other = self.dice.pick([node for node in NODES if node != lead.node])
        self.log.commit("Assign", {"assignments": [[shard, other, lead.epoch]]}, "world")
        await asyncio.sleep(seconds)
        self._deaf.discard(lead.node)

    async def _trouble_links(self, kind: str, id: str, fault: Fault) -> None:
        others = [one for one in NODES if one != id]
        links = {(id, one) for one in others}
        if kind == "partition":
            links |= {(one, id) for one in others}
        if kind == "slow":
            self.network.slow[id] = fault.seconds / 10
        else:
            self.network.cut |= links
        self.bitten[kind] += 1
        await asyncio.sleep(fault.seconds)
        self.network.cut -= links
        self.network.slow.pop(id, None)

    async def _trouble_disk(self, kind: str, node: SimNode, seconds: float) -> None:
        disk, left = node.disk, [1]

        def once(operation: str, _: str) -> OSError | None:
            if operation == "sync" and left[0]:
                left[0] -= 1
                return OSError(errno.EIO, "a bad sector")
            return None

        def no_space(operation: str, _: str) -> OSError | None:
            full = operation in ("write", "allocate", "draft", "append")
            return OSError(errno.ENOSPC, "no space") if full else None

        if kind == "full":
            disk.free_bytes = 0
            self.bitten[kind] += 1
        else:
            disk.fault = no_space if kind == "enospc" else once
        await asyncio.sleep(seconds)
        disk.fault = lambda _operation, _name: None
        disk.free_bytes = 1 << 40
        if kind == "eio silent":
            self._crash(node, power=True)
            await self._revive()

    def _decide(self, kind: str, fault: Fault) -> None:
        state = self.log.newest
        self.bitten[kind] += 1
        try:
            if kind == "leader":
                shard = fault.who % SHARDS
                node = self.dice.pick(NODES)
                row = [shard, node, state.leaders[shard].epoch]
                self.log.commit("Assign", {"assignments": [row]}, "world")
            elif kind == "ring":
                ring = dict(to_dict(from_dict(state.ring)), epoch=state.ring_epoch + 1)
                args = {"expected_ring_epoch": state.ring_epoch, "map": ring, "stage": "new"}
                self.log.commit("SetRing", args, "world")
            else:
                loop = asyncio.get_running_loop()
                self.log.leaderless_until = loop.time() + fault.seconds
        except CommandRefused as error:
            self.broken.append(("I10", f"{kind} was refused: {error}"))

    async def _newer_producer(self, number: int) -> None:
        """A producer lost its log: it asks for an epoch and begins anew; the old one lives on."""
        old = self.writers[number]
        dice = self.dice.fork("epoch", number)
        for _ in range(6):
            target = dice.pick(NODES)

            async def ask(node: SimNode) -> int:
                limit = Deadline.after(node.clock, 1.0)
                args = "default", old.service, old.producer, limit
                return await node.writer.new_producer_epoch(*args)

            try:
                epoch = await self.traffic.ask(target, ask)
            except QuorumlogError:
                continue
            if any(one.producer == old.producer and one.epoch == epoch for one in self.writers):
                self.broken.append(("I11", f"producer epoch {epoch} was given twice"))
                return
            self.bitten["newer producer"] += 1
            self.writers.append(Writer(self.traffic, old.producer, epoch, 6))
            if dice.chance(0.5):  # else it begins after the faults
                self._writing.append(asyncio.create_task(self.writers[-1].run()))
            return

    # -- lives

    def _crash(self, node: SimNode, power: bool) -> None:
        if node.id in self._down or not node.up:
            return
        self.bitten["power" if power else "kill"] += 1
        self._down[node.id] = self.traffic.now()
        node.crash(power)

    def _lost_power(self, node: SimNode) -> None:
        """A system call was the last thing the machine did."""
        kills = node.disk.cut_kills
        self.bitten["kill in a call" if kills else "cut"] += 1
        self._down.setdefault(node.id, self.traffic.now())
        node.crash(power=not kills)
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        context.run(OWNER.set, "")  # this is no task of the life that ends
        revive = lambda: loop.create_task(self._revive())  # noqa: E731
        loop.call_later(self._restart_seconds, revive, context=context)

    async def _revive(self) -> None:
        """New lives for all that are down."""
        for id in sorted(self._down):
            node, begun = self.nodes[id], self._down.pop(id, None)
            if begun is None:
                continue
            now = self.traffic.now()
            self._downtimes.append(FaultRecord("kill", (id,), begun, begun, now, now))
            await node.start()
            if node.up:
                check_restart(node, self.broken)

    async def _heal(self) -> None:
        self.network.cut.clear()
        self.network.slow.clear()
        self._deaf.clear()
        self._weather(Plan())
        self.log.leaderless_until = 0.0
        for node in self.nodes.values():
            node.disk.fault = lambda _operation, _name: None
            node.disk.cut_in = ""
            node.disk.free_bytes = 1 << 40
        await self._revive()
        for node in self.nodes.values():
            wal: Any = node.storage._wal if node.up else None
            if wal is not None and wal.failure is not None and not wal.failed_for_space:
                self._crash(node, power=False)  # it stopped at a bad disk, as it should: a new disk
                await self._revive()

    # -- judging

    def _acked(
        self, client: str, writer: Writer | None, numbers: Iterable[int], content: bytes
    ) -> None:
        """I9: what is being acknowledged is on the platters of W owners now."""
        disks = [node.disk for node in self.nodes.values()]
        if writer is not None:
            key = ("default", writer.service, writer.producer)
            held = [disk.seqs_on_platter(key, writer.epoch) for disk in disks]
            for number in numbers:
                count = sum(number in one for one in held)
                if count < W:
                    text = f"{client}:{number} was acknowledged, {count} of {W} owners have it"
                    self.broken.append(("I9", text))
            return
        wanted = {digest_id(content, str(shard).encode()) for shard in range(SHARDS)}
        count = sum(bool(wanted & disk.contents_on_platter()) for disk in disks)
        if count < W:
            text = f"a batch of {client} was acknowledged, {count} of {W} owners have it"
            self.broken.append(("I9", text))

    async def _finish(self) -> History:
        traffic, different = self.traffic, []
        nodes, parts = list(self.nodes.values()), self.plan.parts
        if ANTI_ENTROPY in parts:
            await check_equal_unread(nodes, SHARDS, self.broken)
        for turn in range(CONVERGE_READS):
            node = self.nodes[NODES[turn % len(NODES)]]
            await read(traffic, node.id, level="all")
            if node.up:
                await asyncio.wait([node.spawn(node.reader.repair.idle())], timeout=5.0)
            different = equal_owners(self.nodes.values(), SHARDS)
            if not different:
                break
            await asyncio.sleep(CONVERGE_SECONDS / CONVERGE_READS)
        self.broken += [("I8", text) for text in different]
        if SCRUB in parts:
            await check_scrubbed(nodes, ANTI_ENTROPY in parts, SHARDS, self.broken)
        for id in NODES:
            for _ in range(5):
                if await read(traffic, id, kind=FINAL):
                    break
                await asyncio.sleep(0.5)
            else:
                self.broken.append(("L2", f"no complete read through {id} after the heal"))
        check_control(self.log, self.broken)
        check_order(traffic.ops, traffic.numbered, self.broken)
        head = Head(
            "sim", self.seed, WALL_MICROS, NODES, N, W, R, traffic.services, tuple(traffic.numbered)
        )  # fmt: skip
        return History(head, tuple(traffic.ops), tuple(self._downtimes), self.unfinished)


def judge(history: History) -> list[tuple[str, str]]:
    """What chaos.checkers find wrong with a history."""
    facts = SimFacts(history)
    found = []
    for checker in CHECKERS:
        verdict = checker(facts)
        if verdict.status == VIOLATED:
            found += [(verdict.id, example) for example in verdict.examples]
    return found


def line(op: Op) -> str:
    """An op as a line of the trace."""
    return f"{op.t_inv} {op.t_ret} {op.client} {op.kind} {op.node} {op.rows} {op.outcome} {op.resp}"


assert len(SERVICES) == SHARDS
