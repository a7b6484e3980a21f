"""The table of goals: ours beside each peer, same batches, same questions, same machine, one run.

Goals: stores take turns, piece by piece and question by question; what is told is the median, and the
spread in the JSON; answers are compared before any is timed, and named by a digest. Non-goals: figures
that hold elsewhere, and any pass or fail: no test asserts a time.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import corpus, load, measure
from bench.peers.base import Peer
from bench.peers.choose import make
from bench.peers.ours import Quorumlog
from bench.questions import QUESTIONS, Question, canonical, digest, facts, same

#: Goals for ingest and disk; those of the questions stand with the questions.
CPU_GOAL = {"slim": 1.0, "rich": 2.0}
SPEED_GOAL = {"slim": 1_000_000, "rich": 600_000}
DISK_GOAL = {"slim": 15, "rich": 42}
#: Seconds that one store may spend on one question; a slow one has fewer rounds, and at least MIN_ROUNDS.
QUESTION_SECONDS = 10.0
MIN_ROUNDS = 3
#: Seconds after the last batch, for merges in the background, before sizes and times are taken.
SETTLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `rows`: of each corpus; `piece_rows`: what a store takes in one turn."""

    rows: dict[str, int]
    piece_rows: int = 500_000
    batch: int = 20_000
    connections: int = 8
    rounds: int = 15
    settle_seconds: float = SETTLE_SECONDS
    single: bool = False
    specs: tuple[str, ...] = ("duckdb",)


TINY = Plan({"slim": 6_000, "rich": 4_000}, 2_000, 500, 2, 2, 0.0)


def say(text: str) -> None:
    """Progress, for a person."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def peers_of(plan: Plan, folder: Path) -> list[Peer]:
    """Ours first, then whom the user named.

    Raises:
        NoPeer: a named one can't take part; those made before are closed.
    """
    peers: list[Peer] = [Quorumlog(folder / "n3", 3)]
    if plan.single:
        peers.append(Quorumlog(folder / "n1", 1))
    try:
        for spec in plan.specs:
            peers.append(make(spec, folder))
    except BaseException:
        for peer in peers:
            peer.close()
        raise
    return peers


def run(plan: Plan, folder: Path) -> dict[str, Any]:
    """Both corpora, all stores; see `report.goals` for the table."""
    peers = peers_of(plan, folder)
    found: dict[str, Any] = {"stores": {peer.name: peer.note for peer in peers}, "corpora": {}}
    try:
        for kind, rows in plan.rows.items():
            found["corpora"][kind] = _corpus(plan, kind, rows, peers)
        found["peak_memory_bytes"] = {peer.name: peer.memory_bytes() for peer in peers}
    finally:
        for peer in peers:
            peer.close()
    return found


def _corpus(plan: Plan, kind: str, rows: int, peers: Sequence[Peer]) -> dict[str, Any]:
    for peer in peers:
        peer.open(kind)
    piece_rows = min(plan.piece_rows, rows)
    pieces = max(1, rows // piece_rows)
    loads: dict[str, list[load.Load]] = {peer.name: [] for peer in peers}
    body_bytes = 0
    for piece in range(pieces):
        say(f"{kind}: rows {piece * piece_rows:,} to {(piece + 1) * piece_rows:,} ...")
        bodies = list(corpus.cut(corpus.table_of(kind, piece_rows, piece), plan.batch))
        body_bytes += sum(len(body.json) for body in bodies)
        turn = piece % len(peers)
        for peer in (*peers[turn:], *peers[:turn]):
            loads[peer.name].append(peer.load(kind, bodies, plan.connections))
    time.sleep(plan.settle_seconds)
    total = pieces * piece_rows
    about = facts(pieces, piece_rows)
    for peer in peers:
        peer.bind(kind, about)
    return {
        "rows": total,
        "json_bytes_per_row": body_bytes / total,
        "batch": plan.batch,
        "connections": plan.connections,
        "ingest": {name: ingested(taken) for name, taken in loads.items()},
        "disk_bytes_per_row": {peer.name: _per_row(peer.disk_bytes(kind), total) for peer in peers},
        "questions": [_ask(plan, one, peers) for one in QUESTIONS if one.kind == kind],
    }


def _per_row(size: int | None, rows: int) -> float | None:
    return None if size is None else size / rows


def ingested(taken: list[load.Load]) -> dict[str, Any]:
    """Figures of some loads of one store. `cpu_micros_by_process`: mean of each process, where known."""
    acks = [ack for one in taken for ack in one.acks]
    costs = [one.micros_per_row for one in taken if one.micros_per_row is not None]
    return {
        "acked_rows_per_second": measure.spread([one.rows / one.acked_seconds for one in taken]),
        "visible_rows_per_second": measure.spread(
            [one.rows / one.visible_seconds for one in taken]
        ),
        "cpu_micros_per_row": measure.spread(costs) if costs else None,
        "cpu_micros_by_process": [
            sum(seconds) * 1e6 / sum(one.rows for one in taken)
            for seconds in zip(*(one.cpu_by_process for one in taken), strict=True)
        ],
        "overcounts": sum(one.overcounts for one in taken),
        "ack_p50_ms": measure.percentile(acks, 0.5) * 1000,
        "ack_p99_ms": measure.percentile(acks, 0.99) * 1000,
    }


def _ask(plan: Plan, question: Question, peers: Sequence[Peer]) -> dict[str, Any]:
    ours, first = peers[0], {}
    answer, first[ours.name] = _timed(ours, question)
    mine = canonical(answer or [], question.shape)
    found: dict[str, Any] = {
        "question": question.name, "goal_ms": question.goal_ms,
        "answer_rows": len(mine), "same_answer": digest(mine), "differs": {}, "ms": {},
    }  # fmt: skip
    asked = [ours]
    for peer in peers[1:]:
        answer, first[peer.name] = _timed(peer, question)
        if answer is None:
            continue
        theirs = canonical(answer, question.shape)
        if same(mine, theirs, question.shape, peer.estimates):
            asked.append(peer)
        else:
            found["differs"][peer.name] = [mine[:3], theirs[:3], len(theirs)]
            say(f"  {question.name}: {peer.name} ANSWERS DIFFERENTLY, not timed: {theirs[:3]}")
    times, costs = _time(plan.rounds, question, asked)
    for name, taken in times.items():
        found["ms"][name] = {
            "p50": statistics.median(taken),
            "p99": measure.percentile(taken, 0.99),
            "first": first[name],
            "cpu": None if costs[name] is None else costs[name] * 1000 / len(taken),
            "rounds": len(taken),
        }
    shown = ", ".join(f"{name} {found['ms'][name]['p50']:.1f}" for name in times)
    say(f"  {question.name}: {shown} ms")
    return found


def _timed(peer: Peer, question: Question) -> tuple[Any, float]:
    """The answer, and the milliseconds it took."""
    at = time.perf_counter()
    answer = peer.ask(question)
    return answer, (time.perf_counter() - at) * 1000


def _time(
    rounds: int, question: Question, asked: Sequence[Peer]
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Milliseconds of each round, and seconds of CPU in all, where known; stores take turns."""
    times: dict[str, list[float]] = {peer.name: [] for peer in asked}
    costs: dict[str, Any] = {peer.name: 0.0 for peer in asked}
    for turn in range(rounds):
        for peer in asked:
            taken = times[peer.name]
            if turn >= MIN_ROUNDS and sum(taken) > QUESTION_SECONDS * 1000:
                continue
            cpu, at = peer.cpu_seconds(), time.perf_counter()
            peer.ask(question)
            taken.append((time.perf_counter() - at) * 1000)
            after = peer.cpu_seconds()
            known = cpu is not None and after is not None and costs[peer.name] is not None
            costs[peer.name] = costs[peer.name] + after - cpu if known else None
    return times, costs


def differing(found: dict[str, Any]) -> list[str]:
    """What was answered in two ways: `question: store`."""
    return [
        f"{one['question']}: {name}"
        for part in found["corpora"].values()
        for one in part["questions"]
        for name in one["differs"]
    ]


def overcounted(found: dict[str, Any]) -> list[str]:
    """Stores that counted more rows than they were sent, if only for a moment."""
    return sorted(
        {
            name
            for part in found["corpora"].values()
            for name, taken in part["ingest"].items()
            if taken["overcounts"]
        }
    )
