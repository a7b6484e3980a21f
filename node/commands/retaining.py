"""`retention`, `delete`: for how long rows are kept, and removing some before that."""

import argparse
import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from node.cli_api import Api
from node.cli_errors import OK, PARTIAL, CliError
from node.render import note, print_json, print_table
from quorumlog.answers import read_json

#: Seconds between two looks at a delete that is waited for.
LOOK_SECONDS = 0.5


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's commands."""
    retention = commands.add_parser(
        "retention", parents=[common], help="for how long rows are kept, by service"
    )
    actions = retention.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser("show", parents=[common], help="the rules, and what they hide by now")
    show.set_defaults(run=lambda options: asyncio.run(run_show(options)))
    change = actions.add_parser("set", parents=[common], help="set, change or drop one rule")
    change.add_argument("keep", help="days (7, 0.5), forever, or never (drop the rule)")
    change.add_argument("--service", default="", help="default: all services without a rule")
    change.set_defaults(run=lambda options: asyncio.run(run_set(options)))
    delete = commands.add_parser(
        "delete",
        parents=[common],
        help="hide rows at once, then remove their contents",
        description="Rows that are written later are not touched. Exit code 3 if not all nodes are done.",
    )
    delete.add_argument(
        "query", nargs="?", help="what matches, as in `search`; default: everything"
    )
    delete.add_argument("--service", help="of these services, separated by commas")
    delete.add_argument("--from", dest="start", help="from this time on")
    delete.add_argument("--to", help="before this time")
    delete.add_argument("--status", metavar="ID", help="how far a delete is, instead")
    delete.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="for its end")
    delete.set_defaults(run=lambda options: asyncio.run(run_delete(options)))


async def run_show(options: argparse.Namespace) -> int:
    """The command `retention show`."""
    async with Api(options.server, options.tenant) as api:
        found = await api.get("/cluster/retention")
    if options.json:
        print_json(found)
        return OK
    columns = ("tenant", "service", "keep days", "hidden before")
    rows = [
        [one["tenant"], one["service"] or "(all others)", one["keep_days"], one["hidden_before"]]
        for one in found["rules"]
    ]
    print_table("", columns, rows)
    if not rows:
        note("no rules: everything is kept")
    return OK


async def run_set(options: argparse.Namespace) -> int:
    """The command `retention set`."""
    keep = _keep(options.keep)
    async with Api(options.server, options.tenant) as api:
        body = {"service": options.service, "keep_days": keep}
        found = await _send(api, "PUT", "/cluster/retention", body)
    if options.json:
        print_json(found)
    else:
        rule = found["rule"]
        days = rule["keep_days"]
        kept = "follows the others" if days is None else f"is kept {_for(days)}"
        print(f"{rule['tenant']}/{rule['service'] or '(all others)'} {kept}")
    return OK


def _keep(text: str) -> float | str | None:
    if text in ("forever", "never"):
        return None if text == "never" else text
    try:
        return float(text)
    except ValueError:
        raise CliError(f"{text!r} is no number of days", "give days, forever or never") from None


def _for(days: float | str) -> str:
    return str(days) if isinstance(days, str) else f"for {days:g} days"


async def run_delete(options: argparse.Namespace) -> int:
    """The command `delete`: 0 when all nodes removed the rows, else 3."""
    async with Api(options.server, options.tenant) as api:
        if options.status is None:
            made = await _send(api, "POST", "/delete", _question(options))
            name = made["id"]
            if not options.json:
                print(f"delete {name}: {made['rows']} rows")
            if made["clocks_ahead"]:
                note(f"rows from clocks that are ahead stay, on {', '.join(made['clocks_ahead'])}")
        else:
            name = options.status
        found = await _until_removed(api, name, options.wait)
    if options.json:
        print_json(found)
    else:
        _print(found)
    return OK if found["state"] == "removed" else PARTIAL


def _question(options: argparse.Namespace) -> dict[str, str]:
    given = {
        "q": options.query,
        "service": options.service,
        "from": options.start,
        "to": options.to,
    }
    if not options.service:
        raise CliError("a delete names its services", "give them with --service NAME")
    return {name: value for name, value in given.items() if value}


async def _until_removed(api: Api, name: str, seconds: float) -> dict[str, Any]:
    until = time.monotonic() + seconds
    while True:
        found = await api.get(f"/delete/{name}")
        if found["state"] == "removed" or time.monotonic() >= until:
            return found
        await asyncio.sleep(LOOK_SECONDS)


def _print(found: Mapping[str, Any]) -> None:
    hidden, removed, owners = len(found["hidden_on"]), len(found["removed_on"]), found["owners"]
    print(f"{found['state']}: hidden on {hidden} of {owners} nodes, removed on {removed}")
    if found["not_answering"]:
        note(f"no answer from {', '.join(found['not_answering'])}")
        note("  next: they hide the rows before they serve again, and remove them then")


async def _send(api: Api, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    data = json.dumps(body).encode()
    reply = await api.reply(method, path, headers={"Content-Type": "application/json"}, data=data)
    return read_json(reply.status, reply.headers, reply.body)
