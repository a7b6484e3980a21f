"""`node`, `up` and `down`: one process from its settings, and a whole cluster on this machine."""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from node.cli_errors import OK
from node.render import note


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's commands."""
    up = commands.add_parser(
        "up",
        parents=[common],
        help="start a cluster on this machine",
        description="Starts what is not running of the cluster in DIR, and makes it if it is new.",
    )
    up.add_argument("--nodes", type=int, help="how many nodes (default 3)")
    up.add_argument("--data", default="data", metavar="DIR", help="its folder (default ./data)")
    up.add_argument("--rf", type=int, metavar="N", help="copies of each row (default 3)")
    up.add_argument("--port-base", type=int, help="first port of node 1 (default 7171)")
    up.add_argument("--no-demo", action="store_true", help="no logs of a simulated shop")
    up.add_argument("--detach", action="store_true", help="leave the nodes running and return")
    up.set_defaults(run=run_up)

    down = commands.add_parser(
        "down", parents=[common], help="stop the nodes of a cluster that `up` left running"
    )
    down.add_argument("--data", default="data", metavar="DIR", help="its folder (default ./data)")
    down.set_defaults(run=run_down)

    node = commands.add_parser("node", parents=[common], help="run one node in this process")
    node.add_argument("--config", required=True, metavar="FILE", help="its settings (TOML)")
    node.add_argument("--roles", help="comma separated; instead of those in the file")
    node.add_argument(
        "--bootstrap",
        action="store_true",
        default=os.environ.get("QUORUMLOG_BOOTSTRAP") == "1",
        help="the first start of this node: its data folder may be empty (or QUORUMLOG_BOOTSTRAP=1)",
    )
    node.add_argument(
        "--join",
        action="store_true",
        default=os.environ.get("QUORUMLOG_JOIN") == "1",
        help="the node joins a cluster, or lost its disk: its store may be empty (or QUORUMLOG_JOIN=1)",
    )
    node.set_defaults(run=run_node_command)


def run_up(options: argparse.Namespace) -> int:
    """The command `up`."""
    from node.install_check import check_installation
    from node.up import UpOptions, up

    check_installation()
    folder = Path(options.data).resolve()
    wanted = UpOptions(
        folder,
        options.nodes,
        options.rf,
        options.port_base,
        not options.no_demo,
        options.detach,
        options.json,
    )
    return up(wanted, note)


def run_down(options: argparse.Namespace) -> int:
    """The command `down`: SIGTERM to each node that runs, SIGKILL after 10 s; the data stays."""
    from node.up import down

    return down(Path(options.data).resolve(), note)


def run_node_command(options: argparse.Namespace) -> int:
    """The command `node`: runs until SIGTERM or Ctrl-C."""
    from node.install_check import check_installation

    check_installation()
    import uvloop

    from cluster.consensus import StartRefused
    from node.run import run_node
    from node.settings import load_settings
    from runtime.logs import configure
    from runtime.memory import keep_freed_memory

    environment = dict(os.environ)
    if options.roles:
        roles = [f'"{one.strip()}"' for one in options.roles.split(",")]
        environment["QUORUMLOG_NODE__ROLES"] = f"[{', '.join(roles)}]"
    settings = load_settings(Path(options.config), environment)
    configure(settings.node.id, settings.node.log_level)
    keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(run_node(settings, options.bootstrap, options.join))
        except StartRefused as error:
            print(f"refusing to start: {error.message}", file=sys.stderr)
            return int(error.details["exit_code"])
    return OK
