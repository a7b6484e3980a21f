"""How long a shard has no leader: kill -9 and SIGSTOP of nodes that lead, under load, measured from outside.

Writers of numbered rows, one a service, send a row at a time through nodes that are not broken just then, so
what is measured is the cluster, not how soon a client gives up on a dead address. The *stall* of a service
is the time from the signal to the first acknowledgement of a request that was sent after it; requests that
the broken node holds are dropped at once and sent to another. Services that the broken node did not lead,
and agents without numbers, are measured beside them. A paused node is resumed after it was replaced: what it
still holds from before must be fenced, so in the end every acknowledged row is there, once.
"""

import asyncio
import json
import math
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import deadman
from chaos.local_cluster import LocalCluster
from node.cli_errors import CliError
from quorumlog.errors import QuorumlogError
from quorumlog.wire import Reply, Wire, WireSettings
from ring.shards import shard_of
from runtime.clock import SystemClock
from runtime.entropy import SeededEntropy

SERVICES, AGENTS = 9, 2
#: Seconds between two rows of a writer.
PAUSE_SECONDS = 0.03
#: Seconds that a service may go without an acknowledgement before the kill counts as lasting for ever.
STALL_SECONDS_MAX = 20.0
#: Seconds that a paused node stays paused: longer than a lease.
PAUSED_SECONDS = 3.0
#: Seconds for leaders to be spread again before the next one is broken.
SPREAD_SECONDS = 10.0


@dataclass(slots=True)
class Stall:
    """One service after one fault. `led`: by the node that was broken."""

    how: str
    whom: str
    service: str
    led: bool
    seconds: float


@dataclass(slots=True)
class _Writer:
    service: str
    numbered: bool
    acks: list[tuple[float, float]] = field(default_factory=list)
    next: int = 1


@dataclass(slots=True)
class Result:
    """All stalls; `rows` acknowledged, and those of them that the last read lacks or has twice.

    `silent`: services that never had an acknowledgement: of them nothing was measured.
    """

    stalls: list[Stall]
    faults: int
    rows: int
    lost: int
    doubled: int
    silent: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Nothing lost, nothing doubled, and every service was put to the test."""
        return bool(self.rows) and not (self.lost or self.doubled or self.silent)

    def figures(self) -> dict[str, Any]:
        """p50, p99 and the longest, by what happened to whom."""
        groups: dict[str, list[float]] = {"all shards led": []}
        for one in self.stalls:
            name = f"{one.how} {one.whom}" if one.led else "other shards"
            name = "unnumbered appends" if one.service.startswith("agent") else name
            groups.setdefault(name, []).append(one.seconds)
            if one.led and not one.service.startswith("agent"):
                groups["all shards led"].append(one.seconds)
        return {name: quantiles(values) for name, values in groups.items() if values}


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Count, p50, p99 (nearest rank) and the greatest."""
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return {
        "n": len(ordered), "p50": round(rank(0.5), 3), "p99": round(rank(0.99), 3),
        "max": round(ordered[-1], 3),
    }  # fmt: skip


class Failover:
    """One measurement on a cluster of three."""

    def __init__(self, cluster: LocalCluster, seed: int) -> None:
        self._cluster, self._entropy = cluster, SeededEntropy(seed)
        self._clock = SystemClock()
        self._broken: set[str] = set()
        self._breaks = {node: asyncio.Event() for node in cluster.ids}
        self._stopping = asyncio.Event()
        self._stalls: list[Stall] = []
        writers = [_Writer(f"failover{i}", True) for i in range(SERVICES)]
        self._writers = [*writers, *(_Writer(f"agent{i}", False) for i in range(AGENTS))]

    async def run(self, kills: int, say: Any) -> Result:
        """So many faults, one after the other."""
        async with asyncio.TaskGroup() as group:
            for index, writer in enumerate(self._writers):
                group.create_task(self._write(writer, index), name=writer.service)
            try:
                await self._clock.sleep(2.0)
                for number in range(kills):
                    await self._fault(number, say)
            finally:
                self._stopping.set()
        return await self._judge(kills)

    async def _fault(self, number: int, say: Any) -> None:
        how = "kill" if number % 2 == 0 else "pause"
        raft, leaders = await asyncio.to_thread(self._leaders)
        whom = "raft leader" if number % 4 < 2 else "shard leader"
        others = [node for node in self._cluster.ids if node != raft]
        node = raft if whom == "raft leader" else others[int(self._entropy.uniform(0, 2)) % 2]
        led = {one.service for one in self._writers if leaders.get(one.service) == node}
        at = self._clock.monotonic()
        self._broken.add(node)  # clients that know stop asking it
        self._breaks[node].set()
        await asyncio.to_thread(self._cluster.kill if how == "kill" else self._cluster.pause, node)
        await self._until_all_acked(at)
        found = [self._stall(how, whom, one, led, at) for one in self._writers]
        self._stalls += found
        worst = max((one.seconds for one in found if one.led), default=0.0)
        say(f"{number + 1}: {how} {whom} {node}, led {len(led)} services, longest {worst:.3f} s")
        if how == "pause":
            await self._clock.sleep(max(0.0, at + PAUSED_SECONDS - self._clock.monotonic()))
            await asyncio.to_thread(self._cluster.resume, node)
        else:
            await asyncio.to_thread(self._cluster.start)
        self._broken.discard(node)
        self._breaks[node].clear()
        await self._until_spread()

    def _stall(self, how: str, whom: str, writer: _Writer, led: set[str], at: float) -> Stall:
        first = next((end for sent, end in writer.acks if sent >= at), at + STALL_SECONDS_MAX)
        return Stall(how, whom, writer.service, writer.service in led, first - at)

    async def _until_all_acked(self, at: float) -> None:
        until = at + STALL_SECONDS_MAX
        while self._clock.monotonic() < until:
            if all(one.acks and one.acks[-1][0] >= at for one in self._writers):
                return
            await self._clock.sleep(0.02)

    async def _until_spread(self) -> None:
        until = self._clock.monotonic() + SPREAD_SECONDS
        while self._clock.monotonic() < until:
            await self._clock.sleep(0.5)
            _, leaders = await asyncio.to_thread(self._leaders)
            if set(leaders.values()) >= set(self._cluster.ids):
                return

    def _leaders(self) -> tuple[str, dict[str, str]]:
        """The Raft leader, and the leader of each service's shard. Blocks."""
        raft = self._cluster.get("/cluster/leader")["node"]
        rows = self._cluster.get("/cluster/shards")["shards"]
        by_shard = {row["shard"]: row["leader"] for row in rows}
        count = len(by_shard)
        return raft or self._cluster.ids[0], {
            one.service: by_shard.get(shard_of("default", one.service, shard_count=count), "")
            for one in self._writers
        }

    # -- writers

    async def _write(self, writer: _Writer, turn: int) -> None:
        wire = Wire(WireSettings(request_timeout_seconds=2.0))
        try:
            epoch = await self._epoch(wire, writer) if writer.numbered else 0
            while not self._stopping.is_set():
                body, path, kind = _request(writer, epoch)
                turn, sent = await self._until_acked(wire, path, body, kind, turn)
                if turn < 0:
                    return
                writer.acks.append((sent, self._clock.monotonic()))
                writer.next += 1
                await self._clock.sleep(PAUSE_SECONDS)
        finally:
            await wire.close()

    async def _until_acked(
        self, wire: Wire, path: str, body: bytes, kind: str, turn: int
    ) -> tuple[int, float]:
        """Sends it until it is acknowledged; (turn of the node that did, when that request was sent).

        The turn is -1 if it was told to stop before.
        """
        until = self._clock.monotonic() + 2 * STALL_SECONDS_MAX
        while self._clock.monotonic() < until or not self._stopping.is_set():
            nodes = [one for one in self._cluster.plan.nodes if one.id not in self._broken]
            node = nodes[turn % len(nodes)]
            sent, headers = self._clock.monotonic(), {"Content-Type": kind}
            work = wire.request("POST", node.url + path, headers=headers, data=body)
            if await self._is_acked(node.id, work):
                return turn, sent
            turn += 1
            await self._clock.sleep(0.01)
        return -1, 0.0

    async def _is_acked(self, node: str, work: Coroutine[Any, Any, Reply]) -> bool:
        """Whether a request was acknowledged; dropped when its node breaks."""
        request = asyncio.create_task(work)
        broken = asyncio.create_task(self._breaks[node].wait())
        try:
            await asyncio.wait((request, broken), return_when=asyncio.FIRST_COMPLETED)
            return request.done() and request.result().status == 200
        except QuorumlogError:
            return False  # asked again, of another: the stall is measured, not the reason
        finally:
            for task in (request, broken):
                task.cancel()
            await asyncio.gather(request, broken, return_exceptions=True)

    async def _epoch(self, wire: Wire, writer: _Writer) -> int:
        body = json.dumps({"service": writer.service, "producer": writer.service}).encode()
        url = self._cluster.urls[0] + "/ingest/epoch"
        headers = {"Content-Type": "application/json"}
        reply = await wire.request("POST", url, headers=headers, data=body)
        return int(json.loads(reply.body)["epoch"])

    async def _judge(self, kills: int) -> Result:
        """Every acknowledged row is there, once."""
        wire = Wire(WireSettings(request_timeout_seconds=60.0))
        rows = lost = doubled = 0
        try:
            for writer in self._writers:
                url = self._cluster.urls[0] + "/query"
                params = {"service": writer.service}
                headers = {"Accept": "application/x-ndjson"}
                reply = await wire.request("GET", url, params=params, headers=headers)
                found = numbers_in(reply)
                acked = set(range(1, len(writer.acks) + 1))
                rows += len(acked)
                lost += len(acked - set(found))
                doubled += len(found) - len(set(found))
        finally:
            await wire.close()
        silent = tuple(one.service for one in self._writers if not one.acks)
        return Result(self._stalls, kills, rows, lost, doubled, silent)


def numbers_in(reply: Reply) -> list[int]:
    """The numbers of the rows in a last read.

    Raises:
        CliError: it is no whole answer, so it shows neither that rows are lost nor that they are there.
    """
    if reply.status != 200 or reply.headers.get("X-Quorumlog-Complete") != "true":
        text = reply.body[:200].decode("utf-8", "replace")
        raise CliError(f"the last read is not whole (status {reply.status}): {text}")
    return [json.loads(line)["chaos_number"] for line in reply.body.split(b"\n") if line]


def _request(writer: _Writer, epoch: int) -> tuple[bytes, str, str]:
    row = {"message": f"row {writer.next}", "level": "info", "chaos_number": writer.next}
    if not writer.numbered:
        line = json.dumps({"service": writer.service, **row}).encode() + b"\n"
        return line, "/logs", "application/x-ndjson"
    head = {"service": writer.service, "producer": writer.service, "epoch": epoch}
    logs = [{"seq": writer.next, **row}]
    return json.dumps({**head, "logs": logs}).encode(), "/ingest", "application/json"


async def measure(folder: Path, kills: int, seed: int, say: Any) -> Result:
    """A cluster of its own, measured and removed."""
    cluster = LocalCluster(folder / "cluster", 3)
    watcher = await asyncio.to_thread(deadman.watch, cluster.folder)
    try:
        await asyncio.to_thread(cluster.start)
        result = await Failover(cluster, seed).run(kills, say)
        await asyncio.to_thread(cluster.stop)
        return result
    finally:
        await asyncio.to_thread(cluster.destroy)
        assert watcher.stdin is not None, "made with a pipe"
        watcher.stdin.close()
        await asyncio.to_thread(watcher.wait)


def table(result: Result) -> Iterable[list[str]]:
    """Rows for a person: what, how many, p50, p99, longest."""
    for name, figures in result.figures().items():
        yield [name, *(str(figures[key]) for key in ("n", "p50", "p99", "max"))]
