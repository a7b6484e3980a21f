"""`files`: a snapshot of the stored rows as Parquet files, for any tool that reads them.

Each shard is taken from one of its owners, of as few nodes as will do; the files lie on those nodes' disks.
"""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from node.cli_api import Api
from node.cli_errors import OK, PARTIAL
from node.render import bytes_text, note, print_json
from quorumlog.answers import read_json
from quorumlog.errors import QuorumlogError
from quorumlog.leaders import normalise

#: A snapshot copies what lies in the log: a gigabyte takes seconds.
SECONDS = 600.0


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's command."""
    files = commands.add_parser(
        "files",
        parents=[common],
        help="the rows as Parquet files",
        description="Makes a sealed snapshot and prints its files, a line each: every visible row once."
        " The files are on the nodes' disks and stay until the next snapshot but one.",
        epilog='example: duckdb -c "select count(*) from $(quorumlog files --sql)"',
    )
    files.add_argument("--sql", action="store_true", help="print a table function for DuckDB")
    files.set_defaults(run=lambda options: asyncio.run(run_files(options)))


def cover(owners: Mapping[int, Sequence[str]], usable: Sequence[str]) -> dict[str, list[int]]:
    """Shards by node: each shard at one of its owners, greedily at as few nodes as will do."""
    left = {shard: set(nodes) & set(usable) for shard, nodes in owners.items()}
    left = {shard: nodes for shard, nodes in left.items() if nodes}
    chosen: dict[str, list[int]] = {}
    while left:
        node = max(usable, key=lambda one: sum(one in nodes for nodes in left.values()))
        chosen[node] = [shard for shard, nodes in left.items() if node in nodes]
        left = {shard: nodes for shard, nodes in left.items() if node not in nodes}
    return chosen


async def run_files(options: argparse.Namespace) -> int:
    """The command: 0 if the files hold every acknowledged row, else 3."""
    async with Api(options.server, options.tenant, SECONDS) as api:
        nodes = (await api.get("/cluster"))["nodes"]
        shards = (await api.get("/cluster/shards"))["shards"]
        answer = await collect(api, nodes, shards)
    if options.json:
        print_json(answer)
    elif options.sql:
        print(table_function(answer["files"]))
    else:
        for one in answer["files"]:
            print(one["path"])
    size = bytes_text(sum(one["bytes"] for one in answer["files"]))
    note(f"{answer['rows']} rows in {len(answer['files'])} files, {size}")
    for node, reason in answer["failures"].items():
        note(f"{node}: {reason}")
    if not answer["complete"]:
        note(f"incomplete: shards {', '.join(map(str, answer['incomplete_shards']))}")
    return OK if answer["complete"] else PARTIAL


async def collect(
    api: Api, nodes: Sequence[Mapping[str, Any]], shards: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The snapshots of all shards; a node that fails is replaced by other owners of its shards."""
    alive = [one for one in nodes if one.get("alive") and one.get("http")]
    urls = {one["id"]: normalise(one["http"]) for one in alive}
    owners = {int(one["shard"]): one["owners"] for one in shards}
    failures: dict[str, str] = {}
    parts: list[dict[str, Any]] = []
    left = dict(owners)
    while left:
        chosen = cover(left, sorted(set(urls) - set(failures)))
        if not chosen:
            break
        for node, wanted in chosen.items():
            try:
                parts.append(await _ask(api, urls[node], wanted))
                left = {shard: names for shard, names in left.items() if shard not in wanted}
            except QuorumlogError as error:
                failures[node] = str(error)
    incomplete = sorted({*left, *(s for part in parts for s in part["incomplete_shards"])})
    return {
        "complete": not incomplete and bool(owners),
        "incomplete_shards": incomplete,
        "failures": failures,
        "rows": sum(part["rows"] for part in parts),
        "files": [{"node": part["node"], **one} for part in parts for one in part["files"]],
    }


async def _ask(api: Api, url: str, shards: Sequence[int]) -> dict[str, Any]:
    params = {"shards": ",".join(map(str, shards))}
    reply = await api.reply("POST", "/files", params, server=url)
    return read_json(reply.status, reply.headers, reply.body)


def table_function(files: Sequence[Mapping[str, Any]]) -> str:
    """The files as DuckDB's `read_parquet(…)`; an empty table if there is none."""
    if not files:
        return "(select 1 where false)"
    paths = ", ".join("'" + str(one["path"]).replace("'", "''") + "'" for one in files)
    return f"read_parquet([{paths}], union_by_name=true, hive_partitioning=false)"
