"""The command `quorumlog`: reads the words, finds the command, turns failures into exit codes.

Exit codes: 0 ok, 1 failed, 2 usage, 3 partial result (some shards or rows are missing, and named).
Each module of `node.commands` adds its commands; their imports are made when they run, so that
`quorumlog version` stays quick.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from node.cli_errors import FAILED, INTERRUPTED, CliError, hint_for

#: One module per group of commands; each has `add(commands, common)`.
GROUPS = (
    "serving",
    "inspecting",
    "repairing",
    "membering",
    "splitting",
    "sending",
    "searching",
    "sql",
    "files",
    "retaining",
    "replaying",
    "simulating",
    "benching",
    "chaosing",
)


def common_options() -> argparse.ArgumentParser:
    """The options that every command takes, before or after its name."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--server",
        action="append",
        metavar="URL",
        help="a node's address; may be repeated, tried in turn (or QUORUMLOG_SERVER)",
    )
    common.add_argument("--tenant", help="whose logs (default: the default tenant)")
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    return common


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="quorumlog",
        description="A clustered, self-healing log store.",
        epilog="exit codes: 0 ok, 1 failed, 2 usage, 3 partial result",
        parents=[common_options()],
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in GROUPS:
        importlib.import_module(f"node.commands.{group}").add(commands, common_options())
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The parsed command line, with `server`, `tenant` and `json` always present.

    `named_servers` are those of the command line alone: what the environment names is not to be attacked.
    """
    options = build_parser().parse_args(arguments)
    options.named_servers = getattr(options, "server", [])
    given = os.environ.get("QUORUMLOG_SERVER", "")
    defaults = {
        "server": [one.strip() for one in given.split(",") if one.strip()],
        "tenant": os.environ.get("QUORUMLOG_TENANT") or None,
        "json": False,
    }
    for name, value in defaults.items():
        if not hasattr(options, name):
            setattr(options, name, value)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    options = parse(arguments)
    from quorumlog.errors import QuorumlogError as ClientError
    from records.errors import QuorumlogError as ServerError

    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read us has seen enough; keep the interpreter from flushing into the closed pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (CliError, ClientError, ServerError) as error:
        return _report(error)


def _report(error: Exception) -> int:
    from node.render import note

    note(f"error: {error}")
    hint = hint_for(error)
    if hint:
        note(f"  next: {hint}")
    return error.code if isinstance(error, CliError) else FAILED
