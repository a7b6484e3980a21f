"""What `bench scale` has measured so far, as Markdown tables for the documentation."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import results

MIB = 1 << 20
Point = dict[str, Any]
Points = list[Point]


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(one) for one in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _ingest(point: Point) -> tuple[Any, ...]:
    cost, speed = point["cpu_micros_per_row"], point["acked_rows_per_second"]
    acks = (float(point["ack_p50_ms"]), float(point["ack_p99_ms"]))
    return (float(statistics.median(cost)), int(statistics.median(speed)), *acks)


_INGEST = ("CPU us/row", "rows/s acked", "ack p50 ms", "p99 ms")


def _questions(
    points: Points, heads: Sequence[str], figure: str = "p50", what: str = "question, p50 ms"
) -> str:
    names = list(dict.fromkeys(name for point in points for name in point["questions"]))

    def shown(point: Point, name: str) -> Any:
        taken = point["questions"].get(name, {})
        return float(taken[figure]) if figure in taken else "refused"

    return _table(
        (what, *heads),
        [(name, *(shown(point, name) for point in points)) for name in names],
    )


def growth(points: Points) -> str:
    """Cost, memory, disk, start-up; then the questions."""
    rows = []
    for one in points:
        taken = one["ingest"]
        cost = _ingest(taken)[:2] if taken else ("-", "-")
        peak = max(taken["rss_most_bytes"]) / MIB if taken else "-"
        after = [max(one[name]) / MIB for name in ("rss_bytes", "rss_after_questions_bytes")]
        again = one["restart"]
        rows.append(
            (one["rows"], *cost, one["stored_bytes"] / one["rows"] / 3, peak, *after,
             float(again["ready_seconds"]), max(again["cpu_seconds"]), max(again["rss_bytes"]) / MIB,
             float(again["warm_seconds"]), max(again["warm_rss_bytes"]) / MIB)
        )  # fmt: skip
    columns = (
        "rows", "CPU us/row", "rows/s acked", "bytes/row, one copy", "MiB at ingest, most", "MiB then",
        "MiB after questions", "start s", "start CPU s", "MiB after start",
        "read ahead s", "MiB then",
    )  # fmt: skip
    heads = [f"{one['rows']:,}" for one in points]
    asked = [{"questions": one["restart"]["warm_questions"]} for one in points]
    return "\n\n".join(
        (
            _table(columns, rows),
            _questions(points, heads),
            _questions(points, heads, "first", "the first time"),
            _questions(asked, heads, "first", "first after a start, having read ahead"),
        )
    )


def _line(key: str) -> Callable[[Points], str]:
    def shown(points: Points) -> str:
        ordered = sorted(points, key=lambda one: one[key])
        return _table((key, *_INGEST), [(one[key], *_ingest(one)) for one in ordered])

    return shown


def storage_nodes(points: Points) -> str:
    """Cost and memory, then the questions."""
    ordered = sorted(points, key=lambda one: one["nodes"])
    rows = [
        (one["nodes"], *_ingest(one), max(one["rss_bytes"]) / MIB, sum(one["idle_cpu_share"]))
        for one in ordered
    ]
    columns = ("nodes", *_INGEST, "MiB of the largest", "cores used by all when idle")
    heads = [str(one["nodes"]) for one in ordered]
    return f"{_table(columns, rows)}\n\n{_questions(ordered, heads)}"


def beside(points: Points) -> str:
    """Questions alone and beside ingest; ingest alone and beside questions."""
    by_what = {one["what"]: one for one in points}
    asked = [by_what[name] for name in ("questions", "both") if name in by_what]
    sent = [by_what[name] for name in ("ingest", "both") if name in by_what]
    ingest = _table(
        ("ingest", *_INGEST),
        [({"both": "beside questions"}.get(p["what"], "alone"), *_ingest(p)) for p in sent],
    )
    return f"{_questions(asked, ('alone', 'beside ingest')[: len(asked)])}\n\n{ingest}"


def memory(points: Points) -> str:
    """The most each node had in each phase."""
    (point,) = points
    starts = [at for _, at in point["phases"]] + [float("inf")]
    rows = []
    for (name, at), end in zip(point["phases"], starts[1:], strict=True):
        during = [sizes for when, sizes in point["samples"] if at <= when < end]
        most = [max(one) / MIB for one in zip(*during, strict=True)] if during else []
        rows.append((name, at, *(most or ["-"] * len(point["peak_bytes"]))))
    rows.append(("the most ever", "", *(one / MIB for one in point["peak_bytes"])))
    nodes = [f"node {number + 1} MiB" for number in range(len(point["peak_bytes"]))]
    return _table(("phase", "from s", *nodes), rows)


PARTS: dict[str, Callable[[Points], str]] = {
    "growth": growth,
    "connections": _line("connections"),
    "batches": _line("batch"),
    "nodes": storage_nodes,
    "beside": beside,
    "memory": memory,
}


def shown(folder: Path) -> str:
    """All parts that have points in `folder`; what time did not allow is named."""
    parts = []
    for part, show in PARTS.items():
        held = results.read(folder / f"scale-{part}.json")
        if held is None or not held["points"]:
            continue
        left = (
            f"\n\nLeft out, as time was over: {', '.join(held['left_out'])}."
            if held["left_out"]
            else ""
        )
        parts.append(f"### {part}\n\n{show(held['points'])}{left}")
    return "\n\n".join(parts)
