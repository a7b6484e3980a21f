"""Numbers of a run: CPU seconds of processes, percentiles, medians with their spread, the machine."""

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int, children: bool = False) -> float:
    """User and system time of a process so far; with its ended children if asked for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(one) for one in fields[11 : 15 if children else 13]) / _TICKS


def family_cpu_seconds(parent: int) -> float:
    """CPU of a process and its children, ended ones included."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if parent in (int(entry.name), int(fields[1])):
            total += cpu_seconds(int(entry.name), children=int(entry.name) == parent)
    return total


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, interpolated."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def folder_bytes(folder: Path, pattern: str = "**/*") -> int:
    """Bytes that the files of a folder occupy on disk."""
    return sum(one.stat().st_blocks * 512 for one in folder.glob(pattern) if one.is_file())


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    model = "unknown"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        model = platform.processor() or "unknown"
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A plain table; numbers to the right."""
    body = [[_cell(cell) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in body)]) for i, name in enumerate(columns)]
    lines = [title, "  ".join(name.rjust(w) for name, w in zip(columns, widths, strict=True))]
    lines += ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in body]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
