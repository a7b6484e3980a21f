"""`repair`: every owner is compared with every other one now, and copies what it lacks; progress is shown.

The nodes do this by themselves all the time; this is for who wants it done and told.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from node.cli_api import Api
from node.cli_errors import OK, PARTIAL, CliError
from node.render import bytes_text, is_terminal, note, print_json, print_table
from quorumlog.answers import read_json

POLL_SECONDS = 0.5
#: Seconds in which a node that has begun may be silent, before it counts as gone.
SILENT_SECONDS = 30.0
Passes = dict[str, dict[str, Any]]


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's command."""
    repair = commands.add_parser(
        "repair",
        parents=[common],
        help="compare all copies now and fill the gaps",
        description="Every storage node compares the shards it owns with their other owners, and copies"
        " what it lacks. Exit code 0 if all were compared and nothing lacks any more, else 3.",
    )
    repair.add_argument("--shard", type=int, metavar="N", help="this shard alone")
    repair.add_argument(
        "--accept-loss",
        action="store_true",
        help="give up rows that damage took and that no owner has: reads are complete without them",
    )
    repair.set_defaults(run=lambda options: asyncio.run(run_repair(options)))


async def run_repair(options: argparse.Namespace) -> int:
    """The command."""
    wanted: dict[str, Any] = {} if options.shard is None else {"shard": options.shard}
    if options.accept_loss:
        wanted["accept_loss"] = True
    async with Api(options.server, options.tenant) as api:
        begun = await api.reply(
            "POST",
            "/cluster/repair",
            headers={"Content-Type": "application/json"},
            data=json.dumps(wanted).encode(),
        )
        answer = read_json(begun.status, begun.headers, begun.body)
        with _progress(options) as show:
            passes, failures = await follow(api, answer["started"], answer["failures"], show)
    complete = bool(passes) and not failures and not any(p["failures"] for p in passes.values())
    if options.json:
        print_json({"complete": complete, "nodes": passes, "failures": failures})
    else:
        _tell(passes, failures)
    return OK if complete else PARTIAL


async def follow(
    api: Api,
    started: Mapping[str, int],
    untold: Mapping[str, str],
    show: Callable[[Passes], None],
) -> tuple[Passes, dict[str, str]]:
    """(pass, failure) by node, once each pass that was started has ended or its node is silent for long.

    A node that was started anew meanwhile has forgotten its pass: that is a failure.
    """
    failures, passes = dict(untold), dict[str, dict[str, Any]]()
    heard, said = dict.fromkeys(started, time.monotonic()), set[str]()
    waiting = dict(started)
    while waiting:
        told = (await api.get("/cluster/repair"))["nodes"]
        now = time.monotonic()
        for node, number in list(waiting.items()):
            one = (told.get(node) or {}).get("pass")
            waits = ((told.get(node) or {}).get("next_pass") or 0) >= number
            if node in told:
                heard[node] = now
            if waits and node not in said:
                said.add(node)
                note(f"{node}: another repair is running; this one begins when that has ended")
            if one is not None and one["number"] >= number:
                passes[node] = one
                if one["state"] == "done":
                    del waiting[node]
            elif waits:
                continue
            elif node in told or now - heard[node] > SILENT_SECONDS:
                failures[node] = "was started anew" if node in told else "does not answer any more"
                del waiting[node]
        show(passes)
        if waiting:
            await asyncio.sleep(POLL_SECONDS)
    return passes, failures


@contextlib.contextmanager
def _progress(options: argparse.Namespace) -> Iterator[Callable[[Passes], None]]:
    """Comparisons done of those to do, if a person looks at stderr."""
    if not is_terminal(sys.stderr) or options.json:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("comparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("repair", total=None, said="")

        def show(passes: Passes) -> None:
            total, done, repaired, size = (
                sum(one[name] for one in passes.values())
                for name in ("peers_total", "peers_done", "repaired", "bytes")
            )
            said = f"{repaired:,} entries copied, {bytes_text(size)}"
            bar.update(task, total=total or None, completed=done, said=said)

        yield show


def _tell(passes: Passes, failures: Mapping[str, str]) -> None:
    rows = [
        [
            node,
            f"{one['peers_done']} of {one['peers_total']}",
            one["found"],
            one["repaired"],
            bytes_text(one["bytes"]),
        ]
        for node, one in sorted(passes.items())
    ]
    print_table("", ("node", "compared with", "lacked", "copied", "bytes"), rows)
    for node, one in sorted(passes.items()):
        for peer, reason in one["failures"].items():
            note(f"{node} with {peer}: {reason}")
    for node, reason in sorted(failures.items()):
        note(f"{node}: {reason}")
    if not passes:
        raise CliError("no storage node repaired anything", "see `quorumlog status`", PARTIAL)
