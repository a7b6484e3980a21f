"""`python -m bench`: the table of goals, and other topics.

python -m bench [goals]     ours beside the peers: ingest, disk, questions, loss
python -m bench grid        ingest: batch sizes x connections, N=1 and N=3, beside the peers
python -m bench scale       how all that grows: rows, connections, batches, nodes, memory
python -m bench plot        the curves of `scale` as SVG
python -m bench project     what the measured slopes say of 100 nodes and 1 PB
python -m bench heal        how soon a node catches up that was away, and for how many bytes
python -m bench parse       reading JSON lines, with the native kernel and without
"""

import argparse
import json
import signal
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import goals, loss, report, results
from bench.peers.choose import NoPeer

TOPICS = ("goals", "grid", "scale", "plot", "project", "parse", "heal")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="a few rows, to see that it works")
    parser.add_argument(
        "--rows", type=int, help="slim rows (default 4 M); rich ones are half of it"
    )
    parser.add_argument("--kind", choices=("slim", "rich"), help="one of the two corpora")
    parser.add_argument("--rounds", type=int, help="how often each question is asked")
    parser.add_argument("--batch", type=int, help="rows a batch")
    parser.add_argument("--connections", type=int, help="senders at once")
    parser.add_argument(
        "--peer", action="append", metavar="WHO",
        help="duckdb, postgres, chdb=PYTHON, clickhouse=URL, victorialogs=URL, loki=URL, each URL with"
        " ,pid=N,data=DIR if known; may be repeated; `none` for us alone; default duckdb",
    )  # fmt: skip
    parser.add_argument("--single", action="store_true", help="one node with one copy as well")
    parser.add_argument("--no-loss", action="store_true", help="without the kill -9")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--out", type=Path, default=results.OUT, help="folder for the result")
    return parser


def _plan(options: argparse.Namespace) -> goals.Plan:
    plan = goals.TINY if options.tiny else goals.Plan({"slim": 4_000_000, "rich": 2_000_000})
    rows = {"slim": options.rows, "rich": options.rows // 2} if options.rows else plan.rows
    if options.kind:
        rows = {options.kind: rows[options.kind]}
    given = {
        "rounds": options.rounds,
        "batch": options.batch,
        "connections": options.connections,
        "specs": tuple(one for one in options.peer if one != "none") if options.peer else None,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    return replace(plan, rows=rows, single=options.single, **chosen)


def _goals(words: list[str]) -> int:
    options = _parser().parse_args(words)
    plan = _plan(options)
    found: dict[str, Any] = results.head() | {"plan": asdict(plan)}
    with tempfile.TemporaryDirectory(prefix="quorumlog-bench-") as folder:
        try:
            found |= goals.run(plan, Path(folder))
        except NoPeer as error:
            sys.stderr.write(f"bench: {error}\n")
            return 2
        if not options.no_loss:
            rows = min(plan.piece_rows, *plan.rows.values())
            found["loss"] = loss.run(rows, plan.batch, plan.connections, Path(folder))
    stamp = str(found["at"]).replace(":", "").replace("+0000", "Z")
    file = options.out / f"goals-{stamp}.json"
    results.write(file, found)
    sys.stdout.write((json.dumps(found, indent=1) if options.json else report.goals(found)) + "\n")
    goals.say(f"written to {file}")
    return 1 if goals.differing(found) or goals.overcounted(found) else 0


def main() -> int:
    """Measures what was asked for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no node is left behind
    words = sys.argv[1:]
    topic = words.pop(0) if words and words[0] in TOPICS else "goals"
    if topic == "goals":
        return _goals(words)
    if topic == "grid":
        from bench.grid import main as grid

        return grid(words)
    if topic == "scale":
        from bench.scale.command import main as scale

        return scale(words)
    if topic == "parse":
        from bench.parse import main as parse

        return parse(words)
    if topic == "plot":
        from bench.plot import main as plot

        return plot(words)
    if topic == "heal":
        from bench.heal import main as heal

        return heal(words)
    from bench.projection import main as project

    return project(words)


if __name__ == "__main__":
    sys.exit(main())
