"""`quorumlog chaos sim`: seeds of the simulation, or the hunt for planted bugs, on all cores.

What is told comes in the order of the seeds. A failing seed is made smaller and printed with the command that
shows it again. `DIR/sim.jsonl` gets a line for each 50 seeds: the sums of what was run.
"""

import argparse
import json
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from chaos import report
from chaos.mutants import MUTANTS, Caught, hunt
from chaos.sim.jobs import Died, cores, each
from chaos.sim.plan import Plan
from chaos.sim.run import Outcome, shrink, simulate
from node.cli_errors import FAILED, OK, USAGE, CliError
from node.render import note, print_json, print_table
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy

SEEDS_MAX, JOBS_MAX = 10_000_000, 1024
#: Broken invariants of one seed that are printed.
SHOWN = 5
#: Seeds whose sums make one line of sim.jsonl.
CHUNK = 50
#: Seconds of CPU that a process may work on one seed, or on each seed of a hunt; most take less than one.
SEED_SECONDS_MAX, HUNT_SECONDS_MAX = 600, 30
#: What is broken if the process of a seed ended.
DIED = "DIED"


def run_simulation(options: argparse.Namespace) -> int:
    """The command: 0 if no seed breaks an invariant, and each planted bug is caught."""
    if not 1 <= options.seeds <= SEEDS_MAX:
        raise CliError(f"--seeds is from 1 to {SEEDS_MAX}, not {options.seeds}", code=USAGE)
    jobs = cores() if options.jobs is None else options.jobs
    if not 1 <= jobs <= JOBS_MAX:
        raise CliError(f"--jobs is from 1 to {JOBS_MAX}, not {jobs}", code=USAGE)
    first = options.seed
    if first is None:
        first = int.from_bytes(SystemEntropy().bytes(4), "big")
    return (_hunt if options.mutants else _seeds)(first, jobs, options)


def _seeds(first: int, jobs: int, options: argparse.Namespace) -> int:
    """Chunk after chunk, so that a run that is ended leaves the sums of all but its last."""
    failed, acked, bitten, seconds = [], 0, Counter[str](), 0.0
    seeds = range(first, first + options.seeds)
    with closing(_outcomes(seeds, jobs, options.json)) as outcomes:
        while chunk := list(islice(outcomes, CHUNK)):
            _note_down(chunk, Path(options.data))
            failed += [one.seed for one in chunk if one.broken]
            acked += sum(one.acked for one in chunk)
            bitten += sum((one.bitten for one in chunk), Counter[str]())
            seconds += sum(one.seconds for one in chunk)
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


def _outcomes(seeds: range, jobs: int, quiet: bool) -> Generator[Outcome, None, None]:
    """What became of each seed, in order; of one that failed it is said at once."""
    with closing(each(_probe, seeds, jobs, SEED_SECONDS_MAX)) as found:
        for seed, one in zip(seeds, found, strict=True):
            if isinstance(one, Died):
                one = (
                    Outcome(seed, Plan(), [(DIED, f"the process of this seed {one.how}")], ""),
                    None,
                )
            outcome, small = one
            if outcome.broken and not quiet:
                _tell(outcome, small)
            yield outcome


def _probe(seed: int) -> tuple[Outcome, Outcome | None]:
    """A run, and a smaller one that breaks the same if it broke something."""
    outcome = simulate(seed)
    return outcome, shrink(outcome) if outcome.broken else None


def _tell(outcome: Outcome, small: Outcome | None) -> None:
    """What a seed broke, how to see it again, and which of its troubles are enough for it."""
    for name, text in outcome.broken[:SHOWN]:
        note(f"seed {outcome.seed}: {name} {text}")
    note(f"  next: quorumlog chaos sim --seed {outcome.seed} --seeds 1")
    if small is not None:
        note(f"  enough for {', '.join(sorted(small.invariants))}: {small.plan}")


def _note_down(outcomes: list[Outcome], folder: Path) -> None:
    line: dict[str, Any] = {
        "at": SystemClock().wall_micros(),
        "commit": report.commit_of_source(),
        "first": outcomes[0].seed,
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


def _hunt(first: int, jobs: int, options: argparse.Namespace) -> int:
    """Each planted bug, one a process."""

    def work(index: int) -> tuple[int, Outcome | None]:
        caught = hunt(MUTANTS[index], first, options.seeds)
        return caught.seeds, caught.outcome

    found: list[Caught] = []
    limit = HUNT_SECONDS_MAX * options.seeds
    with closing(each(work, range(len(MUTANTS)), jobs, limit)) as results:
        for mutant, result in zip(MUTANTS, results, strict=True):
            died = isinstance(result, Died)
            found.append(Caught(mutant, 0, None) if died else Caught(mutant, *result))
            how = f"NOT CAUGHT, its process {result.how}" if died else _how(found[-1])
            note(f"{mutant.name}: {how}")
    if options.json:
        print_json([{"name": one.mutant.name, "by": one.by, "seeds": one.seeds} for one in found])
    escaped = [one for one in found if not one.by]
    note(f"{len(found) - len(escaped)} of {len(found)} planted bugs caught")
    return FAILED if escaped else OK


def _how(caught: Caught) -> str:
    return f"{', '.join(caught.by)} after {caught.seeds} seeds" if caught.by else "NOT CAUGHT"
