"""`quorumlog chaos sim`: seeds of the simulation, or the hunt for planted bugs.

A failing seed is made smaller and printed with the command that shows it again. `DIR/sim.jsonl` gets a line
for each 50 seeds: the sums of what was run.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from chaos import report
from chaos.mutants import MUTANTS, Caught, hunt
from chaos.sim.run import Outcome, shrink, simulate
from node.cli_errors import FAILED, OK, USAGE, CliError
from node.render import note, print_json, print_table
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy

SEEDS_MAX = 10_000_000
#: Broken invariants of one seed that are printed.
SHOWN = 5
#: Seeds whose sums make one line of sim.jsonl.
CHUNK = 50


def run_simulation(options: argparse.Namespace) -> int:
    """The command: 0 if no seed breaks an invariant, and each planted bug is caught."""
    if not 1 <= options.seeds <= SEEDS_MAX:
        raise CliError(f"--seeds is from 1 to {SEEDS_MAX}, not {options.seeds}", code=USAGE)
    first = options.seed
    if first is None:
        first = int.from_bytes(SystemEntropy().bytes(4), "big")
    return _hunt(first, options) if options.mutants else _seeds(first, options)


def _seeds(first: int, options: argparse.Namespace) -> int:
    """Chunk after chunk, so that a run that is ended leaves the sums of all but its last."""
    failed, acked, bitten, seconds = [], 0, Counter[str](), 0.0
    for start in range(first, first + options.seeds, CHUNK):
        outcomes = []
        for seed in range(start, min(start + CHUNK, first + options.seeds)):
            outcomes.append(simulate(seed))
            if outcomes[-1].broken:
                failed.append(_reported(outcomes[-1], options.json).seed)
        _note_down(start, outcomes, Path(options.data))
        acked += sum(one.acked for one in outcomes)
        bitten += sum((one.bitten for one in outcomes), Counter[str]())
        seconds += sum(one.seconds for one in outcomes)
    rate = round(options.seeds / max(seconds, 1e-9), 2)
    if options.json:
        sums = {"first": first, "seeds": options.seeds, "failed": failed, "acked": acked}
        print_json({**sums, "bitten": dict(bitten.most_common()), "seeds_per_cpu_second": rate})
    else:
        print_table("", ("what bit", "times"), [[name, str(n)] for name, n in bitten.most_common()])
        note(
            f"{options.seeds} seeds from {first}: {len(failed)} failed, {acked:,} rows acknowledged"
        )
        note(f"{rate} seeds per second of CPU")
    return FAILED if failed else OK


def _note_down(first: int, outcomes: list[Outcome], folder: Path) -> None:
    line: dict[str, Any] = {
        "at": SystemClock().wall_micros(),
        "commit": report.commit_of_source(),
        "first": first,
        "seeds": len(outcomes),
        "failed": [one.seed for one in outcomes if one.broken],
        "acked": sum(one.acked for one in outcomes),
        "reads": sum(one.reads for one in outcomes),
        "bitten": dict(sum((one.bitten for one in outcomes), Counter[str]()).most_common()),
        "cpu_seconds": round(sum(one.seconds for one in outcomes), 2),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "sim.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, separators=(",", ":")) + "\n")


def _reported(outcome: Outcome, quiet: bool) -> Outcome:
    """Says what a seed broke, how to see it again, and which of its troubles are enough for it."""
    small = shrink(outcome)
    if not quiet:
        for name, text in outcome.broken[:SHOWN]:
            note(f"seed {outcome.seed}: {name} {text}")
        note(f"  next: quorumlog chaos sim --seed {outcome.seed} --seeds 1")
        note(f"  enough for {', '.join(sorted(small.invariants))}: {small.plan}")
    return outcome


def _hunt(first: int, options: argparse.Namespace) -> int:
    found: list[Caught] = []
    for mutant in MUTANTS:
        found.append(hunt(mutant, first, options.seeds))
        one = found[-1]
        how = f"{', '.join(one.by)} after {one.seeds} seeds" if one.by else "NOT CAUGHT"
        note(f"{mutant.name}: {how}")
    if options.json:
        print_json([{"name": one.mutant.name, "by": one.by, "seeds": one.seeds} for one in found])
    escaped = [one for one in found if not one.by]
    note(f"{len(found) - len(escaped)} of {len(found)} planted bugs caught")
    return FAILED if escaped else OK
