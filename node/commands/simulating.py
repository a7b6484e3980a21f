"""`simulate`: logs of a made-up shop, to stdout, to a file or into a cluster."""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO

from node.cli_errors import OK, USAGE, CliError
from node.render import is_terminal, note
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy

FORMATS = ("json", "csv", "plain", "clf")
#: Where time starts if a seed is given, so that the same command gives the same bytes.
SEEDED_START = "2026-01-01T00:00:00Z"
#: Mean rows a second of simulated time, if --rate is not given.
DEFAULT_RATE = 1000.0
#: Seconds between two looks at the clock when logs are written as they happen.
TICK_SECONDS = 0.25


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's commands."""
    parser = commands.add_parser(
        "simulate",
        parents=[common],
        help="make logs of a simulated shop",
        description="Logs of a shop of twelve services: traces over several services, users, sessions;"
        " 5 % error, 10 % warn, 85 % info and debug. Errors propagate along a trace.",
        epilog="example: quorumlog simulate --rows 100000 --to shop.jsonl",
    )
    parser.add_argument("--rows", type=int, help="stop after so many (default: never with --rate)")
    parser.add_argument("--rate", type=float, help="rows a second, written as they happen")
    parser.add_argument("--seed", type=int, help="the same seed gives the same logs")
    parser.add_argument("--start", help="time of the first row, RFC 3339 (default: now)")
    parser.add_argument(
        "--history", type=float, default=0.0, metavar="SECONDS", help="start so long before now"
    )
    parser.add_argument(
        "--burst", action="store_true", help="4 times the rate for 10 s each minute"
    )
    parser.add_argument("--format", choices=FORMATS, default="json", help="clf: an access log")
    parser.add_argument(
        "--to", default="stdout", metavar="WHERE", help="stdout, cluster, or a file's name"
    )
    parser.add_argument(
        "--buffers",
        metavar="DIR",
        help="with --to cluster: numbered, by one producer a service, which buffers in DIR and answers"
        " replay requests",
    )
    parser.add_argument(
        "--hold",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="with --buffers: answer replay requests for so long after the last row",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """The command `simulate`."""
    if options.rows is not None and options.rows < 1:
        raise CliError("--rows must be at least 1", code=USAGE)
    if options.rate is not None and not 0 < options.rate <= 1e7:
        raise CliError("--rate must be above 0 and at most 10,000,000", code=USAGE)
    if options.rows is None and options.rate is None:
        raise CliError("say how much", "--rows N, or --rate ROWS_A_SECOND for a stream", USAGE)
    if options.buffers is not None and (options.to != "cluster" or options.format != "json"):
        raise CliError("--buffers is for rows of JSON that go to a cluster", "--to cluster", USAGE)
    if options.hold and options.buffers is None:
        raise CliError("--hold is for producers", "--buffers DIR", USAGE)
    from node.simulate.pieces import paced, unpaced

    seed = SystemEntropy().bytes(4) if options.seed is None else None
    number = int.from_bytes(seed, "big") if seed is not None else options.seed
    start, live = _start(options), options.rate is not None
    make = {
        "seed": number,
        "start_micros": start,
        "rows_per_second": options.rate or DEFAULT_RATE,
        "burst": options.burst,
        "kind": options.format,
        "rows": options.rows,
    }
    if options.buffers is not None:
        from node.simulate.producing import produce

        return asyncio.run(produce(options, make, live))
    if options.to == "cluster":
        from node.simulate.feed import feed

        return asyncio.run(feed(options, make, live))
    pieces = paced(SystemClock(), TICK_SECONDS, **make) if live else unpaced(**make)
    if options.to == "stdout":
        return _write(pieces, sys.stdout.buffer, live or is_terminal(sys.stdout))
    try:
        with open(options.to, "wb") as file:
            return _write(pieces, file, live)
    except OSError as error:
        raise CliError(f"cannot write {options.to}: {error.strerror}") from error
    finally:
        if options.seed is None:
            note(f"seed was {number}")


def _write(pieces: Iterator[bytes], out: BinaryIO, flush: bool) -> int:
    for piece in pieces:
        out.write(piece)
        if flush:
            out.flush()
    out.flush()
    return OK


def _start(options: argparse.Namespace) -> int:
    text = options.start
    if text is None and options.seed is not None and options.to != "cluster" and not options.rate:
        text = SEEDED_START
    if text is None:
        return SystemClock().wall_micros() - int(options.history * 1e6)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CliError(f"--start: {error}", "write it as 2026-11-20T13:00:00Z", USAGE) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
