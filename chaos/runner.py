"""One run: a fresh cluster, clients, faults, heal, the last reads, the verdict.

The order is what makes it honest: clients write before the first fault and after the last; all faults
are healed before the last reads; what is judged is read back from the files, as anybody could.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos import bulk_checkers, checkers, deadman, sweeping, workload
from chaos.breaking import Breaker, Say, break_and_heal
from chaos.bulk import Bulk, bulk_agent, bulk_final_reads, bulk_numbered, bulk_reader
from chaos.bulk_corpus import BulkCorpus
from chaos.bulk_facts import BulkFacts
from chaos.corpus import Corpus
from chaos.faults import Site
from chaos.ground import prepared
from chaos.history import Head, History, Recorder, load
from chaos.local_cluster import LocalCluster
from chaos.nemesis import plan
from chaos.net import Links, fault_server
from chaos.remote import RemoteCluster
from chaos.scenarios import Scenario
from chaos.states import last_states
from chaos.witness import Witness
from runtime.clock import SystemClock

#: Clients of each kind. Each has a service of its own, so that they hit different shards.
AGENTS, NUMBERED, PRODUCERS, READERS = 3, 2, 2, 3
#: Bulk clients of each kind, in a run that has them.
BULK_AGENTS, BULK_NUMBERED = 2, 2
#: Seconds of writing before the first and after the last fault.
PEACE_SECONDS = 1.0
#: Seconds for clients to get their last rows acknowledged after the heal.
DRAIN_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class Run:
    """A run that ended: its history, and what no history shows."""

    scenario: Scenario
    history: History
    verdicts: tuple[checkers.Verdict, ...]
    worth: checkers.Worth
    seconds: float
    figures: dict[str, Any]

    @property
    def passed(self) -> bool:
        """True if it counts and nothing is violated."""
        return self.worth.counts and all(one.status != checkers.VIOLATED for one in self.verdicts)


async def run(
    scenario: Scenario,
    seed: int,
    seconds: float,
    folder: Path,
    say: Say,
    servers: Sequence[str] = (),
    bulk: bool = False,
) -> Run:
    """Runs a scenario in a new folder, on a cluster of its own or (a safe one) on that of `servers`.

    `bulk`: with clients that send thousands of rows at once, beside all others.

    Raises:
        CliError: the cluster did not even start.
    """
    clock = SystemClock()
    started = clock.monotonic()
    work = _Work(scenario, seed, seconds, folder, say, clock, bulk)
    if servers:
        remote = await asyncio.to_thread(RemoteCluster, servers)
        token = f"x{int(clock.wall_micros()):x}"
        traffic, errors = await _attack(work, Site(remote), token), []
    else:
        traffic, errors = await _on_own_cluster(work)
    asked = clock.monotonic()
    history = await asyncio.to_thread(load, folder)
    verdicts = tuple(await asyncio.to_thread(checkers.check, history))
    worth = checkers.worth(history, int(scenario.rows_per_second_min * seconds))
    figures = _figures(traffic, history, errors)
    figures["judged_seconds"] = round(clock.monotonic() - asked, 1)
    return Run(scenario, history, verdicts, worth, clock.monotonic() - started, figures)


@dataclass(frozen=True, slots=True)
class _Work:
    """What a run was asked for."""

    scenario: Scenario
    seed: int
    seconds: float
    folder: Path
    say: Say
    clock: SystemClock
    bulk: bool = False


async def _on_own_cluster(work: _Work) -> tuple[workload.Traffic, list[dict[str, Any]]]:
    """Starts, attacks and removes a cluster; the clients' part, and errors in the nodes' logs."""
    ground = prepared(work.scenario, work.seed, work.folder)
    site = await asyncio.to_thread(ground.__enter__)
    watcher = await asyncio.to_thread(deadman.watch, site.cluster.folder)
    witness = Witness(site.cluster, work.folder)
    try:
        await asyncio.to_thread(site.cluster.start)
        traffic = await _attack(work, site, witness=witness)
        await asyncio.to_thread(witness.rest)
        errors = await asyncio.to_thread(site.cluster.errors_logged)
        await asyncio.to_thread(site.cluster.stop)
        await asyncio.to_thread(witness.after)
        return traffic, errors
    finally:
        try:
            await asyncio.to_thread(witness.close)
            await asyncio.to_thread(ground.__exit__, None, None, None)
        finally:
            assert watcher.stdin is not None, "made with a pipe"
            watcher.stdin.close()
            await asyncio.to_thread(watcher.wait)


async def _attack(
    work: _Work, site: Site, token: str = "", witness: Witness | None = None
) -> workload.Traffic:
    """Load, faults, heal, the last reads. `token`: keeps this run's rows apart in a cluster not ours."""
    cluster = site.cluster
    with _links(work.scenario) as site.links:
        recorder, traffic = _prepare(work, cluster, token)
        bulk = Bulk(traffic, BulkCorpus(work.seed, traffic.corpus.start_micros))
        breaker = Breaker(cluster, recorder.now, site.links, site)
        if witness is not None:
            witness.begin(recorder.now)
        try:
            traffic.urls = await asyncio.to_thread(breaker.link_all)
            if work.scenario.sweep:
                site.sweep = _sweeper(work, site, traffic)
            await _load_and_faults(work, bulk, breaker)
            traffic.urls = dict(zip(cluster.ids, cluster.urls, strict=True))
            began = work.clock.monotonic()
            await workload.final_reads(traffic, by_client=bool(token or work.bulk))
            await bulk_final_reads(bulk)
            traffic.read_back_seconds = work.clock.monotonic() - began
            if not token:
                recorder.states(await asyncio.to_thread(last_states, cluster, recorder.now))
        finally:
            recorder.close()
    return traffic


@contextmanager
def _links(scenario: Scenario) -> Iterator[Links | None]:
    """Links through a fault server for as long, if the scenario needs them."""
    if not scenario.links:
        yield None
        return
    with fault_server() as server:
        links = Links(server)
        try:
            yield links
        finally:
            links.close()


def _prepare(
    work: _Work, cluster: LocalCluster, token: str
) -> tuple[Recorder, workload.Traffic]:  # fmt: skip
    scenario, seed, clock = work.scenario, work.seed, work.clock
    kinds = {"agent": AGENTS, "numbered": NUMBERED, "producer": PRODUCERS}
    writers = [f"{kind}{i}{token}" for kind, count in kinds.items() for i in range(1, count + 1)]
    if scenario.sweep:
        writers += [sweeping.LINES, sweeping.NUMBERED]
    services = {name: f"chaos-{name}" for name in writers}
    bulk = {f"bulk-agent{i}{token}": "" for i in range(1, BULK_AGENTS + 1)}
    bulk |= {f"bulk-numbered{i}{token}": "" for i in range(1, BULK_NUMBERED + 1)}
    bulk = {name: f"chaos-{name}" for name in bulk} if work.bulk else {}
    n, w, r = cluster.plan.quorum
    head = Head(
        scenario=scenario.name,
        seed=seed,
        start_micros=clock.wall_micros(),
        nodes=cluster.ids,
        n=n,
        w=w,
        r=r,
        services=services,
        sequenced=tuple(name for name in (*writers, *bulk) if "numbered" in name),
        converges=not token,
        bulk=bulk,
        spares=tuple(node.id for node in cluster.spares),
    )
    recorder = Recorder(work.folder, head, clock)
    urls = dict(zip(cluster.ids, cluster.urls, strict=True))
    corpus = Corpus(seed, head.start_micros)
    traffic = workload.Traffic(
        urls, corpus, recorder, clock, services, keys=scenario.clocks, bulk_services=bulk
    )
    return recorder, traffic


async def _load_and_faults(work: _Work, bulk: Bulk, breaker: Breaker) -> None:
    """Clients all the time; faults until `seconds` are over; then the clients end what they began."""
    seed, seconds, say, traffic = work.seed, work.seconds, work.say, bulk.traffic
    faults = plan(work.scenario.recipe, list(traffic.urls), seconds - 2 * PEACE_SECONDS, seed)
    async with asyncio.TaskGroup() as group:
        coroutines = [*_clients(traffic, seed, work.folder), *_bulk_clients(bulk, seed)]
        clients = [group.create_task(one) for one in coroutines]
        await asyncio.sleep(PEACE_SECONDS)
        await break_and_heal(faults, breaker, traffic.recorder, seconds, say)
        await asyncio.sleep(PEACE_SECONDS)
        traffic.stopping.set()
        _, late = await asyncio.wait(clients, timeout=DRAIN_SECONDS)
        if late:
            say(f"{len(late)} clients still have rows without an answer; they give up now")
            traffic.give_up.set()


def _sweeper(work: _Work, site: Site, traffic: workload.Traffic) -> sweeping.Sweeper:
    nodes = {node.id: (node.host, node.http_port) for node in site.cluster.plan.nodes}
    return sweeping.Sweeper(traffic, nodes, work.seed, asyncio.get_running_loop())


def _clients(traffic: workload.Traffic, seed: int, folder: Path) -> list[Any]:
    """The coroutines of all clients; each has a seed of its own."""
    tasks: list[Any] = []
    for index, name in enumerate(traffic.services):
        own = seed * 1000 + index
        if name.startswith("sweep"):
            continue  # sent by a fault (chaos.sweeping)
        if name.startswith("agent"):
            tasks.append(workload.agent(traffic, name, own, index))
        elif name.startswith("numbered"):
            tasks.append(workload.numbered(traffic, name, own, index))
        else:
            tasks.append(workload.producer(traffic, name, own, folder))
    for index in range(READERS):
        tasks.append(
            workload.reader(traffic, f"reader{index + 1}", seed * 1000 + 500 + index, index)
        )
    return tasks


def _bulk_clients(bulk: Bulk, seed: int) -> list[Any]:
    """The coroutines of the bulk clients, if there are any."""
    tasks: list[Any] = []
    for index, name in enumerate(bulk.services):
        write = bulk_numbered if "numbered" in name else bulk_agent
        tasks.append(write(bulk, name, seed * 1000 + 700 + index, index))
    if tasks:
        tasks.append(bulk_reader(bulk, "bulk-reader1", seed * 1000 + 800, 0))
    return tasks


def _figures(
    traffic: workload.Traffic, history: History, errors: list[dict[str, Any]]
) -> dict[str, Any]:
    facts, bulk = checkers.Facts(history), BulkFacts(history)
    asked = [op for op in history.ops if op.kind in ("read", "count", "bulk-read")]
    answered = [op for op in asked if op.outcome == "ok"]
    complete = sum(bool(op.resp["complete"]) for op in answered)
    return {
        "rows_acked": facts.acked_count + bulk.acked_count,
        "rows_sent": sum(map(len, facts.asked.values())) + bulk.asked_count,
        "rows_in_bulk": bulk.acked_count,
        "requests": len(facts.appends) + len(bulk.appends),
        "resends": traffic.resends,
        "repeats": traffic.repeats,
        "read_back_seconds": round(traffic.read_back_seconds, 1),
        "longest_ack_seconds": round(max(traffic.acks, default=0.0), 3),
        "reads": len(asked),
        "reads_complete": complete,
        "reads_partial": len(answered) - complete,
        "reads_unanswered": len(asked) - len(answered),
        "rows_lost": checkers.lost_rows(facts) + bulk_checkers.lost_rows(bulk),
        "rows_doubled": checkers.doubled_rows(facts) + bulk_checkers.doubled_rows(bulk),
        "errors_logged": len(errors),
        "errors_examples": [
            str(one.get("event") or one.get("message"))[:200] for one in errors[:5]
        ],
    }
