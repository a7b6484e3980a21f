"""`split`: spreads a hot service over more shards, or lists the services that are."""

import argparse
import asyncio
from typing import Any

from node.cli_api import Api
from node.cli_errors import OK, USAGE, CliError
from node.commands.membering import post
from node.render import note, print_json, print_table


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this command."""
    split = commands.add_parser(
        "split",
        parents=[common],
        help="spread a hot service over more shards; without a service: list them",
        description="Safe while rows are sent. Rows that are there stay where they are; what comes from"
        " producers that take a new epoch (the client library does), and without numbers, is spread."
        " It cannot be taken back: reads ask all shards that a service ever had.",
    )
    split.add_argument("service", nargs="?", help="the service")
    split.add_argument("--over", type=int, metavar="SHARDS", help="over how many shards")
    split.set_defaults(run=lambda options: asyncio.run(run_split(options)))


async def run_split(options: argparse.Namespace) -> int:
    """The command `split`."""
    if (options.service is None) != (options.over is None):
        raise CliError("a split needs a service and a number", "split SERVICE --over 4", USAGE)
    async with Api(options.server, options.tenant) as api:
        if options.service is None:
            return _list(options, await api.get("/cluster/splits"))
        body = {"service": options.service, "over": options.over}
        found = await post(api, "/cluster/splits", body)
    if options.json:
        print_json(found)
        return OK
    name = f"{found['tenant']}/{found['service']}"
    if found["was"] == found["over"]:
        print(f"{name} is spread over {found['over']} shards already")
        return OK
    print(f"{name} is spread over {found['over']} shards from now on (before: {found['was']})")
    note("producers move when they take a new epoch; rows that are there stay where they are")
    return OK


def _list(options: argparse.Namespace, found: dict[str, Any]) -> int:
    if options.json:
        print_json(found)
        return OK
    rows = [
        [
            one["tenant"],
            one["service"],
            one["over"],
            ", ".join(map(str, one["shards"])),
            one["history"][-1]["since"],
        ]
        for one in found["splits"]
    ]
    print_table("", ("tenant", "service", "over", "shards", "since"), rows)
    if not rows:
        note("no service is split: each lives whole on one shard")
    return OK
