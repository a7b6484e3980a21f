"""`python -m bench scale`: which parts, how far, how long, where to."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import goals, results, scale
from bench.scale import grid, growth, together
from bench.scale.points import Points
from bench.scale.show import shown

PARTS = ("connections", "batches", "nodes", "beside", "memory", "growth")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench scale",
        description=scale.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tiny", action="store_true", help="a few rows, to see that it works")
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="may be repeated; default all"
    )
    parser.add_argument("--to", type=int, default=100_000_000, help="rows at which growth ends")
    parser.add_argument("--minutes", type=float, default=20, help="bound of each part (default 20)")
    parser.add_argument("--fresh", action="store_true", help="begin anew, whatever there is")
    parser.add_argument(
        "--show", action="store_true", help="print what was measured; measure nothing"
    )
    parser.add_argument("--keep", action="store_true", help="leave the grown store in --data")
    parser.add_argument("--out", type=Path, default=results.OUT, help="folder for the results")
    parser.add_argument(
        "--data", type=Path, default=results.OUT / "data", help="folder for the growing store"
    )
    return parser


def main(words: list[str]) -> int:
    """Runs the parts one after the other."""
    options = _parser().parse_args(words)
    if options.show:
        sys.stdout.write(shown(options.out) + "\n")
        return 0
    grown = growth.TINY if options.tiny else growth.Growth()
    grown = replace(grown, sizes=tuple(one for one in grown.sizes if one <= options.to))
    lines = grid.TINY if options.tiny else grid.Grid()
    both = together.TINY if options.tiny else together.Together()
    parts: dict[str, tuple[Any, Callable[..., None]]] = {
        "connections": (lines, grid.connections),
        "batches": (lines, grid.batches),
        "nodes": (lines, grid.storage_nodes),
        "beside": (both, together.beside),
        "memory": (both, together.memory),
        "growth": (grown, growth.run),
    }
    for part in options.part or PARTS:
        plan, run = parts[part]
        points = Points(options.out, part, asdict(plan), options.minutes, options.fresh)
        goals.say(f"== {part} -> {points.file}")
        if part == "growth":
            run(plan, points, options.data / "growth", options.keep)
            continue
        with tempfile.TemporaryDirectory(prefix="quorumlog-bench-") as folder:
            run(plan, points, Path(folder) / part)
    sys.stdout.write(shown(options.out) + "\n")
    return 0
