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
from functools import partial
from typing import Any

from chaos.history import FINAL, FaultRecord, Head, History
from chaos.sim import twins
from chaos.sim.checks import check_control, check_order, check_restart
from chaos.sim.clients import Traffic, Writer, agent, read, read_pages
from chaos.sim.clock import WALL_MICROS, Dice
from chaos.sim.consensus import SimLog
from chaos.sim.corpus import SERVICES, SimCorpus, SimFacts
from chaos.sim.election import Election
from chaos.sim.healing import ANTI_ENTROPY, SCRUB
from chaos.sim.hiding import Hidden, Hider, check_watermarks
from chaos.sim.judging import Acks
from chaos.sim.looks import CONVERGE_SECONDS, Looks, check_equal_unread, check_scrubbed, unequal
from chaos.sim.moving import Hands, Mover
from chaos.sim.network import SimNetwork
from chaos.sim.node import OWNER, SimNode, Tasks
from chaos.sim.operating import Operator
from chaos.sim.owning import Removals
from chaos.sim.plan import HIDES, HINTS_LOST, MOVES, RIFTS, ROTS, SECONDS, SPLIT, WIPE, Fault, Plan
from chaos.sim.producers import Producers
from chaos.sim.rifts import Rifts
from chaos.sim.rot import altered_rows, lose_hints, rot, rotten_seqs
from chaos.sim.splitting import Splitter, splits_of
from chaos.sim.steering import MANAGERS, conduct, found
from chaos.sim.wiping import Wiper
from cluster.consensus import CommandRefused
from ring.serde import from_dict, to_dict

#: Virtual seconds after the heal in which all clients finish.
HEAL_SECONDS = 20.0
#: Reads of everything, with repair, that may be needed to make owners equal.
CONVERGE_READS = 10
N, W, R, SHARDS = 3, 2, 2, 3
NODES = MANAGERS
#: Nodes that come later, in runs whose ring changes.
SPARES = ("d", "e")


class World:
    """The run of one seed under one plan."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.seed, self.plan = seed, plan
        self.dice = Dice("run", seed)
        self.broken: list[tuple[str, str]] = []
        self.network = SimNetwork(self.dice.fork("network"), self.broken)
        self.bitten: Counter[str] = Counter()
        self.unfinished: dict[str, int] = {}
        self._down: dict[str, int] = {}
        #: Who hears nothing of the agreed log; who does, whatever links are cut.
        self._deaf: set[str] = set()
        self._heard: set[str] = set()
        self._downtimes: list[FaultRecord] = []
        self._restart_seconds = 1.0
        #: Names of rows that watermarks and deletes hide at some time.
        self.hidden: frozenset[str] = frozenset()

    async def run(self) -> History:
        """Everything, from founding to the last reads."""
        loop = asyncio.get_running_loop()
        self.tasks = Tasks(loop)
        self.log = SimLog(self.dice.fork("log"), self._reaches_majority)
        dice = self.dice
        wide = self.plan.has((SPLIT,)) and not self.plan.moves and dice.fork("wide").chance(0.5)
        self.founders = (*NODES, *SPARES) if wide else NODES  # of each shard three are owners
        found(self.log, self.founders, (N, W, R), SHARDS)
        ids = (*NODES, *SPARES) if wide or self.plan.moves else NODES
        skews = {id: dice.uniform(-self.plan.skew, self.plan.skew) for id in ids}
        self.nodes = {
            id: SimNode(id, self.network, self.log, self.tasks, dice, skews[id], self.plan.parts)
            for id in ids
        }
        self._steer()
        for node in self.nodes.values():
            node.broken = self.broken
            node.fences.broken = self.broken
            node.conduct = self.conduct
            twins.LOST_POWER[node.id] = lambda node=node: self._lost_power(node)
            if node.id in self.founders:
                await node.start()
        self._weather(self.plan)
        corpus = SimCorpus(self.seed, WALL_MICROS)
        self.traffic = Traffic(
            self.nodes, self.network, corpus, dice.fork("clients"), [], {}, [], self.broken, self.acks.acked
        )  # fmt: skip
        self.traffic.splits = partial(splits_of, self.log)
        self.acks.begin(self.traffic)
        self.producers = Producers(
            self.traffic, self.dice, NODES, self.bitten, self.broken
        )  # fmt: skip
        self.splitter = Splitter(self._operator, self.producers)
        self.rifts = Rifts(
            self.nodes, NODES, self.log, self.network, self.election, self.traffic, self.mover, self._deaf,
            self._heard, dice.fork("rifts"), self._crash, self._revive, self.producers.employ,
        )  # fmt: skip
        lives = self._crash, self._revive, self.rifts.thin
        self.wiper = Wiper(self.nodes, self.log, self.mover, self.broken, *lives)
        looking = asyncio.create_task(Looks(self.log, self.broken).run(self.nodes.values()))
        if self.plan.has(ROTS):
            for node in self.nodes.values():
                node.altered = lambda block: altered_rows(block, corpus, self.traffic.services)
        await self._work()
        history = await self._finish()
        looking.cancel()
        await self._end()
        return history

    def _steer(self) -> None:
        """Who leads and who moves shards, in runs that need it."""
        steered = self.plan.steered
        self.conduct = conduct(self.dice.fork("conduct"), steered)
        self.acks = Acks(self.log, self.nodes, self.broken)
        self.removals = Removals(self.log, self.nodes, self.broken, self.bitten)
        self.election = Election(self.dice.fork("election"), MANAGERS, self._able)
        hands = Hands(self._crash, self._revive, self._arrive)
        dice = self.dice.fork("operator")
        operator = Operator(self.nodes, dice, self.bitten, self.broken)
        self.mover = Mover(
            self.nodes, SPARES, self.log, self.network, self.election, operator, hands
        )  # fmt: skip
        self.hider = Hider(operator, self.log)
        self._operator = operator
        if steered:
            self.log.election = self.election
            loops = self.election.run(), self.removals.run()
            self._background = [asyncio.create_task(one) for one in loops]

    def _able(self, node: str) -> bool:
        """Whether a node can lead the log."""
        return self.nodes[node].up and self._reaches_majority(node)

    async def _arrive(self, id: str) -> None:
        """A node that was not there yet begins."""
        if self.nodes[id].life == 0:
            await self.nodes[id].start()
        for _ in range(50):
            if id in self.log.newest.members:
                return
            await asyncio.sleep(0.1)

    @property
    def _present(self) -> list[str]:
        """Nodes that have begun."""
        return [node.id for node in self.nodes.values() if node.life]

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

    def _reaches_majority(self, node: str) -> bool:
        near = node in self._heard or self.network.reaches_one(node, NODES)
        return near and node not in self._deaf

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
        producers = self.producers
        for one in [Writer(traffic, f"p{i}", 1, dice.number(8, 25)) for i in range(2)]:
            producers.employ(one)
        posts = {f"agent{i}": asyncio.create_task(agent(traffic, f"agent{i}", 6)) for i in range(2)}
        reader = asyncio.create_task(self._read(dice.fork("reader")))
        watcher = asyncio.create_task(self._look_again(dice.fork("watcher")))
        troubles = [asyncio.create_task(self._inflict(one)) for one in self.plan.faults]
        if self.plan.skew == 0 and dice.chance(0.4):
            troubles.append(asyncio.create_task(self._lie(dice.uniform(1.0, SECONDS))))
        await asyncio.sleep(SECONDS)
        for task in troubles:
            await task
        await reader
        await watcher
        await self._heal()
        changing = asyncio.create_task(self._changed())
        everything = [*producers.work, *posts.values()]
        done, late = await asyncio.wait(everything, timeout=HEAL_SECONDS)
        failed = self._failures(done)
        while extra := [one for one in producers.writers if not (one.done or late or failed)]:
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
        for one in producers.writers:
            if not one.done:
                self.unfinished[one.name] = one.last - one.told
        if left := await changing:
            self.broken.append(("L2", left))
        if self.plan.moves:  # whom is read is another by now
            for id in self._present:
                await read(traffic, id)

    async def _changed(self) -> str:
        """Waits for changes of the ring; what is left of them."""
        await self.wiper.ended()
        return await self.mover.ended()

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
                await read(self.traffic, dice.pick(self._present), covers)
            else:
                await read_pages(self.traffic, dice, covers, dice.number(2, 12))

    async def _look_again(self, dice: Dice) -> None:
        """Where rows go: whether they are gone, through one node after the other."""
        while self.plan.has(HIDES) and self.log.seconds() < SECONDS:
            await asyncio.sleep(dice.uniform(0.1, 0.5))
            await read(self.traffic, dice.pick(self._present))

    async def _lie(self, at: float) -> None:
        await asyncio.sleep(at)
        liar = self.producers.writers[0]
        await liar.lie(rotten_seqs(self.nodes.values(), liar.producer, liar.epoch))

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
        elif kind in MOVES:
            await self.mover.inflict(fault)
        elif kind in HIDES:
            await self.hider.inflict(fault)
        elif kind in RIFTS:
            await self.rifts.inflict(fault)
        elif kind == WIPE:
            await self.wiper.inflict(node, fault)
        elif kind == SPLIT:
            await self.splitter.inflict(fault)
        elif kind == "newer producer":
            await self.producers.renew(fault.who % 2)
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
        others = [one for one in self.nodes if one != id]
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
                if state.change is not None:
                    return  # the operator's change alone moves the ring
                ring = dict(to_dict(from_dict(state.ring)), epoch=state.ring_epoch + 1)
                args = {"expected_ring_epoch": state.ring_epoch, "map": ring, "stage": "new"}
                self.log.commit("SetRing", args, "world")
            else:
                loop = asyncio.get_running_loop()
                self.log.leaderless_until = loop.time() + fault.seconds
        except CommandRefused as error:
            self.broken.append(("I10", f"{kind} was refused: {error}"))

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
        for id in sorted(self._down.keys() - self.mover.dead):
            node, begun = self.nodes[id], self._down.pop(id, None)
            if begun is None:
                continue
            now = self.traffic.now()
            self._downtimes.append(FaultRecord("kill", (id,), begun, begun, now, now))
            await node.start()
            if node.up:
                check_restart(node, self.log.newest, self.broken)

    async def _heal(self) -> None:
        self.network.cut.clear()
        self.network.slow.clear()
        self._deaf.clear()
        self._heard.clear()
        self.network.narrow.clear()
        self._weather(Plan())
        self.log.leaderless_until = 0.0
        self.mover.dead.clear()
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

    async def _finish(self) -> History:
        traffic, present, different = self.traffic, self._present, list[tuple[str, str]]()
        nodes, parts = list(self.nodes.values()), self.plan.parts
        if ANTI_ENTROPY in parts:
            await check_equal_unread(nodes, self.log, self.broken)
        for turn in range(CONVERGE_READS):
            node = self.nodes[present[turn % len(present)]]
            await read(traffic, node.id, level="all")
            if node.up:
                await asyncio.wait([node.spawn(node.reader.repair.idle())], timeout=5.0)
            different = unequal(nodes, self.log.newest)
            if not different:
                break
            await asyncio.sleep(CONVERGE_SECONDS / CONVERGE_READS)
        self.broken += different
        if SCRUB in parts:
            await check_scrubbed(nodes, ANTI_ENTROPY in parts, self.log, self.broken)
        for id in present:
            for _ in range(5):
                if await read(traffic, id, kind=FINAL):
                    break
                await asyncio.sleep(0.5)
            else:
                self.broken.append(("L2", f"no complete read through {id} after the heal"))
        check_control(self.log, self.broken)
        check_order(traffic.ops, traffic.numbered, self.broken)
        self.producers.check(traffic.ops)
        n = 0 if len(self.nodes) > N else N  # else who is away says nothing of one shard's owners
        head = Head(
            "sim", self.seed, WALL_MICROS, tuple(present), n, W, R, traffic.services,
            tuple(traffic.numbered),
        )  # fmt: skip
        history = History(head, tuple(traffic.ops), tuple(self._downtimes), self.unfinished)
        if self.plan.has(HIDES):
            self._judge_hidden(history)
        for name in sorted(traffic.lies - self.hidden):  # of what is blanked nobody knows the bytes
            self.broken.append(("I3", f"other bytes for {name} were acknowledged"))
        return history

    def _judge_hidden(self, history: History) -> None:
        """I7 and I13, and which rows the other checkers must not miss."""
        corpus = SimCorpus(self.seed, WALL_MICROS)
        hidden = Hidden(SimFacts(history), self.log, corpus, self.hider, self.plan.skew)
        self.hidden = hidden.names
        self.bitten["rows hidden"] += len(hidden.sure)
        clocks = [node.clock.skew for node in self.nodes.values() if node.life]
        self.broken += [*hidden.check(self.traffic.pages), *check_watermarks(self.log, clocks)]


assert len(SERVICES) == SHARDS
