"""Numbered rows under failing leaders: each acknowledged row is stored, and stored once.

Producers of the client library write to services of many shards while nodes are killed or stopped; in
the end what was sent is compared with what every node reads, by service and row.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from quorumlog import Client, Producer
from ring.shards import shard_of
from tests.support.cluster import LocalCluster, eventually, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SERVICES = [f"svc{number}" for number in range(12)]


@dataclass(slots=True)
class Sent:
    """What one producer took, and the longest time in which no ack came although rows waited."""

    messages: list[str] = field(default_factory=list)
    longest_stall: float = 0.0
    flush_seconds: float = 0.0
    acked: int = 0
    epochs: int = 0


def leaders_of(cluster: LocalCluster, node: int = 0) -> dict[int, tuple[str, int]]:
    """(leader, epoch) of each shard, as `node` knows them."""
    shards = cluster.get("/cluster/shards", node)["shards"]
    return {one["shard"]: (one["leader"], one["shard_epoch"]) for one in shards}


def leader_of(cluster: LocalCluster, service: str, node: int = 0) -> tuple[str, int]:
    """(leader, epoch) of a service's shard."""
    return leaders_of(cluster, node)[shard_of("default", service)]


async def produce(
    urls: list[str], service: str, folder: Path, over: asyncio.Event, sent: Sent, turn: int
) -> None:
    """Ten rows every 50 ms, in memory or with a buffer file; flushed in the end."""
    buffer = folder / f"{service}.wal" if turn % 2 else None
    async with Producer(
        urls, service, buffer, linger_seconds=0.01, close_timeout_seconds=60
    ) as one:
        last_ack, since = 0, time.monotonic()
        while not over.is_set():
            now = time.monotonic()
            for _ in range(10):
                text = f"{service} row {len(sent.messages) + 1}"
                one.send(level="info", message=text)
                sent.messages.append(text)
            if one.ack_till > last_ack or not one.waiting:
                last_ack, since = one.ack_till, now
            sent.longest_stall = max(sent.longest_stall, now - since)
            sent.acked = one.ack_till
            await asyncio.sleep(0.05)
        begun = time.monotonic()
        await one.flush(timeout=60)
        sent.flush_seconds = time.monotonic() - begun
        sent.acked = one.ack_till
        sent.epochs = one.stats.epochs_issued


async def produce_all(
    cluster: LocalCluster, folder: Path, faults: Callable[[dict[str, Sent]], None]
) -> dict[str, Sent]:
    """A producer for each service as long as `faults` runs."""
    sent = {service: Sent() for service in SERVICES}
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for turn, service in enumerate(SERVICES):
            urls = cluster.urls[turn % 3 :] + cluster.urls[: turn % 3]
            group.create_task(produce(urls, service, folder, over, sent[service], turn))
        try:
            await asyncio.to_thread(faults, sent)
        finally:
            over.set()
    return sent


def acked_more(sent: dict[str, Sent], rows: int) -> None:
    """Returns when each producer has so many more rows acknowledged."""
    wanted = {service: one.acked + rows for service, one in sent.items()}
    eventually(lambda: all(one.acked >= wanted[name] for name, one in sent.items()), 40)


async def check(cluster: LocalCluster, sent: dict[str, Sent], leave_out: str = "") -> None:
    """Each row that was sent is read once, through each node, and nothing else.

    `leave_out`: a producer whose rows are not looked at.
    """
    expected = Counter(message for one in sent.values() for message in one.messages)
    assert len(expected) == sum(len(one.messages) for one in sent.values())
    for url in cluster.urls:
        counts: Counter[str] = Counter()
        async with Client([url]) as client:
            async for batch in client.stream("arrow", fields="message,producer"):
                chosen = batch.filter(pc.not_equal(batch["producer"], leave_out))
                counts.update(chosen["message"].to_pylist())
        lost, doubled = expected - counts, +counts - expected
        assert not lost, f"{lost.total()} lost: {sorted(lost)[:5]}"
        assert not doubled, f"{doubled.total()} doubled: {sorted(doubled)[:5]}"


def report(title: str, sent: dict[str, Sent]) -> None:
    """What it took, for -s; never asserted."""
    stall = max(one.longest_stall for one in sent.values())
    flush = max(one.flush_seconds for one in sent.values())
    rows = sum(len(one.messages) for one in sent.values())
    print(f"\n{title}: {rows} rows, longest stall {stall:.2f} s, longest flush {flush:.2f} s")


async def test_killing_leaders_loses_and_doubles_no_numbered_row(tmp_path: Path) -> None:
    """kill -9 of the node that leads most of the services' shards, then of the Raft leader."""
    with running_cluster(tmp_path / "c") as cluster:
        killed: list[str] = []

        def faults(sent: dict[str, Sent]) -> None:
            acked_more(sent, 60)
            leads = Counter(leader_of(cluster, service)[0] for service in SERVICES)
            assert len(leads) == 3, "the services' shards have to hit all three nodes"
            for _ in range(2):
                busiest = leads.most_common(1)[0][0]
                victim = cluster.get("/cluster/leader")["node"] if killed else busiest
                cluster.kill(victim)
                killed.append(victim)
                acked_more(sent, 120)
                cluster.start_one(victim)
                acked_more(sent, 60)

        sent = await produce_all(cluster, tmp_path, faults)
        report("two leaders killed", sent)
        await check(cluster, sent)

    assert len(killed) == 2
    assert all(len(one.messages) >= 300 for one in sent.values())
    assert all(one.acked == len(one.messages) for one in sent.values())


async def test_a_stopped_leader_gets_no_acks_when_it_wakes(tmp_path: Path) -> None:
    """SIGSTOP for 3 s, SIGCONT: its shards have moved; batches that it took are refused or passed on.

    While it is stopped, a batch is put into its socket for each of its shards, with the wish for a hint,
    so that it may not pass them on. It wakes up believing that it leads, under an epoch that is over.
    """
    with running_cluster(tmp_path / "c") as cluster:
        answers: list[tuple[int, Any]] = []
        epochs: list[tuple[int, int]] = []

        def faults(sent: dict[str, Sent]) -> None:
            acked_more(sent, 60)
            leads = Counter(leader_of(cluster, service)[0] for service in SERVICES)
            zombie = leads.most_common(1)[0][0]
            others = [n for n, one in enumerate(cluster.plan.nodes) if one.id != zombie]
            mine = [s for s in SERVICES if leader_of(cluster, s)[0] == zombie]
            old = {service: leader_of(cluster, service)[1] for service in mine}
            pid = cluster.running[zombie].pid
            url = cluster.node(zombie).url
            os.kill(pid, signal.SIGSTOP)
            begun = time.monotonic()
            senders = []
            try:
                for service in mine:
                    body = {"service": service, "producer": "z", "logs": [{"seq": 1}]}
                    words = ["curl", "-sS", "-m", "20", "-H", "Content-Type: application/json"]
                    words += ["-H", "X-Quorumlog-Redirect: hint", "-w", "\n%{http_code}"]
                    words += ["-d", json.dumps(body), f"{url}/ingest"]
                    senders.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
                eventually(
                    lambda: (
                        zombie not in {one for one, _ in leaders_of(cluster, others[0]).values()}
                    )
                )
                time.sleep(max(0.0, 3.0 - (time.monotonic() - begun)))
                now = leaders_of(cluster, others[0])
            finally:
                os.kill(pid, signal.SIGCONT)
            for service, sender in zip(mine, senders, strict=True):
                text, _ = sender.communicate(timeout=30)
                body, _, status = text.rpartition("\n")
                answers.append((int(status), json.loads(body)))
                epochs.append((old[service], now[shard_of("default", service)][1]))
            acked_more(sent, 60)

        sent = await produce_all(cluster, tmp_path, faults)
        report("a leader stopped for 3 s", sent)
        await check(cluster, sent, leave_out="z")
        zombies = cluster.get("/query?producer=z&limit=1000")

    refused = [one for one in answers if one[0] != 200]
    assert all(one.acked == len(one.messages) for one in sent.values())
    stored = [row["service"] for row in zombies["rows"]]
    assert len(stored) == len(set(stored)), "a row of the zombie is doubled"
    assert len(stored) >= len(answers) - len(refused), "a row that the zombie acked is lost"

    assert answers, "the stopped node led nothing"
    assert all(new > old for old, new in epochs), "the shards did not move"
    assert refused, f"the zombie acknowledged everything: {answers[:2]}"
    assert all(status == 503 for status, _ in refused), refused


def test_a_producer_that_is_killed_goes_on_from_its_buffer(tmp_path: Path) -> None:
    """kill -9 of the sending process, five times, and of a node once: every row exactly once."""
    total = 6_000
    buffer = tmp_path / "killed.wal"
    script = Path(__file__).parents[1] / "support" / "producer_process.py"
    with running_cluster(tmp_path / "c") as cluster:
        words = [sys.executable, str(script), str(buffer), "killed", str(total), *cluster.urls]
        reached, kills = 0, 0
        while True:
            child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            with child.stdout as lines:
                for line in lines:
                    if line == "done\n":
                        break
                    reached = int(line)
                    if kills < 5 and reached >= (kills + 1) * 900:
                        child.kill()
                        kills += 1
                        break
            ended = child.wait(30)
            if kills == 3 and "node2" in cluster.running and ended != 0:
                cluster.kill("node2")
            elif "node2" not in cluster.running:
                cluster.start_one("node2")
            if ended == 0:
                break
            assert ended == -signal.SIGKILL

        found = cluster.get("/query?service=killed&limit=1&order=asc")
        text = http("GET", cluster.urls[2] + "/query?service=killed&format=csv&fields=seq,message")
        rows = text[1].splitlines()[1:]

    assert kills == 5
    assert found["complete"]
    expected = Counter(f"{n},row {n}" for n in range(1, total + 1))
    counts = Counter(rows)
    assert counts == expected, ((counts - expected), (expected - counts))
