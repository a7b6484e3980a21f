"""`python -m bench parse`: the CPU of reading JSON lines into a batch, with the native kernel and without.

Each measurement is a process of its own, as the kernel is chosen when it is imported; the two ways
alternate, and must make the same columns (a hash of all rows tells). Body to `Batch`: parse, times, levels,
limits; no digest of the body, no network. Without the kernel only the Python way is measured.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import corpus, goals, measure, results

#: The setting of the environment that leaves the kernel alone.
SWITCH = "QUORUMLOG_NATIVE"
WAYS = {"python": "0", "native": "1"}


def once(kind: str, rows: int, batch: int) -> dict[str, Any]:
    """In this process: CPU microseconds a row, and a name of what was made."""
    from ingestor.enrich import EnrichSettings
    from ingestor.identity import identity_of
    from ingestor.intake import Intake, Source
    from ingestor.limits import Limits
    from ingestor.options import Options
    from ingestor.parsers.detect import Format

    bodies = corpus.bodies(kind, corpus.SEED, rows, batch)
    intake = Intake(Limits(), EnrichSettings())
    source = Source("t", "/logs", Options(), corpus.START_MICROS)
    identity = identity_of(
        tenant="t", surface="/logs", principal="", peer="::1", key=None, body=b"", query=""
    )
    intake.batch(bodies[0].json, Format.LINES, source, identity)  # learns the schema: not timed
    cpu, made = time.process_time(), []
    for body in bodies:
        made.append(intake.batch(body.json, Format.LINES, source, identity))
    spent = time.process_time() - cpu
    return {"us": spent * 1e6 / rows, "same_result": _named([one.table for one in made])}


def _named(tables: list[Any]) -> str:
    """A hash of all rows, whatever form the columns have."""
    import polars as pl

    total = 0
    for table in tables:
        names = sorted(table.column_names)
        frame = pl.DataFrame(table.select(names))
        texts = [name for name in names if frame[name].dtype in (pl.Categorical, pl.Enum)]
        frame = frame.with_columns(pl.col(name).cast(pl.String) for name in texts)
        total = (total + int(frame.hash_rows(seed=1).cast(pl.UInt64).sum() or 0)) % (1 << 64)
    return f"{total:016x}"


def _child(kind: str, way: str, rows: int, batch: int) -> dict[str, Any]:
    words = ["parse", "--once", kind, "--rows", str(rows), "--batch", str(batch)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words],
        env=dict(os.environ) | {SWITCH: WAYS[way]},
        cwd=results.ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{way}, {kind}: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def compare(rows: int, batch: int, rounds: int) -> dict[str, Any]:
    """Both corpora, both ways, in turn.

    Raises:
        RuntimeError: the ways make different rows.
    """
    ways = [way for way in WAYS if way == "python" or find_spec("quorumlog_native")]
    found: dict[str, Any] = {}
    for kind in corpus.KINDS:
        taken: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                taken[way].append(_child(kind, way, rows, batch))
        names = {one["same_result"] for runs in taken.values() for one in runs}
        if len(names) > 1:
            raise RuntimeError(f"{kind}: the ways make different rows: {sorted(names)}")
        found[kind] = {
            "same_result": names.pop(),
            **{way: measure.spread([one["us"] for one in runs]) for way, runs in taken.items()},
        }
        shown = ", ".join(
            f"{way} {statistics.median(r['us'] for r in taken[way]):.3f}" for way in ways
        )
        goals.say(f"{kind}: {shown} us a row")
    return found


def main(words: list[str]) -> int:
    """Prints a table, writes parse.json."""
    parser = argparse.ArgumentParser(prog="bench parse", description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--batch", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="a few rows, to see that it works")
    parser.add_argument("--out", type=Path, default=results.OUT)
    parser.add_argument("--once", choices=corpus.KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.once:
        sys.stdout.write(json.dumps(once(options.once, options.rows, options.batch)))
        return 0
    rows, rounds = (2_000, 1) if options.tiny else (options.rows, options.rounds)
    found = compare(rows, options.batch, rounds)
    lines = [
        (kind, way, float(one[way]["median"]), float(one[way]["min"]), float(one[way]["max"]))
        for kind, one in found.items()
        for way in WAYS
        if way in one
    ]
    columns = ("corpus", "way", "CPU us/row", "least", "most")
    sys.stdout.write(measure.table("JSON lines to a batch", columns, lines) + "\n")
    results.write(options.out / "parse.json", results.head() | {"rows": rows, "found": found})
    return 0
