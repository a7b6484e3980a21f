"""`python -m bench plot`: the curves of `bench scale` as SVG files for docs/performance.md."""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import goals, results
from bench.svg import Axis, Curve, chart

#: Where the drawings of the documentation are.
PICTURES = results.ROOT / "docs" / "pictures"
MIB = 1 << 20
Points = list[dict[str, Any]]
Drawing = tuple[Any, ...]
"""Title, axes, curves and perhaps marks: what `bench.svg.chart` takes."""
#: What a node may take, whatever it stores.
MEMORY_GOAL_MIB = 1024


def _ingest(points: Points, key: str, figure: str) -> Curve:
    return [(point[key], statistics.median(point[figure])) for point in points if point.get(figure)]


def _questions(points: Points, key: str, figure: str = "p50") -> dict[str, Curve]:
    """A curve for each question, where it was answered."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        for name, taken in point["questions"].items():
            if figure in taken:
                curves.setdefault(name, []).append((point[key], taken[figure]))
    return {_short(name): curve for name, curve in curves.items()}


def _short(name: str) -> str:
    return name.replace(" of a service and level in an hour", ", service, level, hour")


def growth(points: Points) -> dict[str, Drawing]:
    """Cost, latency, memory and start-up over the rows stored."""
    rows = Axis("rows stored", log=True)
    flat = [{"rows": one["rows"], **one["ingest"]} for one in points if one["ingest"]]
    memory: dict[str, Curve] = {
        "full ingest, the most": [(p["rows"], max(p["rss_most_bytes"]) / MIB) for p in flat],
        "after questions": [(p["rows"], max(p["rss_after_questions_bytes"]) / MIB) for p in points],
        "after a restart": [(p["rows"], max(p["restart"]["rss_bytes"]) / MIB) for p in points],
        "and having read ahead": [
            (p["rows"], max(p["restart"]["warm_rss_bytes"]) / MIB) for p in points
        ],
        "the goal": [(p["rows"], MEMORY_GOAL_MIB) for p in points],
    }
    again = [(p["rows"], p["restart"]) for p in points]
    start: dict[str, Curve] = {
        "until all are ready": [(rows, one["ready_seconds"]) for rows, one in again],
        "CPU of one node": [(rows, max(one["cpu_seconds"])) for rows, one in again],
        "then reading ahead": [(rows, one["warm_seconds"]) for rows, one in again],
    }
    return {
        "growth-cost": (
            "Cost of a row as the store grows (N=3, W=2, slim)", rows, Axis("CPU of all nodes, us a row"),
            {"median of the pieces": _ingest(flat, "rows", "cpu_micros_per_row")},
        ),
        "growth-questions": (
            "Questions over all rows, asked again (N=3, R=2, slim)",
            rows, Axis("p50, ms", log=True), _questions(points, "rows"),
        ),
        "growth-first": (
            "The same questions the first time",
            rows, Axis("ms", log=True), _questions(points, "rows", "first"),
        ),
        "growth-memory": (
            "Resident memory of the largest node", rows, Axis("MiB"), memory,
        ),
        "growth-restart": (
            "Start-up of three nodes on two cores", rows, Axis("seconds"), start,
        ),
    }  # fmt: skip


def connections(points: Points) -> dict[str, Drawing]:
    """Cost and latency of an ack over the senders at once."""
    points = sorted(points, key=lambda one: one["connections"])
    senders = Axis("connections", log=True)
    acks: dict[str, Curve] = {
        "p50": [(p["connections"], p["ack_p50_ms"]) for p in points],
        "p99": [(p["connections"], p["ack_p99_ms"]) for p in points],
    }
    cost: dict[str, Curve] = {"us a row": _ingest(points, "connections", "cpu_micros_per_row")}
    return {
        "connections-cost": (
            "Cost of a row over the senders at once", senders, Axis("CPU of all nodes, us a row"), cost,
        ),
        "connections-acks": (
            "Time to an acknowledgement over the senders at once", senders, Axis("ms", log=True), acks,
        ),
    }  # fmt: skip


def batches(points: Points) -> dict[str, Drawing]:
    """Cost of a row over the rows of a batch."""
    points = sorted(points, key=lambda one: one["batch"])
    cost: dict[str, Curve] = {"us a row": _ingest(points, "batch", "cpu_micros_per_row")}
    return {
        "batches-cost": (
            "Cost of a row over the rows of a batch (8 connections)", Axis("rows a batch", log=True),
            Axis("CPU of all nodes, us a row", log=True), cost,
        ),
    }  # fmt: skip


def storage_nodes(points: Points) -> dict[str, Drawing]:
    """Cost and latency over the number of nodes, all on one machine."""
    points = sorted(points, key=lambda one: one["nodes"])
    count = Axis("storage nodes, all on the same two cores")
    cost: dict[str, Curve] = {"us a row": _ingest(points, "nodes", "cpu_micros_per_row")}
    return {
        "nodes-cost": ("Cost of a row over the nodes (N=3)", count, Axis("CPU of all nodes, us a row"), cost),
        "nodes-questions": (
            "Questions over the nodes", count, Axis("p50, ms", log=True), _questions(points, "nodes"),
        ),
    }  # fmt: skip


def memory(points: Points) -> dict[str, Drawing]:
    """Resident memory through the phases of the memory run."""
    (point,) = points
    nodes = len(point["peak_bytes"])
    curves: dict[str, Curve] = {
        f"node {number + 1}": [(at, sizes[number] / MIB) for at, sizes in point["samples"]]
        for number in range(nodes)
    }
    ends = point["samples"][0][0], point["samples"][-1][0]
    curves["the goal"] = [(at, MEMORY_GOAL_MIB) for at in ends]
    phases = [(at, name) for name, at in point["phases"]]
    return {
        "memory": (
            "Resident memory through a run", Axis("seconds"), Axis("MiB"), curves, phases,
        ),
    }  # fmt: skip


PARTS: dict[str, Callable[[Points], dict[str, Drawing]]] = {
    "growth": growth,
    "connections": connections,
    "batches": batches,
    "nodes": storage_nodes,
    "memory": memory,
}


def main(words: list[str]) -> int:
    """Draws what there is; a part without a result is left out."""
    parser = argparse.ArgumentParser(prog="bench plot", description=__doc__)
    parser.add_argument("--results", type=Path, default=results.ROOT / "bench" / "results")
    parser.add_argument("--to", type=Path, default=PICTURES)
    options = parser.parse_args(words)
    drawn = 0
    for part, draw in PARTS.items():
        held = results.read(options.results / f"scale-{part}.json")
        if held is None or not held["points"]:
            goals.say(f"{part}: no result in {options.results}")
            continue
        options.to.mkdir(parents=True, exist_ok=True)
        for name, drawing in draw(held["points"]).items():
            file = options.to / f"{name}.svg"
            file.write_text(chart(*drawing), encoding="utf-8")
            goals.say(f"{part}: {file}")
            drawn += 1
    return 0 if drawn else 1
