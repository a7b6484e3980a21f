"""`quorumlog chaos sim`: seeds of the simulation, or the hunt for planted bugs.

A failing seed is made smaller and printed with the command that shows it again. `DIR/sim.jsonl` gets a line
a call: the sums of what was run.
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


def run_simulation(options: argparse.Namespace) -> int:
    """The command: 0 if no seed breaks an invariant, and each planted bug is caught."""
    if not 1 <= options.seeds <= SEEDS_MAX:
        raise CliError(f"--seeds is from 1 to {SEEDS_MAX}, not {options.seeds}", code=USAGE)
    first = options.seed
    if first is None:
        first = int.from_bytes(SystemEntropy().bytes(4), "big")
    return _hunt(first, options) if options.mutants else _seeds(first, options)


def _seeds(first: int, options: argparse.Namespace) -> int:
    failed: list[Outcome] = []
    bitten: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    seconds = 0.0
    for seed in range(first, first + options.seeds):
        outcome = simulate(seed)
        bitten += outcome.bitten
        sums += Counter(acked=outcome.acked, reads=outcome.reads, open=len(outcome.open))
        seconds += outcome.seconds
        if outcome.broken:
            failed.append(_reported(outcome, options.json))
    line: dict[str, Any] = {
        "at": SystemClock().wall_micros(),
        "commit": report.commit_of_source(),
        "first": first,
        "seeds": options.seeds,
        "failed": [one.seed for one in failed],
        **sums,
        "bitten": dict(sorted(bitten.items())),
        "seeds_per_cpu_second": round(options.seeds / max(seconds, 1e-9), 2),
    }
    folder = Path(options.data)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "sim.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, separators=(",", ":")) + "\n")
    if options.json:
        print_json(line)
    else:
        print_table("", ("what bit", "times"), [[name, str(n)] for name, n in bitten.most_common()])
        note(
            f"{options.seeds} seeds from {first}: {len(failed)} failed, {sums['acked']:,} rows acknowledged"
        )
        note(f"{line['seeds_per_cpu_second']} seeds per second of CPU")
    return FAILED if failed else OK


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
