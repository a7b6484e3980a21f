"""The clients of a simulated run. What they ask and are told becomes a history for chaos.checkers.

numbered   numbers its rows: batches that overlap, come twice, or out of order; follows the leader
agent      blind: the same batch again on any doubt, or through two nodes at once, or long after, as one that
           forgot where it was; under a new name only after an error that says `definite`, as a shipper may
           that was told "surely not stored"
rogue      sends other bytes under sequences that were acknowledged: each must be refused; where disks rot,
           only under those of which no copy is damaged then
reader     all rows, or those of one client, through any node; at once, or in pages, each through any node

A client gives up only when it is fenced, or when the run is over.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pyarrow as pa

from chaos.corpus import row_name
from chaos.history import APPEND, FAIL, OK, READ, UNKNOWN, Op, Range
from chaos.sim.clock import WALL_MICROS, Dice
from chaos.sim.corpus import SERVICES, SimCorpus
from chaos.sim.network import SimNetwork, judge_end
from chaos.sim.node import SimNode
from chaos.sim.repeats import renamed, twice_by_split, two_of_one
from ingestor.batch import Batch, Identity
from ingestor.batch import Sequence as Numbered
from query.plan import plan_rows
from records.errors import (
    ConnectionLost,
    DeadlineExceeded,
    Fenced,
    NotLeader,
    QuorumlogError,
    Unknown,
)
from records.intervals import SeqIntervals
from runtime.deadline import Deadline

T = TypeVar("T")
#: Seconds that a node may hold a request, and that a client waits for the answer.
HOLD_SECONDS, ANSWER_SECONDS = 1.5, 2.5


@dataclass(slots=True)
class Traffic:
    """What the clients of a run share."""

    nodes: dict[str, SimNode]
    network: SimNetwork
    corpus: SimCorpus
    dice: Dice
    ops: list[Op]
    services: dict[str, str]
    numbered: list[str]
    broken: list[tuple[str, str]]
    #: (client, who numbers or None, numbers, content, log index that the node knew when it was asked)
    on_ack: Callable[[str, "Writer | None", Iterable[int], bytes, int], None]
    #: (op, node, log index that the node knew when it was asked, names of rows) of each answer to a read.
    pages: list[tuple[int, str, int, list[str]]] = field(default_factory=list)
    #: (client, batch, rows) of each batch without numbers that was acknowledged, by its content.
    posted: dict[bytes, tuple[str, Batch, Range]] = field(default_factory=dict)
    #: By op, the index of the agreed log that its node knew when it was asked.
    known: list[int] = field(default_factory=list)
    #: When a service was split: (nanoseconds, index of the agreed log) of each time.
    splits: Callable[[str], list[tuple[int, int]]] = field(default=lambda _: [])
    #: Rows for which other bytes were acknowledged.
    lies: set[str] = field(default_factory=set)
    over: bool = False

    def now(self) -> int:
        """Nanoseconds."""
        return int(asyncio.get_running_loop().time() * 1e9)

    def invoke(self, client: str, kind: str, node: str, rows: Any = (), covers: str = "") -> int:
        """A request is about to be sent; its number."""
        op = Op(len(self.ops), client, kind, node, self.now(), None, UNKNOWN, tuple(rows), covers)
        self.ops.append(op)
        self.known.append(self.knows(node))
        return op.id

    def returned(self, number: int, outcome: str, resp: dict[str, Any] | None = None) -> None:
        """It ended."""
        self.ops[number] = replace(
            self.ops[number], t_ret=self.now(), outcome=outcome, resp=resp or {}
        )

    async def ask(self, node: str, work: Callable[[SimNode], Awaitable[T]]) -> T:
        """One request to a node, through a network that may lose it or its answer."""
        network, target = self.network, self.nodes[node]
        await asyncio.sleep(network.delay("client", node))
        if network.dice.chance(network.weather.loss / 2):
            raise ConnectionLost("the request is lost")
        if not target.up:
            raise ConnectionLost("refused", definite=True)

        async def run() -> T:
            return await work(target)

        task = target.spawn(run())
        task.add_done_callback(self._ended)
        await asyncio.wait([task], timeout=ANSWER_SECONDS)
        if not task.done():
            raise DeadlineExceeded("no answer")
        if task.cancelled():
            raise ConnectionLost("the node went away")
        error = task.exception()
        if network.dice.chance(network.weather.loss / 2):
            raise ConnectionLost("the answer is lost")
        if isinstance(error, QuorumlogError):
            raise error
        if error is not None:  # a bug, and noted as one when the task ended
            raise Unknown(f"an unexpected error: {error!r}")
        await asyncio.sleep(network.delay(node, "client"))
        return task.result()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Also if nobody waits for it any more."""
        judge_end(task, "a request", self.broken)

    def table(self, client: str, numbers: Iterable[int], seq: bool, other: str = "") -> pa.Table:
        """Rows as the write path gets them from a parser. `other`: is added to what they say."""
        rows = [self.corpus.row(client, n, self.services[client]) for n in numbers]
        columns: dict[str, Any] = {
            "timestamp": pa.array([r["_micros"] for r in rows], pa.timestamp("us", tz="UTC")),
            "service": pa.array([r["service"] for r in rows]).dictionary_encode(),
            "level": pa.array([r["level"] for r in rows]).dictionary_encode(),
            "message": pa.array([r["message"] + other for r in rows]),
            "chaos_client": pa.array([r["chaos_client"] for r in rows]),
            "chaos_number": pa.array([r["chaos_number"] for r in rows], pa.int64()),
        }
        if seq:
            columns["seq"] = columns["chaos_number"]
        return pa.table(columns)

    def knows(self, node: str) -> int:
        """The index of the agreed log that a node has applied."""
        return self.nodes[node].applied


def outcome_of(error: QuorumlogError) -> str:
    """FAIL only if the error says of itself that surely nothing was stored."""
    return FAIL if error.to_dict()["definite"] is True else UNKNOWN


class Writer:
    """A numbered writer: one epoch of one producer."""

    def __init__(self, traffic: Traffic, producer: str, epoch: int, last: int) -> None:
        self.producer, self.epoch, self.last = producer, epoch, last
        self.name = producer if epoch == 1 else f"{producer}e{epoch}"
        self.told, self.fenced = 0, False
        self._traffic, self._dice = traffic, traffic.dice.fork(self.name)
        service = SERVICES[len(traffic.services) % len(SERVICES)]
        self.service = traffic.services.get(producer, service)
        traffic.services[self.name] = self.service
        traffic.numbered.append(self.name)
        self._target = self._dice.pick(list(traffic.nodes))

    def batch(self, first: int, last: int, other: str = "") -> Batch:
        """Rows first..last."""
        numbers = range(first, last + 1)
        table = self._traffic.table(self.name, numbers, seq=True, other=other)
        digest = hashlib.sha256(f"{self.name} {first} {last} {other}".encode()).digest()
        sequence = Numbered(self.service, self.producer, self.epoch)
        return Batch("default", table, Identity(b"scope", digest), sequence=sequence)

    @property
    def done(self) -> bool:
        """Whether it has nothing left to send."""
        return self.fenced or self.told >= self.last

    async def run(self) -> None:
        """Sends until all is acknowledged."""
        while not self.done and not self._traffic.over:
            size = self._dice.number(1, 6)
            first = self.told + 1 + (self._dice.number(0, 4) if self._dice.chance(0.3) else 0)
            first = min(first, self.last)
            last = min(self.last, first + size - 1)
            sends = [self._send(first, last)]
            if self._dice.chance(0.3):  # overlaps, at the same time
                low = max(1, first - self._dice.number(0, 3))
                sends.append(self._send(low, min(self.last, low + self._dice.number(0, 5))))
            await asyncio.gather(*sends)
            await asyncio.sleep(self._dice.uniform(0.01, 0.3))

    async def push(self, node: str, rows: int = 3) -> None:
        """The next rows to a node by name, whoever leads: as a producer with a second connection does."""
        first = min(self.told + 1, self.last)
        await self._send(first, min(self.last, first + rows - 1), node)

    async def again(self) -> None:
        """All that was acknowledged once more, in batches of its own."""
        for first in range(1, self.told + 1, 4):
            await self._send(first, min(self.told, first + 3))

    async def _send(self, first: int, last: int, node: str = "") -> None:
        traffic, target = self._traffic, node or self._target
        op = traffic.invoke(self.name, APPEND, target, [(first, last)])
        batch, since = self.batch(first, last), traffic.knows(target)

        async def write(node: SimNode) -> Any:
            limit = Deadline.after(node.clock, HOLD_SECONDS)
            return await node.writer.write(batch, ack=None, deadline=limit)

        try:
            result = await traffic.ask(target, write)
        except Fenced as error:
            self.fenced = True
            traffic.returned(op, outcome_of(error), {"error": error.code})
        except NotLeader as error:
            leader = error.details.get("leader")
            self._target = leader["node"] if leader else self._dice.pick(list(traffic.nodes))
            traffic.returned(op, outcome_of(error), {"error": error.code})
        except QuorumlogError as error:
            self._target = self._dice.pick(list(traffic.nodes))
            traffic.returned(op, outcome_of(error), {"error": error.code})
        else:
            resp = {"ack_till": result.ack_till, "epoch": self.epoch}
            resp["missing"] = [list(one) for one in result.missing]
            if result.conflicts:
                resp["rejected"] = [one.seq for one in result.conflicts]
            traffic.returned(op, OK, resp)
            numbers = {*range(first, last + 1), *range(self.told + 1, result.ack_till + 1)}
            numbers -= {one.seq for one in result.conflicts}
            self.told = max(self.told, result.ack_till)
            traffic.on_ack(self.name, self, sorted(numbers), b"", since)

    async def lie(self, doubtful: SeqIntervals) -> None:
        """Sends other bytes for what was acknowledged: must be refused, each row.

        `doubtful`: not of these, as some owner may have lost its copy, and takes a lie for it.
        """
        if not self.told:
            return
        first = self._dice.number(1, self.told)
        last = min(self.told, first + 2)
        if doubtful.overlap(first, last):
            return
        self._traffic.network.counts["lie"] += 1
        batch = self.batch(first, last, other=" and a lie")

        async def write(node: SimNode) -> Any:
            limit = Deadline.after(node.clock, HOLD_SECONDS)
            return await node.writer.write(batch, ack=None, deadline=limit)

        try:
            result = await self._traffic.ask(self._target, write)
        except QuorumlogError:
            return
        refused = {one.seq for one in result.conflicts}
        for number in range(first, last + 1):
            if number not in refused:
                self._traffic.lies.add(row_name(self.name, number))


async def ask_for_epochs(traffic: Traffic, old: Writer, nodes: Iterable[str]) -> list[int]:
    """The epochs that nodes give a producer, all asked at once: those that believe they lead."""

    async def ask(node: SimNode) -> int:
        limit = Deadline.after(node.clock, 1.0)
        return await node.writer.new_producer_epoch("default", old.service, old.producer, limit)

    asking = [traffic.ask(one, ask) for one in nodes]
    told = await asyncio.gather(*asking, return_exceptions=True)
    if broken := [one for one in told if not isinstance(one, int | QuorumlogError)]:
        raise broken[0]
    return [one for one in told if isinstance(one, int)]


async def agent(traffic: Traffic, name: str, posts: int) -> int:
    """Posts unnumbered batches; returns how many rows were never acknowledged."""
    dice = traffic.dice.fork(name)
    traffic.services[name] = SERVICES[len(traffic.services) % len(SERVICES)]
    first = 1
    acked: list[tuple[Batch, Range]] = []
    for _ in range(posts):
        if acked and dice.chance(0.4):
            await post(traffic, name, dice.pick(list(traffic.nodes)), *dice.pick(acked))
        last = first + dice.number(0, 4)
        table = traffic.table(name, range(first, last + 1), seq=False)
        tries, generation, doubt = 0, 0, False
        while True:
            if traffic.over:
                return last - first + 1
            content = hashlib.sha256(f"{traffic.corpus.seed} {name} {first} {generation}".encode())
            batch = Batch("default", table, Identity(b"scope", content.digest()[:16]))
            targets = dice.shuffled(list(traffic.nodes))[: 2 if dice.chance(0.25) else 1]
            posts_now = [post(traffic, name, one, batch, (first, last)) for one in targets]
            told = await asyncio.gather(*posts_now)
            outcome = OK if OK in told else UNKNOWN if UNKNOWN in told else FAIL
            if outcome == OK:
                tries += 1
                acked.append((batch, (first, last)))
                if tries > 1 or not dice.chance(0.1):  # now and then once more, without any doubt
                    break
            doubt = doubt or any(one != FAIL for one in told)
            if outcome == FAIL and not doubt:  # no request of this name may have stored anything
                generation += 1
            await asyncio.sleep(dice.uniform(0.01, 0.2))
        first = last + 1
        await asyncio.sleep(dice.uniform(0.05, 0.6))
    return 0


async def post(traffic: Traffic, name: str, node: str, batch: Batch, rows: Range) -> str:
    """One batch without numbers to one node; the outcome."""
    op, since = traffic.invoke(name, APPEND, node, [rows]), traffic.knows(node)

    async def write(target: SimNode) -> Any:
        limit = Deadline.after(target.clock, HOLD_SECONDS)
        return await target.writer.write(batch, ack=None, deadline=limit)

    try:
        await traffic.ask(node, write)
    except QuorumlogError as error:
        traffic.returned(op, outcome_of(error), {"error": error.code})
        return outcome_of(error)
    traffic.returned(op, OK)
    traffic.posted[batch.identity.content] = name, batch, rows
    traffic.on_ack(name, None, range(rows[0], rows[1] + 1), batch.identity.content, since)
    return OK


async def read(
    traffic: Traffic, node: str, covers: str = "", kind: str = READ, level: str = "quorum"
) -> bool:
    """One read of all rows, or of one client's; whether it was complete."""
    pairs = [("service", ",".join(SERVICES)), ("limit", "5000"), ("order", "asc")]
    pairs += [("consistency", level), ("timeout", "2")]
    if covers:
        pairs.append(("chaos_client", covers))
    op = traffic.invoke("reader", kind, node, covers=covers)
    try:
        page = await traffic.ask(node, _asking(pairs))
    except QuorumlogError as error:
        traffic.returned(op, outcome_of(error), {"error": error.code})
        return False
    _answered(traffic, op, [page])
    return page.answer.complete


async def read_pages(traffic: Traffic, dice: Dice, covers: str, rows: int) -> None:
    """All rows, or one client's, in pages of `rows`, with pauses. All pages together are one read."""
    pairs = [("service", ",".join(SERVICES)), ("limit", str(rows)), ("timeout", "2")]
    if covers:
        pairs.append(("chaos_client", covers))
    pairs.append(("order", "asc"))
    node, cursor = dice.pick(list(traffic.nodes)), list[tuple[str, str]]()
    op = traffic.invoke("reader", READ, node, covers=covers)
    pages: list[Page] = []
    while not traffic.over:
        try:
            page = await traffic.ask(node, _asking([*pairs, *cursor]))
        except QuorumlogError as error:
            if not pages:
                traffic.returned(op, outcome_of(error), {"error": error.code})
                return
        else:
            pages.append(page)
            if page.answer.next_cursor is None:
                _answered(traffic, op, pages)
                return
            cursor = [("cursor", page.answer.next_cursor)]
        await asyncio.sleep(dice.uniform(0.0, 0.3))
        node = dice.pick(list(traffic.nodes))


@dataclass(frozen=True, slots=True)
class Page:
    """An answer, by which node, and the log index that it knew when it was asked."""

    answer: Any
    node: str
    index: int


def _asking(pairs: list[tuple[str, str]]) -> Callable[[SimNode], Awaitable[Page]]:
    async def ask(target: SimNode) -> Page:
        plan, scans, index = plan_rows(pairs, WALL_MICROS), target.storage.scans, target.applied
        open_store = target.steering.registered
        answer = await target.reader.query(plan, target.reader.deadline(plan))
        if (
            open_store or target.storage.scans > scans
        ):  # what it missed is known where it answers itself
            index = max(index, target.begun)
        return Page(answer, target.id, index)

    return ask


def _answered(traffic: Traffic, op: int, pages: list[Page]) -> None:
    """Ends a read with the rows of its pages."""
    complete = all(page.answer.complete for page in pages)
    rows: list[list[str]] = []
    runs: dict[str, bytes] = {}
    seen: set[str] = set()
    for page in pages:
        listed = page.answer.table.to_pylist()
        found = [_named(traffic, row) for row in listed]
        traffic.pages.append((op, page.node, page.index, [name for name, _ in found]))
        for (name, digest), row in zip(found, listed, strict=True):
            run = row["_run"]
            if runs.get(name, run) != run and renamed(traffic, name, complete):
                continue
            if name not in seen or not twice_by_split(traffic, name):
                rows.append([name, digest])
            seen.add(name)
        runs |= {name: row["_run"] for (name, _), row in zip(found, listed, strict=True)}
    missing = [str(one.get("shard", one)) for page in pages for one in page.answer.missing]
    if len(pages) > 1 and complete and two_of_one(traffic):
        complete, missing = False, ["pages, and a request in two entries"]
    traffic.returned(op, OK, {"complete": complete, "missing": missing, "rows": rows})


def _named(traffic: Traffic, row: dict[str, Any]) -> list[str]:
    """[name, digest] of a row that was read; the digest of the row as sent if it is just that."""
    client, number = row.get("chaos_client"), row.get("chaos_number")
    if client not in traffic.services or not isinstance(number, int):
        return ["?", "?"]
    sent = traffic.corpus.row(client, number, traffic.services[client])
    micros = sent.pop("_micros")
    time = row["timestamp"]
    same = (
        getattr(time, "timestamp", lambda: 0)() * 1_000_000 == micros or time == sent["timestamp"]
    )
    equal = same and all(row.get(key) == sent[key] for key in sent if key != "timestamp")
    digest = traffic.corpus.digest(client, number, traffic.services[client]) if equal else "altered"
    return [row_name(client, number), digest]
