"""What a run showed: for a person, as JSON, and as one line of the ledger.

The ledger is the sum over all runs: that so many faults bit in so many runs and nothing was lost is a
count of its lines, no claim. A run that broke off has no line; one that does not count says why.
"""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chaos.breaking import describe
from chaos.checkers import HOLDS, VIOLATED
from chaos.runner import Run

_MARKS = {HOLDS: "holds   ", VIOLATED: "VIOLATED"}


def as_text(run: Run) -> str:
    """The verdict for a person."""
    head, figures = run.history.head, run.figures
    bitten = sum(fault.t_bitten is not None for fault in run.history.faults)
    lines = [
        f"{head.scenario}: {run.scenario.title}",
        f"  seed {head.seed}, {run.seconds:.0f} s, {len(head.nodes)} nodes, N={head.n} W={head.w} R={head.r}",
        f"  faults    {bitten} of {len(run.history.faults)} bit",
        *(f"            {describe(fault)}" for fault in run.history.faults),
        f"  writes    {figures['rows_acked']:,} of {figures['rows_sent']:,} rows acknowledged"
        f" ({figures['rows_in_bulk']:,} in bulk) in {figures['requests']:,} requests;"
        f" {figures['resends']} resent on doubt,"
        f" {figures['repeats']} repeated on purpose; the longest wait {figures['longest_ack_seconds']} s",
        f"  reads     {figures['reads']:,}: {figures['reads_complete']:,} complete,"
        f" {figures['reads_partial']} partial, {figures['reads_unanswered']} without an answer;"
        f" all read back in {figures['read_back_seconds']} s, judged in {figures['judged_seconds']} s",
    ]
    for one in run.verdicts:
        mark = _MARKS.get(one.status, "not seen")
        count = f" ({one.count})" if one.status == VIOLATED else ""
        lines.append(f"  {mark}  {one.id} {one.name}: {one.text}{count}")
        lines += [f"              {example}" for example in one.examples]
    if figures["errors_logged"]:
        lines.append(f"  note      nodes logged {figures['errors_logged']} errors:")
        lines += [f"              {one}" for one in figures["errors_examples"]]
    lines += [f"  DOES NOT COUNT  {reason}" for reason in run.worth.reasons]
    lines.append(f"  {'passed' if run.passed else 'FAILED'}")
    return "\n".join(lines)


def as_json(run: Run) -> dict[str, Any]:
    """The verdict as a value for programs."""
    return {
        "scenario": run.scenario.name,
        "seed": run.history.head.seed,
        "passed": run.passed,
        "text": as_text(run),
        "counts": run.worth.counts,
        "counts_not_because": list(run.worth.reasons),
        "seconds": round(run.seconds, 1),
        "faults": [
            {
                "what": one.what,
                "targets": list(one.targets),
                "bitten": one.t_bitten is not None,
                "held_seconds": round((one.t_heal - (one.t_bitten or one.t_heal)) / 1e9, 3),
                "healed": one.t_healed is not None,
                "proof": one.proof,
                "error": one.error,
            }
            for one in run.history.faults
        ],
        "invariants": [
            {
                "id": one.id,
                "name": one.name,
                "status": one.status,
                "text": one.text,
                "violations": one.count,
                "examples": list(one.examples),
            }
            for one in run.verdicts
        ],
        **run.figures,
    }


def ledger_line(run: Run, commit: str, now_micros: int) -> str:
    """One line for the ledger."""
    when = datetime.fromtimestamp(now_micros / 1e6, UTC).isoformat(timespec="seconds")
    line = {
        "when": when,
        "commit": commit,
        "scenario": run.scenario.name,
        "seed": run.history.head.seed,
        "seconds": round(run.seconds, 1),
        "faults_bitten": sum(one.t_bitten is not None for one in run.history.faults),
        "rows_acked": run.figures["rows_acked"],
        "rows_in_bulk": run.figures["rows_in_bulk"],
        "rows_lost": run.figures["rows_lost"],
        "rows_doubled": run.figures["rows_doubled"],
        "resends": run.figures["resends"] + run.figures["repeats"],
        "violated": [one.id for one in run.verdicts if one.status == VIOLATED],
        "counts": run.worth.counts,
        "verdict": "passed" if run.passed else "failed",
    }
    return json.dumps(line, separators=(",", ":"))


def append_line(path: Path, line: str) -> None:
    """Appends a line to the ledger."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def commit_of_source() -> str:
    """The commit that runs, with `+` if files differ from it; empty outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    words = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
