"""The results as tables for people."""

import statistics
from typing import Any

from bench.measure import spread, table


def tables(results: dict[str, Any]) -> str:
    """All tables of a run."""
    parts = []
    if "ingest" in results:
        parts += [_ingest(results["ingest"]), _disk(results["ingest"])]
    if "queries" in results:
        parts.append(_queries(results["queries"]))
    return "\n\n".join(parts)


def _ingest(found: dict[str, Any]) -> str:
    base = {
        (cell["corpus"], cell["batch"]): cell
        for cell in found["cells"]
        if cell["store"] == "duckdb"
    }
    rows = []
    for cell in found["cells"]:
        speed = spread(cell["acked_rows_per_second"])
        other = base[cell["corpus"], cell["batch"]]
        ratios = [
            a / b
            for a, b in zip(
                cell["acked_rows_per_second"], other["acked_rows_per_second"], strict=True
            )
        ]
        by_process = [statistics.median(one) for one in zip(*cell["cpu_by_process"], strict=True)]
        rows.append(
            (
                cell["store"],
                cell["corpus"],
                cell["batch"],
                cell["connections"],
                int(speed["median"]),
                int(statistics.median(cell["visible_rows_per_second"])),
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})",
                statistics.median(cell["cpu_micros_per_row"]),
                " + ".join(f"{one:.2f}" for one in by_process),
                cell["ack_p50_ms"],
                cell["ack_p99_ms"],
            )
        )
    columns = (
        "store", "corpus", "batch", "conns", "acked rows/s", "visible rows/s",
        "x DuckDB (spread)", "CPU us/row", "by process", "ack p50 ms", "p99 ms",
    )  # fmt: skip
    return table("ingest (medians)", columns, rows)


def _disk(found: dict[str, Any]) -> str:
    rows = [
        (kind, store, count)
        for kind, stores in found["disk_bytes_per_row"].items()
        for store, count in stores.items()
    ]
    peaks = {
        kind: " ".join(f"{one / (1 << 20):.0f}" for one in sizes)
        for kind, sizes in found["peak_memory_bytes"].items()
    }
    text = table("disk", ("corpus", "store", "bytes a row"), rows)
    for kind, sizes in peaks.items():
        text += f"\npeak memory of the nodes, {kind} (N=1, then N=3), MiB: {sizes}"
    return f"{text}\nPostgreSQL: {found['postgres']}"


def _queries(found: dict[str, Any]) -> str:
    rows = []
    for one in found["questions"]:
        mine, other = one["ms"]["N=3 W=2"], one["ms"]["duckdb"]
        rows.append(
            (
                one["question"], mine["p50"], mine["p99"], other["p50"], other["p99"],
                other["p50"] / mine["p50"], one["answer_rows"], one["same_answer"],
            )
        )  # fmt: skip
    columns = (
        "question", "ours p50 ms", "p99", "DuckDB p50 ms", "p99", "x DuckDB", "answer", "same result",
    )  # fmt: skip
    title = f"queries over {found['rows']:,} rich rows (N=3 over HTTP, R=2; DuckDB in process)"
    return table(title, columns, rows)
