"""Ingest over a grid: batch size x connections, N=1 and N=3, beside each peer, as ratios.

Each cell has fresh rows, the same for all stores, which take turns in who is first. A round is about a
second: what warming up costs weighs more here than in the table of goals.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import corpus, goals, measure, results
from bench.load import Load
from bench.peers.base import Peer
from bench.peers.choose import NoPeer

BATCHES, CONNECTIONS = (1_000, 5_000, 20_000), (1, 8)


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the grid."""

    kind: str
    batch: int
    connections: int


def cells(kinds: Sequence[str], batches: Sequence[int], connections: Sequence[int]) -> list[Cell]:
    """All of them, corpus by corpus."""
    return [Cell(kind, batch, one) for kind in kinds for batch in batches for one in connections]


def measured(places: Sequence[Cell], rows: int, rounds: int, peers: Sequence[Peer]) -> list[Any]:
    """`rounds` loads of `rows` rows for each cell and store; cells of one corpus follow one another."""
    found: list[Any] = []
    kind, piece = "", 0
    for cell in places:
        if cell.kind != kind:
            kind, piece = cell.kind, 0
            for peer in peers:
                peer.open(kind)
        loads: dict[str, list[Load]] = {peer.name: [] for peer in peers}
        for turn in range(rounds):
            bodies = list(corpus.cut(corpus.table_of(kind, rows, piece), cell.batch))
            piece += 1
            first = turn % len(peers)
            for peer in (*peers[first:], *peers[:first]):
                loads[peer.name].append(peer.load(kind, bodies, cell.connections))
        taken = {name: goals.ingested(one) for name, one in loads.items()}
        found.append({**asdict(cell), "rows": rows * rounds, "stores": taken})
        shown = ", ".join(f"{n} {_speed(one):,.0f}" for n, one in taken.items())
        goals.say(f"{kind}, {cell.batch:,} a batch, {cell.connections} connections: {shown} rows/s")
    return found


def _speed(taken: dict[str, Any]) -> float:
    return taken["acked_rows_per_second"]["median"]


def table(found: dict[str, Any]) -> str:
    """A line a cell; for each store rows/s, us of CPU, ms to an ack, and ours as a ratio to the peers."""
    stores = list(found["stores"])
    ours = [name for name in stores if name.startswith("quorumlog")]
    peers = [name for name in stores if name not in ours]
    columns = ["rows", "a batch", "conns"]
    for name in stores:
        columns += [f"{name} rows/s", "us/row", "ack p50 ms", "p99"]
    columns += [f"{ours[0]} x {name}" for name in peers]
    lines: list[list[Any]] = []
    for cell in found["cells"]:
        line: list[Any] = [cell["kind"], cell["batch"], cell["connections"]]
        for name in stores:
            one = cell["stores"][name]
            cost = one["cpu_micros_per_row"]
            line += [_speed(one), "-" if cost is None else cost["median"]]
            line += [one["ack_p50_ms"], one["ack_p99_ms"]]
        mine = _speed(cell["stores"][ours[0]])
        lines.append(line + [mine / _speed(cell["stores"][name]) for name in peers])
    text = measure.table("ingest over the grid", columns, lines)
    return text + "\n" + "\n".join(f"{name}: {note}" for name, note in found["stores"].items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench grid", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a few rows, to see that it works")
    parser.add_argument("--rows", type=int, default=300_000, help="rows of a cell and round")
    parser.add_argument("--rounds", type=int, default=2, help="loads of each cell and store")
    parser.add_argument("--batch", type=int, action="append", help="rows a batch; may be repeated")
    parser.add_argument("--connections", type=int, action="append", help="may be repeated")
    parser.add_argument("--kind", choices=("slim", "rich"), help="one of the two corpora")
    parser.add_argument("--peer", action="append", help="as for the table of goals")
    parser.add_argument("--out", type=Path, default=results.OUT, help="folder for the result")
    return parser


def main(words: list[str]) -> int:
    """Measures, prints the table, writes the JSON."""
    options = _parser().parse_args(words)
    rows, rounds = (1_000, 1) if options.tiny else (options.rows, options.rounds)
    batches = options.batch or ((100, 500) if options.tiny else BATCHES)
    kinds = (options.kind,) if options.kind else ("slim", "rich")
    places = cells(kinds, batches, options.connections or CONNECTIONS)
    specs = tuple(one for one in options.peer or ("duckdb",) if one != "none")
    found: dict[str, Any] = results.head()
    with tempfile.TemporaryDirectory(prefix="quorumlog-grid-") as folder:
        try:
            plan = replace(goals.TINY, single=True, specs=specs)
            peers = goals.peers_of(plan, Path(folder))
        except NoPeer as error:
            sys.stderr.write(f"bench: {error}\n")
            return 2
        try:
            found["stores"] = {peer.name: peer.note for peer in peers}
            found["cells"] = measured(places, rows, rounds, peers)
        finally:
            for peer in peers:
                peer.close()
    stamp = str(found["at"]).replace(":", "").replace("+0000", "Z")
    file = options.out / f"grid-{stamp}.json"
    results.write(file, found)
    sys.stdout.write(table(found) + "\n")
    goals.say(f"written to {file}")
    over = any(one["overcounts"] for cell in found["cells"] for one in cell["stores"].values())
    return 1 if over else 0
