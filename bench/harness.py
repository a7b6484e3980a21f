"""Runs the stores side by side and reports ratios.

Goals: A and B alternate in one run on the same rows, machine and settings, several rounds; the median
and its spread are told; that both did the same work is checked before anything is timed, and named by
a digest. Non-goals: absolute figures that hold elsewhere (they stand beside the ratio, with the
machine they come from), and any pass or fail: no test asserts a time.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import corpus, load, measure, nodes, peers, queries

SEED = 42
#: Seconds for replicas that were not waited for to finish, so that their CPU is counted.
SETTLE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `rounds`: how often each store has its turn."""

    rows: int = 200_000
    query_rows: int = 1_000_000
    batches: tuple[int, ...] = (1_000, 5_000, 20_000)
    connections: tuple[int, ...] = (1, 8)
    kinds: tuple[str, ...] = ("slim", "rich")
    rounds: int = 3
    query_rounds: int = 20
    postgres: bool = True


TINY = Plan(2_000, 3_000, (500,), (2,), ("slim", "rich"), 1, 2, postgres=False)


@dataclass(slots=True)
class Cell:
    """One store at one point: a list has an element a round."""

    store: str
    corpus: str
    batch: int
    connections: int
    acked_rows_per_second: list[float]
    visible_rows_per_second: list[float]
    cpu_micros_per_row: list[float]
    cpu_by_process: list[list[float]]
    ack_p50_ms: float = 0.0
    ack_p99_ms: float = 0.0


def say(text: str) -> None:
    """Progress, for a person."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class _Point:
    """Collects the rounds of all stores at one (corpus, batch, connections)."""

    def __init__(self, kind: str, batch: int, connections: int) -> None:
        self._at = (kind, batch, connections)
        self._acks: dict[str, list[float]] = {}
        self.cells: dict[str, Cell] = {}

    def add(self, store: str, took: load.Load, cpu: Sequence[float], writers: int = 0) -> None:
        """One round of a store; `writers`: its connections, if not those of the point."""
        kind, batch, connections = self._at
        fresh = Cell(store, kind, batch, writers or connections, [], [], [], [])
        cell = self.cells.setdefault(store, fresh)
        cell.acked_rows_per_second.append(took.rows / took.acked_seconds)
        cell.visible_rows_per_second.append(took.rows / took.visible_seconds)
        micros = [one * 1e6 / took.rows for one in cpu]
        cell.cpu_micros_per_row.append(sum(micros))
        cell.cpu_by_process.append(micros)
        acks = self._acks.setdefault(store, [])
        acks += took.acks
        cell.ack_p50_ms = measure.percentile(acks, 0.5) * 1000
        cell.ack_p99_ms = measure.percentile(acks, 0.99) * 1000


def _ours(cluster: nodes.Cluster, bodies: list[corpus.Body], connections: int) -> tuple:
    before = cluster.cpu_seconds()
    took = load.send(cluster, bodies, connections)
    time.sleep(SETTLE_SECONDS)
    return took, [b - a for a, b in zip(before, cluster.cpu_seconds(), strict=True)]


def ingest(plan: Plan, folder: Path) -> dict[str, Any]:
    """Rows a second, CPU a row, disk a row: one node, three nodes and the baselines, in turn."""
    cells: list[Cell] = []
    disk: dict[str, dict[str, float]] = {}
    memory: dict[str, list[int]] = {}
    for kind in plan.kinds:
        place = folder / kind
        binaries = peers.postgres_binaries() if plan.postgres else None
        with nodes.Cluster(place / "n1", 1) as one, nodes.Cluster(place / "n3", 3) as three:
            others: list[Any] = [peers.DuckDb(place / "duckdb", kind)]
            if binaries is not None:
                others.append(peers.Postgres(place / "postgres", kind, binaries))
            try:
                rows = _all_points(plan, kind, one, three, others, cells)
                disk[kind] = {
                    "N=1": one.stored_bytes() / rows[1],
                    "N=3, each copy": three.stored_bytes() / rows[1] / 3,
                    **{other.name: other.disk_bytes() / rows[0] for other in others},
                }
                memory[kind] = [*one.memory_bytes(), *three.memory_bytes()]
            finally:
                for other in others:
                    other.close()
    return {
        "cells": [asdict(cell) for cell in cells],
        "disk_bytes_per_row": disk,
        "peak_memory_bytes": memory,
        "postgres": _postgres_state(plan),
    }


def _postgres_state(plan: Plan) -> str:
    if not plan.postgres:
        return "left out"
    return "measured" if peers.postgres_binaries() else "no server found on this machine"


def _all_points(
    plan: Plan,
    kind: str,
    one: nodes.Cluster,
    three: nodes.Cluster,
    others: list[Any],
    cells: list[Cell],
) -> tuple[int, int]:
    """Fills `cells`; (rows that each baseline got, rows that each cluster got)."""
    baseline_rows = our_rows = 0
    for batch in plan.batches:
        bodies = corpus.bodies(kind, SEED, plan.rows, batch)
        load.send(one, bodies[:2], 1)  # schemas learned, connections made: not timed
        load.send(three, bodies[:2], 1)
        our_rows += sum(body.rows for body in bodies[:2])
        for place, connections in enumerate(plan.connections):
            say(f"ingest {kind}, {batch:,} rows a batch, {connections} connections ...")
            point = _Point(kind, batch, connections)
            for _ in range(plan.rounds):
                point.add("N=1 W=1", *_ours(one, bodies, connections))
                point.add("N=3 W=2", *_ours(three, bodies, connections))
                our_rows += plan.rows
                if place == 0:  # the baselines have one writer: its figures stand for all
                    for other in others:
                        took, cpu = other.load(bodies)
                        point.add(other.name, took, [cpu], writers=1)
                    baseline_rows += plan.rows
            cells += point.cells.values()
    return baseline_rows, our_rows


def ask(plan: Plan, folder: Path) -> dict[str, Any]:
    """Latencies of ten questions: three nodes over HTTP and DuckDB in process, in turn."""
    bodies = corpus.bodies("rich", SEED, plan.query_rows, min(20_000, plan.query_rows))
    table = corpus.rows(SEED, plan.query_rows)
    with nodes.Cluster(folder / "ask-n3", 3) as cluster:
        say(f"queries: loading {plan.query_rows:,} rows ...")
        load.send(cluster, bodies, 4)
        duck = peers.DuckDb(folder / "ask-duckdb", "rich")
        duck.load(bodies)
        try:
            with nodes.connection(cluster.ports[0]) as link:
                found = [_ask(plan, link, duck, one) for one in queries.questions(table)]
        finally:
            duck.close()
    return {"rows": plan.query_rows, "questions": found}


def _ask(plan: Plan, link: Any, duck: peers.DuckDb, question: queries.Question) -> dict[str, Any]:
    mine = queries.ours(link, question)
    other = queries.theirs(duck.ask(question.sql), question)
    if mine != other:
        raise RuntimeError(f"{question.name}: answers differ:\n{mine[:3]}\n{other[:3]}")
    times: dict[str, list[float]] = {"N=3 W=2": [], "duckdb": []}
    for _ in range(plan.query_rounds):
        at = time.perf_counter()
        nodes.ask(link, question.path, question.params)
        between = time.perf_counter()
        duck.ask(question.sql)
        times["N=3 W=2"].append((between - at) * 1000)
        times["duckdb"].append((time.perf_counter() - between) * 1000)
    say(f"  {question.name}: {statistics.median(times['N=3 W=2']):.1f} ms")
    return {
        "question": question.name,
        "answer_rows": len(mine),
        "same_answer": queries.digest(mine),
        "ms": {
            store: {
                "p50": measure.percentile(taken, 0.5),
                "p99": measure.percentile(taken, 0.99),
            }
            for store, taken in times.items()
        },
    }
