"""`bench`: the benchmark of the checkout, if there is one (it is not part of an installation)."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from node.cli_errors import CliError


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's commands."""
    bench = commands.add_parser(
        "bench",
        parents=[common],
        help="run the benchmark (in a checkout)",
        description="Arguments after -- go to `python -m bench`; see docs/performance.md.",
    )
    bench.add_argument("arguments", nargs=argparse.REMAINDER)
    bench.set_defaults(run=run_bench)


def run_bench(options: argparse.Namespace) -> int:
    """The command `bench`."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "bench" / "__main__.py").is_file():
        raise CliError("the benchmark is not installed", "run it in a checkout: `make bench`")
    words = [one for one in options.arguments if one != "--"]
    if options.json:
        words.append("--json")
    return subprocess.call([sys.executable, "-m", "bench", *words], cwd=root)  # noqa: S603
