"""`chaos list`, `run`, `failover`, `ledger`, `sim`: breaks a cluster and judges what was promised.

The suite lies above the node and may not be imported here; it is found by name when the command runs.
"""

import argparse
import importlib
from typing import Any

#: Where runs and the ledger go, unless --data says otherwise.
DEFAULT_DATA = "chaos-runs"


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's commands."""
    chaos = commands.add_parser("chaos", help="break a cluster on purpose, see what it kept")
    kinds = chaos.add_subparsers(title="commands", metavar="WHAT", required=True)
    known = kinds.add_parser("list", parents=[common], help="the scenarios")
    known.set_defaults(run=lambda options: _command("run_list", options))
    run = kinds.add_parser(
        "run",
        parents=[common],
        help="run scenarios, each on a fresh cluster on this machine, or on yours with --server",
        description="Clients write and read while nodes are killed and paused; then everything"
        " acknowledged is looked for. Exit code 1 if an invariant is violated, or if a run proves"
        " nothing because no fault bit or too little was written. With --server URL, once for each"
        " node, rows are written into that cluster and stay there; its nodes are left alone, and only"
        " the links of the clients here are broken.",
        epilog="example: quorumlog chaos run kill-one pause --seconds 60 --seed 7",
    )
    run.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="default: all")
    length = run.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=30.0, help="of traffic, each (default 30)")
    length.add_argument(
        "--minutes", type=minutes, dest="seconds", metavar="MINUTES", help="the same, in minutes"
    )
    run.add_argument("--seed", type=int, help="the same seed gives the same faults and rows")
    run.add_argument("--data", default=DEFAULT_DATA, metavar="DIR", help="where runs are kept")
    run.add_argument("--keep", action="store_true", help="keep the nodes' data of passed runs too")
    run.add_argument(
        "--bulk", action="store_true", help="also clients that send thousands of rows at once"
    )
    run.set_defaults(run=lambda options: _command("run_scenarios", options))
    failover = kinds.add_parser(
        "failover",
        parents=[common],
        help="how long shards have no leader when nodes are killed and paused",
        description="Kills and pauses leading nodes of a cluster of its own, one after the other, and"
        " measures the time to the next acknowledgement. Exit code 1 if a row was lost or doubled.",
    )
    failover.add_argument("--kills", type=int, default=50, help="faults, half of them pauses")
    failover.add_argument("--seed", type=int, default=1, help="which nodes, in which order")
    failover.add_argument("--data", default=DEFAULT_DATA, metavar="DIR", help="where it is kept")
    failover.set_defaults(run=lambda options: _command("run_failover", options))
    ledger = kinds.add_parser(
        "ledger", parents=[common], help="sums over all runs: faults, rows acked, lost, doubled"
    )
    ledger.add_argument(
        "files", nargs="*", metavar="FILE", help="ledgers (default DIR/ledger.jsonl)"
    )
    ledger.add_argument("--data", default=DEFAULT_DATA, metavar="DIR", help="where runs are kept")
    ledger.set_defaults(run=lambda options: _command("run_ledger", options))
    _add_sim(kinds, common)


def minutes(text: str) -> float:
    """Seconds."""
    return 60 * float(text)


def _add_sim(kinds: Any, common: argparse.ArgumentParser) -> None:
    sim = kinds.add_parser(
        "sim",
        parents=[common],
        help="simulate clusters in virtual time, one a seed",
        description="Real code on simulated disks, networks and clocks: the same seed breaks the same"
        " things at the same moments. Exit code 1 if an invariant is violated.",
        epilog="example: quorumlog chaos sim --seeds 200",
    )
    sim.add_argument("--seeds", type=int, default=20, help="how many (default 20)")
    sim.add_argument("--seed", type=int, help="the first of them; default: any")
    sim.add_argument(
        "--mutants", action="store_true", help="plant known bugs; --seeds are tried to catch each"
    )
    sim.add_argument("--jobs", type=int, help="processes (default: one for each core)")
    sim.add_argument("--data", default=DEFAULT_DATA, metavar="DIR", help="where sim.jsonl is kept")
    sim.set_defaults(run=lambda options: _command("run_simulation", options, "chaos.sim.command"))


def _command(name: str, options: argparse.Namespace, module: str = "chaos.command") -> int:
    return getattr(importlib.import_module(module), name)(options)
