"""`python -m bench`: the benchmark; a table on stdout, JSON in bench/out."""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import harness, measure, report

OUT = Path(__file__).resolve().parent / "out"


def main() -> int:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(prog="bench", description=harness.__doc__)
    parser.add_argument("--tiny", action="store_true", help="a few rows, to see that it works")
    parser.add_argument("--only", choices=("ingest", "queries"), help="one half of it")
    parser.add_argument("--rows", type=int, help="rows of each measurement")
    parser.add_argument("--query-rows", type=int, help="rows that the questions are asked of")
    parser.add_argument("--rounds", type=int, help="turns of each store")
    parser.add_argument("--batch", type=int, action="append", help="rows a batch; may be repeated")
    parser.add_argument("--connections", type=int, action="append", help="may be repeated")
    parser.add_argument("--corpus", choices=("slim", "rich"), action="append")
    parser.add_argument("--no-postgres", action="store_true", help="without PostgreSQL")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the results")
    options = parser.parse_args()
    plan = _plan(options)

    results: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": measure.machine(),
        "plan": asdict(plan),
    }
    with tempfile.TemporaryDirectory(prefix="quorumlog-bench-") as folder:
        if options.only != "queries":
            results["ingest"] = harness.ingest(plan, Path(folder))
        if options.only != "ingest":
            results["queries"] = harness.ask(plan, Path(folder))

    options.out.mkdir(parents=True, exist_ok=True)
    stamp = results["at"].replace(":", "").replace("+0000", "Z")
    file = options.out / f"bench-{stamp}.json"
    text = json.dumps(results, indent=2)
    file.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write((text if options.json else report.tables(results)) + "\n")
    harness.say(f"written to {file}")
    return 0


def _plan(options: argparse.Namespace) -> harness.Plan:
    plan = harness.TINY if options.tiny else harness.Plan()
    given = {
        "rows": options.rows,
        "query_rows": options.query_rows,
        "rounds": options.rounds,
        "batches": tuple(options.batch) if options.batch else None,
        "connections": tuple(options.connections) if options.connections else None,
        "kinds": tuple(options.corpus) if options.corpus else None,
        "postgres": False if options.no_postgres else None,
    }
    return replace(plan, **{name: value for name, value in given.items() if value is not None})


if __name__ == "__main__":
    sys.exit(main())
