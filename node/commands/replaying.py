"""`replay`: what producers are asked to send again; asking them; how far it has come."""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from node.cli_api import Api
from node.cli_errors import FAILED, OK, PARTIAL, USAGE, CliError
from node.render import is_terminal, note, print_json, print_table
from quorumlog.answers import read_json
from quorumlog.times import start_of

STATES = ("pending", "streaming", "completed", "expired", "cancelled")
_ENDS = frozenset({"completed", "expired", "cancelled"})
#: Seconds between two looks of `--follow`.
LOOK_SECONDS = 0.5
_BAR = 30


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's commands."""
    parser = commands.add_parser(
        "replay",
        parents=[common],
        help="what producers are asked to send again",
        description="Gaps in producers' sequences, and rows that an operator asks for again. Producers"
        " answer from their buffers; each row is stored once.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="the requests, the newest first")
    listing.add_argument("--service", help="only of this service")
    listing.add_argument("--producer", help="only of this producer")
    listing.add_argument(
        "--state", action="append", choices=STATES, help="only in this state; may be repeated"
    )
    listing.add_argument("--limit", type=int, default=100, help="at most 1000 (default 100)")
    listing.set_defaults(run=lambda options: asyncio.run(run_list(options)))
    asking = actions.add_parser(
        "request",
        parents=[common],
        help="ask producers for rows again",
        description="By sequence, or by time (whole hours): what a producer still holds comes again,"
        " and is stored once; what it no longer has it says.",
        epilog="example: quorumlog replay request --service payments --since 2h --follow",
    )
    asking.add_argument("--service", required=True)
    asking.add_argument("--producer", help="default: all producers of the service")
    asking.add_argument("--epoch", type=int, help="default: the producer's newest")
    asking.add_argument("--seqs", help="as 100-200,300")
    asking.add_argument("--since", help="rows since then, such as 15m, 1h, 2d")
    asking.add_argument("--from", dest="start", metavar="TIME", help="first moment")
    asking.add_argument("--to", dest="end", metavar="TIME", help="end, not included")
    asking.add_argument("--reason", default="", help="kept with the request")
    asking.set_defaults(run=lambda options: asyncio.run(run_request(options)))
    show = actions.add_parser("show", parents=[common], help="one request")
    show.add_argument("id")
    show.set_defaults(run=lambda options: asyncio.run(run_show(options)))
    for one in (asking, show):
        one.add_argument("--follow", action="store_true", help="wait until it has ended")
        one.add_argument(
            "--timeout", type=float, default=300.0, metavar="SECONDS", help="of --follow (300)"
        )
    cancel = actions.add_parser("cancel", parents=[common], help="end an operator's request")
    cancel.add_argument("id")
    cancel.set_defaults(run=lambda options: asyncio.run(run_cancel(options)))


async def run_list(options: argparse.Namespace) -> int:
    """`replay list`: 3 if some ingestor did not answer."""
    params = {
        "state": ",".join(options.state or ["all"]),
        "service": options.service or "",
        "producer": options.producer or "",
        "limit": str(options.limit),
    }
    async with Api(options.server, options.tenant) as api:
        answer = await api.get("/logs/replay", {k: v for k, v in params.items() if v})
    if options.json:
        print_json(answer)
    else:
        _table(answer["requests"])
    if answer.get("truncated"):
        note(f"more than {options.limit} requests: narrow it by --service, --producer, --state")
    if not answer["complete"]:
        note(f"no answer from: {', '.join(answer['missing'])}")
    return OK if answer["complete"] else PARTIAL


def ask_params(options: argparse.Namespace, now_ns: int) -> dict[str, str]:
    """The parameters of `replay request`; `now_ns` since 1970.

    Raises:
        CliError: sequences and times together, or neither.
    """
    times = [options.since, options.start]
    if sum(one is not None for one in (options.seqs, *times)) != 1:
        raise CliError("say which rows", "--seqs 100-200, --since 1h, or --from and --to", USAGE)
    if options.seqs is not None and options.end is not None:
        raise CliError("--to goes with --from or --since", "", USAGE)
    start = options.start
    if options.since is not None:
        try:
            start = start_of(options.since, now_ns)
        except ValueError as error:
            raise CliError(f"--since: {error}", "write it as 15m, 1.5h, 2d", USAGE) from error
    given = {
        "service": options.service,
        "producer": options.producer,
        "epoch": None if options.epoch is None else str(options.epoch),
        "seqs": options.seqs,
        "from": start,
        "to": options.end,
        "reason": options.reason or None,
    }
    return {name: value for name, value in given.items() if value is not None}


async def run_request(options: argparse.Namespace) -> int:
    """`replay request`: with --follow 3 if some rows are gone."""
    params = ask_params(options, time.time_ns())
    async with Api(options.server, options.tenant) as api:
        reply = await api.reply("POST", "/logs/replay", params)
        opened = read_json(reply.status, reply.headers, reply.body)["requests"]
        if options.follow:
            opened = await _follow(api, [one["id"] for one in opened], options.timeout)
    return _shown(opened, options, {"requests": opened})


async def run_show(options: argparse.Namespace) -> int:
    """`replay show`: with --follow 3 if some rows are gone."""
    async with Api(options.server, options.tenant) as api:
        found = [await api.get(_path(options.id))]
        if options.follow:
            found = await _follow(api, [options.id], options.timeout)
    return _shown(found, options, found[0])


async def run_cancel(options: argparse.Namespace) -> int:
    """`replay cancel`."""
    async with Api(options.server, options.tenant) as api:
        reply = await api.reply("DELETE", _path(options.id))
        found = read_json(reply.status, reply.headers, reply.body)
    return _shown([found], options, found)


def _path(name: str) -> str:
    return f"/logs/replay/{quote(name, safe='')}"


def _shown(
    found: Sequence[Mapping[str, Any]], options: argparse.Namespace, body: Mapping[str, Any]
) -> int:
    if options.json:
        print_json(body)
    else:
        _table(found)
    if not getattr(options, "follow", False):
        return OK
    if any(one["state"] not in _ENDS for one in found):
        note("not ended in time; it goes on: see `quorumlog replay list`")
        return FAILED
    whole = all(one["state"] == "completed" and not one["rowsGone"] for one in found)
    return OK if whole else PARTIAL


async def _follow(api: Api, names: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """The requests when all have ended, or when time is up; progress on stderr."""
    until = time.monotonic() + seconds
    while True:
        found = [await api.get(_path(name)) for name in names]
        _progress(found)
        if all(one["state"] in _ENDS for one in found) or time.monotonic() >= until:
            break
        await asyncio.sleep(LOOK_SECONDS)
    if is_terminal(sys.stderr):
        sys.stderr.write("\n")
    return found


def _progress(found: Sequence[Mapping[str, Any]]) -> None:
    if not is_terminal(sys.stderr):
        return
    asked = sum(one["rowsAsked"] for one in found)
    left = sum(one["rowsWaiting"] for one in found)
    done = 1.0 if not asked else (asked - left) / asked
    bar = "#" * int(done * _BAR)
    sys.stderr.write(f"\r[{bar:<{_BAR}}] {asked - left:,} of {asked:,} rows")
    sys.stderr.flush()


def _table(found: Sequence[Mapping[str, Any]]) -> None:
    columns = (
        "id", "state", "service", "producer", "epoch", "asked", "waiting", "replayed",
        "duplicate", "skipped", "gone",
    )  # fmt: skip
    names = (
        "id", "state", "service", "producer", "epoch", "rowsAsked", "rowsWaiting", "rowsReplayed",
        "rowsDuplicate", "rowsSkipped", "rowsGone",
    )  # fmt: skip
    print_table("", columns, [[one.get(name) for name in names] for one in found])
