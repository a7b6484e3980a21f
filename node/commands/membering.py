"""`nodes`, `quorum` and the changing half of `ring`: who belongs to the cluster, how many copies it keeps."""

import argparse
import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from node.cli_api import Api
from node.cli_errors import OK, USAGE, CliError
from node.render import bytes_text, note, print_json, print_table
from quorumlog.answers import read_json
from quorumlog.backoff import is_transient
from quorumlog.errors import QuorumlogError

#: Seconds between two looks while a change is waited for.
LOOK_SECONDS = 0.5
#: Seconds without an answer after which waiting ends; the change goes on. A restart takes less.
AWAY_SECONDS = 30.0


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's commands."""
    nodes = commands.add_parser(
        "nodes", parents=[common], help="add, drain, remove or replace a storage node"
    )
    nodes.add_argument("action", choices=("add", "drain", "remove", "replace"))
    nodes.add_argument("node", metavar="NODE", help="the node's id")
    nodes.add_argument(
        "--with", dest="instead", metavar="NODE", help="who takes its place (replace)"
    )
    _how(nodes)
    nodes.set_defaults(run=lambda options: asyncio.run(run_nodes(options)))
    quorum = commands.add_parser(
        "quorum",
        parents=[common],
        help="change how many copies there are, and how many must answer",
    )
    for name, what in (("n", "copies"), ("w", "to acknowledge"), ("r", "to read")):
        quorum.add_argument(f"--{name}", type=int, metavar="COUNT", help=what)
    _how(quorum)
    quorum.set_defaults(run=lambda options: asyncio.run(run_quorum(options)))


def _how(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", action="store_true", help="say what would move, change nothing")
    parser.add_argument("--wait", action="store_true", help="return when the change has ended")
    parser.add_argument("--parallel", type=int, metavar="SHARDS", help="shards that move at once")
    parser.add_argument("--rate", type=int, metavar="BYTES", help="bytes per second, 0: no bound")


def add_to_ring(ring: argparse.ArgumentParser) -> None:
    """The actions of `ring`."""
    ring.add_argument(
        "action",
        nargs="?",
        default="show",
        choices=("show", "plan", "rebalance", "status", "abort"),
        help="show (default); plan or rebalance: spread anew; status or abort of a change",
    )
    _how(ring)


async def run_nodes(options: argparse.Namespace) -> int:
    """The command `nodes`."""
    if bool(options.instead) != (options.action == "replace"):
        raise CliError(
            "--with NODE goes with replace", f"nodes replace {options.node} --with NODE", USAGE
        )
    body = {"with": options.instead} if options.instead else {}
    node = quote(options.node, safe="")
    return await _change(options, f"/cluster/nodes/{node}/{options.action}", body)


async def run_quorum(options: argparse.Namespace) -> int:
    """The command `quorum`."""
    given = {name: getattr(options, name) for name in ("n", "w", "r")}
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        raise CliError("nothing to change", "quorum --n 3 --w 2 --r 2", USAGE)
    return await _change(options, "/cluster/settings", body)


async def run_ring_change(options: argparse.Namespace) -> int:
    """`ring plan|rebalance|status|abort`."""
    if options.action == "status":
        return await _status(options)
    if options.action == "abort":
        async with Api(options.server, options.tenant) as api:
            answer = await post(api, "/cluster/moves/abort", {})
            _say(options, answer, f"change {answer.get('aborting')} goes no further")
            return await _wait(api, options) if options.wait else OK
    options.plan = options.plan or options.action == "plan"
    return await _change(options, "/cluster/rebalance", {})


async def post(
    api: Api, path: str, body: Mapping[str, Any], params: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The answer to a JSON request; raises what the server says."""
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    reply = await api.reply("POST", path, params, headers=headers, data=data)
    return read_json(reply.status, reply.headers, reply.body)


async def _change(options: argparse.Namespace, path: str, body: dict[str, Any]) -> int:
    for name, key in (("parallel", "parallel"), ("rate", "bytes_per_second")):
        if getattr(options, name) is not None:
            body[key] = getattr(options, name)
    async with Api(options.server, options.tenant) as api:
        answer = await post(api, path, body, {"dry_run": "1"} if options.plan else None)
        _say(options, answer, _told(answer))
        if options.wait and not options.plan and "change" in answer:
            return await _wait(api, options)
    return OK


def _say(options: argparse.Namespace, answer: Mapping[str, Any], text: str) -> None:
    if options.json:
        print_json(answer)
    else:
        print(text)


def _told(answer: Mapping[str, Any]) -> str:
    if "copies" not in answer:
        return "done: " + ", ".join(f"{k}={v}" for k, v in answer.get("quorum", {}).items())
    gains = ", ".join(f"{node} +{count}" for node, count in sorted(answer["gains"].items()))
    losses = ", ".join(f"{node} -{count}" for node, count in sorted(answer["losses"].items()))
    begun = "would copy" if answer.get("dry_run") else f"change {answer.get('change')} copies"
    told = (
        f"{answer['reason']}: {begun} {answer['copies']} replicas"
        f" ({'; '.join(one for one in (gains, losses) if one) or 'none'})"
    )
    fewest, wanted = answer["fewest_owners"], answer["n"]
    if fewest < wanted:
        told += f"\neach row is then on {fewest} nodes, not on {wanted}, until a node is added"
    return told


async def _status(options: argparse.Namespace) -> int:
    async with Api(options.server, options.tenant) as api:
        answer = await api.get("/cluster/moves")
    if options.json:
        print_json(answer)
        return OK
    change, figures = answer.get("change"), answer.get("figures") or {}
    if not change:
        print(f"ring epoch {answer.get('ring_epoch')}: nothing moves")
        return OK
    state = "is being aborted" if change["aborting"] else "runs"
    copied = bytes_text(figures.get("copied_bytes", 0))
    print(f"change {change['id']} ({change['reason']}) {state}: {change['moves_left']} moves left")
    print(f"copied so far by this leader: {copied}")
    columns = ("shard", "from", "to", "stage")
    print_table("", columns, [[one[name] for name in columns] for one in change["moving"]])
    for shard, error in sorted((figures.get("errors") or {}).items()):
        note(f"shard {shard}: {error}")
    if figures.get("waiting_for"):
        note(f"waiting for {', '.join(figures['waiting_for'])} to hear of the last step")
    return OK


async def _wait(api: Api, options: argparse.Namespace) -> int:
    """Looks until no change runs; fails when nobody has answered for AWAY_SECONDS."""
    begun, last, said = time.monotonic(), None, ""
    heard = begun
    while True:
        try:
            answer = await api.get("/cluster/moves")
        except QuorumlogError as error:
            if not is_transient(error) or time.monotonic() - heard >= AWAY_SECONDS:
                raise
            await asyncio.sleep(LOOK_SECONDS)
            continue
        heard = time.monotonic()
        change = answer.get("change")
        if not change:
            if not options.json:
                print(
                    f"done after {time.monotonic() - begun:.0f} s, ring epoch {answer['ring_epoch']}"
                )
            return OK
        left = (change["moves_left"], len(change["moving"]))
        if left != last:
            note(f"{left[0]} moves left, {left[1]} shards on their way")
            last = left
        if errors := (answer.get("figures") or {}).get("errors"):
            shard, error = sorted(errors.items())[0]
            if error != said:
                note(f"shard {shard}: {error}")
            said = error
        await asyncio.sleep(LOOK_SECONDS)
