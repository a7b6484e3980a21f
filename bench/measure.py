"""Numbers of a run: CPU seconds of processes, percentiles, medians with their spread, the machine."""

import os
import platform
import statistics
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int, children: bool = False) -> float:
    """User and system time of a process so far; with its ended children if asked for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(one) for one in fields[11 : 15 if children else 13]) / _TICKS


def _family(parent: int) -> list[int]:
    """A process and its children."""
    found = [parent]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(entry.name))
    return found


def family_cpu_seconds(parent: int) -> float:
    """CPU of a process and its children, ended ones included."""
    return sum(cpu_seconds(pid, children=pid == parent) for pid in _family(parent))


def idle_cpu(pids: Sequence[int], seconds: float = 2.0) -> list[float]:
    """The share of a core that each process uses by itself, while nobody asks anything of it."""
    before = [cpu_seconds(pid) for pid in pids]
    time.sleep(seconds)
    return [(cpu_seconds(pid) - was) / seconds for pid, was in zip(pids, before, strict=True)]


def family_memory_bytes(parent: int) -> list[int]:
    """The most memory a process and each of its children has had."""
    return [memory_bytes(pid, "VmHWM") for pid in _family(parent)]


def memory_bytes(pid: int, field: str = "VmRSS") -> int:
    """A memory figure of a process: VmRSS (resident now), RssAnon (its own part), VmHWM (the most)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


class Sampler:
    """Looks at the resident memory of processes from time to time, while something runs.

    `samples`: (seconds since the start, bytes of each process); at most SAMPLES_MAX, then every second
    one is dropped and the pause doubled, so that a long run stays as small.
    """

    SAMPLES_MAX = 400

    def __init__(self, pids: Sequence[int], pause_seconds: float = 0.25) -> None:
        self._pids, self._pause = list(pids), pause_seconds
        self.samples: list[tuple[float, list[int]]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        started = time.monotonic()
        while not self._done.wait(self._pause):
            try:
                now = [memory_bytes(pid) for pid in self._pids]
            except (OSError, StopIteration):
                return  # a process has ended
            self.samples.append((round(time.monotonic() - started, 2), now))
            if len(self.samples) > self.SAMPLES_MAX:
                del self.samples[::2]
                self._pause *= 2

    def most(self) -> list[int]:
        """The most seen of each process, in bytes."""
        return [max(one) for one in zip(*(row[1] for row in self.samples), strict=True)]


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


def folder_bytes_of(folder: str | None) -> int | None:
    """The same of a folder that may not be known."""
    return None if folder is None else folder_bytes(Path(folder))


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
