"""`python -m bench.scans STORE`: the scans of one store in one process, without HTTP, as CPU and wall time.

STORE is the `store` folder of a node that does not run (a copy of it: opening writes there). The figures
are of a replica alone: planning, quorum, merging and HTTP come on top. Run it on two working trees in turn to
compare them; CPU time is what holds on a machine that also does other things. `known`: the same search
was asked before, so that its matches are remembered, as are folds (docs/adr/0019) in all turns but the first
(its columns are decoded as well); where the range moves each turn begins a minute later.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path

from query.plan import plan_rows
from query.stats import plan_stats
from records.messages import ScanRequest
from records.predicates import ScanPlan
from runtime.clock import SystemClock
from runtime.metrics import Metrics
from storage.service import StorageService, StorageSettings

MOVES = "2026-01-01T00:{mm}:30Z"
QUESTIONS: dict[str, dict[str, str]] = {
    "count by level": {"by": "level", "agg": "count"},
    "rows a minute by service": {"by": "service", "agg": "count", "step": "1m"},
    "p95 of a duration by service": {"by": "service", "agg": "p95(duration_ms)"},
    "the same, the range moves": {"by": "service", "agg": "p95(duration_ms)", "from": MOVES},
    "hosts by errors": {"by": "host", "agg": "count", "level": "error"},
    "the same, the range moves ": {"by": "host", "agg": "count", "level": "error", "from": MOVES},
    "newest 100 errors of a service": {"limit": "100", "service": "payments", "level": "error"},
    "phrase, counted, new": {"agg": "count", "search": '"card declined {}"'},
    "phrase, counted, known": {"agg": "count", "search": '"card declined"'},
    "regex, counted, new": {"agg": "count", "regex": "charged [0-9]+.{}0 EUR"},
}


def plan_of(params: dict[str, str], turn: int) -> ScanPlan:
    """The plan of a question; `{}` becomes another text in each turn, `{mm}` another minute."""
    minute = f"{turn % 60:02}"
    pairs = [
        (name, value.replace("{}", str(turn)).replace("{mm}", minute))
        for name, value in params.items()
    ]
    if "agg" in params:
        return plan_stats(pairs, 0, 10_000).query.scan
    return plan_rows(pairs, 0).scan


async def measure(folder: Path, rounds: int) -> None:
    """Prints a line a question."""
    service = StorageService(
        folder, folder_node(folder), StorageSettings(), SystemClock(), Metrics()
    )
    await service.start()
    try:
        for name, params in QUESTIONS.items():
            wall, cpu, read = [], [], 0
            for turn in range(rounds + 2):
                plan = plan_of(params, turn)
                request = ScanRequest(plan, tuple(range(64)), (), counted=True)
                before = time.perf_counter(), time.process_time()
                reply, _ = await service.scan(request)
                wall.append((time.perf_counter() - before[0]) * 1000)
                read = reply.rows_scanned
                cpu.append((time.process_time() - before[1]) * 1000)
            sys.stdout.write(
                f"{name:32} first CPU {cpu[0]:8.2f} ms   wall p50 {statistics.median(wall[2:]):8.2f}"
                f" ms   CPU p50 {statistics.median(cpu[2:]):8.2f} ms   rows read {read:,}\n"
            )
    finally:
        await service.stop()


def folder_node(folder: Path) -> str:
    """Whose store it is."""
    return str(json.loads((folder / "node.json").read_text(encoding="utf-8"))["node"])


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(prog="bench.scans", description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    asyncio.run(measure(options.store, options.rounds))


if __name__ == "__main__":
    main()
