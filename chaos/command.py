"""`quorumlog chaos`: the list of scenarios, and runs of them one after the other.

Each run has a folder of its own, `DIR/SCENARIO-SEED-N`, with the history (`ops.jsonl`,
`nemesis.jsonl`), what the client library logged (`clients.log`) and the verdict (`report.json`). The
nodes' data and logs stay in `cluster/` there if the run failed, else they are removed, unless asked
for. `DIR/ledger.jsonl` gets a line a run.
"""

import argparse
import asyncio
import json
import logging
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chaos import failover, lab, ledger, report
from chaos.disks import DiskFailed
from chaos.net import LinkFailed
from chaos.remote import is_safe
from chaos.runner import Run, run
from chaos.scenarios import Scenario, scenarios
from node.cli_errors import FAILED, OK, USAGE, CliError
from node.render import note, print_json, print_table
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy

SECONDS_MIN, SECONDS_MAX = 5.0, 3600.0
#: Seconds that a scenario in the laboratory may take beside four times those of its traffic.
LAB_SECONDS = 120.0


def run_list(options: argparse.Namespace) -> int:
    """The command `chaos list`."""
    found = list(scenarios().values())
    if options.json:
        print_json([{"name": one.name, "title": one.title, "aim": one.aim} for one in found])
    else:
        rows = [[one.name, one.title, one.aim] for one in found]
        print_table("", ("scenario", "what happens", "aimed at"), rows)
    return OK


def run_scenarios(options: argparse.Namespace) -> int:
    """The command `chaos run`: 0 if every run counts and passed, else 1; also if all were skipped."""
    chosen = _chosen(options.scenarios)
    if not SECONDS_MIN <= options.seconds <= SECONDS_MAX:
        low, high = f"{SECONDS_MIN:.0f}", f"{SECONDS_MAX:.0f}"
        raise CliError(f"--seconds is from {low} to {high}, not {options.seconds}", code=USAGE)
    servers = options.named_servers
    unsafe = [one.name for one in chosen if servers and not is_safe(one)]
    if servers and not options.scenarios:
        chosen, unsafe = [one for one in chosen if is_safe(one)], []
    if unsafe:
        safe = ", ".join(one.name for one in scenarios().values() if is_safe(one))
        raise CliError(
            f"{', '.join(unsafe)} would break nodes that were not started here",
            f"safe: {safe}",
            USAGE,
        )
    seed = options.seed
    if seed is None:
        seed = int.from_bytes(SystemEntropy().bytes(3), "big")
    if lab.inside():
        lab.open_loopback()
    done = [_answer(scenario, seed, options) for scenario in chosen]
    if options.json:
        print_json(done)
    failed = [one for one in done if not one["passed"] and not one.get("skipped")]
    for one in done:
        if one.get("skipped") and not lab.inside():
            note(f"{one['scenario']} skipped: {one['skipped']}")
    if failed and not lab.inside():
        note(f"{len(failed)} of {len(done)} runs failed")
        again = f"quorumlog chaos run {failed[0]['scenario']} --seed {seed}"
        note(f"  next: {again} --seconds {options.seconds:g} breaks the same again")
    return FAILED if failed or all(one.get("skipped") for one in done) else OK


def _answer(scenario: Scenario, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The verdict of one scenario as a value; run here or in the laboratory, or skipped with a reason."""
    needs_lab = lab.DISK in scenario.needs or lab.NETWORK in scenario.needs
    if needs_lab and not lab.inside():
        reason = lab.reason_against_entering()
        return _skipped(scenario, reason) if reason else _in_lab(scenario, seed, options)
    reason = lab.reason_against(scenario.needs)
    if reason:
        return _skipped(scenario, reason)
    return report.as_json(_one(scenario, seed, options))


def _skipped(scenario: Scenario, reason: str) -> dict[str, Any]:
    return {"scenario": scenario.name, "passed": False, "skipped": reason}


def _in_lab(scenario: Scenario, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Runs it in a child that has mounts and a network of its own.

    Raises:
        CliError: the child broke off, or did not end.
    """
    words = ["chaos", "run", scenario.name, "--seed", str(seed), "--seconds", str(options.seconds)]
    words += ["--data", str(Path(options.data).resolve()), "--json"]
    words += ["--keep"] if options.keep else []
    words += ["--bulk"] if options.bulk else []
    limit = LAB_SECONDS + 4 * options.seconds
    try:
        child = subprocess.run(  # noqa: S603 - our own command
            lab.words_to_enter(words),
            env=lab.environment(), stdout=subprocess.PIPE, check=False, timeout=limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        text = f"{scenario.name} did not end within {limit:.0f} s in the laboratory, and was killed"
        raise CliError(text) from error
    try:
        (answer,) = json.loads(child.stdout)
    except ValueError as error:
        raise CliError(f"{scenario.name} broke off in the laboratory, see above") from error
    if not options.json and not answer.get("skipped"):
        print(answer["text"])
    return answer


def run_failover(options: argparse.Namespace) -> int:
    """The command `chaos failover`: 0 if rows were acknowledged, of each service, none lost or doubled."""
    if not 1 <= options.kills <= 1000:
        raise CliError(f"--kills is from 1 to 1000, not {options.kills}", code=USAGE)
    folder = _new_folder(Path(options.data), f"failover-{options.seed}")
    note(f"failover: {options.kills} faults, seed {options.seed}, in {folder}")
    result = asyncio.run(failover.measure(folder, options.kills, options.seed, note))
    good = result.good
    body: dict[str, Any] = {
        "kills": result.faults,
        "rows_acked": result.rows,
        "rows_lost": result.lost,
    }
    body |= {"rows_doubled": result.doubled, "services_without_an_ack": list(result.silent)}
    body |= {"stall_seconds": result.figures()}
    (folder / "report.json").write_text(json.dumps(body, indent=2) + "\n")
    if good:
        shutil.rmtree(folder / "cluster")
    if options.json:
        print_json(body)
    else:
        heads = ("seconds without an acknowledgement", "n", "p50", "p99", "longest")
        print_table("", heads, [list(row) for row in failover.table(result)])
        lost = f"{result.lost} lost, {result.doubled} doubled"
        print(f"{result.rows:,} rows acknowledged, {lost}")
        if result.silent:
            print(f"never acknowledged, so not measured: {', '.join(result.silent)}")
    return OK if good else FAILED


def run_ledger(options: argparse.Namespace) -> int:
    """The command `chaos ledger`."""
    files = [Path(name) for name in options.files] or [Path(options.data) / "ledger.jsonl"]
    sums = ledger.sums(files)
    if options.json:
        print_json(sums)
    else:
        print_table("", ledger.HEADS, ledger.rows(sums))
        print(ledger.verdict(sums))
    return OK


def _chosen(names: list[str]) -> list[Scenario]:
    known = scenarios()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CliError(
            f"there is no scenario {', '.join(unknown)}", f"one of {', '.join(known)}", USAGE
        )
    return [known[name] for name in dict.fromkeys(names)] or list(known.values())


def _one(scenario: Scenario, seed: int, options: argparse.Namespace) -> Run:
    base = Path(options.data)
    folder = _new_folder(base, f"{scenario.name}-{seed}")
    note(f"{scenario.name}: seed {seed}, {options.seconds:g} s, in {folder}")
    with _client_log(folder / "clients.log"):
        say = lambda text: note(f"  {text}")  # noqa: E731
        work = run(
            scenario, seed, options.seconds, folder, say, options.named_servers, options.bulk
        )
        try:
            done = asyncio.run(work)
        except (DiskFailed, LinkFailed) as error:
            raise CliError(f"{scenario.name}: {error}") from error
    (folder / "report.json").write_text(json.dumps(report.as_json(done), indent=2) + "\n")
    line = report.ledger_line(done, report.commit_of_source(), SystemClock().wall_micros())
    report.append_line(base / "ledger.jsonl", line)
    if done.passed and not options.keep:
        shutil.rmtree(folder / "cluster", ignore_errors=bool(options.named_servers))
    if not options.json:
        print(report.as_text(done))
    return done


@contextmanager
def _client_log(path: Path) -> Iterator[None]:
    """What the client library says of its troubles goes into a file; they are ours to make."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    library = logging.getLogger("quorumlog")
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)
        handler.close()


def _new_folder(base: Path, name: str) -> Path:
    for number in range(1, 10_000):
        folder = base / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise CliError(f"cannot write into {base}: {error.strerror}", "--data OTHER") from error
        return folder.resolve()
    raise CliError(f"too many runs in {base}", "--data OTHER")
