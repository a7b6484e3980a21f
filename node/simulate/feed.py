"""The shop's rows into a cluster: all at once, or as they happen."""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from node.cli_api import Api
from node.cli_errors import OK
from node.render import note, print_json
from node.send import Shipper, join
from node.send_source import PIECE_ROWS, Piece
from node.simulate.formats import CSV_HEADER, LINES, to_bytes
from node.simulate.pieces import due, tables
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy

#: Seconds of rows that travel together when they are sent as they happen.
TICK_SECONDS = 0.5
CONTENT_TYPES = {
    "json": "application/x-ndjson",
    "csv": "text/csv",
    "plain": "text/plain",
    "clf": "text/plain",
}


def batches(chunks: Iterator[pa.Table], live: bool) -> Iterator[pa.Table]:
    """Tables of at most PIECE_ROWS rows; if `live`, once their time has come (blocks the thread)."""
    for table in due(chunks, SystemClock()) if live else chunks:
        if table is None:
            time.sleep(TICK_SECONDS)
            continue
        for first in range(0, table.num_rows, PIECE_ROWS):
            yield table.slice(first, PIECE_ROWS)


def pieces(make: dict[str, Any], live: bool) -> Iterator[Piece]:
    """The rows as pieces to send; offsets count bytes, as in a file."""
    kind, offset, row = str(make["kind"]), 0, 1
    header = CSV_HEADER if kind == "csv" else b""
    for table in batches(tables(**make), live):
        body = header + to_bytes(LINES[kind](table))
        yield Piece(offset, offset + len(body), row, table.num_rows, body)
        offset += len(body)
        row += table.num_rows


async def feed(options: argparse.Namespace, make: dict[str, Any], live: bool) -> int:
    """Sends the rows that `make` describes; returns when all are acknowledged."""
    async with Api(options.server, options.tenant) as api:
        await join(api)
        identity = SystemEntropy().bytes(16).hex()
        shipper = Shipper(api, identity, CONTENT_TYPES[options.format], {})
        started = time.monotonic()
        await shipper.run(pieces(make, live), 0, 0)
        seconds = time.monotonic() - started
    done = shipper.progress
    body = {"rows": done.sent_rows, "accepted": done.accepted, "rejected": done.rejected}
    if options.json:
        print_json({**body, "seed": make["seed"], "seconds": round(seconds, 3)})
    else:
        note(f"{done.accepted:,} rows stored in {seconds:.1f} s (seed {make['seed']})")
    return OK
