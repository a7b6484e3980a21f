"""A store that grows: what a row costs, how long a question takes, at each size; then a restart."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import corpus, goals, load, measure, nodes
from bench.questions import Facts, facts
from bench.scale import asking
from bench.scale.points import Points


@dataclass(frozen=True, slots=True)
class Growth:
    """Rows at which all is measured, ascending; each a multiple of `piece_rows`."""

    sizes: tuple[int, ...] = tuple(n * 1_000_000 for n in (1, 2, 5, 10, 20, 50, 100))
    piece_rows: int = 1_000_000
    batch: int = 20_000
    connections: int = 8
    rounds: int = 7
    settle_seconds: float = 5.0
    warm_seconds: float = 120.0


#: Asked again after a restart, once nodes have read ahead.
FIRST = ("count by level", "rare word")
TINY = Growth((2_000, 4_000), 2_000, 500, 2, 2, 0.0, 5.0)


def run(plan: Growth, points: Points, data: Path, keep: bool = False) -> None:
    """Grows the store in `data` from size to size; the folder is removed when the last is measured.

    Args:
        keep: leave the store where it is.
    """
    if not points.resumed:
        shutil.rmtree(data, ignore_errors=True)
    sizes = [size for size in plan.sizes if not points.has(rows=size)]
    if not sizes:
        return
    with nodes.Cluster(data, 3) as cluster:
        held = nodes.count(cluster.ports[0])
        if points.resumed:
            goals.say(f"growth: goes on with {held:,} rows in {data}")
        piece = held // plan.piece_rows  # one that was cut short is sent again: it is stored once
        for size in sizes:
            if points.late(f"{size:,} rows"):
                return
            taken, peaks, cut = _grow(plan, cluster, piece, size, points)
            piece += len(taken)
            if cut:
                return
            points.add(_measure(plan, cluster, size, piece) | _told(taken, peaks))
    if not keep:
        shutil.rmtree(data, ignore_errors=True)


def _grow(
    plan: Growth, cluster: nodes.Cluster, piece: int, size: int, points: Points
) -> tuple[list[load.Load], list[int], bool]:
    taken: list[load.Load] = []
    peaks = [0] * len(cluster.pids)
    while (piece + len(taken)) * plan.piece_rows < size:
        number = piece + len(taken)
        if points.late(f"{size:,} rows"):
            return taken, peaks, True
        bodies = list(corpus.cut(corpus.table_of("slim", plan.piece_rows, number), plan.batch))
        with measure.Sampler(cluster.pids) as sampler:
            one = load.send(cluster, bodies, plan.connections, number * plan.piece_rows)
        if sampler.samples:
            peaks = [max(pair) for pair in zip(peaks, sampler.most(), strict=True)]
        taken.append(one)
        goals.say(
            f"growth: {(number + 1) * plan.piece_rows:,} rows,"
            f" {one.rows / one.acked_seconds:,.0f} a second, {one.micros_per_row:.2f} us a row"
        )
    return taken, peaks, False


def _told(taken: list[load.Load], peaks: list[int]) -> dict[str, Any]:
    if not taken:  # the store had the rows: the run was stopped between the last row and the point
        return {"ingest": None}
    return {"ingest": asking.ingest_point(taken) | {"rss_most_bytes": peaks}}


def _measure(plan: Growth, cluster: nodes.Cluster, size: int, pieces: int) -> dict[str, Any]:
    time.sleep(plan.settle_seconds)
    about = facts(pieces, plan.piece_rows)
    point: dict[str, Any] = {
        "rows": size,
        "stored_bytes": cluster.stored_bytes(),
        "folder_bytes": measure.folder_bytes(cluster.folder),
        "rss_bytes": cluster.memory_bytes("VmRSS"),
        "questions": asking.questions(cluster, about, plan.rounds),
        "rss_after_questions_bytes": cluster.memory_bytes("VmRSS"),
    }
    at = time.perf_counter()
    cluster.stop()
    point["stop_seconds"] = time.perf_counter() - at
    point["restart"] = {
        "ready_seconds": cluster.start(),
        "rss_bytes": cluster.memory_bytes("VmRSS"),
    }
    point["restart"]["cpu_seconds"] = cluster.cpu_seconds()
    at = time.perf_counter()
    seen = nodes.count(cluster.ports[0])
    point["restart"]["count_seconds"] = time.perf_counter() - at
    point["restart"]["rows_seen"] = seen
    if seen != size:
        raise RuntimeError(f"{size:,} rows were stored, {seen:,} are seen after a restart")
    point["restart"] |= _warm(plan, cluster, about)
    goals.say(f"growth: {size:,} rows measured, ready in {point['restart']['ready_seconds']:.1f} s")
    return point


def _warm(plan: Growth, cluster: nodes.Cluster, about: Facts) -> dict[str, Any]:
    """Waits until all nodes have read ahead what they mean to; then the first questions, and memory."""
    at = time.perf_counter()
    blocks = max(status["blocks"] for status in cluster.storage_status())
    while (done := min(_warmed(port) for port in cluster.ports)) < blocks:
        if time.perf_counter() - at > plan.warm_seconds:
            break
        time.sleep(0.2)
    return {
        "warm_seconds": time.perf_counter() - at,
        "warm_blocks": [int(done), blocks],
        "warm_rss_bytes": cluster.memory_bytes("VmRSS"),
        "warm_questions": asking.questions(cluster, about, 2, FIRST),
    }


def _warmed(port: int) -> float:
    """Blocks that a node has read ahead since it started."""
    return nodes.metric(port, "quorumlog_storage_warmed_blocks_total")
