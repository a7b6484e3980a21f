"""`python -m bench project`: what the measured slopes say of a large cluster. Which figure breaks first?

Each figure is a line (base + slope * rows on a node), fitted through the points of `scale growth`, or
counted from the real ring of that many nodes. It is compared with what the assumed machine has, or with
what people wait for. What is measured at 100 M rows and stretched a thousandfold is a warning, not a
forecast: the list is ordered by how soon a line crosses its limit, and that order is what it is for.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import goals, results
from bench.measure import table
from ring.builder import build_ring
from ring.ring import RingMember

PIB = 1e15
GIB = 1 << 30
COPIES = 3


@dataclass(frozen=True, slots=True)
class Machine:
    """The node that is assumed, and patience. `cores` divide the CPU parts: scans run in threads."""

    cores: int = 16
    memory_bytes: float = 64 * GIB
    ready_seconds: float = 600.0
    answer_seconds: float = 30.0  # a query's deadline, by default
    network_bytes_per_second: float = 1.25e9  # 10 Gbit/s
    measured_cores: int = 2


@dataclass(frozen=True, slots=True)
class Line:
    """y = base + slope * x by least squares; `points`: through how many."""

    base: float
    slope: float
    points: int

    def at(self, x: float) -> float:
        """The value at x."""
        return self.base + self.slope * x


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """Through the points; with one, or all at one place, flat."""
    count = len(points)
    if not count:
        raise ValueError("no points to fit")
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        return Line(mean_y, 0.0, count)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return Line(mean_y - slope * mean_x, slope, count)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure at the size asked for. `breaks_at`: the share of that size at which the limit is met;
    None: never, as far as was measured; then `value` is None too where it comes from a line."""

    name: str
    unit: str
    value: float | None
    limit: float
    breaks_at: float | None
    source: str


def grown(name: str, unit: str, line: Line, rows: float, limit: float, source: str) -> Figure:
    """A figure that grows with the rows on a node."""
    told = f"{source}, {line.points} points"
    if line.slope <= 0:
        return Figure(name, unit, None, limit, None, told)
    breaks = max(0.0, (limit - line.base) / line.slope) / rows
    return Figure(name, unit, line.at(rows), limit, breaks, told)


def ring_figures(nodes: int, shards: int, stored_bytes: float, machine: Machine) -> list[Figure]:
    """What the real ring of that many equal nodes says: balance, moves, and what building it costs here."""
    before = time.process_time()
    ring = build_ring([RingMember(f"n{i}") for i in range(nodes)], n=COPIES, shard_count=shards)
    built = time.process_time() - before
    loads = list(ring.loads().values())
    replicas = shards * COPIES
    move = stored_bytes / replicas / machine.network_bytes_per_second
    return [
        Figure(
            f"nodes without any data, {shards} shards", "nodes", float(loads.count(0)), 0.0,
            replicas / nodes if replicas < nodes else None, "ring",
        ),
        Figure(
            f"data on the fullest node, {shards} shards", "x mean", max(loads) * nodes / replicas, 1.25,
            None, "ring",
        ),
        Figure(f"CPU of building the ring, {shards} shards", "s", built, 1.0, None, "measured now"),
        Figure(
            f"moving one replica of a shard, {shards} shards", "s", move, 3600.0, 3600.0 / move,
            "ring, network",
        ),
        Figure(
            f"blocks a big batch is cut into, {shards} shards", "blocks",
            float(len(ring.replica_sets())), 12.0, None, "ring",
        ),
    ]  # fmt: skip


def growth_figures(points: list[dict[str, Any]], rows: float, machine: Machine) -> list[Figure]:
    """Memory, start-up and questions at `rows` on a node; all nodes held all rows when it was measured."""
    cores = machine.cores / machine.measured_cores
    memory = fit([(p["rows"], max(p["restart"]["rss_bytes"])) for p in points])
    used = fit([(p["rows"], max(p["rss_after_questions_bytes"])) for p in points])
    ready = fit([(p["rows"], max(p["restart"]["cpu_seconds"])) for p in points])
    found = [
        grown("memory after a start", "bytes", memory, rows, machine.memory_bytes, "growth"),
        grown("memory after questions", "bytes", used, rows, machine.memory_bytes, "growth"),
        grown("CPU of a start, one thread", "s", ready, rows, machine.ready_seconds, "growth"),
    ]
    names = {name for p in points for name, one in p["questions"].items() if "first" in one}
    for name in sorted(names):  # the first answers: nothing of a petabyte is remembered
        line = fit(
            [(p["rows"], p["questions"][name]["first"] / 1000) for p in points
             if "first" in p["questions"].get(name, {})]
        )  # fmt: skip
        # A third of a node's rows is asked.
        line = Line(line.base, line.slope / COPIES / cores, line.points)
        found.append(grown(f"{name}, all time", "s", line, rows, machine.answer_seconds, "growth"))
    return found


def node_figures(points: list[dict[str, Any]], nodes: int) -> list[Figure]:
    """What a member costs by being there: CPU of the busiest node without any work."""
    line = fit([(p["nodes"], max(p["idle_cpu_share"])) for p in points])
    breaks = (0.5 - line.base) / line.slope / nodes if line.slope > 0 else None
    value = line.at(nodes)
    source = f"nodes, {line.points} points"
    return [Figure("idle CPU of the busiest node", "cores", value, 0.5, breaks, source)]


def project(
    growth: list[dict[str, Any]],
    members: list[dict[str, Any]],
    nodes: int,
    petabytes: float,
    shards: Sequence[int],
    machine: Machine | None = None,
) -> dict[str, Any]:
    """The figures, soonest to break first, and what they were computed from."""
    machine = machine or Machine()
    last = max(growth, key=lambda one: one["rows"])
    row_bytes = last["stored_bytes"] / last["rows"] / COPIES
    stored = petabytes * PIB
    rows = stored / nodes / row_bytes
    figures = growth_figures(growth, rows, machine)
    for count in shards:
        figures += ring_figures(nodes, count, stored, machine)
    if members:
        figures += node_figures(members, nodes)
    figures.sort(key=lambda one: one.breaks_at if one.breaks_at is not None else float("inf"))
    return {
        "nodes": nodes, "petabytes": petabytes, "copies": COPIES, "rows_on_a_node": rows,
        "bytes_per_row": row_bytes, "measured_up_to_rows": last["rows"],
        "figures": [{name: getattr(one, name) for name in Figure.__slots__} for one in figures],
    }  # fmt: skip


def shown(found: dict[str, Any]) -> str:
    """The list as a table."""
    lines = [
        (
            one["name"], one["unit"],
            "does not grow" if one["value"] is None else f"{one['value']:.3g}", f"{one['limit']:.3g}",
            "-" if one["breaks_at"] is None else f"{one['breaks_at'] * found['petabytes'] * 1000:,.3g} TB",
            one["source"],
        )
        for one in found["figures"]
    ]  # fmt: skip
    title = (
        f"{found['nodes']} nodes, {found['petabytes']:g} PB stored ({found['copies']} copies):"
        f" {found['rows_on_a_node']:.2e} rows on a node; measured up to"
        f" {found['measured_up_to_rows']:.0e}"
    )
    columns = ("figure", "unit", "there", "limit", "met at (all nodes)", "from")
    return table(title, columns, lines)


def main(words: list[str]) -> int:
    """Reads what `bench scale` wrote, prints the list, writes projection.json beside it."""
    parser = argparse.ArgumentParser(prog="bench project", description=__doc__)
    parser.add_argument("--results", type=Path, default=results.ROOT / "bench" / "results")
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--petabytes", type=float, default=1.0)
    parser.add_argument("--shards", type=int, action="append", help="default 32 and 256")
    options = parser.parse_args(words)
    growth = results.read(options.results / "scale-growth.json")
    members = results.read(options.results / "scale-nodes.json") or {"points": []}
    if growth is None or len(growth["points"]) < 2:
        goals.say(
            f"two sizes are needed: python -m bench scale --part growth --out {options.results}"
        )
        return 1
    found = project(
        growth["points"],
        members["points"],
        options.nodes,
        options.petabytes,
        options.shards or (32, 256),
    )
    results.write(options.results / "projection.json", results.head() | found)
    sys.stdout.write(shown(found) + "\n")
    return 0
